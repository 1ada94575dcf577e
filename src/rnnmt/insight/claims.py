"""What lecture notes say of recurrent translation, and what these data say to it.

Each statement has a rule, which is the same for every corpus, and a function that measures and
judges by the rule alone. A rule speaks of all runs, so that no run is chosen by its result, and
wants evidence for either answer: what is not shown is not thereby refuted.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from rnnmt.insight import cost, estimates, keeping
from rnnmt.insight.alignment import kendall_tau
from rnnmt.insight.estimates import Estimate, Floats, bootstrap
from rnnmt.insight.evidence import Evidence
from rnnmt.insight.pairs import (
    ALIKE,
    DataPoint,
    Pair,
    attention_twins,
    cell_pairs,
    data_series,
    equal_parameters,
    parameters,
)
from rnnmt.insight.settings import OUTCOMES
from rnnmt.insight.slices import lengths
from rnnmt.scoring import metrics
from rnnmt.scoring.comparison import signed
from rnnmt.scoring.metrics import Array
from rnnmt.scoring.settings import EvaluateSettings

SUPPORTED, CONTRADICTED, OPEN = "supported", "not supported", "not decided by these data"

FAR = 20  # steps back
LEFT = 0.1  # of a gradient, below which it counts as lost
FAILED = 0.5  # of the error without memory, above which a lag is clearly too long
FASTER = 0.05  # by which times must differ
TRAININGS = 3  # of each cell; with fewer, one may be faster than all others by chance
POINT = 1.0  # BLEU, by which "about as good" may be worse
RUINED = 0.1  # of the sentences with a wrong word: more than a curiosity
ALIGNED = 25.0  # percent, the alignment error rate of what may be called an alignment
STEADY, CHOOSY = 0.05, 0.1  # standard deviation of a gate within a cell

Found = dict[Pair, Estimate]


@dataclass(frozen=True)
class Claim:
    """One assertion with its rule, what was measured, and the verdict of the rule."""

    name: str
    says: str
    rule: str
    verdict: str
    measured: list[str]  # sentences, numbers with their uncertainty
    picture: str  # a file of figures/; empty where nothing was measured
    files: list[str]  # where the numbers stand, below reports/NAME
    numbers: dict[str, Any] = field(default_factory=dict)


class Finding(NamedTuple):
    """The part of a claim that depends on the data."""

    verdict: str
    measured: list[str]
    files: list[str]
    numbers: dict[str, Any]


class Statement(NamedTuple):
    """The part of a claim that does not, and the function that judges."""

    name: str
    says: str
    rule: str
    picture: str
    measure: Callable[[Evidence], Finding | None]  # None where there is no run for it


def judge(evidence: Evidence) -> list[Claim]:
    """All claims, in the order of the notes."""
    return [judged(statement, evidence) for statement in STATEMENTS]


def judged(statement: Statement, evidence: Evidence) -> Claim:
    """One statement as a claim."""
    found = statement.measure(evidence)
    name, says, rule, picture, _ = statement
    if found is None:
        return Claim(name, says, rule, OPEN, ["There are no runs for it here."], "", [])
    return Claim(name, says, rule, found.verdict, found.measured, picture, *found[2:])


def verdict(supported: Sequence[bool], contradicted: Sequence[bool]) -> str:
    """Supported where all say so, not supported where all say the opposite, open otherwise."""
    if supported and all(supported):
        return SUPPORTED
    return CONTRADICTED if contradicted and all(contradicted) else OPEN


# --- memory ---------------------------------------------------------------------------------


def weak_signal(evidence: Evidence) -> Finding | None:
    runs = evidence.of("rnn")
    if not runs:
        return None
    peers = {run: _gated_peers(evidence, run) for run in runs}
    compared = [peer for some in peers.values() for peer in some]
    others = [run for run in evidence.of(*keeping.GATED) if run not in compared]
    return Finding(
        verdict(
            [_weakens(evidence, run, peers[run]) for run in runs],
            [_lasts(evidence, run, peers[run]) for run in runs],
        ),
        [_signal(evidence, run, peers[run]) for run in runs]
        + [f"No rnn has the attention of {_all_left(evidence, others)}."] * bool(others)
        + [
            "[Brackets] hold the least and the greatest of the texts here.",
            "U begins orthogonal, with radius 1. A radius of 1 or more does not refute the claim: "
            "it is that of the slowest direction alone.",
        ],
        ["tables/gradient-flow.csv", "tables/radius.csv"],
        {
            "left": {run: _left(evidence, run).rounded() for run in runs},
            "left_gated": {run: _left(evidence, run).rounded() for run in [*compared, *others]},
            "radius": {run: _trained(evidence, run)["radius"] for run in runs},
            "recurrent_radius": {run: _trained(evidence, run)["recurrent_radius"] for run in runs},
        },
    )


def _weakens(evidence: Evidence, run: str, peers: Sequence[str]) -> bool:
    left = _left(evidence, run)
    return (
        left.below(LEFT)
        and _trained(evidence, run)["recurrent_radius"] < 1
        and bool(peers)
        and all(left.below(_left(evidence, peer).low) for peer in peers)
    )


def _lasts(evidence: Evidence, run: str, peers: Sequence[str]) -> bool:
    left = _left(evidence, run)
    beats_all = bool(peers) and all(left.above(_left(evidence, peer).high) for peer in peers)
    return left.low >= LEFT or beats_all


def _signal(evidence: Evidence, run: str, peers: Sequence[str]) -> str:
    flow = _trained(evidence, run)
    beside = _all_left(evidence, peers) or "no gated run with its attention"
    return (
        f"{_all_left(evidence, [run])} left after {FAR} steps; beside it {beside}. The spectral "
        f"radius of U alone is {flow['recurrent_radius']:.2f}, with tanh's slopes "
        f"{flow['radius']:.2f}."
    )


def _all_left(evidence: Evidence, runs: Sequence[str]) -> str:
    return ", ".join(f"{run} {_left(evidence, run).shown('.2g')}" for run in runs)


def _trained(evidence: Evidence, run: str) -> dict[str, Any]:
    found: dict[str, Any] = evidence.analyses[run]["flow"]["trained"]
    return found


def _left(evidence: Evidence, run: str) -> Estimate:
    """What is left of a gradient `FAR` steps back; the ends are those over the texts."""
    flow = _trained(evidence, run)
    return Estimate(*(flow[key][FAR - 1] for key in ("norm", "low", "high")))


def _gated_peers(evidence: Evidence, run: str) -> list[str]:
    """The gated runs of the same attention."""
    attention = evidence.attention(run)
    return [peer for peer in evidence.of(*keeping.GATED) if evidence.attention(peer) == attention]


def poor_memory(evidence: Evidence) -> Finding | None:
    if not evidence.memory:
        return None
    lags = ", ".join(map(str, sorted({one["lag"] for one in evidence.memory})))
    tasks = {
        task: Remembered.of([one for one in evidence.memory if one["task"] == task])
        for task in dict.fromkeys(one["task"] for one in evidence.memory)
    }
    seeds = len({one["seed"] for one in evidence.memory})
    return Finding(
        verdict(
            [_rnn_falls_short(results) for results in tasks.values()],
            [_rnn_keeps_up(results) for results in tasks.values()],
        ),
        [
            f"{task}: longest lag solved with every seed by "
            + ", ".join(f"{cell} {lag or 'none'}" for cell, lag in results.by_all.items())
            + f", of {lags}."
            for task, results in tasks.items()
        ]
        + [
            f"{task}, lag {lag}, {cell}: {_solved(trials)}."
            for task, results in tasks.items()
            for (cell, lag), trials in results.trials.items()
        ]
        + [
            "Gates begin with memories of up to 20 steps, as those of translation models without "
            "attention; each cell has the learning rate with which it solves the longest lags.",
            f"{seeds} {'seeds' if seeds > 1 else 'seed'}; the number of updates is limited: with "
            "more, longer lags may be solved.",
        ],
        ["tables/memory.csv"],
        {"longest": {task: results.by_all for task, results in tasks.items()}},
    )


class Remembered(NamedTuple):
    """One memory task: what each cell has solved with every seed, and with any of them."""

    trials: dict[tuple[str, int], list[dict[str, Any]]]  # of each cell and lag, one for each seed
    by_all: dict[str, int]  # cell -> the longest lag, 0 where there is none
    by_any: dict[str, int]

    @classmethod
    def of(cls, results: Sequence[dict[str, Any]]) -> Remembered:
        trials: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for one in results:
            trials.setdefault((one["cell"], one["lag"]), []).append(one)

        def longest(enough: Callable[[Iterable[object]], bool]) -> dict[str, int]:
            found = dict.fromkeys((cell for cell, _ in trials), 0)
            for (cell, lag), some in trials.items():
                if enough(one["solved_after"] for one in some):
                    found[cell] = max(found[cell], lag)
            return found

        return cls(trials, longest(all), longest(any))

    def fails(self, cell: str, lag: int) -> bool:
        """Clearly, with every seed."""
        return all(one["error"] > FAILED for one in self.trials[cell, lag])


def _rnn_falls_short(results: Remembered) -> bool:
    """In one task; see the rule."""
    longest = results.by_all
    return all(
        longest[cell] > results.by_any["rnn"] and results.fails("rnn", longest[cell])
        for cell in keeping.GATED
    )


def _rnn_keeps_up(results: Remembered) -> bool:
    """In one task; see the rule."""
    mine = results.by_all["rnn"]
    beyond = [lag for _, lag in results.trials if lag > mine]
    return bool(mine and beyond) and all(
        results.by_any[cell] <= mine and results.fails(cell, min(beyond)) for cell in keeping.GATED
    )


def _solved(trials: Sequence[dict[str, Any]]) -> str:
    updates = [one["solved_after"] for one in trials if one["solved_after"]]
    errors = [one["error"] for one in trials if not one["solved_after"]]
    after = f"solved after {_range(updates, 'd')} updates" if updates else "not solved"
    if not errors:
        return after
    some = f" with {len(updates)} of {len(trials)} seeds" if updates else ""
    return f"{after}{some}, error {_range(errors, '.2f')} of one without memory"


def _range(values: Sequence[float], form: str) -> str:
    """`75` or `75 to 100`."""
    ends = dict.fromkeys(format(end, form) for end in (min(values), max(values)))
    return " to ".join(ends)


# --- gates ----------------------------------------------------------------------------------


def remembers(evidence: Evidence) -> Finding | None:
    runs = evidence.of("lstm")
    if not runs:
        return None
    means = {run: keeping.openness(evidence, run) for run in runs}
    return Finding(
        verdict([m.above(0.5) for m in means.values()], [m.below(0.5) for m in means.values()]),
        [_kept(run, found, evidence.analyses[run]["gates"]) for run, found in means.items()]
        + ["The default is also how it is set up: by the biases with which the gates begin."],
        ["tables/keeping.csv"],
        {"mean": {run: found.rounded() for run, found in means.items()}},
    )


def _kept(run: str, found: Estimate, gates: dict[str, Any]) -> str:
    lives = gates["half_life_words"]
    return (
        f"{run}: mean forget gate {found.shown()} (untrained {gates['keeps_fresh']:.2f}); "
        f"half-life of the median cell {statistics.median(lives):.1f} words, of the slowest "
        f"{lives[-1]:.0f}."
    )


def forgets(evidence: Evidence) -> Finding | None:
    runs = evidence.of("lstm")
    if not runs:
        return None
    gates = {run: evidence.analyses[run]["gates"] for run in runs}
    return Finding(
        verdict(
            [g["within_cell_sd"] >= CHOOSY and g["closed"] > 0 for g in gates.values()],
            [g["within_cell_sd"] < STEADY for g in gates.values()],
        ),
        [
            f"{run}: standard deviation {g['within_cell_sd']:.2f}; below 0.5 in "
            f"{100 * g['closed']:.0f} % of cells and words."
            for run, g in gates.items()
        ],
        ["tables/keeping.csv"],
        {"within_cell_sd": {run: g["within_cell_sd"] for run, g in gates.items()}},
    )


def control(evidence: Evidence) -> Finding | None:
    runs = evidence.of(*keeping.GATED)
    if not runs:
        return None
    found = {run: keeping.obedience(evidence, run) for run in runs}
    return Finding(
        verdict([f.above(0) for f in found.values()], [f.below(0) for f in found.values()]),
        [f"{run}: rank correlation {found[run].shown()}." for run in runs],
        ["tables/keeping.csv", "tables/half-life.csv"],
        {"spearman": {run: found[run].rounded() for run in runs}},
    )


# --- lstm or gru ----------------------------------------------------------------------------


def gru_is_faster(evidence: Evidence) -> Finding | None:
    pairs = cell_pairs(evidence)
    if not pairs:
        return None
    ratios = {pair: _time_ratio(evidence, pair) for pair in pairs}
    return Finding(
        verdict(
            [r.below(1 - FASTER) and _timed(evidence, pair) for pair, r in ratios.items()],
            [r.above(1 + FASTER) and _timed(evidence, pair) for pair, r in ratios.items()],
        ),
        [
            f"{_pace(evidence, gru)}; {_pace(evidence, lstm)}: ratio of times {found.shown()}, the "
            "brackets from the fastest gru over the slowest lstm to the reverse."
            if len(_epoch_seconds(evidence, gru)) > 1
            else f"{_pace(evidence, gru)}; {_pace(evidence, lstm)}: ratio of times "
            f"{found.value:.2f}, of one training each, where {TRAININGS} are wanted."
            for (gru, lstm), found in ratios.items()
        ]
        + [
            "Times are rough on a machine that others share, and those of one machine and one "
            "kernel; operations are counted by the equations, for one piece of the translation."
        ],
        ["comparison.json", "tables/cost.csv"],
        {"time_ratio": _by_pair(ratios)},
    )


def _time_ratio(evidence: Evidence, pair: Pair) -> Estimate:
    """Epochs of one training share the load of its machine: only trainings are independent."""
    gru, lstm = (_epoch_seconds(evidence, variant) for variant in pair)
    ratio = statistics.geometric_mean(gru) / statistics.geometric_mean(lstm)
    return Estimate(ratio, min(gru) / max(lstm), max(gru) / min(lstm))


def _timed(evidence: Evidence, pair: Pair) -> bool:
    trainings = [evidence.comparison["variants"][variant]["training"] for variant in pair]
    alike = len({training.get("precision") for of in trainings for training in of}) == 1
    return alike and all(len(of) >= TRAININGS for of in trainings)


def _epoch_seconds(evidence: Evidence, variant: str) -> list[float]:
    """Of each training the mean, without validation."""
    trainings = evidence.comparison["variants"][variant]["training"]
    means = (statistics.mean(training["training_seconds"]) for training in trainings)
    return [max(0.001, mean) for mean in means]  # which are rounded


def _pace(evidence: Evidence, variant: str) -> str:
    seconds = statistics.mean(_epoch_seconds(evidence, variant))
    millions = cost.of_variant(evidence, variant) / 1e6
    return (
        f"{variant}: {seconds:.1f} s an epoch, {millions:.2f} M operations, "
        f"{parameters(evidence, variant):,} parameters"
    )


def gru_is_as_good(evidence: Evidence) -> Finding | None:
    kinds = dict.fromkeys(cell_pairs(evidence), "equal width")
    kinds |= dict.fromkeys(equal_parameters(evidence), "equal parameters")
    if not kinds:
        return None
    found = {pair: _bleu_difference(evidence, pair) for pair in kinds}
    return Finding(
        verdict(
            [f.above(-POINT) for f in found.values()], [f.below(-POINT) for f in found.values()]
        ),
        [
            f"{gru} minus {lstm} ({kinds[gru, lstm]}): {f.shown('+.1f')} BLEU."
            for (gru, lstm), f in found.items()
        ]
        + ["The interval is over sentences, of the seeds that were trained."]
        + ["There is one size of training data."] * (not data_series(evidence)),
        ["claims.json", "comparison.json"],
        {"difference": _by_pair(found), "kind": {f"{a} {b}": k for (a, b), k in kinds.items()}},
    )


def _bleu_difference(evidence: Evidence, pair: Pair) -> Estimate:
    a, b = (_stats(evidence, variant, evidence.tests[0]) for variant in pair)
    return bootstrap(lambda w: _bleu(a, w) - _bleu(b, w), a.shape[1], evidence.scoring)


def gru_on_small_data(evidence: Evidence) -> Finding | None:
    series = data_series(evidence)
    if not series:
        return None
    slopes = [_per_halving(evidence, points) for points in series]
    return Finding(
        verdict([s.above(0) for s in slopes], [s.below(0) for s in slopes]),
        [_at_size(evidence, point) for points in series for point in points]
        + [
            f"From {100 * points[-1].fraction:g} to {100 * points[0].fraction:g} %, the gru gains "
            f"{slope.shown('+.1f')} BLEU on the lstm with each halving of the data."
            for points, slope in zip(series, slopes, strict=True)
        ]
        + ["The intervals are over sentences, of the seeds that were trained."]
        + ["The tokenizer is that of all training data."],
        ["claims.json", "comparison.json"],
        {"per_halving": [slope.rounded() for slope in slopes]},
    )


def _per_halving(evidence: Evidence, points: Sequence[DataPoint]) -> Estimate:
    """By how much the gru's lead rises when the data are halved, over all of the points."""
    split = evidence.tests[0]
    leads = [
        (_stats(evidence, point.gru, split), _stats(evidence, point.lstm, split))
        for point in points
    ]
    halvings = -np.log2([point.fraction for point in points])
    apart = halvings - halvings.mean()

    def slope(weight: Floats) -> float:
        differences = [_bleu(gru, weight) - _bleu(lstm, weight) for gru, lstm in leads]
        return float(apart @ differences / (apart @ apart))

    return bootstrap(slope, leads[0][0].shape[1], evidence.scoring)


