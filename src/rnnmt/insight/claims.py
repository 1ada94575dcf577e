"""What lecture notes say of recurrent translation, and what these data say to it.

Each claim is a function that states its rule, measures, and judges by the rule alone. A rule
speaks of all runs, so that no run is chosen by its result.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnnmt.insight.alignment import kendall_tau
from rnnmt.insight.evidence import Evidence
from rnnmt.insight.settings import OUTCOMES
from rnnmt.insight.slices import lengths
from rnnmt.scoring import metrics
from rnnmt.scoring.metrics import Array
from rnnmt.scoring.settings import EvaluateSettings

SUPPORTED, CONTRADICTED, OPEN = "supported", "not supported", "not decided by these data"

FAR = 20  # steps back
LEFT = 0.1  # of a gradient, below which it counts as lost
POINT = 1.0  # BLEU, by which "about as good" may be worse
RUINED = 0.1  # of the sentences with a wrong word: more than a curiosity
ALIGNED = 25.0  # percent, the alignment error rate of what may be called an alignment
STEADY, CHOOSY = 0.05, 0.1  # standard deviation of a gate within a cell

Floats = NDArray[np.float64]
Settings = dict[str, Any]


class DataPoint(NamedTuple):
    """A gru and an lstm variant that were trained on the same part of the training data."""

    fraction: float
    gru: str
    lstm: str


@dataclass(frozen=True)
class Claim:
    """One assertion with its rule, what was measured, and the verdict of the rule."""

    name: str
    says: str
    rule: str
    verdict: str
    measured: list[str]  # sentences, numbers with their uncertainty
    picture: str  # a file of figures/
    files: list[str]  # where the numbers stand, below reports/NAME
    numbers: dict[str, Any] = field(default_factory=dict)


def judge(evidence: Evidence) -> list[Claim]:
    """All claims that the experiment has the runs for, in the order of the notes."""
    made = [claim(evidence) for claim in CLAIMS]
    return [claim for claim in made if claim is not None]


def verdict(supported: Sequence[bool], contradicted: Sequence[bool]) -> str:
    """Supported where all say so, not supported where all say the opposite, open otherwise."""
    if supported and all(supported):
        return SUPPORTED
    return CONTRADICTED if contradicted and all(contradicted) else OPEN


def weak_signal(evidence: Evidence) -> Claim | None:
    runs = evidence.of("rnn")
    if not runs:
        return None
    flows = {run: evidence.analyses[run]["flow"]["trained"] for run in runs}
    at = FAR - 1
    radii = {run: flow["radius"] for run, flow in flows.items()}
    return Claim(
        "weak-signal",
        "The transition matrix of a standard RNN weakens the signal step by step.",
        f"Supported when in every trained rnn less than {LEFT:g} of a gradient's length is left "
        f"{FAR} steps back, in each of the texts looked at, and the spectral radius of the mean "
        "one-step Jacobian is below 1. Not supported when in every rnn more is left in each text, "
        "or the radius is 1 or more.",
        verdict(
            [flow["high"][at] < LEFT and flow["radius"] < 1 for flow in flows.values()],
            [flow["low"][at] >= LEFT or flow["radius"] >= 1 for flow in flows.values()],
        ),
        [
            f"{run}: {flow['norm'][at]:.2g} left after {FAR} steps ({flow['low'][at]:.2g} to "
            f"{flow['high'][at]:.2g} over the texts); the spectral radius of U alone is "
            f"{flow['recurrent_radius']:.2f}, with tanh's slopes {flow['radius']:.2f}."
            for run, flow in flows.items()
        ],
        "gradient-flow.svg",
        _analyses(runs),
        {"left": {run: flow["norm"][at] for run, flow in flows.items()}, "radius": radii},
    )


def poor_memory(evidence: Evidence) -> Claim | None:
    longest = longest_solved(evidence.memory)
    shorter = {task: min(by["gru"], by["lstm"]) > by["rnn"] for task, by in longest.items()}
    return Claim(
        "poor-memory",
        "Standard RNNs have poor memory.",
        "Supported when the longest lag that the rnn solves is shorter than those of the gru and "
        "of the lstm, at equal parameters, in both memory tasks; not supported when in both the "
        "rnn solves one and it is not shorter.",
        verdict(
            list(shorter.values()),
            [longest[task]["rnn"] > 0 and not s for task, s in shorter.items()],
        ),
        [
            f"{task}: longest lag solved by "
            + ", ".join(f"{cell} {lag or 'none'}" for cell, lag in by.items())
            + f", of {', '.join(map(str, sorted({r['lag'] for r in evidence.memory})))}."
            for task, by in longest.items()
        ]
        + [_solved(one) for one in evidence.memory]
        + ["One seed; the number of updates is limited: with more, longer lags may be solved."],
        "memory-tasks.svg",
        ["analysis/memory.json"],
        {"longest": longest},
    )


def _solved(one: dict[str, Any]) -> str:
    updates = one["solved_after"]
    what = f"{one['task']}, lag {one['lag']}, {one['cell']}: "
    if updates:
        return what + f"solved after {updates} updates."
    return what + f"not solved, error {one['error']:.2f} of one without memory."


def remembers(evidence: Evidence) -> Claim | None:
    runs = evidence.of("lstm")
    if not runs:
        return None
    gates = {run: evidence.analyses[run]["gates"] for run in runs}
    means = {run: _mean_interval(g["keeps_per_sentence"], evidence) for run, g in gates.items()}
    return Claim(
        "remembers-by-default",
        "LSTMs remember by default ...",
        "Supported when in every lstm the mean of the forget gate is above 0.5 (its interval "
        "over sentences too): more is kept than dropped. Not supported when it is below in every "
        "one.",
        verdict([m[1] > 0.5 for m in means.values()], [m[2] < 0.5 for m in means.values()]),
        [
            f"{run}: mean forget gate {_with(means[run])} (untrained {g['keeps_fresh']:.2f}); "
            f"half-life of the median cell {statistics.median(g['half_life_words']):.1f} words, of "
            f"the slowest {g['half_life_words'][-1]:.0f}."
            for run, g in gates.items()
        ]
        + ["The bias of the forget gate begins at 1: the default is also how it is set up."],
        "gates.svg",
        _analyses(runs),
        {"mean": {run: means[run][0] for run in runs}},
    )


def forgets(evidence: Evidence) -> Claim | None:
    runs = evidence.of("lstm")
    if not runs:
        return None
    gates = {run: evidence.analyses[run]["gates"] for run in runs}
    return Claim(
        "forgets-by-choice",
        "... and forget by choice.",
        "Supported when in every lstm the forget gate of a cell moves with the words (standard "
        f"deviation within a cell, mean over cells, of {CHOOSY:g} or more) and is below 0.5 at "
        f"some. Not supported when it hardly moves (below {STEADY:g}) in every one.",
        verdict(
            [g["within_cell_sd"] >= CHOOSY and g["closed"] > 0 for g in gates.values()],
            [g["within_cell_sd"] < STEADY for g in gates.values()],
        ),
        [
            f"{run}: standard deviation {g['within_cell_sd']:.2f}; below 0.5 in "
            f"{100 * g['closed']:.0f} % of cells and words."
            for run, g in gates.items()
        ],
        "gates.svg",
        _analyses(runs),
        {"within_cell_sd": {run: g["within_cell_sd"] for run, g in gates.items()}},
    )


def control(evidence: Evidence) -> Claim | None:
    runs = evidence.of("gru", "lstm")
    if not runs:
        return None
    found = {
        run: _rank_interval(evidence.analyses[run]["gates"]["cells"], evidence) for run in runs
    }
    return Claim(
        "gates-control",
        "Gates control how long things stay.",
        "Each cell has a half-life by its gate, and a time for which its activity really stays "
        "like itself (autocorrelation), which is measured without the gate. Supported when over "
        "the cells of every gated run the two rank alike (Spearman correlation, interval above "
        "0); not supported when in every one the interval is below 0.",
        verdict([f[1] > 0 for f in found.values()], [f[2] < 0 for f in found.values()]),
        [f"{run}: rank correlation {_with(found[run])}." for run in runs],
        "half-life.svg",
        _analyses(runs),
        {"spearman": {run: found[run][0] for run in runs}},
    )


def gru_is_faster(evidence: Evidence) -> Claim | None:
    pairs = cell_pairs(evidence)
    if not pairs:
        return None
    seconds = {p: [_epoch_seconds(evidence, v) for v in p] for p in pairs}
    return Claim(
        "gru-faster",
        "GRUs are faster than LSTMs.",
        "Supported when an epoch of the gru takes less time than one of the lstm that differs "
        "from it in the cell only, in every such pair; not supported when it takes more in every "
        "one.",
        verdict([a < b for a, b in seconds.values()], [a > b for a, b in seconds.values()]),
        [
            f"{gru}: {a:.1f} s an epoch, {lstm}: {b:.1f} s, at {_parameters(evidence, gru):,} and "
            f"{_parameters(evidence, lstm):,} parameters."
            for (gru, lstm), (a, b) in seconds.items()
        ]
        + [
            "A time is of one machine, one kernel and what else ran there; the products of a gru's "
            "cell are three quarters of those of an lstm's of the same width."
        ],
        "cost.svg",
        ["comparison.json"],
        {"epoch_seconds": {f"{a} {b}": s for (a, b), s in seconds.items()}},
    )


def gru_is_as_good(evidence: Evidence) -> Claim | None:
    pairs = cell_pairs(evidence)
    if not pairs:
        return None
    split, found = evidence.tests[0], {}
    for gru, lstm in pairs:
        rows = [_stats(evidence, variant, split) for variant in (gru, lstm)]
        found[gru, lstm] = _bootstrap(
            lambda weight, rows=rows: _bleu(rows[0], weight) - _bleu(rows[1], weight),  # type: ignore[misc]
            rows[0].shape[1],
            evidence.scoring,
        )
    return Claim(
        "gru-as-good",
        "GRUs are about as good as LSTMs ...",
        f"Supported when in every pair the gru's BLEU on {split} is at most {POINT:g} point below "
        "the lstm's (its interval too); not supported when it is more than that below in every "
        "one.",
        verdict([f[1] > -POINT for f in found.values()], [f[2] < -POINT for f in found.values()]),
        [f"{gru} minus {lstm}: {_with(found[gru, lstm], '+.1f')} BLEU." for gru, lstm in pairs]
        + ["The interval is over sentences, of the seeds that were trained."]
        + ["There is one size of training data."] * (not data_series(evidence)),
        "cost.svg",
        [f"translations/RUN/{split}.beam.txt"],
        {"difference": {f"{a} {b}": found[a, b][0] for a, b in pairs}},
    )


def gru_on_small_data(evidence: Evidence) -> Claim | None:
    series = data_series(evidence)
    if not series:
        return None
    split = evidence.tests[0]
    sentences = len(evidence.wanted.splits[split])
    rows = {v: _stats(evidence, v, split) for of in series for _, *pair in of for v in pair}

    def ahead(pair: DataPoint, weight: Floats) -> float:
        return _bleu(rows[pair.gru], weight) - _bleu(rows[pair.lstm], weight)

    found = [
        _bootstrap(
            lambda weight, of=of: ahead(of[0], weight) - ahead(of[-1], weight),  # type: ignore[misc]
            sentences,
            evidence.scoring,
        )
        for of in series
    ]
    one = np.ones(sentences)
    return Claim(
        "gru-small-data",
        "... above all on small data.",
        "Of gru and lstm variants that differ in the cell, and maybe the learning rate, trained on "
        f"parts of the training data: supported when the gru's BLEU on {split} minus the lstm's is "
        "greater on the smallest part than on the largest (interval of the change above 0), in "
        "every such series; not supported when it is less in every one (below 0).",
        verdict([f[1] > 0 for f in found], [f[2] < 0 for f in found]),
        [
            f"{100 * pair.fraction:g} % of the data: {pair.gru} {_bleu(rows[pair.gru], one):.1f}, "
            f"{pair.lstm} {_bleu(rows[pair.lstm], one):.1f}, {ahead(pair, one):+.1f} BLEU."
            for of in series
            for pair in of
        ]
        + [
            f"From {100 * of[-1].fraction:g} to {100 * of[0].fraction:g} %, the gru gains "
            f"{_with(change, '+.1f')} BLEU on the lstm."
            for of, change in zip(series, found, strict=True)
        ]
        + ["The intervals are over sentences, of the seeds that were trained."]
        + ["The tokenizer is that of all training data."],
        "data.svg",
        [f"translations/RUN/{split}.beam.txt"],
        {"change": [round(f[0], 2) for f in found]},
    )


def fixed_state(evidence: Evidence) -> Claim | None:
    if not evidence.twins:
        return None
    sizes = np.concatenate([lengths(evidence.sources[split]) for split in evidence.tests])
    short, long = sizes <= np.quantile(sizes, 1 / 3), sizes > np.quantile(sizes, 2 / 3)
    variants = _variant_twins(evidence)
    rows = {v: _all_stats(evidence, v) for pair in variants for v in pair}

    def kept(variant: str, weight: Floats) -> float:
        parts = [_bleu(rows[variant], weight * chosen) for chosen in (long, short)]
        return 100 * parts[0] / max(parts[1], 1e-9)

    found = {
        (a, b): _bootstrap(
            lambda weight, a=a, b=b: kept(a, weight) - kept(b, weight),  # type: ignore[misc]
            len(sizes),
            evidence.scoring,
        )
        for a, b in variants
    }
    one = np.ones(len(sizes))
    return Claim(
        "fixed-state",
        "One fixed-size state cannot hold a long sentence.",
        "Of its BLEU on the shortest third of the test sentences, a variant keeps some share on "
        "the longest third. Supported when every variant without attention keeps less than each "
        "of its twins with attention (interval of the difference above 0); not supported when "
        "none does.",
        verdict([f[1] > 0 for f in found.values()], [f[1] <= 0 for f in found.values()]),
        [
            f"{b} keeps {kept(b, one):.0f} %, {a} {kept(a, one):.0f} %: "
            f"{_with(found[a, b], '+.0f')} percentage points."
            for a, b in variants
        ],
        "length.svg",
        ["translations/RUN/SPLIT.beam.txt"],
        {"difference": {f"{a} {b}": found[a, b][0] for a, b in variants}},
    )


def one_wrong_word(evidence: Evidence) -> Claim | None:
    found = {}
    for run in evidence.runs:
        counts = evidence.analyses[run]["search"]["first_error"]
        wrong = [counts[name] for name in OUTCOMES[1:]]
        found[run] = (*_share(counts["ruined"], sum(wrong)), sum(wrong), counts)
    return Claim(
        "one-wrong-word",
        "A single wrong word throws off a greedy translation.",
        "Where a greedy translation differs from the reference, its first wrong piece is replaced "
        "by forced decoding. Supported when in every run, of the translations with a wrong piece, "
        f"more than {100 * RUINED:.0f} % become right as a whole by that alone (lower end of the "
        "interval); not supported when it is fewer in every one (upper end).",
        verdict(
            [low > RUINED for _, low, _, _, _ in found.values()],
            [high < RUINED for _, _, high, _, _ in found.values()],
        ),
        [
            f"{run}: of {n} with a wrong piece, {100 * share:.0f} % [{100 * low:.0f}, "
            f"{100 * high:.0f}] ruined by it; {counts['one word']} right but for it, "
            f"{counts['lost']} wrong even with it replaced."
            for run, (share, low, high, n, counts) in found.items()
        ],
        "first-error.svg",
        _analyses(evidence.runs),
        {"ruined": {run: round(f[0], 4) for run, f in found.items()}},
    )


def beam_helps(evidence: Evidence) -> Claim | None:
    tests = evidence.comparison["tests"]["beam"]
    better, worse = significant(tests, evidence.scoring)
    return Claim(
        "beam-helps",
        "Beam search helps.",
        "Over all variants and test sets: supported when beam search is significantly better than "
        "greedy search (paired test, Holm) in more than half, and worse in at most a tenth; not "
        "supported when it is better in fewer than half.",
        SUPPORTED
        if better > len(tests) / 2 and worse <= len(tests) / 10
        else (CONTRADICTED if better < len(tests) / 2 else OPEN),
        [f"Better in {better} of {len(tests)}, worse in {worse}."]
        + [
            f"{t['variant']} on {t['split']}: {t['difference']:+.1f} BLEU, p {t['p_holm']:.3f}."
            for t in tests
        ],
        "search.svg",
        ["comparison.json"],
        {"better": better, "worse": worse, "tests": len(tests)},
    )


def attention_helps(evidence: Evidence) -> Claim | None:
    tests = evidence.comparison["tests"]["attention"]
    if not tests:
        return None
    better, worse = significant(tests, evidence.scoring)
    return Claim(
        "attention-helps",
        "Attention gives better translations ...",
        "Supported when on every test set every variant with attention is significantly better "
        "than its twin without (paired test, Holm); not supported when none is.",
        SUPPORTED if better == len(tests) else (CONTRADICTED if not better else OPEN),
        [f"Better in {better} of {len(tests)}, worse in {worse}."]
        + [
            f"{t['variant']} against {t['baseline']} on {t['split']}: {t['difference']:+.1f} BLEU, "
            f"p {t['p_holm']:.3f}."
            for t in tests
        ],
        "attention-gain.svg",
        ["comparison.json"],
        {"better": better, "tests": len(tests)},
    )


def more_with_order(evidence: Evidence) -> Claim | None:
    variants = _variant_twins(evidence)
    if not variants:
        return None
    disorder = np.array(
        [1 - kendall_tau(pair.sure) for split in evidence.tests for pair in evidence.links[split]]
    )
    sizes = np.concatenate([lengths(evidence.sources[split]) for split in evidence.tests])
    columns = np.stack([np.ones(len(sizes)), disorder, np.log(np.maximum(sizes, 1))], axis=1)
    found = {}
    for a, b in variants:
        gain = _sentence_chrf(evidence, a) - _sentence_chrf(evidence, b)
        found[a, b] = _bootstrap(
            lambda weight, gain=gain: slope(columns, gain, weight),  # type: ignore[misc]
            len(gain),
            evidence.scoring,
        )
    kind = "true" if evidence.links_are_true else "a statistical aligner's"
    return Claim(
        "more-with-order",
        "... the more, the more word order differs.",
        "The gain in sentence chrF++ over the twin without attention is fitted, by least squares, "
        f"to 1 - Kendall's tau of the word links ({kind}) and, since longer sentences have both, "
        "to the logarithm of the length. Supported when the gain grows with 1 - tau for every "
        "pair (interval above 0); not supported when for every pair it falls (below 0).",
        verdict([f[1] > 0 for f in found.values()], [f[2] < 0 for f in found.values()]),
        [
            f"{a} over {b}: {_with(found[a, b], '+.1f')} chrF++ per unit of 1 - tau."
            for a, b in variants
        ]
        + ["Where the twin translates hardly anything, as much is left to gain in any order."],
        "word-order.svg",
        ["translations/RUN/SPLIT.beam.txt"],
        {"slope": {f"{a} {b}": found[a, b][0] for a, b in variants}},
    )


def weights_are_alignments(evidence: Evidence) -> Claim | None:
    runs, split = evidence.attending, evidence.tests[0]
    if not runs:
        return None
    found = {run: evidence.analyses[run]["alignment"][split] for run in runs}
    aer = {run: one["aer"] for run, one in found.items()}
    kind = "true word links" if evidence.links_are_true else "links of a statistical aligner"
    return Claim(
        "alignments",
        "Attention's weights are alignments.",
        f"Each target word's strongest source word is compared with the {kind} of {split}. "
        f"Supported when every run's alignment error rate is below {ALIGNED:.0f} % (interval too); "
        "not supported when it is above in every run.",
        verdict(
            [one["high"] < ALIGNED for one in aer.values()],
            [one["low"] > ALIGNED for one in aer.values()],
        ),
        [
            f"{run} ({evidence.attention(run)}): {one['aer']['score']:.1f} % "
            f"[{one['aer']['low']:.1f}, {one['aer']['high']:.1f}], entropy "
            f"{one['entropy_bits']['score']:.2f} bits."
            for run, one in found.items()
        ]
        + [f"A plain diagonal has {found[runs[0]]['aer_diagonal']['score']:.1f} %."],
        "alignment.svg",
        _analyses(runs),
        {"aer": {run: one["score"] for run, one in aer.items()}},
    )


CLAIMS: tuple[Callable[[Evidence], Claim | None], ...] = (
    weak_signal,
    poor_memory,
    remembers,
    forgets,
    control,
    gru_is_faster,
    gru_is_as_good,
    gru_on_small_data,
    fixed_state,
    one_wrong_word,
    beam_helps,
    attention_helps,
    more_with_order,
    weights_are_alignments,
)


def longest_solved(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """task -> cell -> the longest lag that was solved, 0 where none was."""
    found: dict[str, dict[str, int]] = {}
    for one in results:
        by_cell = found.setdefault(one["task"], {})
        solved = one["lag"] if one["solved_after"] else 0
        by_cell[one["cell"]] = max(by_cell.get(one["cell"], 0), solved)
    return found


def cell_pairs(evidence: Evidence) -> list[tuple[str, str]]:
    """The gru and lstm variants that have all but the cell and the learning rate in common."""

    def cell(name: str) -> str:
        return str(evidence.settings(name, "model")["cell"])

    def rest(name: str) -> tuple[Settings, Settings]:
        return _but(evidence, name, "model", "cell"), _but(evidence, name, "train", "learning_rate")

    return [
        (a, b)
        for a in evidence.variants
        for b in evidence.variants
        if (cell(a), cell(b)) == ("gru", "lstm") and rest(a) == rest(b)
    ]


def data_series(evidence: Evidence) -> list[list[DataPoint]]:
    """The cell pairs that are alike but for how much they were trained on, from little to much.

    They may differ in the number of epochs too: little data needs more of them.
    """
    series: list[tuple[object, list[DataPoint]]] = []
    for gru, lstm in cell_pairs(evidence):
        own = ("learning_rate", "fraction", "max_epochs", "patience")
        alike = _but(evidence, gru, "model"), _but(evidence, gru, "train", *own)
        point = DataPoint(float(evidence.settings(gru, "train").get("fraction", 1.0)), gru, lstm)
        for known, points in series:
            if known == alike:
                points.append(point)
                break
        else:
            series.append((alike, [point]))
    return [sorted(points) for _, points in series if len({p.fraction for p in points}) > 1]


def _but(evidence: Evidence, variant: str, part: str, *own: str) -> Settings:
    """A variant's settings without the keys that are its own."""
    return {k: v for k, v in evidence.settings(variant, part).items() if k not in own}


