"""Metrics against the sacrebleu command; intervals and tests against what they mean."""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoded import SPLITS, WORDS, lab
from rnnmt import params
from rnnmt.errors import UserError
from rnnmt.scoring import gate, metrics
from rnnmt.scoring.comparison import (
    Pair,
    Variant,
    adjust,
    best,
    markdown,
    minutes,
    reading,
    report,
    spread,
    tuned,
    twins,
)
from rnnmt.scoring.gate import Evidence, Finding
from rnnmt.scoring.settings import (
    EvaluateSettings,
    PromoteSettings,
    References,
    Run,
    references,
    write_json,
)
from rnnmt.scoring.significance import (
    holm,
    interval,
    paired_difference,
    paired_test,
    trials,
)
from rnnmt.stages import ensemble

BLEU = partial(metrics.score, "bleu")
SETTINGS = EvaluateSettings(bootstrap_samples=200, confidence=0.95, seed=1)

lines = st.lists(st.lists(st.sampled_from(WORDS), min_size=4, max_size=9), min_size=3, max_size=12)


def corpus(sentences: int, seed: int = 0) -> list[str]:
    dice = random.Random(seed)
    return [" ".join(dice.choices(WORDS, k=dice.randint(4, 15))) for _ in range(sentences)]


def worsen(references: list[str], share: float, seed: int = 0) -> list[str]:
    """Each word replaced with this probability."""
    dice = random.Random(seed)
    return [
        " ".join(dice.choice(WORDS) if dice.random() < share else word for word in line.split())
        for line in references
    ]


def bleu_statistics(hypotheses: list[str], references: list[str]) -> metrics.Array:
    return metrics.statistics("bleu", hypotheses, references)


def test_references_against_themselves_are_perfect() -> None:
    references = corpus(30)
    found = {
        name: metrics.score(name, metrics.statistics(name, references, references).sum(axis=0))
        for name in metrics.METRICS
    }
    assert found == pytest.approx({"bleu": 100, "chrf": 100, "ter": 0})


