"""Every claim of the report with evidence made up for it: for it, against it, and for neither."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rnnmt.corpora.words import Links
from rnnmt.insight import claims, cost, estimates, keeping, page, pairs, pictures
from rnnmt.insight.claims import CONTRADICTED, OPEN, STATEMENTS, SUPPORTED, Claim
from rnnmt.insight.evidence import Evidence
from rnnmt.scoring import metrics
from rnnmt.scoring.settings import EvaluateSettings, References, Run
from rnnmt.scoring.significance import trials
from rnnmt.stages import report

SENTENCES = 60
SCORING = EvaluateSettings(bootstrap_samples=100, confidence=0.95, seed=1)
Right = Callable[[int], bool]  # whether the translation of a sentence is right

ALL: Right = lambda _: True  # noqa: E731
NONE: Right = lambda _: False  # noqa: E731
EVEN: Right = lambda i: i % 2 == 0  # noqa: E731
ODD: Right = lambda i: i % 2 == 1  # noqa: E731
SHORT: Right = lambda i: i < 30  # noqa: E731
LONG: Right = lambda i: i >= 30  # noqa: E731


# --- evidence -------------------------------------------------------------------------------


def made(
    of: dict[str, Any],
    *,
    tests: tuple[str, list[dict[str, Any]]] = ("beam", []),
    memory: list[dict[str, Any]] | None = None,
    translated: bool = False,
) -> Evidence:
    """Variants named CELL[-ATTENTION][@PERCENT][+], each with its training or its analysis.

    `translated`: instead, `of` says which sentences of the test sets each has right. Sentences
    become longer, and every second one has its words in reverse.
    """
    runs = {f"{name}-1": Run("x", name, 1) for name in of}
    split = {"valid": ["un"], "test": list(map(sentence, range(SENTENCES)))}
    split["test_long"] = split["test"][-3:]
    wanted = References("x", "en-fr", split)
    kinds: dict[str, list[dict[str, Any]]] = {"beam": [], "attention": [], "best": []}
    comparison = {
        "variants": {name: about(name, found) for name, found in of.items()},
        "tests": kinds | {tests[0]: tests[1]},
        "seeds": [1],
        "tuned": list(of),
    }
    analyses = {
        f"{name}-1": about(name, {})["settings"]["model"] | ({} if translated else found)
        for name, found in of.items()
    }
    evidence = Evidence(wanted, runs, comparison, {}, analyses, memory or [], True, SCORING)
    if translated:
        for name, right in of.items():
            evidence._statistics.update(statistics(f"{name}-1", right, wanted))
    texts = {name: split[name] for name in wanted.tests}
    evidence.__dict__["sources"] = texts
    evidence.__dict__["links"] = {
        name: [linked(text, i % 2 == 1) for i, text in enumerate(lines)]
        for name, lines in texts.items()
    }
    return evidence


def sentence(number: int) -> str:
    return " ".join(f"m{number}n{place}" for place in range(4 + number // 5))


def linked(text: str, reverse: bool) -> Links:
    size = len(text.split())
    sure = {(i, size - 1 - i if reverse else i) for i in range(size)}
    return Links(text.split(), text.split(), sure, sure)


def statistics(run: str, right: Right, wanted: References) -> dict[tuple[str, str, str], Any]:
    found = {}
    for split in wanted.tests:
        lines = [t if right(i) else "rien" for i, t in enumerate(wanted.splits[split])]
        for metric in ("bleu", "chrf"):
            found[metric, run, split] = metrics.statistics(metric, lines, wanted.splits[split])
    return found


def about(name: str, found: Any) -> dict[str, Any]:
    """What comparison.json has of a variant."""
    parts = re.fullmatch(r"(rnn|gru|lstm)(?:-(\w+))?(?:@(\d+))?(\+?)", name)
    assert parts
    cell, attention, percent, wide = parts.groups()
    model = {
        "cell": cell, "attention": attention or "none", "embedding": 4, "hidden": 10 if wide else 8,
        "encoder_layers": 1, "decoder_layers": 1,
    }  # fmt: skip
    train = {"fraction": int(percent or 100) / 100, "learning_rate": len(cell)}
    trainings = found.get("trainings", [{}]) if isinstance(found, dict) else [{}]
    size = 1000 if cell == "lstm" or wide else 750
    return {
        "settings": {"model": model, "train": train},
        "training": [{"parameters": size} | training for training in trainings],
    }


def flow(low: float, high: float, radius: float = 0.9) -> dict[str, Any]:
    ends = {"norm": (low + high) / 2, "low": low, "high": high}
    trained = {key: [value] * claims.FAR for key, value in ends.items()}
    return {"flow": {"trained": trained | {"radius": 0.8, "recurrent_radius": radius}}}


def gates(mean: float = 0.7, sd: float = 0.2, tie: int = 1) -> dict[str, Any]:
    """`tie`: 1 where the correlation time of a cell rises with its half-life, -1 where it falls."""
    times = [float((7 * i) % 20) for i in range(20)] if not tie else [tie * i for i in range(20)]
    return {
        "gates": {
            "keeps": "forget", "keeps_fresh": 0.7, "half_life_words": [1.0, 2.0, 3.0],
            "half_life_fresh": 4.0,
            "keeps_per_sentence": [mean - 0.02, mean, mean + 0.02] * 5,
            "closed": 0.2, "within_cell_sd": sd,
            "cells": [{"half_life": i, "correlation_time": t} for i, t in enumerate(times)],
        }
    }  # fmt: skip


def took(*seconds: float) -> dict[str, Any]:
    """An epoch, of each training."""
    return {"trainings": [{"training_seconds": [s - 0.1, s + 0.1]} for s in seconds]}


def first_error(ruined: int, lost: int) -> dict[str, Any]:
    counts = {"right": 5, "one word": 0, "ruined": ruined, "lost": lost}
    return {"search": {"first_error": counts}}


def aer(low: float, high: float) -> dict[str, Any]:
    rate = {"score": (low + high) / 2, "low": low, "high": high}
    other = {
        "entropy_bits": {"score": 1.0},
        "aer_diagonal": {"score": 30.0},
        "aer_least": {"score": 5.0},
    }
    return {"alignment": {"test": {"aer": rate, "strongest": ["0 1", "0 0"]} | other}}


def lags(rnn: int, gru: int, lstm: int, failed: float = 0.9, seed: int = 1) -> list[dict[str, Any]]:
    """Both tasks solved up to these lags, of 10, 20 and 40, with `failed` error beyond."""
    return [
        {
            "task": task, "cell": cell, "lag": lag, "seed": seed,
            "error": 0.05 if lag <= longest else failed,
            "solved_after": 25 if lag <= longest else None,
        }
        for task in ("adding", "copy")
        for cell, longest in (("rnn", rnn), ("gru", gru), ("lstm", lstm))
        for lag in (10, 20, 40)
    ]  # fmt: skip


def significant(kind: str, better: int, worse: int, neither: int) -> Evidence:
    outcomes = [(1.0, 0.01)] * better + [(-1.0, 0.01)] * worse + [(1.0, 0.5)] * neither
    rows = [
        {"variant": "gru-dot", "baseline": "gru", "split": "test", "difference": d, "p_holm": p}
        for d, p in outcomes
    ]
    return made({"gru": {}, "gru-dot": {}}, tests=(kind, rows))


def twins(with_attention: Right, without: Right) -> Evidence:
    of = {"gru": without, "gru-dot": with_attention}
    row = {"variant": "gru-dot", "baseline": "gru"}
    return made(of, tests=("attention", [row]), translated=True)


def translations(**right: Right) -> Evidence:
    return made({name.replace("_", "@"): some for name, some in right.items()}, translated=True)


# --- the table ------------------------------------------------------------------------------

CASES: list[tuple[str, str, Evidence]] = [
    ("weak-signal", SUPPORTED, made({"rnn": flow(0.01, 0.02), "gru": flow(0.3, 0.4)})),
    ("weak-signal", OPEN, made({"rnn": flow(0.01, 0.02, 1.05), "gru": flow(0.3, 0.4)})),
    ("weak-signal", OPEN, made({"rnn": flow(0.01, 0.04), "gru": flow(0.03, 0.4)})),
    ("weak-signal", OPEN, made({"rnn": flow(0.01, 0.02), "gru-dot": flow(0.3, 0.4)})),
    ("weak-signal", OPEN, made({"rnn": flow(0.05, 0.2), "gru": flow(0.3, 0.4)})),
    ("weak-signal", CONTRADICTED, made({"rnn": flow(0.2, 0.3), "gru": flow(0.4, 0.5)})),
    ("weak-signal", CONTRADICTED, made({"rnn": flow(0.05, 0.06), "lstm": flow(0.01, 0.02)})),
    ("poor-memory", SUPPORTED, made({}, memory=lags(10, 20, 40))),
    ("poor-memory", OPEN, made({}, memory=lags(10, 20, 40, failed=0.3))),
    ("poor-memory", OPEN, made({}, memory=lags(20, 40, 10))),
    ("poor-memory", OPEN, made({}, memory=lags(40, 40, 40))),
    ("poor-memory", OPEN, made({}, memory=lags(0, 0, 0))),
    ("poor-memory", OPEN, made({}, memory=lags(20, 20, 20, failed=0.3))),
    ("poor-memory", CONTRADICTED, made({}, memory=lags(20, 20, 10))),
    ("poor-memory", SUPPORTED, made({}, memory=lags(10, 40, 40) + lags(0, 40, 40, seed=2))),
    ("poor-memory", OPEN, made({}, memory=lags(10, 40, 40) + lags(40, 40, 40, seed=2))),
    ("poor-memory", OPEN, made({}, memory=lags(10, 40, 40) + lags(10, 40, 10, seed=2))),
    ("poor-memory", OPEN, made({}, memory=lags(0, 40, 40) + lags(0, 40, 40, 0.4, seed=2))),
    ("poor-memory", CONTRADICTED, made({}, memory=lags(20, 20, 10) + lags(20, 10, 20, seed=2))),
    ("poor-memory", OPEN, made({}, memory=lags(20, 20, 10) + lags(20, 40, 20, seed=2))),
    ("remembers-by-default", SUPPORTED, made({"lstm": gates(0.7)})),
    ("remembers-by-default", OPEN, made({"lstm": gates(0.5)})),
    ("remembers-by-default", OPEN, made({"lstm": gates(0.7), "lstm-dot": gates(0.3)})),
    ("remembers-by-default", CONTRADICTED, made({"lstm": gates(0.3)})),
    ("forgets-by-choice", SUPPORTED, made({"lstm": gates(sd=0.2)})),
    ("forgets-by-choice", OPEN, made({"lstm": gates(sd=0.07)})),
    ("forgets-by-choice", CONTRADICTED, made({"lstm": gates(sd=0.01)})),
    ("gates-control", SUPPORTED, made({"gru": gates(), "lstm": gates()})),
    ("gates-control", OPEN, made({"gru": gates(), "lstm": gates(tie=0)})),
    ("gates-control", CONTRADICTED, made({"gru": gates(tie=-1)})),
    ("gru-faster", SUPPORTED, made({"gru": took(7, 7.1, 7.2), "lstm": took(9, 9.1, 9.2)})),
    ("gru-faster", OPEN, made({"gru": took(8.8, 8.9, 8.9), "lstm": took(9, 9.1, 9.2)})),
    ("gru-faster", OPEN, made({"gru": took(5, 8, 11), "lstm": took(6, 9, 12)})),
    ("gru-faster", OPEN, made({"gru": took(7, 7.1), "lstm": took(9, 9.1)})),
    ("gru-faster", OPEN, made({"gru": took(7, 7.1, 8.8), "lstm": took(9, 9.1, 9.2)})),
    ("gru-faster", CONTRADICTED, made({"gru": took(9, 9.1, 9.2), "lstm": took(7, 7.1, 7.2)})),
    ("gru-as-good", SUPPORTED, translations(gru=ALL, lstm=EVEN)),
    ("gru-as-good", OPEN, translations(gru=EVEN, lstm=ODD)),
    ("gru-as-good", CONTRADICTED, translations(gru=EVEN, lstm=ALL)),
    (
        "gru-small-data", SUPPORTED,
        translations(gru_10=ALL, lstm_10=EVEN, gru=EVEN, lstm=EVEN),
    ),
    ("gru-small-data", OPEN, translations(gru_10=EVEN, lstm_10=EVEN, gru=EVEN, lstm=EVEN)),
    (
        "gru-small-data", CONTRADICTED,  # whatever the smallest part alone says
        translations(
            gru_5=EVEN, lstm_5=EVEN, gru_10=NONE, lstm_10=ALL, gru_50=NONE, lstm_50=EVEN,
            gru=lambda i: i > 2, lstm=ALL,
        ),
    ),
    (
        "gru-small-data", CONTRADICTED,
        translations(gru_10=NONE, lstm_10=EVEN, gru=EVEN, lstm=EVEN),
    ),
    ("fixed-state", SUPPORTED, twins(ALL, SHORT)),
    ("fixed-state", OPEN, twins(ALL, ALL)),
    ("fixed-state", CONTRADICTED, twins(SHORT, ALL)),
    ("one-wrong-word", SUPPORTED, made({"gru": first_error(50, 50)})),
    ("one-wrong-word", OPEN, made({"gru": first_error(1, 9)})),
    ("one-wrong-word", OPEN, made({"gru": first_error(0, 0)})),
    ("one-wrong-word", CONTRADICTED, made({"gru": first_error(1, 99)})),
    ("beam-helps", SUPPORTED, significant("beam", 8, 1, 1)),
    ("beam-helps", OPEN, significant("beam", 8, 2, 0)),
    ("beam-helps", OPEN, significant("beam", 1, 0, 9)),
    ("beam-helps", CONTRADICTED, significant("beam", 1, 6, 3)),
    ("attention-helps", SUPPORTED, significant("attention", 3, 0, 0)),
    ("attention-helps", OPEN, significant("attention", 0, 0, 3)),
    ("attention-helps", OPEN, significant("attention", 0, 2, 1)),
    ("attention-helps", CONTRADICTED, significant("attention", 0, 3, 0)),
    ("more-with-order", SUPPORTED, twins(ALL, EVEN)),
    ("more-with-order", OPEN, twins(EVEN, EVEN)),
    ("more-with-order", CONTRADICTED, twins(ALL, ODD)),
    ("alignments", SUPPORTED, made({"gru-dot": aer(5, 9)})),
    ("alignments", OPEN, made({"gru-dot": aer(5, 9), "lstm-dot": aer(70, 80)})),
    ("alignments", OPEN, made({"gru-dot": aer(24, 26)})),
    ("alignments", CONTRADICTED, made({"gru-dot": aer(70, 80)})),
]  # fmt: skip
BY_NAME = {statement.name: statement for statement in STATEMENTS}


@pytest.fixture(autouse=True)
def _vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "settings", lambda _: {"vocabularies": {"target": 20}})


@pytest.mark.parametrize(
    ("name", "verdict", "evidence"),
    [pytest.param(*case, id=f"{case[0]}-{n}-{case[1]}") for n, case in enumerate(CASES)],
)
def test_a_verdict_follows_from_the_evidence(name: str, verdict: str, evidence: Evidence) -> None:
    claim = claims.judged(BY_NAME[name], evidence)
    assert claim.verdict == verdict
    assert claim.picture == BY_NAME[name].picture
    assert all(claim.measured)
    assert claim.numbers
    # What is cited must be in git.
    assert all(file.startswith("tables/") or "/" not in file for file in claim.files)


def test_every_claim_can_be_decided_either_way_or_not_at_all() -> None:
    verdicts = {name: {v for n, v, _ in CASES if n == name} for name in BY_NAME}
    assert all(found == {SUPPORTED, CONTRADICTED, OPEN} for found in verdicts.values())


def test_a_claim_without_runs_is_said_to_be_open() -> None:
    judged = claims.judge(made({}))
    assert [claim.name for claim in judged] == list(BY_NAME)
    for claim in judged:
        assert (claim.verdict, claim.picture, claim.files) == (OPEN, "", [])
        assert claim.measured == ["There are no runs for it here."]
    text = claims.markdown(judged, "x", SCORING)
    assert text.count("There are no runs for it here.") == len(STATEMENTS)
    assert "figures/" not in text
    assert "Numbers:" not in text


def test_a_verdict_needs_all_runs() -> None:
    assert claims.verdict([True, True], [False, False]) == SUPPORTED
    assert claims.verdict([False, False], [True, True]) == CONTRADICTED
    assert claims.verdict([True, False], [False, True]) == OPEN
    assert claims.verdict([], []) == OPEN


def measured(name: str, evidence: Evidence) -> tuple[Claim, str]:
    claim = claims.judged(BY_NAME[name], evidence)
    return claim, "\n".join(claim.measured)


def test_the_signal_is_told_with_its_peers_and_both_radii() -> None:
    evidence = made({"rnn": flow(0.01, 0.03, 1.05), "gru": flow(0.2, 0.4), "gru-dot": flow(0, 0)})
    _, text = measured("weak-signal", evidence)
    assert "rnn-1 0.02 [0.01, 0.03] left after 20 steps; beside it gru-1 0.3 [0.2, 0.4]." in text
    assert "No rnn has the attention of gru-dot-1 0 [0, 0]." in text
    assert "U alone is 1.05, with tanh's slopes 0.80" in text


def test_times_stand_beside_operations() -> None:
    evidence = made({"gru": took(6.9, 7.1), "lstm": took(10, 10)})
    _, text = measured("gru-faster", evidence)
    assert "gru: 7.0 s an epoch, 0.00 M operations, 750 parameters" in text
    assert "ratio of times 0.70 [0.69, 0.71]" in text
    assert "rough" in text
    _, text = measured(
        "gru-faster", made({"gru": {"trainings": [{"training_seconds": [0.0]}]}, "lstm": took(1)})
    )
    assert "ratio of times 0.00, of one training each, where 3 are wanted" in text
    assert cost.of_variant(evidence, "gru") < cost.of_variant(evidence, "lstm")


def test_equal_width_and_equal_parameters_are_told_apart() -> None:
    evidence = made({"gru": ALL, "gru+": ALL, "gru-dot+": ALL, "lstm": EVEN}, translated=True)
    assert pairs.cell_pairs(evidence) == [("gru", "lstm")]
    assert pairs.equal_parameters(evidence) == [("gru+", "lstm")]
    claim, text = measured("gru-as-good", evidence)
    assert claim.numbers["kind"] == {"gru lstm": "equal width", "gru+ lstm": "equal parameters"}
    assert "gru+ minus lstm (equal parameters)" in text
    parameters = evidence.comparison["variants"]["gru+"]["training"][0]
    parameters["parameters"] = 1021
    assert pairs.equal_parameters(evidence) == []


def test_a_pair_differs_in_nothing_but_the_cell_and_the_learning_rate() -> None:
    evidence = made({"gru": {}, "lstm": {}})
    settings = evidence.settings("gru", "train")
    assert settings["learning_rate"] != evidence.settings("lstm", "train")["learning_rate"]
    assert pairs.cell_pairs(evidence) == [("gru", "lstm")]
    settings["max_epochs"] = 3
    assert pairs.cell_pairs(evidence) == []


def test_long_test_sets_are_shown_and_not_judged() -> None:
    claim, text = measured("fixed-state", twins(ALL, LONG))
    assert "Not judged, BLEU on test_long: gru-dot 100.0, gru 0.0." in text
    assert claim.verdict == CONTRADICTED  # by the thirds of the first test set alone


# --- the numbers beneath --------------------------------------------------------------------


def test_the_slope_is_found_beside_the_length() -> None:
    random = np.random.default_rng(0)
    disorder, length = random.random(300), random.random(300)
    columns = np.stack([np.ones(300), disorder, length], axis=1)
    gain = 2 + 7 * disorder - 3 * length
    assert estimates.slope(columns, gain, np.ones(300)) == pytest.approx(7)


def test_the_interval_of_a_share_is_as_wide_as_it_is_sure() -> None:
    """Those of Wilson's formula by hand, for 95 %."""
    assert estimates.share(10, 100, SCORING) == pytest.approx((0.1, 0.05523, 0.17437), abs=1e-5)
    sure = SCORING.model_copy(update={"confidence": 0.99})
    assert estimates.share(10, 100, sure).low < 0.05
    assert estimates.share(0, 0, SCORING) == (0, 0, 1)
    for whole in range(1, 100):
        assert 0 <= estimates.share(0, whole, SCORING).low < 1e-9
        assert 1 - 1e-9 < estimates.share(whole, whole, SCORING).high <= 1