def significant(tests: Sequence[dict[str, Any]], settings: EvaluateSettings) -> tuple[int, int]:
    """How many paired tests find a significant gain, and how many a significant loss."""
    clear = [t["difference"] for t in tests if t["p_holm"] < 1 - settings.confidence]
    return sum(d > 0 for d in clear), sum(d < 0 for d in clear)


def slope(columns: Floats, gain: Floats, weight: Floats) -> float:
    """The weighted least-squares coefficient of the second of the columns (sentences, 3)."""
    weighted = columns * weight[:, None]
    solution = np.linalg.lstsq(columns.T @ weighted, weighted.T @ gain, rcond=None)[0]
    return float(solution[1])


def _variant_twins(evidence: Evidence) -> list[tuple[str, str]]:
    names = [tuple(run.rpartition("-")[0] for run in pair) for pair in evidence.twins]
    return list(dict.fromkeys((a, b) for a, b in names))


def _runs(evidence: Evidence, variant: str) -> list[str]:
    return [name for name, run in evidence.runs.items() if run.variant == variant]


def _stats(evidence: Evidence, variant: str, split: str) -> Array:
    """BLEU's statistics of beam search, (seeds, sentences, k)."""
    return np.stack([evidence.statistics("bleu", r, split) for r in _runs(evidence, variant)])