@pytest.mark.parametrize("name", metrics.METRICS)
def test_the_sacrebleu_command_gives_the_same_number(name: str, tmp_path: Path) -> None:
    references = corpus(120)
    hypotheses = worsen(references, 0.3)
    hypotheses[7] = ""
    (tmp_path / "references").write_text("\n".join(references) + "\n", encoding="utf-8")
    (tmp_path / "hypotheses").write_text("\n".join(hypotheses) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", "references", "-i", "hypotheses", "-m", name]
    command += ["--chrf-word-order", "2", "--score-only", "--width", "6"]
    printed = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    ours = metrics.score(name, metrics.statistics(name, hypotheses, references).sum(axis=0))
    assert ours == pytest.approx(float(printed.stdout), abs=1e-5)


def test_signatures_name_what_is_computed() -> None:
    assert "case:mixed" in metrics.signature("bleu")
    assert "tok:13a" in metrics.signature("bleu")
    assert "nw:2" in metrics.signature("chrf")
    assert "tok:tercom" in metrics.signature("ter")


@settings(deadline=None, max_examples=30)
@given(lines=lines, seed=st.integers(0, 1000), name=st.sampled_from(["bleu", "chrf"]))
def test_the_order_of_sentences_does_not_matter(
    lines: list[list[str]], seed: int, name: str
) -> None:
    references = [" ".join(line) for line in lines]
    pairs = list(zip(worsen(references, 0.4, seed), references, strict=True))
    shuffled = random.Random(seed).sample(pairs, len(pairs))
    scores = {
        metrics.score(name, metrics.statistics(name, *zip(*order, strict=True)).sum(axis=0))
        for order in (pairs, shuffled)
    }
    assert len(scores) == 1


def test_ter_of_blocks_is_in_order() -> None:
    references = corpus(2 * metrics.TER_BLOCK + 3)
    hypotheses = list(references)
    hypotheses[metrics.TER_BLOCK + 1] = "rien"
    edits = metrics.statistics("ter", hypotheses, references)[:, 0]
    assert np.flatnonzero(edits).tolist() == [metrics.TER_BLOCK + 1]


def children(process: int) -> list[int]:
    found = Path(f"/proc/{process}/task/{process}/children").read_bytes()
    return [int(child) for child in found.split()]


def alive(process: int) -> bool:
    try:
        return bool(Path(f"/proc/{process}/cmdline").read_bytes())  # a zombie has none
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="processes end with another on Linux only")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_processes_of_ter_end_with_the_one_that_is_killed(number: signal.Signals) -> None:
    program = (
        "import time\n"
        "from rnnmt.scoring import metrics\n"
        "metrics.METRICS['ter'] = lambda: time.sleep(60)\n"
        "metrics.statistics('ter', ['a'] * 200, ['b'] * 200)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    wanted = min(metrics.TER_PROCESSES, os.cpu_count() or 1)
    while len(workers := children(process.pid)) < wanted:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    process.wait()
    deadline = time.monotonic() + 10
    while left := [worker for worker in workers if alive(worker)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_the_interval_contains_the_score_and_is_reproducible(name: str) -> None:
    references, score = corpus(200), partial(metrics.score, name)
    found = metrics.statistics(name, worsen(references, 0.3), references)
    low, high = interval(found, score, 300, 0.95, 1)
    assert low < score(found.sum(axis=0)) < high
    assert (low, high) == interval(found, score, 300, 0.95, 1)
    assert (low, high) != interval(found, score, 300, 0.95, 2)


def test_the_interval_shrinks_with_more_sentences_and_less_confidence() -> None:
    references = corpus(1600)
    found = bleu_statistics(worsen(references, 0.3), references)

    def width(sentences: int, confidence: float) -> float:
        low, high = interval(found[:sentences], BLEU, 300, confidence, 1)
        return high - low

    # Four times the sentences, half the width.
    assert width(1600, 0.95) == pytest.approx(width(400, 0.95) / 2, rel=0.25)
    assert width(400, 0.5) < width(400, 0.95) < width(400, 0.99)


@pytest.mark.parametrize(("confidence", "deviations"), [(0.95, 1.96), (0.8, 1.28)])
def test_the_interval_of_a_mean_is_the_textbook_one(confidence: float, deviations: float) -> None:
    values = np.random.default_rng(0).normal(size=400)
    found = np.stack([values, np.ones(400)], axis=1)
    low, high = interval(found, lambda sums: float(sums[0] / sums[1]), 4000, confidence, 1)
    half = deviations * values.std() / 20  # of the standard error of 400 values
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)


def test_equal_systems_do_not_differ() -> None:
    references = corpus(50)
    found = bleu_statistics(worsen(references, 0.3), references)[None]
    assert paired_difference(found, found, BLEU) == 0
    assert paired_test(found, found, BLEU, 200, 1) == 1


def test_one_differing_sentence_proves_nothing() -> None:
    references = corpus(50)
    hypotheses = [*references[:-1], "tout autre chose que cela"]
    a, b = (bleu_statistics(x, references)[None] for x in (references, hypotheses))
    assert paired_difference(a, b, BLEU) > 0
    assert paired_test(a, b, BLEU, 200, 1) == 1


def test_an_obviously_better_system_is_found_and_the_test_is_antisymmetric() -> None:
    references = corpus(200)
    good, bad = (bleu_statistics(worsen(references, x), references)[None] for x in (0.1, 0.4))
    assert paired_difference(good, bad, BLEU) > 10
    assert paired_difference(good, bad, BLEU) == -paired_difference(bad, good, BLEU)
    assert paired_test(good, bad, BLEU, 200, 1) == pytest.approx(1 / 201)
    assert paired_test(good, bad, BLEU, 200, 1) == paired_test(bad, good, BLEU, 200, 1)


def test_equally_good_systems_are_rarely_called_different() -> None:
    references = corpus(80)
    p_values = [
        paired_test(
            bleu_statistics(worsen(references, 0.3, 2 * i), references)[None],
            bleu_statistics(worsen(references, 0.3, 2 * i + 1), references)[None],
            BLEU, 100, i,
        )
        for i in range(60)
    ]  # fmt: skip
    # Under the null hypothesis p is uniform: 5 % of 60 is 3, and the mean is a half.
    assert sum(p < 0.05 for p in p_values) <= 8
    assert 0.35 < float(np.mean(p_values)) < 0.65


def test_a_copied_seed_is_no_new_evidence() -> None:
    references = corpus(80)
    a, b = (bleu_statistics(worsen(references, x, 3), references) for x in (0.28, 0.32))
    once = paired_test(a[None], b[None], BLEU, 300, 1)
    assert paired_test(np.stack([a, a]), np.stack([b, b]), BLEU, 300, 1) == once


def test_the_difference_is_the_mean_over_seeds() -> None:
    references = corpus(60)
    a, b = (
        np.stack([bleu_statistics(worsen(references, share, seed), references) for seed in (1, 2)])
        for share in (0.2, 0.3)
    )
    single = [BLEU(x.sum(axis=0)) - BLEU(y.sum(axis=0)) for x, y in zip(a, b, strict=True)]
    assert paired_difference(a, b, BLEU) == pytest.approx(sum(single) / 2)


def test_sentences_that_both_translate_alike_change_no_p() -> None:
    """They draw no chances either: the same sentences are swapped in each trial."""
    dice = np.random.default_rng(0)
    a, b = dice.random((1, 40, 1)), dice.random((1, 40, 1))
    same = np.ones((1, 9, 1))

    def p(a: metrics.Array, b: metrics.Array) -> float:
        return paired_test(a, b, lambda sums: float(sums[0]), 300, 1)

    assert 0.01 < p(a, b) < 0.99
    alike = [np.concatenate([same, x, same], axis=1) for x in (a, b)]
    assert p(*alike) == p(a, b)


def test_ensembles_p_is_rounded_last() -> None:
    """Among 60 tests a p of 0.00001 is one of 0.0006, and not of nothing."""
    scores = [{"p": 0.00001}, *({"p": 1.0} for _ in range(59))]
    ensemble._adjust(scores)
    assert scores[0] == {"p": 0.00001, "p_holm": 0.0006}


def test_holm_by_hand() -> None:
    # 0.01 * 4, 0.02 * 3, 0.03 * 2 (not below the one before), 0.6 * 1
    assert holm([0.03, 0.01, 0.6, 0.02]) == pytest.approx([0.06, 0.04, 0.6, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_never_helps_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert all(np.diff(np.array(adjusted)[order]) >= 0)


def variant(
    name: str,
    cell: str,
    attention: str,
    valid: float,
    hidden: int = 8,
    heads: int = 1,
    rate: float = 0.1,
) -> Variant:
    model = {"cell": cell, "attention": attention, "hidden": hidden, "heads": heads}
    scores = [{"valid": {"beam": {"bleu": {"score": valid}}}}]
    return Variant(name, {"model": model, "train": {"learning_rate": rate}}, [], [], scores)


def test_the_best_and_the_twins() -> None:
    plain, twin = variant("plain", "gru", "none", 50.0), variant("dot", "gru", "dot", 70.0)
    wider = variant("wider", "gru", "dot", 70.0, hidden=16)
    lone = variant("lone", "lstm", "dot", 60.0)
    heads = variant("heads", "gru", "dot", 60.0, heads=4)  # which the twin has no use for
    longer = variant("longer", "gru", "dot", 60.0)
    longer.settings["train"]["max_epochs"] = 9
    assert best([plain, twin, wider, lone]) is twin
    assert twins([plain, twin, wider, lone, heads, longer]) == [(twin, plain), (heads, plain)]


def test_of_several_learning_rates_the_best_one_stands_for_all() -> None:
    plain, slow = (
        variant("plain", "gru", "none", 50.0),
        variant("slow", "gru", "none", 51.0, rate=1),
    )
    dot, fast = variant("dot", "gru", "dot", 70.0, rate=2), variant("fast", "gru", "dot", 9.0)
    assert tuned([plain, slow, dot, fast]) == [slow, dot]
    assert twins([plain, slow, dot, fast]) == [(dot, slow)]


def test_the_reading_follows_from_the_adjusted_p() -> None:
    tested = [("a", 3.0, 0.001), ("b", -3.0, 0.001), ("c", 1.0, 0.03)]
    pairs = adjust([Pair(name, "x", "test", d, p) for name, d, p in tested])
    pairs.append(Pair("d", "x", "test_long", 9.0, 0.001, 0.001))
    text = reading("test", pairs, SETTINGS)
    assert text == "**test**, at 5 % after Holm: better: a, c; worse: b."
    pairs = adjust([*pairs[:3], Pair("e", "x", "test", 1.0, 0.03)])
    assert reading("test", pairs, SETTINGS).endswith(
        "better: a; worse: b; no difference shown: c, e."
    )


def test_a_table_is_aligned() -> None:
    table = markdown(["name", "x"], [["a", "1.0"], ["long name", "10.0"]], left=1).splitlines()
    assert table[1] == "| --------- | ---: |"
    assert len({len(line) for line in table}) == 1


def measured(name: str, attention: str, seeds: int, bleu: float) -> Variant:
    """With numbers by which each place of the report is known."""

    def scores(seed: int, search: float) -> dict[str, dict[str, float]]:
        points = {"bleu": bleu + search + 3 * seed, "chrf": bleu + 10 + seed, "ter": 50.0 - seed}
        return {
            name: {"score": x, "low": x - 1 - seed, "high": x + 2} for name, x in points.items()
        }

    model = {"cell": "gru", "attention": attention}
    return Variant(
        name,
        {"model": model},
        [
            {"parameters": 1234567, "seconds": 59.6 + 65 * s, "target_tokens_per_second": 1000.0,
             "best_epoch": 3 + s, "epochs": 5 + s}
            for s in range(seeds)
        ],
        [
            {"beam": 4, "threads": 2, "length_penalty": 1.0 + s, "splits": {
                split: {"greedy": {"seconds": 1.0, "sentences": 1000 * (s + 1)},
                        "beam": {"seconds": 2.0, "sentences": 100 * size}}
                for split, size in (("valid", 1), ("test", 2))
            }}
            for s in range(seeds)
        ],
        [
            {split: {"greedy": scores(s, 0), "beam": scores(s, 1)} for split in ("valid", "test")}
            for s in range(seeds)
        ],
    )  # fmt: skip


def reported(seeds: int, pairs: list[Pair], samples: int = 200) -> str:
    variants = [measured("plain", "none", seeds, 20.0), measured("dot", "dot", seeds, 30.0)]
    return report(
        variants,
        {"best": pairs[:1], "attention": [], "beam": pairs},
        References("toy", "en-fr", {"valid": ["x"], "test": ["x"] * 7}),
        list(range(1, seeds + 1)),
        {"bleu": "nrefs:1", "ter": "case:lc"},
        EvaluateSettings(bootstrap_samples=samples, confidence=0.9, seed=8),
    )


PAIR_TESTS = [
    Pair("plain", "dot", "test", -10.04, 0.001, 0.0404),
    Pair("dot", "dot", "test", 0.0499, 0.5, 0.5),
]


def rows(text: str) -> list[str]:
    """The tables' cells, without their widths."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [re.sub(" *[|] *", "|", line).strip("|") for line in lines if "---" not in line]


def test_the_report_has_every_number_in_its_place() -> None:
    """By hand: a difference below 0.05 is none, an interval's half width is (1 + 2) / 2."""
    head = "variant|cell|attention|parameters|training|best epoch|tokens/s|test BLEU greedy"
    head += "|test BLEU beam|test chrF++|test TER|greedy sent./s|beam sent./s"
    plain, dot = "plain|gru|none|1,234,567|", "**dot**|gru|dot|1,234,567|"
    tested = ["variant|against|test|p", "plain|dot|**-10.0**|0.040", "dot|dot|0.0|0.500"]
    one, two = reported(1, PAIR_TESTS), reported(2, PAIR_TESTS)
    assert rows(one) == [
        head,
        plain + "1:00|3 of 5|1,000|20.0 ± 1.5|21.0 ± 1.5|30.0|50.0|1,000|100",
        dot + "1:00|3 of 5|1,000|30.0 ± 1.5|31.0 ± 1.5|40.0|50.0|1,000|100",
        *tested[:2],
        *tested,
    ]
    rest = "|30.5 (sd 0.7)|49.5 (sd 0.7)|1,500 (sd 707)|100 (sd 0)"
    first = "1:32 (sd 0:46)|3 of 5, 4 of 6|1,000 (sd 0)|"
    assert rows(two) == [
        head,
        plain + first + "21.5 ± 1.8 (sd 2.1)|22.5 ± 1.8 (sd 2.1)" + rest,
        dot + first + "31.5 ± 1.8 (sd 2.1)|32.5 ± 1.8 (sd 2.1)" + rest.replace("30.5", "40.5"),
        *tested[:2],
        *tested,
    ]
    for text, said in [
        (one, f"Made by `{params.remake('')}` on the corpus `toy`, with"),
        (one, "significant at 10 %."), (one, "adjusted by Holm's method"),
        (one, "with seed 1. Sentences: test 7. "), (two, "with seeds 1, 2. Sentences: test 7. "),
        (one, "`dot` has the highest validation BLEU, 31.0;"), (one, "\n\n## Method\n\n"),
        (one, "the 90 % bootstrap interval"), (one, "which keeps 4 hypotheses."),
        (one, "threads: 2."), (one, "has chosen): 1: plain, dot."), (two, ": 1/2: plain, dot."),
        (one, "One seed was trained: p says nothing"),
        (two, "is the mean over 2 seeds"), (two, "- Numbers are means over the seeds"),
        (one, "signatures:\n\n- bleu: `nrefs:1`\n- ter: `case:lc`\n"),
        (one, "- **test**, at 10 % after Holm: worse: plain; no difference shown: dot."),
    ]:  # fmt: skip
        assert said in text
    assert "Numbers are means" not in one
    rules = [line.split("|")[1:-1] for line in one.splitlines() if line.startswith("| --")]
    assert [[cell.strip()[-1] == ":" for cell in rule].index(True) for rule in rules] == [3, 2, 2]
    assert "What attention adds" not in one
    assert [line for line in one.splitlines() if line.startswith("#")] == [
        "# toy, en-fr: 2 variants compared", "## Against the best, dot",
        "## What beam search adds", "## Method",
    ]  # fmt: skip


@pytest.mark.parametrize("tests", [1, 25, 26, 200])
def test_a_table_of_many_tests_gets_more_trials(tests: int) -> None:
    """Of n tests the smallest p that Holm can give is n / (samples + 1)."""
    samples = trials(tests, 1000, 0.95)
    assert (samples > 1000) == (tests > 25)
    assert tests / (samples + 1) < 0.05 / 2 + 1e-9


def test_a_difference_is_significant_below_the_level_only() -> None:
    settings = EvaluateSettings(bootstrap_samples=200, confidence=0.75, seed=8)
    for p, said in (0.2499, "better: a"), (0.25, "no difference shown: a"):
        assert said in reading("test", [Pair("a", "b", "test", 0.1, p, p)], settings)


def test_numbers_are_written_with_their_spread() -> None:
    assert spread([1234.56], 1) == "1,234.6"
    assert spread([1000.0, 3000.0], 0) == "2,000 (sd 1,414)"
    assert minutes([59.4]) == "0:59"
    assert minutes([59.5]) == "1:00"
    assert minutes([3725.0]) == "62:05"


# --- the gate -------------------------------------------------------------------------------------

SETS = {"valid": corpus(30, 1), "test": corpus(50, 2), "test_long": corpus(40, 3)}
WANTED = References("toy", "en-fr", SETS)
PROMOTE = PromoteSettings(level=0.05, margin=0.5, max_slowdown=2.0)
COMPLETE = "figures complete and finite"


def evidence(share: float, **changes: Any) -> Evidence:
    """Of a model that writes each word wrongly with this probability."""
    written, scores = copy.deepcopy(written_by(share))
    values: dict[str, Any] = {
        "label": "lstm-1", "about": {"fingerprint": "f"}, "commit": "", "sums": {},
        "scores": scores, "signatures": {}, "decode": {"beam": 5},
        "translations": {name: written[name] for name in WANTED.tests},
        "sentences_per_second": 10.0,
    }  # fmt: skip
    return Evidence(**values | changes)


@functools.cache
def written_by(share: float) -> tuple[dict[str, list[str]], dict[str, dict[str, float]]]:
    written = {name: worsen(lines, share, 9) for name, lines in SETS.items()}
    return written, gate.figures(written, WANTED)


def judge(new: Evidence, old: Evidence | None, **changes: float) -> dict[str, Finding]:
    findings = gate.judge(new, old, WANTED, PROMOTE.model_copy(update=changes), SETTINGS)
    return {finding.rule: finding for finding in findings}


def failed(new: Evidence, old: Evidence | None, **changes: float) -> list[str]:
    return [rule for rule, found in judge(new, old, **changes).items() if not found.passed]


def test_figures_are_those_of_sacrebleu_to_two_decimals() -> None:
    written = {name: worsen(lines, 0.3) for name, lines in WANTED.splits.items()}
    found = gate.figures(written, WANTED)
    assert {split: list(values) for split, values in found.items()} == {
        "valid": ["bleu", "chrf"], "test": ["bleu", "chrf", "ter"],
        "test_long": ["bleu", "chrf", "ter"],
    }  # fmt: skip
    for split, values in found.items():
        for name, value in values.items():
            metric = metrics.METRICS[name]()
            expected = metric.corpus_score(written[split], [WANTED.splits[split]]).score
            assert value == round(expected, 2) != expected


def test_without_a_champion_the_figures_alone_count() -> None:
    assert judge(evidence(0.9), None) == {COMPLETE: Finding(COMPLETE, "all", True)}


def test_a_better_model_passes_every_rule_and_an_equal_one_too() -> None:
    rules = [
        COMPLETE, "valid: BLEU not below", "test: not worse (p < 0.05)",
        "test: no drop beyond 0.5", "test_long: not worse (p < 0.05)",
        "test_long: no drop beyond 0.5", "at most 2 times slower",
    ]  # fmt: skip
    for new, old in (0.1, 0.4), (0.2, 0.2):
        assert list(judge(evidence(new), evidence(old))) == rules
        assert failed(evidence(new), evidence(old)) == []
    assert failed(evidence(0.4), evidence(0.1)) == rules[1:6]


def test_findings_say_what_was_found() -> None:
    new, old = evidence(0.1, sentences_per_second=1234.56), evidence(0.4)
    found = {rule: finding.found for rule, finding in judge(new, old).items()}
    bleu = [one.scores["valid"]["bleu"] for one in (new, old)]
    assert found["valid: BLEU not below"] == f"{bleu[0]:.2f} against {bleu[1]:.2f}"
    assert found["at most 2 times slower"] == "1,234.6 against 10.0 sentences/s"
    points = new.scores["test"]["bleu"] - old.scores["test"]["bleu"]
    said, p = found["test: not worse (p < 0.05)"].split(" BLEU, p = ")
    assert float(said) == pytest.approx(points, abs=0.02)
    assert said[0] == "+"
    assert p == f"{1 / 201:.4f}"
    assert found["test: no drop beyond 0.5"] == f"{said} BLEU"


def test_each_limit_is_just_where_the_settings_say() -> None:
    def with_valid(bleu: float) -> Evidence:
        one = evidence(0.2)
        return Evidence(**vars(one) | {"scores": one.scores | {"valid": {"bleu": bleu, "chrf": 1}}})

    assert failed(with_valid(50.0), with_valid(50.0)) == []
    assert failed(with_valid(49.99), with_valid(50.0)) == ["valid: BLEU not below"]
    slow = ["at most 2 times slower"]
    assert failed(evidence(0.2, sentences_per_second=5.0), evidence(0.2)) == []
    assert failed(evidence(0.2, sentences_per_second=4.99), evidence(0.2)) == slow
    # Which differ in the test sets, by less than their seeds do.
    new, old = (dataclasses.replace(evidence(x), scores=evidence(0.2).scores) for x in (0.25, 0.2))
    good = {"valid": {"bleu": 99, "chrf": 9}}
    new = dataclasses.replace(new, scores=evidence(0.25).scores | good)
    for split in WANTED.tests:
        a, b = (
            metrics.statistics("bleu", one.translations[split], WANTED.splits[split])[None]
            for one in (new, old)
        )
        drop, p = -paired_difference(a, b, BLEU), paired_test(a, b, BLEU, 200, 1)
        assert drop > 0
        assert 0.02 < p < 1  # a level so high takes no more trials than these 200
        for margin, refused in (drop, False), (drop * 0.999, True):
            assert (
                f"{split}: no drop beyond {margin:g}" in failed(new, old, margin=margin)
            ) == refused
        for level, refused in (p, False), (p * 1.001, True):
            assert (
                f"{split}: not worse (p < {level:g})" in failed(new, old, level=level)
            ) == refused


def test_no_level_is_below_the_smallest_p() -> None:
    """Whatever the number of resamplings, a clearly worse model is refused."""
    good = {"valid": {"bleu": 99, "chrf": 9}}
    worse = dataclasses.replace(evidence(0.9), scores=evidence(0.9).scores | good)
    for level in (0.05, 0.001):
        assert f"test: not worse (p < {level:g})" in failed(worse, evidence(0.2), level=level)


def _without(split: str, metric: str, value: object) -> Evidence:
    one = evidence(0.2)
    scores = {name: dict(values) for name, values in one.scores.items()}
    if value is None:
        del scores[split][metric]
    else:
        scores[split][metric] = value  # type: ignore[assignment]
    return dataclasses.replace(one, scores=scores)


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "9"])
def test_a_figure_that_is_missing_or_none_is_named(value: object) -> None:
    for split in WANTED.splits:
        for name in metrics.METRICS:
            if (split, name) == ("valid", "ter"):
                continue
            found = judge(_without(split, name, value), evidence(0.2))
            said = f"not there, not finite or not its own: {split}/{name}"
            assert found == {COMPLETE: Finding(COMPLETE, said, False)}


@pytest.mark.parametrize("speed", [0.0, -1.0, math.nan, math.inf, None, "9"])
def test_a_speed_that_is_none_is_named(speed: Any) -> None:
    [found] = judge(evidence(0.2, sentences_per_second=speed), evidence(0.2)).values()
    assert not found.passed
    assert found.found.endswith("own: sentences/s")


def test_a_champion_whose_model_is_away_is_not_called_slower() -> None:
    away = evidence(0.2, sentences_per_second=None)
    found = judge(evidence(0.2), away)["at most 2 times slower"]
    assert found.passed
    assert found.found == "not measured: the champion's model is not here"


def test_a_bleu_of_zero_is_a_figure_like_others() -> None:
    written = written_by(0.2)[0] | {"test": [""] * len(WANTED.splits["test"])}
    scores = gate.figures(written, WANTED)
    assert scores["test"]["bleu"] == 0.0
    own = {name: written[name] for name in WANTED.tests}
    assert failed(evidence(0.2, scores=scores, translations=own), None) == []


def test_figures_of_other_translations_are_named() -> None:
    one = evidence(0.2)
    for split in WANTED.tests:
        bleu = one.scores[split]["bleu"]
        assert failed(_without(split, "bleu", bleu + 0.005), None) == []  # is rounded
        for wrong in bleu + 0.03, bleu - 0.03:
            [found] = judge(_without(split, "bleu", wrong), None).values()
            assert found.found.endswith(f"own: {split}/bleu")
        for lines in one.translations[split][1:], [*one.translations[split], "x"], []:
            translations = one.translations | {split: lines}
            [found] = judge(dataclasses.replace(one, translations=translations), None).values()
            assert found.found.endswith(f"own: {split}/translations")
        fewer = {name: lines for name, lines in one.translations.items() if name != split}
        [found] = judge(dataclasses.replace(one, translations=fewer), None).values()
        assert found.found.endswith(f"own: {split}/translations")
    [found] = judge(dataclasses.replace(one, scores={}), None).values()
    assert found.found.split(": ")[1].split(", ") == sorted(
        f"{split}/{name}"
        for split in WANTED.splits
        for name in metrics.METRICS
        if (split, name) != ("valid", "ter")
    )


def test_evidence_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    one = evidence(0.2, sums={"valid": "v", "test": "t", "test_long": "l"})
    one.translations["test"][0] = "a\u2028b"  # which ends no line
    one.write(tmp_path)
    assert Evidence.read(tmp_path) == one
    assert one.fingerprint == "f"
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "evidence.json", "test.beam.txt", "test_long.beam.txt",
    ]  # fmt: skip
    outside = '{"sums": {"../../test": ""}}'
    for damage in "", "{", "[]", "{}", '{"sums": {"test": ""}, "new": 1}', outside:
        (tmp_path / "evidence.json").write_text(damage)
        with pytest.raises(UserError, match=r"not the evidence of a champion .*with git"):
            Evidence.read(tmp_path)
    one.write(tmp_path)
    (tmp_path / "test.beam.txt").write_bytes(b"\xff\n")
    with pytest.raises(UserError, match="not the evidence of a champion"):
        Evidence.read(tmp_path)
    (tmp_path / "test.beam.txt").unlink()
    with pytest.raises(UserError, match="not the evidence of a champion"):
        Evidence.read(tmp_path)