def test_equal_ranks_and_few_cells_have_a_correlation() -> None:
    rising, same = [1.0, 2.0, 2.0, 3.0, 9.0], [4.0] * 5
    assert estimates.rank_correlation(rising, rising, SCORING) == (1, 1, 1)
    assert estimates.rank_correlation(rising, [-x for x in rising], SCORING)[:2] == (-1, -1)
    assert estimates.rank_correlation(rising, same, SCORING) == (0, 0, 0)
    assert estimates.rank_correlation([1.0], [2.0], SCORING) == (0, 0, 0)


def test_what_is_remembered_is_told_for_all_seeds() -> None:
    results = claims.Remembered.of(lags(20, 40, 10)[:9] + lags(10, 40, 10, seed=2)[:9])
    assert results.by_all == {"rnn": 10, "gru": 40, "lstm": 10}
    assert results.by_any == {"rnn": 20, "gru": 40, "lstm": 10}
    told = made({}, memory=lags(20, 40, 10) + lags(10, 40, 10, failed=0.8, seed=2))
    _, text = measured("poor-memory", told)
    assert (
        "adding: longest lag solved with every seed by rnn 10, gru 40, lstm 10, of 10, 20" in text
    )
    assert "adding, lag 10, rnn: solved after 25 updates." in text
    assert "rnn: solved after 25 updates with 1 of 2 seeds, error 0.80 of one" in text
    assert "rnn: not solved, error 0.80 to 0.90 of one without memory." in text


