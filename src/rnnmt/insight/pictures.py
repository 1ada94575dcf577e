"""The pictures of an experiment, each with the words that explain it, as SVG.

A variant has the colour of its cell, and the marker and the dashes of its attention: either tells
the variants apart for those who do not see the other.
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnmt.insight.claims import FAR, LEFT
from rnnmt.insight.cost import costs
from rnnmt.insight.evidence import Evidence
from rnnmt.insight.keeping import GATED
from rnnmt.insight.pairs import data_series
from rnnmt.insight.settings import OUTCOMES, SOLVED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, LINE, PAPER = "#1c1d1f", "#d4d5d9", "#fdfdfc"
# Of Okabe and Ito's palette, which differs for all kinds of colour vision.
COLOURS = {"rnn": "#d55e00", "gru": "#009e73", "lstm": "#0072b2"}
MARKERS = {"none": "o", "dot": "v", "general": "s", "additive": "D"}
# Of variants that have cell and attention in common: each its own.
FURTHER_COLOURS = ("#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#0072b2", "#8a8d93")
FURTHER_MARKERS = ("^", "P", "X", "*", "<", ">", "p", "h", "d")
DASHES = {"none": "--", "dot": ":", "general": "-", "additive": "-."}
OUTCOME_COLOURS = dict(zip(OUTCOMES, ("#56b4e9", "#009e73", "#d55e00", "#8a8d93"), strict=True))
GATE_COLOURS = {
    "input": "#e69f00", "forget": "#0072b2", "output": "#cc79a7",
    "reset": "#d55e00", "update": "#009e73",
}  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """One picture; `file` is its name in figures/."""

    file: str
    title: str
    caption: str
    svg: str


def draw(evidence: Evidence, significance: Sequence[dict[str, Any]]) -> list[Picture]:
    """All pictures that the experiment has the runs for. The same bytes each time."""
    made: list[Picture] = []
    first = evidence.analyses[next(iter(evidence.runs))]
    sentences = sum(first["search"]["first_error"].values())  # that were looked at
    with style():
        for file, (title, caption, make) in PICTURES.items():
            figure = make(evidence)
            if figure is not None:
                said = caption.format(sentences=sentences, solved=SOLVED)
                made.append(Picture(file, title, " ".join(said.split()), to_svg(figure)))
        if significance:
            figure = _significance(evidence, significance)
            made.append(Picture("significance.svg", *_SIGNIFICANCE, to_svg(figure)))
    return made


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib as all pictures want it, without a display and without chance."""
    import matplotlib as mpl

    mpl.use("agg")
    with mpl.rc_context(
        {
            "svg.hashsalt": "rnnmt",
            "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font
            "font.family": "sans-serif",
            "font.size": 10,
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.facecolor": PAPER,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": LINE,
            "axes.edgecolor": INK,
            "axes.labelcolor": INK,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "legend.frameon": False,
            "legend.fontsize": 9,
            "lines.markersize": 5,
            "lines.linewidth": 1.8,
        }
    ):
        yield


def to_svg(figure: Figure) -> str:
    """A figure as the text of an SVG file, with a plain background."""
    import matplotlib.pyplot as plt

    stream = io.StringIO()
    nothing = {"Date": None, "Creator": None}
    figure.savefig(stream, format="svg", facecolor=PAPER, bbox_inches="tight", metadata=nothing)
    plt.close(figure)
    # A matrix is an image of one dot for each cell, which no viewer may smooth.
    text = stream.getvalue().replace("<image ", '<image style="image-rendering:pixelated" ')
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


# --- the parts of pictures ------------------------------------------------------------------


def panels(count: int, height: float = 3.2, each: float = 4.4) -> tuple[Figure, list[Axes]]:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, count, figsize=(each * count, height), squeeze=False, layout="constrained"
    )
    return figure, list(axes[0])


def from_zero(axes: Sequence[Axes]) -> None:
    """One scale for the scores of all panels, from 0 to a little above the highest."""
    top = max(panel.get_ylim()[1] for panel in axes)
    for panel in axes:
        panel.set_ylim(0, top)