def _at_size(evidence: Evidence, point: DataPoint) -> str:
    gru, lstm = (_whole_bleu(evidence, v, evidence.tests[0]) for v in (point.gru, point.lstm))
    return (
        f"{100 * point.fraction:g} % of the data: {point.gru} {gru:.1f}, {point.lstm} {lstm:.1f}, "
        f"{gru - lstm:+.1f} BLEU."
    )


# --- search and attention -------------------------------------------------------------------


def fixed_state(evidence: Evidence) -> Finding | None:
    twins = attention_twins(evidence)
    if not twins:
        return None
    sizes = lengths(evidence.sources[evidence.tests[0]])
    thirds = sizes <= np.quantile(sizes, 1 / 3), sizes > np.quantile(sizes, 2 / 3)
    short, long = (int(third.sum()) for third in thirds)
    found = {pair: _kept_difference(evidence, pair, thirds) for pair in twins}
    kept = {v: _kept_share(evidence, v, thirds, np.ones(len(sizes))) for p in twins for v in p}
    return Finding(
        verdict([f.above(0) for f in found.values()], [f.below(0) for f in found.values()]),
        [
            f"{b} keeps {kept[b]:.0f} %, {a} {kept[a]:.0f} %: {f.shown('+.0f')} percentage points."
            for (a, b), f in found.items()
        ]
        + [f"Of {len(sizes)} sentences {short} count as short, {long} as long."]
        + [_beside(evidence, split, list(kept)) for split in evidence.tests[1:]],
        ["claims.json", "tables/length.csv"],
        {"difference": _by_pair(found), "kept": {v: round(k, 2) for v, k in kept.items()}},
    )