def test_the_tables_have_what_the_claims_cite() -> None:
    evidence = made({"rnn": {}, "gru": gates(0.7), "lstm-dot": gates() | aer(5, 9)})
    rows = keeping.keeping(evidence)
    assert [row["run"] for row in rows] == ["gru-1", "lstm-dot-1"]
    assert rows[0]["mean_low"] < rows[0]["mean"] == 0.7 < rows[0]["mean_high"]
    assert (rows[0]["spearman"], rows[0]["mean_fresh"]) == (1, 0.7)
    assert (rows[0]["half_life_median"], rows[0]["half_life_slowest"]) == (2, 3)
    assert len(keeping.half_lives(evidence)) == 40
    both = {"gru-dot": aer(5, 9), "lstm-dot": aer(5, 9)}
    [row] = report.agreements(made(both))
    assert row == {"run": "gru-dot-1", "other": "lstm-dot-1", "split": "test", "same": 100}


def test_untrained_encoders_are_told_apart_by_how_their_gates_begin() -> None:
    variants = {"rnn": 0, "rnn-dot": 0, "gru": 0, "gru-dot": 0, "gru-general": 0}
    evidence = made(dict.fromkeys(variants, gates()))
    for found in evidence.analyses.values():
        reach = {"norm": [0.5, 0.2], "radius": 0.5}
        found["flow"] = {"lags": [1, 2], "fresh": reach, "trained": reach}
    fresh, trained = (
        [line.get_label() for line in panel.lines if not line.get_label().startswith("_")]
        for panel in pictures._flow(evidence).axes
    )
    assert fresh == ["untrained rnn", "untrained gru", "untrained gru, with attention"]
    assert trained == list(variants)