def look(evidence: Evidence, variant: str) -> dict[str, Any]:
    """How a variant's line is drawn: by its cell and attention, which others may have too."""

    def kind(one: str) -> tuple[str, str]:
        model = evidence.settings(one, "model")
        return model["cell"], model["attention"]

    cell, attention = kind(variant)
    colour, marker = COLOURS[cell], MARKERS[attention]
    alike = [one for one in evidence.variants if kind(one) == (cell, attention)]
    if place := alike.index(variant):
        marker = FURTHER_MARKERS[(place - 1) % len(FURTHER_MARKERS)]
        if len({kind(one)[0] for one in evidence.variants}) == 1:  # else colours are the cells'
            others = [one for one in FURTHER_COLOURS if one != colour]
            colour = [colour, *others][place % (1 + len(others))]
    return {
        "color": colour,
        "marker": marker,
        "linestyle": DASHES[attention],
        "markerfacecolor": PAPER if attention == "none" else colour,
    }


def key(figure: Figure, axes: Sequence[Axes], columns: int = 4) -> None:
    """One legend for all panels, below them."""
    found: dict[str, Any] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(
        list(found.values()), list(found), loc="outside lower center", ncols=columns, handlelength=3
    )


def heat(
    axes: Axes,
    values: Any,
    rows: Sequence[str],
    columns: Sequence[str],
    text: str = "",
    **more: Any,
) -> None:
    """A matrix with names at its sides and, with a format, its numbers in its cells."""
    array = np.array(values, dtype=float)
    image = axes.imshow(array, aspect="auto", interpolation="none", **more)
    axes.grid(False)
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    for row, of_row in enumerate(array) if text else ():
        for column, value in enumerate(of_row):
            if not np.isnan(value):
                background = image.cmap(image.norm(value))[:3]
                axes.text(
                    column, row, format(value, text), ha="center", va="center", fontsize=8,
                    color="white" if _luminance(*background) < 0.179 else "black",
                )  # fmt: skip


def _luminance(red: float, green: float, blue: float) -> float:
    """WCAG 2's relative luminance; at 0.179 black and white have the same contrast with it."""
    linear = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)
    )
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def mean(values: Sequence[Any]) -> Any:
    """Over the seeds, of numbers or lists of them."""
    return np.mean(np.array(values, dtype=float), axis=0)


# --- the pictures ---------------------------------------------------------------------------


def _learning(evidence: Evidence) -> Figure:
    figure, (left, right) = panels(2)
    for variant in evidence.variants:
        for run in evidence.runs_of(variant):
            rows = evidence.history(run)
            epochs = range(1, len(rows) + 1)
            form = look(evidence, variant)
            left.plot(epochs, [r["val/loss"] for r in rows], label=variant, **form)
            right.plot(epochs, [r["val/bleu"] for r in rows], label=variant, **form)
    left.set(title="Validation loss", xlabel="epoch", ylabel="nats for each piece")
    right.set(title="Validation BLEU", xlabel="epoch", ylabel="BLEU, greedy search", ylim=(0, None))
    for panel in (left, right):
        panel.locator_params(axis="x", integer=True)
    key(figure, [left])
    return figure


def _cost(evidence: Evidence) -> Figure:
    figure, axes = panels(3, each=3.6)
    split = evidence.tests[0]
    for row in costs(evidence):
        variant = row["variant"]
        values = evidence.comparison["variants"][variant]
        bleu = mean([s[split]["beam"]["bleu"]["score"] for s in values["scores"]])
        names = ("parameters", "seconds_until_best", "beam_sentences_per_second")
        across = [row[name] for name in names]
        for panel, x in zip(axes, across, strict=True):
            form = look(evidence, variant) | {"linestyle": "none", "markersize": 8}
            panel.plot([x], [bleu], label=variant, **form)
    labels = ("parameters", "seconds until the best epoch", "sentences a second, beam search")
    for panel, label in zip(axes, labels, strict=True):
        panel.margins(0.12)  # marks stay whole
        panel.set(xlabel=label, xlim=(0, None))
    from_zero(axes)
    axes[0].xaxis.set_major_formatter(lambda x, _: f"{x / 1e6:g} M")
    axes[0].set_ylabel(f"BLEU on {split}, beam search")
    key(figure, axes[:1])
    return figure