def _kept_difference(evidence: Evidence, pair: Pair, thirds: tuple[Any, Any]) -> Estimate:
    a, b = (partial(_kept_share, evidence, variant, thirds) for variant in pair)
    return bootstrap(lambda w: a(w) - b(w), len(thirds[0]), evidence.scoring)


def _kept_share(evidence: Evidence, variant: str, thirds: tuple[Any, Any], weight: Floats) -> float:
    """The percentage of its BLEU on short sentences that a variant keeps on long ones."""
    rows = _stats(evidence, variant, evidence.tests[0])
    short, long = (_bleu(rows, weight * third) for third in thirds)
    return 100 * long / max(short, 1e-9)


def _beside(evidence: Evidence, split: str, variants: Sequence[str]) -> str:
    scores = ", ".join(f"{v} {_whole_bleu(evidence, v, split):.1f}" for v in variants)
    return f"Not judged, BLEU on {split}: {scores}."


def one_wrong_word(evidence: Evidence) -> Finding | None:
    found: dict[str, Estimate] = {}
    lines = []
    for run in evidence.runs:
        counts = evidence.analyses[run]["search"]["first_error"]
        wrong = sum(counts[name] for name in OUTCOMES[1:])
        found[run] = share = estimates.share(counts["ruined"], wrong, evidence.scoring)
        low, high = 100 * share.low, 100 * share.high
        lines.append(
            f"{run}: of {wrong} that differ from the reference, {100 * share.value:.0f} % "
            f"[{low:.0f}, {high:.0f}] ruined by the first wrong piece; {counts['one word']} right "
            f"but for one word, {counts['lost']} wrong even with it replaced."
        )
    if not found:
        return None
    return Finding(
        verdict(
            [share.above(RUINED) for share in found.values()],
            [share.below(RUINED) for share in found.values()],
        ),
        lines,
        ["tables/first-error.csv"],
        {"ruined": {run: share.rounded() for run, share in found.items()}},
    )