def _all_stats(evidence: Evidence, variant: str) -> Array:
    return np.concatenate([_stats(evidence, variant, s) for s in evidence.tests], axis=1)


def _sentence_chrf(evidence: Evidence, variant: str) -> Floats:
    """chrF++ of each sentence of all test sets, the mean over the seeds."""
    score = partial(metrics.score, "chrf")
    by_seed = [
        [score(row) for split in evidence.tests for row in evidence.statistics("chrf", run, split)]
        for run in _runs(evidence, variant)
    ]
    return np.asarray(np.mean(by_seed, axis=0))


def _bleu(rows: Array, weight: Floats) -> float:
    """The mean over seeds of BLEU, of rows (seeds, sentences, k) counted so many times each."""
    scores = [metrics.score("bleu", weight @ of_seed) for of_seed in rows]
    return sum(scores) / len(scores)


def _bootstrap(
    measure: Callable[[Floats], float], sentences: int, settings: EvaluateSettings
) -> tuple[float, float, float]:
    """A measure of weighted sentences, and the ends of its percentile interval."""
    random = np.random.default_rng(settings.seed)
    drawn = [
        measure(
            np.bincount(random.integers(sentences, size=sentences), minlength=sentences).astype(
                float
            )
        )
        for _ in range(settings.bootstrap_samples)
    ]
    low, high = np.quantile(drawn, [(1 - settings.confidence) / 2, (1 + settings.confidence) / 2])
    return measure(np.ones(sentences)), float(low), float(high)