def _data(evidence: Evidence) -> Figure | None:
    series, split = data_series(evidence), evidence.tests[0]
    if not series:
        return None
    figure, axes = panels(len(series))
    for panel, points in zip(axes, series, strict=True):
        parts = [100 * point.fraction for point in points]
        for cell in ("gru", "lstm"):
            names = [getattr(point, cell) for point in points]
            of_variants = [evidence.comparison["variants"][name]["scores"] for name in names]
            value, low, high = (
                [mean([s[split]["beam"]["bleu"][end] for s in seeds]) for seeds in of_variants]
                for end in ("score", "low", "high")
            )
            form = look(evidence, names[0])
            panel.plot(parts, value, label=cell, **form)
            panel.fill_between(parts, low, high, color=form["color"], alpha=0.12, linewidth=0)
        panel.set(
            title=f"{evidence.settings(points[0].gru, 'model')['attention']} attention",
            xlabel="percent of the training pairs", xscale="log",
        )  # fmt: skip
        panel.set_xticks(parts, [f"{part:g}" for part in parts])
        panel.minorticks_off()
    from_zero(axes)
    axes[0].set_ylabel(f"BLEU on {split}, beam search")
    key(figure, axes[:1])
    return figure


def _length(evidence: Evidence) -> Figure:
    figure, axes = panels(len(evidence.tests))
    for panel, split in zip(axes, evidence.tests, strict=True):
        for variant in evidence.variants:
            slices = [
                evidence.analyses[run]["slices"][split]["length"]
                for run in evidence.runs_of(variant)
            ]
            x = [(part["low"] + part["high"]) / 2 for part in slices[0]]
            value, low, high = (
                mean([[part["bleu"][end] for part in of_run] for of_run in slices])
                for end in ("score", "low", "high")
            )
            form = look(evidence, variant)
            panel.plot(x, value, label=variant, **form)
            panel.fill_between(x, low, high, color=form["color"], alpha=0.12, linewidth=0)
        panel.set(title=split, xlabel="words of the source sentence")
    from_zero(axes)
    axes[0].set_ylabel("BLEU, beam search")
    key(figure, axes[:1])
    return figure


def _phenomenon(evidence: Evidence) -> Figure | None:
    split = evidence.tests[0]
    names = list(evidence.analyses[next(iter(evidence.runs))]["slices"][split]["phenomenon"])
    if not names:
        return None
    figure, (panel,) = panels(1, height=0.42 * len(evidence.variants) + 1.4, each=9)
    rows = [
        mean(
            [
                [
                    evidence.analyses[run]["slices"][split]["phenomenon"][name]["exact"]["score"]
                    for name in names
                ]
                for run in evidence.runs_of(variant)
            ]
        )
        for variant in evidence.variants
    ]
    counts = evidence.analyses[next(iter(evidence.runs))]["slices"][split]["phenomenon"]
    labels = [f"{name} ({counts[name]['sentences']})" for name in names]
    heat(panel, rows, evidence.variants, labels, ".0f", cmap="cividis", vmin=0, vmax=100)
    return figure


def _flow(evidence: Evidence) -> Figure:
    figure, axes = panels(2, height=3.6)
    for panel, when in zip(axes, ("fresh", "trained"), strict=True):
        for run in evidence.runs:
            found = evidence.analyses[run]["flow"]
            form = look(evidence, evidence.runs[run].variant) | {"marker": "none"}
            begins = _begins(evidence, run)
            first = next(one for one in evidence.runs if _begins(evidence, one) == begins)
            if when == "fresh" and run != first:
                continue
            lags, reach = np.array(found["lags"]), found[when]
            label = f"untrained {begins}" if when == "fresh" else evidence.runs[run].variant
            panel.plot(lags, reach["norm"], label=label, **form)
            if run == first:
                predicted = reach["radius"] ** lags
                panel.plot(lags, predicted, color=form["color"], linewidth=0.9, alpha=0.8)
        panel.axhline(LEFT, color=INK, linewidth=0.8, linestyle=(0, (1, 3)))
        panel.axvline(FAR, color=INK, linewidth=0.8, linestyle=(0, (1, 3)))
        title = "Untrained encoders" if when == "fresh" else "Trained encoders"
        panel.set(title=title, xlabel="steps back", yscale="log")
        panel.set_ylim(1e-8, 3)
    axes[0].set_ylabel("gradient that is left")
    key(figure, axes)
    return figure


