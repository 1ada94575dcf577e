"""The report: one page that needs nothing beside it."""

from __future__ import annotations

import difflib
import html
import json
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rnnmt import params
from rnnmt.insight import pictures
from rnnmt.insight.claims import CONTRADICTED, OPEN, SUPPORTED, Claim
from rnnmt.insight.cost import PIECES, costs
from rnnmt.insight.evidence import Evidence
from rnnmt.insight.gates import KEEPS
from rnnmt.insight.pairs import fraction
from rnnmt.insight.pictures import INK, LINE, PAPER, Picture
from rnnmt.insight.slices import examples
from rnnmt.scoring import comparison, metrics

EXTREMES = 5  # best and worst sentences
COMPARED = 200  # words of a translation, at most
UNFOLDED = 4  # the sentence, from 1, that is shown at once, and with its gates cell by cell
_LOCKED = ("torch", "pytorch-lightning", "sentencepiece", "sacrebleu", "numpy", "dvc", "mlflow")


@dataclass(frozen=True)
class Sentence:
    """One sentence with what every variant made of it; texts are HTML with marked differences."""

    number: int  # its line in the test set, from 1
    source: str
    reference: str
    translations: list[tuple[str, str, bool]]  # variant, HTML, exact
    pictures: list[Picture]


def render(
    evidence: Evidence,
    claims: Sequence[Claim],
    drawn: Sequence[Picture],
    sentences: Sequence[Sentence],
) -> str:
    """The whole page."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rnnmt.insight"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals.update(inline=inline)
    tests = evidence.comparison["sentences"]
    return (
        environment.get_template("index.html.j2").render(
            evidence=evidence,
            comparison=evidence.comparison,
            rows=[row(evidence, name) for name in evidence.variants],
            read=read(evidence),
            sizes=", ".join(f"{tests[split]:,} of {split}" for split in evidence.tests),
            penalties={
                decoding["length_penalty"]
                for variant in evidence.comparison["variants"].values()
                for decoding in variant["decoding"]
            },
            claims=claims,
            verdicts={SUPPORTED: "yes", CONTRADICTED: "no", OPEN: "open"},
            pictures={picture.file: picture for picture in drawn},
            sentences=sentences,
            extremes=extremes(evidence),
            costs=costs(evidence),
            pieces=PIECES,
            unfolded=UNFOLDED,
            reproduce=reproduce(evidence),
            confidence=f"{100 * evidence.scoring.confidence:g}",
        )
        + "\n"
    )


def read(evidence: Evidence) -> str:
    """What the variants were trained on."""
    fractions = {fraction(evidence, variant) for variant in evidence.variants}
    if len(fractions) == 1:
        return "the same sentences"
    return f"the first {100 * min(fractions):g} to {100 * max(fractions):g} % of the same sentences"


def row(evidence: Evidence, variant: str) -> dict[str, Any]:
    """One line of the result table."""
    values = evidence.comparison["variants"][variant]
    training = values["training"]
    cells = {
        split: {
            "bleu": [s[split]["beam"]["bleu"] for s in values["scores"]],
            "greedy": statistics.mean(
                s[split]["greedy"]["bleu"]["score"] for s in values["scores"]
            ),
            "chrf": statistics.mean(s[split]["beam"]["chrf"]["score"] for s in values["scores"]),
        }
        for split in evidence.tests
    }
    seconds = statistics.mean(t["seconds"] for t in training)
    valid = [s["valid"]["beam"]["bleu"]["score"] for s in values["scores"]]
    return {
        "variant": variant,
        "cell": values["settings"]["model"]["cell"],
        "attention": values["settings"]["model"]["attention"],
        "parameters": training[0]["parameters"],
        "seconds": seconds,
        "minutes": comparison.minutes([t["seconds"] for t in training]),
        "valid": statistics.mean(valid),
        "valid_sd": comparison.deviation(valid),
        "tests": [
            {
                "bleu": statistics.mean(one["score"] for one in cells[split]["bleu"]),
                "half": statistics.mean(
                    (one["high"] - one["low"]) / 2 for one in cells[split]["bleu"]
                ),
                "sd": comparison.deviation([one["score"] for one in cells[split]["bleu"]]),
                "greedy": cells[split]["greedy"],
                "chrf": cells[split]["chrf"],
            }
            for split in evidence.tests
        ],
        "runs": evidence.runs_of(variant),
        "best": variant == evidence.comparison["best"],
    }


class Looked(NamedTuple):
    """What each variant saw and kept of one sentence: plain values, for a process of its own."""

    number: int  # of the sentences shown, from 1
    attended: dict[str, dict[str, Any]]  # variant -> pieces and alignment
    gates: dict[str, dict[str, Any]]  # variant -> pieces and gates
    keeps: dict[str, str]  # variant -> the gate that keeps


def looked(evidence: Evidence, count: int) -> list[Looked]:
    """Into sentences of the first test set in all lengths, by each variant's first seed."""
    split = evidence.tests[0]
    first = {v: evidence.runs_of(v)[0] for v in evidence.variants}
    attended = {v: evidence.attended(r, split) for v, r in first.items() if r in evidence.attending}
    found = []
    for number, place in enumerate(examples(evidence.sources[split], count)):
        rows = {v: row[place] for v, row in attended.items()}
        gates = {v: evidence.analyses[run]["examples"][number] for v, run in first.items()}
        found.append(
            Looked(
                number + 1,
                {v: one for v, one in rows.items() if "alignment" in one},  # not of long ones
                {v: one for v, one in gates.items() if one},
                {v: KEEPS[evidence.cell(first[v])] for v, one in gates.items() if one},
            )
        )
    return found


