"""The comparison of the variants: what is tested, and the tables and sentences made of it.

Pure functions: the compare stage reads the files and does the tests.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from rnnmt import params
from rnnmt.scoring.settings import EvaluateSettings, References
from rnnmt.scoring.significance import holm


@dataclass(frozen=True)
class Variant:
    """What the files say of one variant, each list in the order of the seeds."""

    name: str
    settings: dict[str, Any]  # as trained
    training: list[dict[str, Any]]
    decoding: list[dict[str, Any]]
    scores: list[dict[str, Any]]  # split -> search -> metric -> score, low, high

    @property
    def attention(self) -> str:
        """none, or the scoring function."""
        return str(self.settings["model"]["attention"])

    def values(self, split: str, search: str, metric: str, key: str = "score") -> list[float]:
        """One number for each seed."""
        return [scores[split][search][metric][key] for scores in self.scores]

    def mean(self, split: str, search: str, metric: str) -> float:
        """The mean over the seeds."""
        return statistics.mean(self.values(split, search, metric))


@dataclass(frozen=True)
class Pair:
    """Two systems on one test set, and the test of their difference in BLEU."""

    variant: str
    baseline: str
    split: str
    difference: float  # BLEU points, variant - baseline
    p: float
    p_holm: float = 1.0  # adjusted for all pairs of its table
    deviation: float | None = None  # of the difference over the seeds, where there are several


def best(variants: Sequence[Variant]) -> Variant:
    """The highest BLEU of beam search on validation data; of equal ones, the first."""
    return max(variants, key=lambda variant: variant.mean("valid", "beam", "bleu"))


def tuned(variants: Sequence[Variant]) -> list[Variant]:
    """Of variants that differ in the learning rate alone, the one that `best` takes."""
    found: list[Variant] = []
    for variant in variants:
        alike = [other for other in variants if _rest(other) == _rest(variant)]
        if variant is best(alike):
            found.append(variant)
    return found


def twins(variants: Sequence[Variant]) -> list[tuple[Variant, Variant]]:
    """Each variant with attention, and the one that differs from it only in having none.

    And in its learning rate: what suits one need not suit the other, so that of several that
    differ in it alone only the `tuned` one counts.
    """
    own = ("attention", "heads")
    chosen = tuned(variants)
    return [
        (variant, twin)
        for variant in chosen
        for twin in chosen
        if variant.attention != "none"
        and twin.attention == "none"
        and _rest(variant, *own) == _rest(twin, *own)
    ]


def _rest(variant: Variant, *own: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Its settings, but for those of its model that are its `own`, and for the learning rate."""
    model = {key: value for key, value in variant.settings["model"].items() if key not in own}
    train = variant.settings.get("train") or {}
    return model, {key: value for key, value in train.items() if key != "learning_rate"}


def ablations(variants: Sequence[Variant]) -> list[tuple[Variant, Variant, str]]:
    """Each two variants that differ in one setting alone, the later one first, and in which.

    Their precisions are those that were used: not every processor has the one asked for.
    """

    def settings(variant: Variant) -> dict[str, Any]:
        used = "/".join(sorted({run.get("precision", "") for run in variant.training}))
        asked = {**variant.settings["model"], **(variant.settings.get("train") or {})}
        return asked | {"precision": used}

    found = []
    for before, after in combinations(variants, 2):
        old, new = settings(before), settings(after)
        changed = [key for key in old.keys() | new.keys() if old.get(key) != new.get(key)]
        if len(changed) == 1:
            [key] = changed
            found.append((after, before, f"{key}: {old.get(key)} → {new.get(key)}"))
    return sorted(found, key=lambda each: each[2])