def beam_helps(evidence: Evidence) -> Finding | None:
    tests = evidence.comparison["tests"]["beam"]
    if not tests:
        return None
    better, worse = significant(tests, evidence.scoring)
    return Finding(
        verdict(
            [better > len(tests) / 2, worse <= len(tests) / 10],
            [worse > len(tests) / 2],
        ),
        [f"Better in {better} of {len(tests)}, worse in {worse}."]
        + [f"{t['variant']} on {t['split']}: {_tested(t)}" for t in tests],
        ["comparison.json", "tables/search.csv"],
        {"better": better, "worse": worse, "tests": len(tests)},
    )


def attention_helps(evidence: Evidence) -> Finding | None:
    tests = evidence.comparison["tests"]["attention"]
    if not tests:
        return None
    better, worse = significant(tests, evidence.scoring)
    return Finding(
        verdict([better == len(tests)], [worse == len(tests)]),
        [f"Better in {better} of {len(tests)}, worse in {worse}."]
        + [f"{t['variant']} against {t['baseline']} on {t['split']}: {_tested(t)}" for t in tests],
        ["comparison.json"],
        {"better": better, "worse": worse, "tests": len(tests)},
    )


def significant(tests: Sequence[dict[str, Any]], settings: EvaluateSettings) -> tuple[int, int]:
    """How many paired tests find a significant gain, and how many a significant loss."""
    clear = [t["difference"] for t in tests if t["p_holm"] < 1 - settings.confidence]
    return sum(d > 0 for d in clear), sum(d < 0 for d in clear)