def chosen(evidence: Evidence, count: int, drawn: Iterable[list[Picture]]) -> list[Sentence]:
    """The sentences that are `looked` into, with all translations and what is `drawn` of each."""
    split = evidence.tests[0]
    sources, targets = evidence.sources[split], evidence.wanted.splits[split]
    first = {v: evidence.runs_of(v)[0] for v in evidence.variants}
    found = []
    for place, made in zip(examples(sources, count), drawn, strict=True):
        lines = {v: evidence.hypotheses(run, split)[place] for v, run in first.items()}
        found.append(
            Sentence(
                place + 1,
                sources[place],
                targets[place],
                [
                    (v, marked(line, targets[place]), line == targets[place])
                    for v, line in lines.items()
                ],
                made,
            )
        )
    return found


def pictures_of(sentence: Looked) -> list[Picture]:
    """Attention and gates of one sentence, all variants side by side."""
    made = []
    number, attended, gates, keeps = sentence
    name = f"{number:02}"
    with pictures.style():
        if attended:
            figure = pictures.attention_of(
                [
                    (v, one["source_pieces"], one["target_pieces"], one["alignment"])
                    for v, one in attended.items()
                ]
            )
            caption = (
                "Each row is a piece of the translation, each column one of the source; · begins "
                "a word. The darker, the more the model looked at that piece when it wrote."
            )
            made.append(
                Picture(f"attention-{name}.svg", "Attention", caption, pictures.to_svg(figure))
            )
        if gates:
            pieces = next(iter(gates.values()))["pieces"]
            figure = pictures.gates_of(pieces, list(gates.items()))
            caption = (
                "Gates of the encoder while it reads from left to right, mean over its cells: "
                "light is open. An open forget or update gate keeps what was there."
            )
            made.append(Picture(f"gates-{name}.svg", "Gates", caption, pictures.to_svg(figure)))
        if gates and number == UNFOLDED:
            figure = pictures.cells_of(pieces, list(gates.items()), keeps)
            caption = (
                "The gate that keeps, cell by cell: each line is a cell, the slowest on top; "
                "light keeps, dark drops. Cells that stay light carry something to the end."
            )
            made.append(Picture(f"cells-{name}.svg", "Cells", caption, pictures.to_svg(figure)))
    return made