def adjust(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs of one table with Holm's adjusted p-values."""
    adjusted = holm([pair.p for pair in pairs])
    return [Pair(**(asdict(pair) | {"p_holm": p})) for pair, p in zip(pairs, adjusted, strict=True)]


def report(
    variants: Sequence[Variant],
    tables: Mapping[str, Sequence[Pair]],
    wanted: References,
    seeds: Sequence[int],
    signatures: Mapping[str, str],
    settings: EvaluateSettings,
) -> str:
    """The whole of comparison.md: of `tables` those named best, attention and beam."""
    winner = best(variants)
    score = winner.mean("valid", "beam", "bleu")
    sentences = ", ".join(f"{split} {len(wanted.splits[split])}" for split in wanted.tests)
    seeds_text = ", ".join(map(str, seeds))
    parts = [
        f"# {wanted.corpus}, {wanted.direction}: {len(variants)} variants compared",
        f"Made by `{params.remake('')}` on the corpus `{wanted.corpus}`, with "
        f"seed{'s' * (len(seeds) > 1)} {seeds_text}. Sentences: {sentences}. "
        "**Bold**: the best on validation data.",
        main_table(variants, wanted.tests, winner.name),
        notes(variants, settings, len(seeds)),
        *section(
            f"Against the best, {winner.name}",
            f"`{winner.name}` has the highest validation BLEU, {score:.1f}; no test set had a "
            "say in that. Beam search, BLEU points of each variant minus those of the best:",
            tables["best"],
            wanted.tests,
            settings,
        ),
        *section(
            "What attention adds",
            "Beam search, BLEU points of each variant minus those of its twin without attention, "
            "whose gates, if it has any, begin with longer memories, and which may have a "
            "learning rate of its own:",
            tables["attention"],
            wanted.tests,
            settings,
        ),
        *section(
            "What beam search adds",
            "BLEU points of beam search minus those of greedy search:",
            tables["beam"],
            wanted.tests,
            settings,
        ),
        method(settings, len(seeds), signatures),
    ]
    return "\n\n".join(parts) + "\n"


def ablation(
    variants: Sequence[Variant],
    pairs: Sequence[Pair],
    wanted: References,
    seeds: Sequence[int],
    settings: EvaluateSettings,
) -> str:
    """The whole of ablation.md; `pairs` are the tests of all `ablations`."""
    title = f"# {wanted.corpus}, {wanted.direction}: one setting at a time"
    found = ablations(variants)
    if not found:
        return f"{title}\n\nNo two variants differ in one setting alone.\n"
    head = ["setting", "variant", "against", "training", "length penalty", "valid"]
    for split in wanted.tests:
        head += [split, "p"]
    rows = [
        [
            change,
            *(cells := _pair_cells(row, settings))[:2],
            f"{_ratio(after, before):.2f} ×",
            _penalties(before, after),
            _gain(after, before),
            *cells[2:],
        ]
        for (after, before, change), row in zip(found, _by_row(pairs), strict=True)
    ]
    several = ", means over the seeds with their standard deviations" * (len(seeds) > 1)
    parts = [
        title,
        f"Made by `{params.remake('')}`, with seed{'s' * (len(seeds) > 1)} "
        f"{', '.join(map(str, seeds))}. "
        "All pairs of variants that differ in one setting. BLEU points with beam search, variant "
        f"minus the one against which it stands{several}; training: its time as a multiple of the "
        "other's, of use only if both trained on a machine that did nothing else; length penalty: "
        "of several, the one that `valid` has chosen for each, part of what is compared. "
        "Attention changes how gates begin, too: with longer memories where there is none. Scores "
        "and times of each are in [comparison.md](comparison.md).",
        markdown(head, rows, left=3),
        f"p and **bold** as there, adjusted for the {len(pairs)} tests of this table; `valid` has "
        "no test, and is what settings should be chosen by.",
    ]
    return "\n\n".join(parts) + "\n"


def _ratio(variant: Variant, baseline: Variant) -> float:
    """How many times as long one trained as the other."""
    seconds = [sum(float(run["seconds"]) for run in one.training) for one in (variant, baseline)]
    return seconds[0] / seconds[1]


def _gain(variant: Variant, baseline: Variant) -> str:
    """BLEU points of beam search on validation data."""
    both = (one.values("valid", "beam", "bleu") for one in (variant, baseline))
    points = [a - b for a, b in zip(*both, strict=True)]
    return signed(statistics.mean(points)) + deviation(points)


def main_table(variants: Sequence[Variant], tests: Sequence[str], winner: str) -> str:
    """One row for each variant."""
    head = ["variant", "cell", "attention", "parameters", "training", "best epoch", "tokens/s"]
    for split in tests:
        head += [f"{split} BLEU greedy", f"{split} BLEU beam", f"{split} chrF++", f"{split} TER"]
    rows = []
    for variant in variants:
        name = f"**{variant.name}**" if variant.name == winner else variant.name
        row = [name, *_training_cells(variant)]
        for split in tests:
            row += _score_cells(variant, split)
        rows.append([*row, speed(variant, "greedy"), speed(variant, "beam")])
    return markdown([*head, "greedy sent./s", "beam sent./s"], rows, left=3)


def notes(variants: Sequence[Variant], settings: EvaluateSettings, seeds: int) -> str:
    """How to read the main table. All variants are decoded alike, but for the length penalty."""
    decoding = variants[0].decoding[0]
    groups: dict[str, list[str]] = {}
    for variant in sorted(variants, key=_penalty):
        groups.setdefault(_penalty(variant), []).append(variant.name)
    penalties = "; ".join(f"{penalty}: {', '.join(names)}" for penalty, names in groups.items())
    lines = [
        "**Rank no system by less than its interval**, unless a paired test below tells them "
        "apart. ± is half the width of the "
        f"{_percent(settings.confidence)} bootstrap interval over sentences; those of chrF++ and "
        "TER are in `scores/*.detail.json`.",
        "BLEU and chrF++: higher is better; TER: lower. chrF++ and TER are of beam search, which "
        f"keeps {decoding['beam']} hypotheses.",
        f"Length penalty (of several, the one that `valid` has chosen): {penalties}.",
        "training: minutes:seconds, validation included; tokens/s: target tokens in training, "
        f"without it; sent./s: sentences decoded per second, threads: {decoding['threads']}. "
        "Times and speeds change from run to run, nothing else does.",
    ]
    if seeds > 1:
        lines.append(
            "Numbers are means over the seeds, sd is the standard deviation over them; ± is the "
            "mean of the seeds' own."
        )
    return bullets(lines)


def section(
    title: str,
    lead: str,
    pairs: Sequence[Pair],
    tests: Sequence[str],
    settings: EvaluateSettings,
) -> list[str]:
    """A table of paired tests with its reading; nothing where there is no pair."""
    if not pairs:
        return []
    head = ["variant", "against"]
    for split in tests:
        head += [split, "p"]
    rows = [_pair_cells(row, settings) for row in _by_row(pairs)]
    readings = [reading(split, pairs, settings) for split in tests]
    return [f"## {title}", lead, markdown(head, rows, left=2), bullets(readings)]


def reading(split: str, pairs: Iterable[Pair], settings: EvaluateSettings) -> str:
    """What the adjusted p-values of one test set say, in a sentence."""
    groups: dict[str, list[str]] = {}
    for pair in pairs:
        if pair.split == split:
            groups.setdefault(_verdict(pair, settings), []).append(pair.variant)
    said = [
        f"{verdict} {', '.join(groups[verdict])}"
        for verdict in ("better:", "worse:", "no difference shown:")
        if verdict in groups
    ]
    return f"**{split}**, at {_percent(1 - settings.confidence)} after Holm: {'; '.join(said)}."


def method(settings: EvaluateSettings, seeds: int, signatures: Mapping[str, str]) -> str:
    """How the numbers were made, so that others can make them too."""
    several = (
        f" Seeds are paired: the difference is the mean over {seeds} seeds, and a swapped "
        "sentence is swapped in all of them. Whether another seed would change the picture is "
        "for the standard deviation to say, not for p."
        if seeds > 1
        else " One seed was trained: p says nothing of how much another seed would change."
    )
    listed = bullets(f"{name}: `{text}`" for name, text in signatures.items())
    return (
        "## Method\n\n"
        f"Intervals: bootstrap percentiles of {settings.bootstrap_samples} resamplings of the "
        "sentences. p: two-sided paired approximate randomisation, "
        f"{settings.bootstrap_samples} trials or, in a table of many tests, as many more as let "
        "one clear difference be significant; in each, the two systems' translations of random "
        f"sentences are swapped; seed {settings.seed}. The p shown are adjusted by Holm's method "
        "for all tests of their table (those before it: `comparison.json`), and **bold** "
        f"differences are significant at {_percent(1 - settings.confidence)}.{several} "
        f"sacreBLEU signatures:\n\n{listed}"
    )


def speed(variant: Variant, search: str) -> str:
    """Sentences of the test sets per second."""
    return spread([rate(decoding, search) for decoding in variant.decoding], 0)


def rate(decoding: Mapping[str, Any], search: str) -> float:
    """Sentences of the test sets per second; `valid` may have been searched for all penalties."""
    done = [split[search] for name, split in decoding["splits"].items() if name != "valid"]
    return float(sum(p["sentences"] for p in done) / max(sum(p["seconds"] for p in done), 1e-9))


def spread(values: Sequence[float], digits: int) -> str:
    """The mean, and with several seeds the standard deviation."""
    return f"{statistics.mean(values):,.{digits}f}" + deviation(values, digits)


def deviation(values: Sequence[float], digits: int = 1) -> str:
    """The standard deviation over several seeds, to stand behind their mean; else nothing."""
    return f" (sd {statistics.stdev(values):,.{digits}f})" if len(values) > 1 else ""


def minutes(values: Sequence[float]) -> str:
    """Seconds as minutes:seconds; of several seeds, the mean and the standard deviation."""

    def clock(seconds: float) -> str:
        return f"{round(seconds) // 60}:{round(seconds) % 60:02d}"

    text = clock(statistics.mean(values))
    return f"{text} (sd {clock(statistics.stdev(values))})" if len(values) > 1 else text


def bullets(lines: Iterable[str]) -> str:
    """A list of points."""
    return "\n".join(f"- {line}" for line in lines)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """A table that is aligned as plain text too; all but the `left` first columns to the right."""
    widths = [max(3, *(len(row[i]) for row in [head, *rows])) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join([line(head), line(rule), *map(line, rows)])


def _penalty(variant: Variant) -> str:
    """The length penalty of a variant; of several seeds' all."""
    found = sorted({float(decoding["length_penalty"]) for decoding in variant.decoding})
    return "/".join(f"{penalty:g}" for penalty in found)


def _penalties(before: Variant, after: Variant) -> str:
    """`1.0`, or `1.2 → 0.6`."""
    return " → ".join(dict.fromkeys((_penalty(before), _penalty(after))))


def _training_cells(variant: Variant) -> list[str]:
    runs = variant.training
    return [
        variant.settings["model"]["cell"],
        variant.attention,
        f"{runs[0]['parameters']:,}",
        minutes([run["seconds"] for run in runs]),
        ", ".join(f"{run['best_epoch']} of {run['epochs']}" for run in runs),
        spread([run["target_tokens_per_second"] for run in runs], 0),
    ]


def _score_cells(variant: Variant, split: str) -> list[str]:
    return [
        _with_interval(variant, split, "greedy"),
        _with_interval(variant, split, "beam"),
        spread(variant.values(split, "beam", "chrf"), 1),
        spread(variant.values(split, "beam", "ter"), 1),
    ]


def _with_interval(variant: Variant, split: str, search: str) -> str:
    scores = variant.values(split, search, "bleu")
    ends = (variant.values(split, search, "bleu", key) for key in ("low", "high"))
    half = statistics.mean((high - low) / 2 for low, high in zip(*ends, strict=True))
    return f"{statistics.mean(scores):.1f} ± {half:.1f}{deviation(scores)}"


def _by_row(pairs: Iterable[Pair]) -> Iterable[list[Pair]]:
    """The pairs of the same two systems together, in the order of the test sets."""
    rows: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        rows.setdefault((pair.variant, pair.baseline), []).append(pair)
    return rows.values()


def _pair_cells(row: Sequence[Pair], settings: EvaluateSettings) -> list[str]:
    cells = [row[0].variant, row[0].baseline]
    for pair in row:
        mark = "**" if _significant(pair, settings) else ""
        sd = "" if pair.deviation is None else f" (sd {pair.deviation:.1f})"
        cells += [f"{mark}{signed(pair.difference)}{mark}{sd}", f"{pair.p_holm:.3f}"]
    return cells


def signed(points: float) -> str:
    """BLEU points with one digit, and no sign of what is rounded to nothing."""
    return f"{points:+.1f}" if abs(points) >= 0.05 else "0.0"


def _significant(pair: Pair, settings: EvaluateSettings) -> bool:
    return pair.p_holm < 1 - settings.confidence


def _verdict(pair: Pair, settings: EvaluateSettings) -> str:
    if not _significant(pair, settings):
        return "no difference shown:"
    return "better:" if pair.difference > 0 else "worse:"


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"