def _tested(test: dict[str, Any]) -> str:
    return f"{signed(test['difference'])} BLEU, p {test['p_holm']:.3f}."


def more_with_order(evidence: Evidence) -> Finding | None:
    twins = attention_twins(evidence)
    if not twins:
        return None
    columns = _order_and_length(evidence)
    found = {pair: _order_slope(evidence, pair, columns) for pair in twins}
    return Finding(
        verdict([f.above(0) for f in found.values()], [f.below(0) for f in found.values()]),
        [
            f"{a} over {b}: {_tenth(f).shown('+.2f')} chrF++ for each 0.1 of 1 - tau."
            for (a, b), f in found.items()
        ]
        + [_kind_of_links(evidence)]
        + ["Where the twin translates hardly anything, as much is left to gain in any order."],
        ["claims.json", "tables/word-order.csv"],
        {"slope": _by_pair(found)},
    )


def _tenth(slope: Estimate) -> Estimate:
    return Estimate(*(0.1 * end for end in slope))


def _order_and_length(evidence: Evidence) -> Floats:
    """For each sentence of all test sets: 1, 1 - Kendall's tau, the logarithm of the length."""
    disorder = np.array(
        [1 - kendall_tau(pair.sure) for split in evidence.tests for pair in evidence.links[split]]
    )
    sizes = np.concatenate([lengths(evidence.sources[split]) for split in evidence.tests])
    return np.stack([np.ones(len(sizes)), disorder, np.log(np.maximum(sizes, 1))], axis=1)