def extremes(evidence: Evidence) -> dict[str, list[dict[str, Any]]]:
    """Of the best variant, the worst translations and the longest that are exact."""
    split, best = evidence.tests[0], evidence.comparison["best"]
    run = evidence.runs_of(best)[0]
    lines = evidence.hypotheses(run, split)
    targets, sources = evidence.wanted.splits[split], evidence.sources[split]
    score = partial(metrics.score, "chrf")
    scores = [score(one) for one in evidence.statistics("chrf", run, split)]
    ranked = sorted(range(len(lines)), key=lambda i: (scores[i], i))
    exact = [i for i in range(len(lines)) if lines[i] == targets[i]]
    longest = sorted(exact, key=lambda i: (-len(sources[i]), i))

    def told(places: Sequence[int]) -> list[dict[str, Any]]:
        return [
            {
                "number": i + 1,
                "source": sources[i],
                "reference": targets[i],
                "translation": marked(lines[i], targets[i]),
                "chrf": scores[i],
            }
            for i in places[:EXTREMES]
        ]

    return {"worst": told(ranked), "best": told(longest)}


def marked(line: str, reference: str) -> Any:
    """A translation as HTML, with the words that the reference has not marked.

    Of more than COMPARED words nothing is: they would take seconds.
    """
    from markupsafe import Markup

    words, wanted = line.split(), reference.split()
    if max(len(words), len(wanted)) > COMPARED:
        return Markup(html.escape(line))
    matcher = difflib.SequenceMatcher(a=wanted, b=words, autojunk=False)
    parts = []
    for kind, _, _, start, end in matcher.get_opcodes():
        text = html.escape(" ".join(words[start:end]))
        if kind == "equal":
            parts.append(text)
        elif kind == "delete":
            parts.append('<mark class="gap" title="something is missing here">∅</mark>')
        else:
            parts.append(f"<mark>{text}</mark>")
    return Markup(" ".join(part for part in parts if part))


def inline(picture: Picture) -> Any:
    """A picture as part of the page, in the page's own colours."""
    from markupsafe import Markup

    svg = picture.svg[picture.svg.index("<svg") :]
    width = re.search(r'width="([\d.]+)pt"', svg)
    assert width, "matplotlib gives every SVG its width"
    points = float(width[1])
    name = re.sub(r"\W", "-", picture.file.removesuffix(".svg"))
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(url\(#|xlink:href="#)', rf"\g<1>{name}-", svg)
    for colour, role in ((INK, "ink"), (LINE, "line"), (PAPER, "paper")):
        svg = svg.replace(colour, f"var(--{role})")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    size = f"width:100%;max-width:{points * 1.25:.0f}px;min-width:{min(points, 700):.0f}px"
    label = html.escape(f"{picture.title}. {picture.caption}", quote=True)
    svg = re.sub(
        r'<svg .*?viewBox="([^"]*)"[^>]*>',
        rf'<svg xmlns:xlink="http://www.w3.org/1999/xlink" role="img" aria-label="{label}" '
        rf'viewBox="\1" style="{size}">',
        svg,
        count=1,
        flags=re.DOTALL,
    )
    return Markup(svg)


def reproduce(evidence: Evidence) -> dict[str, Any]:
    """What is needed to make the same again: sums, versions, settings, commands."""
    settings, again = evidence.runs[next(iter(evidence.runs))].settings(), params.remake("")
    lock = Path("requirements.lock")
    lines = lock.read_text(encoding="utf-8").splitlines() if lock.exists() else []
    pins = dict(line.split()[0].split("==") for line in lines if "==" in line)
    return {
        "command": "make repro" if again == "dvc repro" else again,  # needs no environment
        "data": settings["data"],
        "code": settings["code"],
        "versions": {name: pins[name] for name in _LOCKED if name in pins},
        "signatures": evidence.comparison["signatures"],
        "model": json.dumps(settings["model"]),
        "train": json.dumps(settings["train"]),
        "threads": settings["threads"],
    }