def _mean_interval(values: Sequence[float], evidence: Evidence) -> tuple[float, float, float]:
    array = np.array(values)
    return _bootstrap(lambda w: float(w @ array / w.sum()), len(array), evidence.scoring)


def _rank_interval(
    cells: Sequence[dict[str, float]], evidence: Evidence
) -> tuple[float, float, float]:
    """Spearman's correlation over the cells of half-life and correlation time."""
    ranks = [
        np.argsort(np.argsort([cell[key] for cell in cells], kind="stable")).astype(float)
        for key in ("half_life", "correlation_time")
    ]

    def correlation(weight: Floats) -> float:
        x, y = (r - weight @ r / weight.sum() for r in ranks)
        return float(weight @ (x * y) / np.sqrt((weight @ x**2) * (weight @ y**2)))

    return _bootstrap(correlation, len(cells), evidence.scoring)


def _share(part: int, whole: int) -> tuple[float, float, float]:
    """A share and its 95 % interval (Wilson 1927), which is honest with few."""
    if not whole:
        return 0.0, 0.0, 1.0
    z, share = 1.96, part / whole
    middle = (share + z * z / (2 * whole)) / (1 + z * z / whole)
    half = z * np.sqrt(share * (1 - share) / whole + z * z / (4 * whole**2)) / (1 + z * z / whole)
    return share, float(middle - half), float(middle + half)