def _order_slope(evidence: Evidence, pair: Pair, columns: Floats) -> Estimate:
    a, b = (_sentence_chrf(evidence, variant) for variant in pair)
    return bootstrap(partial(estimates.slope, columns, a - b), len(a), evidence.scoring)


def weights_are_alignments(evidence: Evidence) -> Finding | None:
    runs, split = evidence.attending, evidence.tests[0]
    if not runs:
        return None
    found = {run: evidence.analyses[run]["alignment"][split] for run in runs}
    rates = {
        run: Estimate(*(one["aer"][end] for end in ("score", "low", "high")))
        for run, one in found.items()
    }
    first = found[runs[0]]
    diagonal, least = (first[key]["score"] for key in ("aer_diagonal", "aer_least"))
    return Finding(
        verdict(
            [rate.below(ALIGNED) for rate in rates.values()],
            [rate.above(ALIGNED + least) for rate in rates.values()],
        ),
        [
            f"{run} ({evidence.attention(run)}): {rates[run].value:.1f} % "
            f"[{rates[run].low:.1f}, {rates[run].high:.1f}], entropy "
            f"{one['entropy_bits']['score']:.2f} bits."
            for run, one in found.items()
        ]
        + [f"A plain diagonal has {diagonal:.1f} %, the best choice for each word {least:.1f} %."]
        + [_kind_of_links(evidence)],
        ["tables/alignment.csv", "tables/agreement.csv"],
        {"aer": {run: rate.rounded() for run, rate in rates.items()}},
    )


def _kind_of_links(evidence: Evidence) -> str:
    kind = "true ones" if evidence.links_are_true else "those of a statistical aligner"
    return f"The word links are {kind}."


# --- the statements -------------------------------------------------------------------------