def _begins(evidence: Evidence, run: str) -> str:
    """What an encoder's memory depends on before training: gates begin otherwise with attention."""
    cell = evidence.cell(run)
    attends = cell in GATED and evidence.attention(run) != "none"
    return f"{cell}, with attention" if attends else cell


def _memory(evidence: Evidence) -> Figure:
    tasks = list(dict.fromkeys(one["task"] for one in evidence.memory))
    figure, axes = panels(len(tasks))
    markers = {"rnn": "o", "gru": "s", "lstm": "D"}
    titles = {"adding": "Adding problem", "copy": "Copy memory"}
    for panel, task in zip(axes, tasks, strict=True):
        for cell, marker in markers.items():
            rows = [r for r in evidence.memory if (r["task"], r["cell"]) == (task, cell)]
            lags = sorted({r["lag"] for r in rows})
            errors = [[r["error"] for r in rows if r["lag"] == lag] for lag in lags]
            middles = [statistics.median(some) for some in errors]
            least, greatest = [min(some) for some in errors], [max(some) for some in errors]
            panel.plot(lags, middles, color=COLOURS[cell], label=cell, marker=marker)
            panel.vlines(lags, least, greatest, color=COLOURS[cell])
            unsolved = {r["lag"] for r in rows if not r["solved_after"]}
            hollow = [n for n, lag in enumerate(lags) if lag in unsolved]
            panel.plot(
                [lags[n] for n in hollow], [middles[n] for n in hollow],
                color=COLOURS[cell], marker=marker, linestyle="none", markerfacecolor=PAPER,
            )  # fmt: skip
        panel.axhline(1, color=INK, linewidth=0.8, linestyle=(0, (1, 3)))
        panel.set(title=titles[task], xlabel="steps to remember", ylim=(0, None))
        panel.margins(x=0.12)
    axes[0].set_ylabel("error, 1 = without memory")
    key(figure, axes[:1])
    return figure


def _gates(evidence: Evidence) -> Figure | None:
    runs = evidence.of("gru", "lstm")
    if not runs:
        return None
    figure, (panel,) = panels(1, height=0.55 * len(runs) + 1.2, each=7)
    for row, run in enumerate(runs):
        gates = evidence.analyses[run]["gates"]["gates"]
        for place, (name, values) in enumerate(gates.items()):
            y = row + 0.22 * (place - (len(gates) - 1) / 2)
            colour = GATE_COLOURS[name]
            panel.plot([values["p10"], values["p90"]], [y, y], color=colour, linewidth=3, alpha=0.5)
            marker = {"input": "<", "forget": "o", "output": ">", "reset": "^", "update": "s"}[name]
            panel.plot(
                [values["mean"]], [y], color=colour, marker=marker, linestyle="none", label=name
            )
    panel.set_yticks(range(len(runs)), [_named(evidence, run) for run in runs])
    panel.set(xlim=(0, 1), ylim=(len(runs) - 0.5, -0.5), xlabel="gate: 0 closed, 1 open")
    panel.axvline(0.5, color=INK, linewidth=0.8, linestyle=(0, (1, 3)))
    key(figure, [panel], 5)
    return figure


def _half_life(evidence: Evidence) -> Figure | None:
    runs = evidence.of("gru", "lstm")
    if not runs:
        return None
    cells = [cell for cell in ("gru", "lstm") if evidence.of(cell)]
    figure, axes = panels(len(cells), height=3.4)
    for panel, cell in zip(axes, cells, strict=True):
        for run in evidence.of(cell):
            points = evidence.analyses[run]["gates"]["cells"]
            form = look(evidence, evidence.runs[run].variant) | {"linestyle": "none"}
            panel.plot(
                [max(p["half_life"], 0.1) for p in points],
                [max(p["correlation_time"], 0.1) for p in points],
                label=_named(evidence, run), alpha=0.85, markersize=3.5, **form,
            )  # fmt: skip
        panel.set(
            title=cell.upper(), xscale="log", yscale="log", xlabel="half-life by the gate, in words"
        )
        panel.sharex(axes[0])
        panel.sharey(axes[0])
    axes[0].set_ylabel("activity stays like itself, in words")
    key(figure, axes)
    return figure