def test_no_two_variants_look_alike() -> None:
    """And one that is alone of its kind looks as its kind does everywhere."""
    alike = made({"lstm-dot": {}} | {f"lstm-dot@{n}": {} for n in range(1, 40)})
    looks = [
        (form["color"], form["marker"])
        for form in (pictures.look(alike, variant) for variant in alike.variants)
    ]
    assert len(set(looks)) == len(looks)
    both = made({"lstm-dot": {}, "gru": {}, "gru@5": {}})
    gru, part = (pictures.look(both, variant) for variant in ("gru", "gru@5"))
    assert pictures.look(both, "lstm-dot") == pictures.look(alike, "lstm-dot")
    assert gru["color"] == part["color"] == pictures.COLOURS["gru"]
    assert gru["marker"] != part["marker"]


def test_the_page_says_how_much_of_the_data_was_read() -> None:
    assert page.read(made({"gru@50": {}, "lstm@50": {}})) == "the same sentences"
    parts = page.read(made({"gru@5": {}, "lstm@50": {}, "lstm": {}}))
    assert parts == "the first 5 to 100 % of the same sentences"


@pytest.mark.parametrize(("variants", "confidence"), [(2, 0.95), (8, 0.95), (11, 0.95), (8, 0.99)])
def test_one_clear_difference_of_many_can_be_significant(variants: int, confidence: float) -> None:
    count = variants * (variants - 1) // 2
    settings = SCORING.model_copy(update={"confidence": confidence})
    samples = trials(count, settings.bootstrap_samples, settings.confidence)
    assert samples >= settings.bootstrap_samples
    assert count / (samples + 1) < 1 - confidence