STATEMENTS = (
    Statement(
        "weak-signal",
        "The transition matrix of a standard RNN weakens the signal step by step.",
        f"Supported when in every trained rnn less than {LEFT:g} of a gradient's length is left "
        f"{FAR} steps back, in each of the texts looked at, when that is less in each than is left "
        "in any text of each gated run with the same attention, and when the transition matrix U "
        "does so by itself: its spectral radius is below 1. Not supported when in every rnn that "
        "much or more is left in each text, or more than in any text of each such gated run.",
        "gradient-flow.svg",
        weak_signal,
    ),
    Statement(
        "poor-memory",
        "Standard RNNs have poor memory.",
        "Cells of equally many parameters learn two memory tasks. Supported when in both the "
        "longest lags that the gru and the lstm solve with every seed are longer than any that the "
        f"rnn solves with any, and leave it with more than {FAILED:g} of the error without memory, "
        "with every seed. Not supported when in both the rnn solves a lag with every seed, neither "
        f"of them a longer one with any, and the next one leaves both with more than {FAILED:g} of "
        "that error, with every seed; where it solves the longest of all lags, nothing is decided.",
        "memory-tasks.svg",
        poor_memory,
    ),
    Statement(
        "remembers-by-default",
        "LSTMs remember by default ...",
        "Supported when in every lstm the mean of the forget gate is above 0.5 (its interval "
        "over sentences too): more is kept than dropped. Not supported when it is below in every "
        "one (interval too).",
        "gates.svg",
        remembers,
    ),
    Statement(
        "forgets-by-choice",
        "... and forget by choice.",
        "Supported when in every lstm the forget gate of a cell moves with the words (standard "
        f"deviation within a cell, mean over cells, of {CHOOSY:g} or more) and is below 0.5 at "
        f"some. Not supported when it hardly moves (below {STEADY:g}) in every one. What lies "
        "between decides nothing.",
        "gates.svg",
        forgets,
    ),
    Statement(
        "gates-control",
        "Gates control how long things stay.",
        "Each cell has a half-life by its gate, and a time for which its activity really stays "
        "like itself (autocorrelation), which is measured without the gate, both over sentences "
        "that are read as one long text. Supported when over "
        "the cells of every gated run the two rank alike (Spearman correlation, interval above "
        "0); not supported when in every one the interval is below 0.",
        "half-life.svg",
        control,
    ),
    Statement(
        "gru-faster",
        "GRUs are faster than LSTMs.",
        "Of each gru and lstm that differ in the cell and, where each has its own, in the learning "
        "rate, the times of an epoch without validation are compared. Supported when in every pair "
        "each training of the gru takes less than each of the lstm, by more than "
        f"{100 * FASTER:g} %; not supported when in every one each takes more by that much. Fewer "
        f"than {TRAININGS} trainings of either, or another precision, decide nothing: all epochs "
        "of a training share what else its machine does.",
        "cost.svg",
        gru_is_faster,
    ),
    Statement(
        "gru-as-good",
        "GRUs are about as good as LSTMs ...",
        "Of each gru and lstm that differ in the cell and, where each has its own, in the learning "
        "rate, and are of equal width or, with widths of their own, of equally many parameters "
        f"(within {100 * ALIKE:g} %). Supported when in every pair the gru's BLEU on the first "
        f"test set is at most {POINT:g} point below the lstm's (its interval too); not supported "
        "when it is more than that below in every one (interval too).",
        "cost.svg",
        gru_is_as_good,
    ),
    Statement(
        "gru-small-data",
        "... above all on small data.",
        "Of gru and lstm variants that differ in the cell, and maybe the learning rate, trained on "
        "parts of the training data, each for as many epochs as it needs: supported when the gru's "
        "BLEU on the first test set minus the lstm's rises as the data are halved, by the least "
        "squares line through all parts (interval of its slope above 0), in every such series; not "
        "supported when it falls in every one (below 0).",
        "data.svg",
        gru_on_small_data,
    ),
    Statement(
        "fixed-state",
        "One fixed-size state cannot hold a long sentence.",
        "Of its BLEU on the shortest third of the first test set, a variant keeps some share on "
        "the longest third. Supported when every variant without attention keeps less than each "
        "of its twins with attention (interval of the difference above 0); not supported when "
        "each keeps more (interval below 0). Other test sets, which may be longer than what was "
        "trained on, are shown and not judged.",
        "length.svg",
        fixed_state,
    ),
    Statement(
        "one-wrong-word",
        "A single wrong word throws off a greedy translation.",
        "Where a greedy translation differs from the reference in more than one word, its first "
        "wrong piece is replaced by forced decoding. Supported when in every run, of all "
        "translations that differ, those in one word alone included, more than "
        f"{100 * RUINED:.0f} % become what the reference says by that alone (lower end of the "
        "interval); not supported when it is fewer in every one (upper end).",
        "first-error.svg",
        one_wrong_word,
    ),
    Statement(
        "beam-helps",
        "Beam search helps.",
        "Over all variants and test sets: supported when beam search is significantly better than "
        "greedy search (paired test, Holm) in more than half, and significantly worse in at most a "
        "tenth; not supported when it is significantly worse in more than half.",
        "search.svg",
        beam_helps,
    ),
    Statement(
        "attention-helps",
        "Attention gives better translations ...",
        "Supported when on every test set every variant with attention is significantly better "
        "than its twin without (paired test, Holm); not supported when on every one each is "
        "significantly worse.",
        "attention-gain.svg",
        attention_helps,
    ),
    Statement(
        "more-with-order",
        "... the more, the more word order differs.",
        "The gain in sentence chrF++ over the twin without attention is fitted, by least squares, "
        "to 1 - Kendall's tau of the word links and, since longer sentences have both, to the "
        "logarithm of the length. Supported when the gain grows with 1 - tau for every pair "
        "(interval above 0); not supported when for every pair it falls (below 0).",
        "word-order.svg",
        more_with_order,
    ),
    Statement(
        "alignments",
        "Attention's weights are alignments.",
        "Each target word's strongest source word, the end mark left out and the reference forced, "
        "is compared with the word links of the first test set. Supported when every run's "
        f"alignment error rate is below {ALIGNED:.0f} % (interval too); not supported when in "
        "every run (interval too) it is above by more than the least that it can be with one "
        "source word for each target word.",
        "alignment.svg",
        weights_are_alignments,
    ),
)