def _search(evidence: Evidence) -> Figure:
    import matplotlib.pyplot as plt

    figure, grid = plt.subplots(2, 2, figsize=(8.8, 6), sharex=True, layout="constrained")
    names = {
        "bleu": "BLEU",
        "log_prob": "log-probability, nats",
        "length_ratio": "length / reference's length",
        "search_errors": "search errors, %",
    }
    for panel, (name, said) in zip(grid.flat, names.items(), strict=True):
        for variant in evidence.variants:
            found = [evidence.analyses[run]["search"]["beams"] for run in evidence.runs_of(variant)]
            beams = [row["beam"] for row in found[0]]
            values = mean([[row[name] for row in rows] for rows in found])
            values = 100 * values if name == "search_errors" else values
            panel.plot(beams, values, label=variant, **look(evidence, variant))
        panel.set(title=said, xscale="log")
        panel.set_xticks(beams, [str(beam) for beam in beams])
        panel.minorticks_off()
    for panel in grid[1]:
        panel.set_xlabel("beam (1 is greedy)")
    key(figure, [grid[0, 0]])
    return figure


def _first_error(evidence: Evidence) -> Figure:
    split = evidence.tests[0]
    figure, (panel,) = panels(1, height=0.38 * len(evidence.runs) + 1.3, each=8)
    for row, run in enumerate(evidence.runs):
        counts, start = evidence.analyses[run]["search"]["first_error"], 0.0
        total = sum(counts.values())
        for name in OUTCOMES:
            part = 100 * counts[name] / total
            panel.barh(row, part, left=start, color=OUTCOME_COLOURS[name], label=name, height=0.7)
            if part >= 4:
                panel.text(
                    start + part / 2, row, f"{part:.0f}", ha="center", va="center", fontsize=8,
                    color="black",
                )  # fmt: skip
            start += part
    panel.set_yticks(range(len(evidence.runs)), [_named(evidence, run) for run in evidence.runs])
    panel.set(xlim=(0, 100), xlabel=f"% of the sentences of {split} looked at")
    panel.invert_yaxis()
    panel.grid(False)
    key(figure, [panel])
    return figure


def _gain(evidence: Evidence) -> Figure | None:
    tests = evidence.comparison["tests"]["attention"]
    if not tests:
        return None
    figure, (panel,) = panels(1, height=0.34 * len(tests) + 1.2, each=7)
    for row, test in enumerate(tests):
        clear = test["p_holm"] < 1 - evidence.scoring.confidence
        form = look(evidence, test["variant"])
        panel.plot([0, test["difference"]], [row, row], color=form["color"], linewidth=1.2)
        panel.plot(
            [test["difference"]], [row], color=form["color"], marker=form["marker"],
            markersize=8, markerfacecolor=form["color"] if clear else PAPER,
        )  # fmt: skip
        panel.annotate(
            f"{test['difference']:+.1f}", (test["difference"], row), textcoords="offset points",
            xytext=(8, -3), fontsize=8,
        )  # fmt: skip
    names = [f"{t['variant']} over {t['baseline']}, {t['split']}" for t in tests]
    panel.set_yticks(range(len(tests)), names)
    panel.axvline(0, color=INK, linewidth=0.8)
    panel.margins(x=0.12)
    panel.set(xlabel="BLEU points gained", ylim=(len(tests) - 0.5, -0.5))
    return figure