def _epoch_seconds(evidence: Evidence, variant: str) -> float:
    trainings = evidence.comparison["variants"][variant]["training"]
    return float(statistics.mean(t["seconds"] / t["epochs"] for t in trainings))


def _parameters(evidence: Evidence, variant: str) -> int:
    return int(evidence.comparison["variants"][variant]["training"][0]["parameters"])


def _analyses(runs: Sequence[str] | dict[str, Any]) -> list[str]:
    return [f"analysis/{run}.json" for run in runs]


def _with(found: tuple[float, float, float], digits: str = ".2f") -> str:
    value, low, high = (format(x, digits) for x in found)
    return f"{value} [{low}, {high}]"


def markdown(claims: Sequence[Claim], corpus: str, settings: EvaluateSettings) -> str:
    """claims.md."""
    counts = {v: sum(c.verdict == v for c in claims) for v in (SUPPORTED, CONTRADICTED, OPEN)}
    parts = [
        f"# What the lecture notes say, and what `{corpus}` says to it",
        "Each verdict is computed by a rule that stands in the code "
        "(`src/rnnmt/insight/claims.py`) and is the same for every corpus. [Brackets] hold "
        f"{100 * settings.confidence:g} % intervals. "
        + ", ".join(f"{verdict}: {n}" for verdict, n in counts.items())
        + ".",
        "| claim | verdict |\n| --- | --- |\n"
        + "\n".join(f"| [{c.says}](#{c.name}) | **{c.verdict}** |" for c in claims),
    ]
    for claim in claims:
        measured = "\n".join(f"- {line}" for line in claim.measured)
        files = ", ".join(f"`{file}`" for file in claim.files)
        parts.append(
            f'<a id="{claim.name}"></a>\n\n## {claim.says}\n\n**{claim.verdict}**\n\n'
            f"*Rule.* {claim.rule}\n\n{measured}\n\n"
            f"![{claim.says}](figures/{claim.picture})\n\nNumbers: {files}."
        )
    return "\n\n".join(parts) + "\n"