# --- scores ---------------------------------------------------------------------------------


def _stats(evidence: Evidence, variant: str, split: str) -> Array:
    """BLEU's statistics of beam search, (seeds, sentences, k)."""
    return np.stack([evidence.statistics("bleu", r, split) for r in evidence.runs_of(variant)])


def _bleu(rows: Array, weight: Floats) -> float:
    """The mean over seeds of BLEU, of rows (seeds, sentences, k) counted so many times each."""
    scores = [metrics.score("bleu", weight @ of_seed) for of_seed in rows]
    return sum(scores) / len(scores)


def _whole_bleu(evidence: Evidence, variant: str, split: str) -> float:
    rows = _stats(evidence, variant, split)
    return _bleu(rows, np.ones(rows.shape[1]))


def _sentence_chrf(evidence: Evidence, variant: str) -> Floats:
    """chrF++ of each sentence of all test sets, the mean over the seeds."""
    score = partial(metrics.score, "chrf")
    by_seed = [
        [score(row) for split in evidence.tests for row in evidence.statistics("chrf", run, split)]
        for run in evidence.runs_of(variant)
    ]
    return np.asarray(np.mean(by_seed, axis=0))


def _by_pair(found: Found) -> dict[str, list[float]]:
    return {f"{a} {b}": estimate.rounded() for (a, b), estimate in found.items()}


# --- claims.md ------------------------------------------------------------------------------


def markdown(claims: Sequence[Claim], corpus: str, settings: EvaluateSettings) -> str:
    """claims.md."""
    counts = {v: sum(c.verdict == v for c in claims) for v in (SUPPORTED, CONTRADICTED, OPEN)}
    parts = [
        f"# What the lecture notes say, and what `{corpus}` says to it",
        "Each verdict is computed by a rule that stands in the code "
        "(`src/rnnmt/insight/claims.py`) and is the same for every corpus. [Brackets] hold "
        f"{100 * settings.confidence:g} % intervals, unless said otherwise. "
        + ", ".join(f"{verdict}: {n}" for verdict, n in counts.items())
        + ".",
        "| claim | verdict |\n| --- | --- |\n"
        + "\n".join(f"| [{c.says}](#{c.name}) | **{c.verdict}** |" for c in claims),
        *map(_section, claims),
    ]
    return "\n\n".join(parts) + "\n"


def _section(claim: Claim) -> str:
    parts = [
        f'<a id="{claim.name}"></a>\n\n## {claim.says}\n\n**{claim.verdict}**',
        f"*Rule.* {claim.rule}",
        "\n".join(f"- {line}" for line in claim.measured),
    ]
    if claim.picture:
        parts.append(f"![{claim.says}](figures/{claim.picture})")
    if claim.files:
        parts.append(f"Numbers: {', '.join(f'`{file}`' for file in claim.files)}.")
    return "\n\n".join(parts)