def _order(evidence: Evidence) -> Figure:
    figure, axes = panels(len(evidence.tests))
    for panel, split in zip(axes, evidence.tests, strict=True):
        names: list[str] = []
        for place, variant in enumerate(evidence.variants):
            parts = [
                evidence.analyses[r]["slices"][split]["order"] for r in evidence.runs_of(variant)
            ]
            names = [f"{p['order']}\n{p['tau']:.2f}" for p in parts[0]]
            value, low, high = (
                mean([[p["chrf"][end] for p in of_run] for of_run in parts])
                for end in ("score", "low", "high")
            )
            x = np.arange(len(value)) + 0.05 * (place - (len(evidence.variants) - 1) / 2)
            form = look(evidence, variant)
            panel.plot(x, value, label=variant, **form)
            panel.vlines(x, low, high, color=form["color"], linewidth=1, alpha=0.6)
        panel.set_xticks(range(len(names)), names)
        panel.set(title=split, xlabel="words that change their order; mean tau")
    from_zero(axes)
    axes[0].set_ylabel("chrF++, beam search")
    key(figure, axes[:1])
    return figure


def _alignment(evidence: Evidence) -> Figure | None:
    runs, split = evidence.attending, evidence.tests[0]
    if not runs:
        return None
    figure, (left, right) = panels(2, height=0.5 * len(runs) + 1.6)
    for row, run in enumerate(runs):
        aer = evidence.analyses[run]["alignment"][split]["aer"]
        form = look(evidence, evidence.runs[run].variant)
        left.plot([aer["low"], aer["high"]], [row, row], color=form["color"], linewidth=2)
        left.plot([aer["score"]], [row], color=form["color"], marker=form["marker"], markersize=8)
        left.annotate(
            f"{aer['score']:.1f}", (aer["score"], row), textcoords="offset points", xytext=(0, 8),
            ha="center", fontsize=8,
        )  # fmt: skip
    diagonal = evidence.analyses[runs[0]]["alignment"][split]["aer_diagonal"]["score"]
    left.axvline(diagonal, color=INK, linewidth=1, linestyle="--")
    left.annotate(
        "diagonal", (diagonal, -0.45), textcoords="offset points", xytext=(4, 0), fontsize=8
    )
    names = [_named(evidence, run) for run in runs]
    left.set_yticks(range(len(runs)), names)
    left.set(xlim=(0, 100), ylim=(len(runs) - 0.4, -0.6), xlabel="alignment error rate, %")
    chosen = [evidence.analyses[run]["alignment"][split]["strongest"] for run in runs]
    heat(
        right, [[agreement(a, b) for b in chosen] for a in chosen], names, names, ".0f",
        cmap="cividis", vmin=0, vmax=100,
    )  # fmt: skip
    right.set_title("Same strongest word, %")
    left.set_title("Against the word links")
    return figure


def agreement(a: Sequence[str], b: Sequence[str]) -> float:
    """The percentage of target words for which two models attend most to the same source word.

    Words that one of them attends to nothing for ("-1") are left out.
    """
    pairs = [
        pair
        for one, other in zip(a, b, strict=True)
        for pair in zip(one.split(), other.split(), strict=True)
        if "-1" not in pair
    ]
    return 100 * statistics.mean(x == y for x, y in pairs) if pairs else 0.0


def _significance(evidence: Evidence, tests: Sequence[dict[str, Any]]) -> Figure:
    names = evidence.variants
    figure, (panel,) = panels(1, height=0.45 * len(names) + 1.6, each=0.75 * len(names) + 2)
    values = np.full((len(names), len(names)), np.nan)
    for test in tests:
        a, b = names.index(test["variant"]), names.index(test["baseline"])
        values[a, b], values[b, a] = test["difference"], -test["difference"]
    largest = float(np.nanmax(np.abs(values)))
    heat(panel, values, names, names, "+.1f", cmap="PuOr", vmin=-largest, vmax=largest)
    for test in tests:
        if test["p_holm"] >= 1 - evidence.scoring.confidence:
            a, b = names.index(test["variant"]), names.index(test["baseline"])
            for x, y in ((b, a), (a, b)):
                panel.plot([x - 0.42, x + 0.42], [y + 0.36, y + 0.36], color="black", linewidth=1.6)
    return figure


def _named(evidence: Evidence, run: str) -> str:
    """The name of a run, without its seed where there is but one."""
    return run if len(evidence.comparison["seeds"]) > 1 else evidence.runs[run].variant


# --- of one sentence ------------------------------------------------------------------------