def test_the_sum_tells_test_sets_apart() -> None:
    sets = [(["a"], ["b"]), (["b"], ["a"]), (["a", "b"], []), (["ab"], []), (["é"], ["b"])]
    sums = [gate.test_set_sum(*one) for one in sets]
    assert len(set(sums)) == len(sets)
    text = '[["é"], ["b"]]'
    assert sums[-1] == hashlib.sha256(text.encode()).hexdigest()


# --- the files ------------------------------------------------------------------------------------


def test_references_are_those_of_valid_and_the_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab(tmp_path)
    monkeypatch.chdir(tmp_path)
    tokens = tmp_path / "data/bundled/tokens"
    found = references("bundled")
    assert (found.corpus, found.direction) == ("bundled", "en-fr")
    assert {split: len(lines) for split, lines in found.splits.items()} == SPLITS
    assert found.tests == ["test", "test_long"]
    assert list(found.splits) == ["valid", "test", "test_long"]
    for split, lines in found.splits.items():
        assert "".join(f"{x}\n" for x in lines) == (tokens / f"{split}.target.txt").read_text()
    for content, lines in ("a\u2028b\n\nc\n", ["a\u2028b", "", "c"]), ("a", ["a"]), ("\n", [""]):
        (tokens / "test.target.txt").write_text(content, encoding="utf-8", newline="")
        assert references("bundled").splits["test"] == lines
    for content, said in [
        (b"", "test.target.txt: empty; nothing can be scored"),
        (b"\xff", "test.target.txt: not UTF-8"),
        (None, "test.target.txt: no such file; run: dvc repro tokenize"),
    ]:
        (tokens / "test.target.txt").unlink()
        if content is not None:
            (tokens / "test.target.txt").write_bytes(content)
        with pytest.raises(UserError, match=said):
            references("bundled")
    for manifest, said in [
        ('{"splits": {"train": {}, "valid": {}}}', "no split's name starts with 'test'"),
        ("[]", "expected a JSON object; run: dvc repro tokenize"),
        ('{"a": 1,\n1}', r"manifest\.json:2: .*; run: dvc repro tokenize"),
    ]:
        (tokens / "manifest.json").write_text(manifest)
        with pytest.raises(UserError, match=said):
            references("bundled")


