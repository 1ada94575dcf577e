"""The gate between a trained model and its use: may a challenger take the champion's place?

Pure functions over `Evidence`, what is known of a model from files: its translations of the test
sets, their scores, and how fast they were made.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rnnmt.errors import UserError
from rnnmt.scoring import metrics
from rnnmt.scoring.settings import EvaluateSettings, PromoteSettings, References, write_json
from rnnmt.scoring.significance import paired_difference, paired_test, trials

_BLEU = partial(metrics.score, "bleu")


@dataclass(frozen=True)
class Evidence:
    """What the gate knows of a model, all of beam search."""

    label: str  # VARIANT-SEED
    about: dict[str, Any]  # of settings.json: corpus, languages, variant, seed, data, fingerprint
    commit: str  # that it was promoted at, or an empty text; with changes `...-dirty`
    scores: dict[str, dict[str, float]]  # split -> metric -> points; `valid` among them
    signatures: dict[str, str]  # sacreBLEU's, of each metric
    sums: dict[str, str]  # split -> SHA-256 of its sources and references
    translations: dict[str, list[str]]  # test set -> one line for each sentence
    sentences_per_second: float | None  # None: not measured, since its model is not at hand
    decode: dict[str, Any]  # the section `decode`

    @property
    def fingerprint(self) -> str:
        """The same for models of the same settings, data and code."""
        return str(self.about["fingerprint"])

    def write(self, folder: Path) -> None:
        """Keep it as `evidence.json` and one `SPLIT.beam.txt` for each test set."""
        values = {name: v for name, v in vars(self).items() if name != "translations"}
        write_json(folder / "evidence.json", values)
        for split, lines in self.translations.items():
            text = "".join(f"{line}\n" for line in lines)
            (folder / f"{split}.beam.txt").write_text(text, encoding="utf-8", newline="\n")

    @classmethod
    def read(cls, folder: Path) -> Evidence:
        """What `write` has kept. Raises UserError where a file is missing or damaged."""
        try:
            values = json.loads((folder / "evidence.json").read_text(encoding="utf-8"))
            if strange := [name for name in values["sums"] if Path(name).name != name]:
                raise ValueError(f"{strange[0]!r} is no test set's name")
            translations = {
                split: (folder / f"{split}.beam.txt").read_text(encoding="utf-8").split("\n")[:-1]
                for split in values["sums"]
                if split != "valid"
            }
            return cls(**values, translations=translations)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{folder}: not the evidence of a champion ({error}); bring it back with git"
            ) from None


@dataclass(frozen=True)
class Finding:
    """How one rule of the gate has turned out."""

    rule: str
    found: str
    passed: bool


def test_set_sum(sources: list[str], references: list[str]) -> str:
    """What tells one test set from another."""
    text = json.dumps([sources, references], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def figures(translations: dict[str, list[str]], wanted: References) -> dict[str, dict[str, float]]:
    """split -> metric -> points to two decimals, as the stage evaluate has them."""
    return {
        split: {
            name: round(metrics.score(name, _statistics(name, lines, wanted, split)), 2)
            for name in metrics.METRICS
            if name != "ter" or split in wanted.tests
        }
        for split, lines in translations.items()
    }


def judge(
    challenger: Evidence,
    champion: Evidence | None,
    wanted: References,
    settings: PromoteSettings,
    evaluate: EvaluateSettings,
) -> list[Finding]:
    """Every rule's finding; the challenger may be promoted if all have passed.

    Both must have translated the test sets `wanted`, and have been timed on the same machine.
    Without a champion, the figures alone count.
    """
    findings = [_complete(challenger, wanted)]
    if champion is None or not findings[0].passed:
        return findings
    findings.append(_validation(challenger, champion))
    for split in wanted.tests:
        findings += _no_worse(challenger, champion, wanted, split, settings, evaluate)
    return [*findings, _speed(challenger, champion, settings)]


def _complete(challenger: Evidence, wanted: References) -> Finding:
    lacks = missing(challenger, wanted)
    if not _positive(challenger.sentences_per_second):
        lacks.append("sentences/s")
    found = f"not there, not finite or not its own: {', '.join(lacks)}" if lacks else "all"
    return Finding("figures complete and finite", found, not lacks)


def missing(evidence: Evidence, wanted: References) -> list[str]:
    """Which scores and translations are not there, not finite, or not of each other."""
    return sorted(_missing(evidence, wanted))


def _missing(evidence: Evidence, wanted: References) -> Iterator[str]:
    for split in wanted.splits:
        names = ("bleu", "chrf") if split == "valid" else tuple(metrics.METRICS)
        known = evidence.scores.get(split, {})
        yield from (f"{split}/{name}" for name in names if not _finite(known.get(name)))
    for split in wanted.tests:
        lines = evidence.translations.get(split, [])
        if len(lines) != len(wanted.splits[split]):
            yield f"{split}/translations"
        elif _finite(stated := evidence.scores.get(split, {}).get("bleu")):
            # Figures of other translations than these would be judged otherwise.
            own = _BLEU(_statistics("bleu", lines, wanted, split))
            if abs(own - float(stated or 0)) > 0.011:  # rounded to two decimals
                yield f"{split}/bleu"


def _validation(challenger: Evidence, champion: Evidence) -> Finding:
    new, old = (one.scores["valid"]["bleu"] for one in (challenger, champion))
    # Small losses that no test can show would add up over many promotions.
    return Finding("valid: BLEU not below", f"{new:.2f} against {old:.2f}", new >= old)


def _no_worse(
    challenger: Evidence,
    champion: Evidence,
    wanted: References,
    split: str,
    settings: PromoteSettings,
    evaluate: EvaluateSettings,
) -> list[Finding]:
    new, old = (
        _statistics("bleu", one.translations[split], wanted, split, by_sentence=True)[None]
        for one in (challenger, champion)
    )  # (1 seed, sentences, k)
    difference = paired_difference(new, old, _BLEU)
    samples = trials(1, evaluate.bootstrap_samples, 1 - settings.level)
    p = paired_test(new, old, _BLEU, samples, evaluate.seed)
    return [
        Finding(
            f"{split}: not worse (p < {settings.level:g})",
            f"{difference:+.2f} BLEU, p = {p:.4f}",
            difference >= 0 or p >= settings.level,
        ),
        Finding(
            f"{split}: no drop beyond {settings.margin:g}",
            f"{difference:+.2f} BLEU",
            difference >= -settings.margin,
        ),
    ]


def _speed(challenger: Evidence, champion: Evidence, settings: PromoteSettings) -> Finding:
    rule = f"at most {settings.max_slowdown:g} times slower"
    new, old = challenger.sentences_per_second, champion.sentences_per_second
    if new is None or old is None:
        return Finding(rule, "not measured: the champion's model is not here", True)
    found = f"{new:,.1f} against {old:,.1f} sentences/s"
    return Finding(rule, found, new * settings.max_slowdown >= old)


def _statistics(
    metric: str, lines: list[str], wanted: References, split: str, by_sentence: bool = False
) -> metrics.Array:
    rows = metrics.statistics(metric, lines, wanted.splits[split])
    return rows if by_sentence else np.asarray(rows.sum(axis=0))


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0