def attention_of(
    sentence: Sequence[tuple[str, Sequence[str], Sequence[str], Any]],
) -> Figure:
    """One panel for each variant: its name, source and target pieces, and weights (T, S)."""
    import matplotlib.pyplot as plt

    columns = max(len(pieces) for _, pieces, _, _ in sentence)
    rows = max(len(pieces) for _, _, pieces, _ in sentence)
    figure, axes = plt.subplots(
        1, len(sentence), squeeze=False, layout="constrained",
        figsize=((0.19 * columns + 1.0) * len(sentence), 0.19 * rows + 1.2),
    )  # fmt: skip
    for panel, (name, source, target, weights) in zip(axes[0], sentence, strict=True):
        heat(panel, weights, shown(target), shown(source), cmap="Blues", vmin=0, vmax=1)
        panel.set_title(name, fontsize=9)
        panel.tick_params(labelsize=7)
        panel.set_aspect("equal")
        for side in panel.spines.values():
            side.set_visible(True)
    return figure


def gates_of(pieces: Sequence[str], of_runs: Sequence[tuple[str, dict[str, Any]]]) -> Figure:
    """For each variant and gate, a row of the means over the cells, over the pieces read."""
    rows, names = [], []
    for name, gates in of_runs:
        for gate, values in gates["mean"].items():
            rows.append(values)
            names.append(f"{name}: {gate}")
    figure, (panel,) = panels(1, height=0.22 * len(rows) + 1.1, each=0.42 * len(pieces) + 3)
    heat(panel, rows, names, shown(pieces), cmap="cividis", vmin=0, vmax=1)
    figure.colorbar(panel.images[0], ax=panel, ticks=[0, 0.5, 1], pad=0.01)
    for line in np.cumsum([len(gates["mean"]) for _, gates in of_runs])[:-1]:
        panel.axhline(line - 0.5, color=PAPER, linewidth=2)
    return figure


def cells_of(
    pieces: Sequence[str], of_runs: Sequence[tuple[str, dict[str, Any]]], keeps: dict[str, str]
) -> Figure:
    """For each variant, the gate that keeps, cell by cell, the slowest on top."""
    figure, axes = panels(len(of_runs), height=4, each=0.17 * len(pieces) + 1.3)
    for panel, (name, gates) in zip(axes, of_runs, strict=True):
        gate = keeps[name]
        values = np.array(gates["cells"][gate])
        heat(panel, values, [], shown(pieces), cmap="cividis", vmin=0, vmax=1)
        panel.set_title(f"{name}\n{gate} gate", fontsize=9)
        panel.tick_params(labelsize=7)
    axes[0].set_ylabel("cells, slowest first")
    return figure


def shown(pieces: Sequence[str]) -> list[str]:
    """Pieces as a reader sees them; `$` would begin a formula."""
    return [piece.replace("\u2581", "·").replace("$", r"\$") for piece in pieces]


_SIGNIFICANCE = (
    "Who beats whom",
    "BLEU points of the variant at the left minus those of the variant below, on the first test "
    "set, beam search: the darker, the larger the difference. A bar under a number: not "
    "significant (paired approximate randomisation, Holm over all pairs).",
)