def test_a_run_finds_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab(tmp_path)
    monkeypatch.chdir(tmp_path)
    run, wanted = Run("bundled", "lstm-dot", 1), references("bundled")
    assert run.decoding()["beam"] == 5
    assert run.training()["epochs"] == 12
    assert run.settings()["model"]["attention"] == "dot"
    assert str(run.scores_path) == "reports/bundled/scores/lstm-dot-1.json"
    assert str(run.detail_path) == "reports/bundled/scores/lstm-dot-1.detail.json"
    write_json(run.detail_path, {"b": ["é"], "a": 1})
    assert run.detail_path.read_bytes() == '{\n  "a": 1,\n  "b": [\n    "é"\n  ]\n}\n'.encode()
    assert run.detail() == {"a": 1, "b": ["é"]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(run.detail_path, {"a": math.nan})
    lines = wanted.hypotheses(run, "test", "greedy")
    assert lines == run.hypotheses("test", "greedy") != run.hypotheses("test", "beam")
    text = Path("reports/bundled/translations/lstm-dot-1/test.greedy.txt")
    text.write_text("\n".join(lines[1:]) + "\n", encoding="utf-8")
    message = r"lstm-dot-1: test\.greedy\.txt has 39 lines, .* have 40; run: dvc repro decode@lstm"
    with pytest.raises(UserError, match=message):
        wanted.hypotheses(run, "test", "greedy")
    other = Run("bundled", "gru", 1)
    for read, stage in [
        (other.decoding, "decode"),
        (other.training, "train"),
        (other.settings, "train"),
        (other.detail, "evaluate"),
        (lambda: other.hypotheses("test", "beam"), "decode"),
    ]:
        with pytest.raises(UserError, match=f"no such file; run: dvc repro {stage}@gru-1"):
            read()
