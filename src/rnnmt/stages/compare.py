"""`python -m rnnmt.stages.compare`: all variants side by side, and which differences are real.

Writes `reports/NAME/comparison.md` and `ablation.md`, one setting at a time, to be read, and
`comparison.json`, the numbers behind them.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from rnnmt import params
from rnnmt.errors import run_stage
from rnnmt.scoring import comparison, metrics
from rnnmt.scoring.comparison import Pair, Variant
from rnnmt.scoring.metrics import Array
from rnnmt.scoring.settings import (
    SEARCHES,
    EvaluateSettings,
    References,
    Run,
    references,
    reports,
    write_json,
)
from rnnmt.scoring.significance import paired_difference, paired_test, trials

Side = tuple[str, str]  # a variant and a search: one of the two systems of a test
Statistics = dict[tuple[str, str, str], Array]  # variant, search, split: (seeds, sentences, k)

_BLEU = partial(metrics.score, "bleu")


def main() -> None:
    """Compare the variants of the settings file. Raises UserError where input is missing."""
    settings = params.load("evaluate", EvaluateSettings)
    wanted, seeds = references(params.corpus_name()), params.seeds()
    runs = {v: [Run(wanted.corpus, v, seed) for seed in seeds] for v in params.variants()}
    variants = [read_variant(name, of_seeds) for name, of_seeds in runs.items()]
    tables = paired_tables(variants, read_statistics(runs, wanted), wanted, settings)
    signatures = {name: metrics.signature(name) for name in metrics.METRICS}
    texts = {
        "comparison.md": comparison.report(variants, tables, wanted, seeds, signatures, settings),
        "ablation.md": comparison.ablation(variants, tables["ablation"], wanted, seeds, settings),
    }
    write_json(
        reports(wanted.corpus) / "comparison.json",
        {
            "corpus": wanted.corpus,
            "direction": wanted.direction,
            "seeds": seeds,
            "sentences": {split: len(lines) for split, lines in wanted.splits.items()},
            "intervals": settings.model_dump(),
            "signatures": signatures,
            "best": comparison.best(variants).name,
            "tuned": [variant.name for variant in comparison.tuned(variants)],
            "variants": {variant.name: asdict(variant) for variant in variants},
            "tests": {name: [_rounded(one) for one in pairs] for name, pairs in tables.items()},
        },
    )
    for name, text in texts.items():
        path = reports(wanted.corpus) / name
        path.write_text(text, encoding="utf-8", newline="\n")


def read_variant(name: str, runs: list[Run]) -> Variant:
    """One variant with all its seeds, from the files of train, decode and evaluate."""
    return Variant(
        name=name,
        settings={key: runs[0].settings().get(key) for key in ("model", "train")},
        training=[run.training() for run in runs],
        decoding=[run.decoding() for run in runs],
        scores=[run.detail()["scores"] for run in runs],
    )


def read_statistics(runs: dict[str, list[Run]], wanted: References) -> Statistics:
    """BLEU's sentence statistics of every system on every test set."""

    def of(run: Run, search: str, split: str) -> Array:
        lines = wanted.hypotheses(run, split, search)
        return metrics.statistics("bleu", lines, wanted.splits[split])

    return {
        (name, search, split): np.stack([of(run, search, split) for run in of_seeds])
        for name, of_seeds in runs.items()
        for search in SEARCHES
        for split in wanted.tests
    }


def paired_tables(
    variants: list[Variant], found: Statistics, wanted: References, settings: EvaluateSettings
) -> dict[str, list[Pair]]:
    """The four tables of paired tests, each adjusted for the number of its tests."""
    winner = comparison.best(variants).name
    others = [variant.name for variant in variants if variant.name != winner]
    twins = [(variant.name, twin.name) for variant, twin in comparison.twins(variants)]
    single = [(after.name, before.name) for after, before, _ in comparison.ablations(variants)]
    names = [variant.name for variant in variants]

    def table(sides: Iterable[tuple[Side, Side]]) -> list[Pair]:
        tests = [(a, b, split) for a, b in sides for split in wanted.tests]
        samples = trials(len(tests), settings.bootstrap_samples, settings.confidence)
        return comparison.adjust([pair(*test, found, samples, settings.seed) for test in tests])

    return {
        "best": table(((name, "beam"), (winner, "beam")) for name in others),
        "attention": table(((name, "beam"), (twin, "beam")) for name, twin in twins),
        "beam": table(((name, "beam"), (name, "greedy")) for name in names),
        "ablation": table(((name, "beam"), (other, "beam")) for name, other in single),
    }


def pair(a: Side, b: Side, split: str, found: Statistics, samples: int, seed: int) -> Pair:
    """Test one pair of systems on one test set."""
    x, y = found[(*a, split)], found[(*b, split)]
    of_seeds = [paired_difference(x[[i]], y[[i]], _BLEU) for i in range(len(x))]
    return Pair(
        variant=a[0],
        baseline=b[0] if a[0] != b[0] else b[1],  # of one variant: the other search
        split=split,
        difference=paired_difference(x, y, _BLEU),
        deviation=statistics.stdev(of_seeds) if len(of_seeds) > 1 else None,
        p=paired_test(x, y, _BLEU, samples, seed),
    )


def _rounded(tested: Pair) -> dict[str, Any]:
    values = asdict(tested)
    return values | {
        # More digits than any table shows, since to round twice is to round otherwise.
        "difference": round(tested.difference, 6),
        "deviation": None if tested.deviation is None else round(tested.deviation, 6),
        "p": round(tested.p, 6),
        "p_holm": round(tested.p_holm, 6),
    }


if __name__ == "__main__":
    run_stage(main)