PICTURES: dict[str, tuple[str, str, Callable[[Evidence], Figure | None]]] = {
    "learning-curves.svg": (
        "How they learn",
        """Each line is a training. Left, how surprised the model is by the validation sentences,
        lower is better; right, how well it translates them. With a cosine schedule the rate
        falls to zero at the last epoch and all lines flatten there, learnt out or not.""",
        _learning,
    ),
    "cost.svg": (
        "Quality against cost",
        """One mark for each variant; higher is better everywhere. A variant is worth its cost when
        none stands above it and to the cheaper side: left in the first two panels, right in
        the third. Times are of the machine that trained and decoded.""",
        _cost,
    ),
    "data.svg": (
        "With less data",
        """BLEU of an LSTM and of a GRU that were trained on the first part of the training pairs,
        all else but the learning rate and the number of epochs being the same; bands are
        bootstrap intervals over sentences.""",
        _data,
    ),
    "length.svg": (
        "Longer sentences",
        """BLEU of sentences by their length; bands are bootstrap intervals. A variant that holds a
        sentence in one state of fixed size (dashed, hollow marks) is expected to fall as
        sentences grow, one that can look back (filled marks) to fall less. Beyond the lengths
        that were trained on all may fall.""",
        _length,
    ),
    "phenomenon.svg": (
        "What they get right",
        """The percentage of sentences with a phenomenon that are translated exactly as the
        reference has them, lighter is better; how many there are in parentheses. A sentence
        may show several.""",
        _phenomenon,
    ),
    "gradient-flow.svg": (
        "How far back a gradient reaches",
        """Of a gradient of length 1 at the last state, how much arrives so many steps earlier, on
        a logarithmic scale: a straight fall is a loss by the same factor at every step. The
        encoder reads a text of many sentences joined. Length is the root mean square over all
        directions of the state; an LSTM's is of hidden and cell state, of which the hidden one
        is made anew at each step, so that its line begins near 0.7. Thin lines: the fall that
        the spectrum of the mean one-step Jacobian predicts, for the first variant of each
        untrained line. The dotted lines cross at the limit of the claim. Left untrained, right
        trained.""",
        _flow,
    ),
    "memory-tasks.svg": (
        "What the cells can remember",
        """Two tasks for cells of equally many parameters. Adding: two numbers of a sequence are
        marked, and their sum is wanted at its end. Copy: a few symbols are to be repeated
        after so many empty steps. At 1 (dotted) a cell does no better than without memory, at
        0 it is perfect; below {solved:g} a task is solved and its training ends, so that
        filled marks differ by chance. The median of the seeds, the line through it from the
        least to the greatest. A filled mark: solved with every seed; a hollow one: with one at
        least the updates ran out first.""",
        _memory,
    ),
    "gates.svg": (
        "Open or closed",
        """Of the encoder's first layer in reading direction, over {sentences} test sentences: the
        mean of each gate over cells and words (mark), and where the middle 80 % lie (bar). A
        forget or update gate to the right keeps what the cell holds, to the left it makes room
        (some write the update gate the other way round).""",
        _gates,
    ),
    "half-life.svg": (
        "Gates and what really stays",
        """One mark for each cell of the encoder's first layer in reading direction. Across: after
        how many words half of what it holds is left, by its gate alone. Up: for how many words
        its activity stays like itself, measured without the gate. Both while {sentences}
        sentences are read as one long text, without an end between them, so that half-lives
        are longer than within sentences. If gates control memory, the marks rise to the right.""",
        _half_life,
    ),
    "search.svg": (
        "Wider beams",
        """What more hypotheses bring, for {sentences} sentences of the first test set alone, so
        that BLEU is not that of the results. Only the score that search looks for, log-
        probability over a power of the length, can be expected to rise; log-probability itself
        and BLEU need not follow. A search error is a translation that scores less than another
        that some beam has found.""",
        _search,
    ),
    "first-error.svg": (
        "After the first wrong word",
        """What became of greedy translations of {sentences} sentences of the first test set. Right
        is what the reference says, to the letter. One word: they are right but for one word,
        which is another, missing or too many. Ruined: more is wrong, but all is right once the
        first wrong piece is replaced by forced decoding. Lost: wrong even then.""",
        _first_error,
    ),
    "attention-gain.svg": (
        "What attention adds",
        """BLEU points of each variant with attention minus those of its twin without, by test set.
        A hollow mark is not significant. The twin's gates, if it has any, begin with longer
        memories, and it may have a learning rate of its own.""",
        _gain,
    ),
    "word-order.svg": (
        "When the order of words changes",
        """chrF++ of sentences whose linked words keep their order, and of the two halves of those
        that change it, a little or most, by Kendall's tau (1: the same order) within each test
        set. Longer sentences change more: the claim's test takes length out.""",
        _order,
    ),
    "alignment.svg": (
        "Attention as an alignment",
        """Left: the alignment error rate of the links from each target word to the source word
        that it attends to most while the reference is forced, lower is better, with intervals:
        it counts links that are wrong as well as links that are missed. Weight on the end mark
        is left out, however large it is. The dashed line is a plain diagonal. Right: for how
        many target words two variants look at the same source word.""",
        _alignment,
    ),
}  # fmt: skip
