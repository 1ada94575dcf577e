"""Metrics against the sacrebleu command; intervals and tests against what they mean."""

from __future__ import annotations

import random
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoded import WORDS
from rnnmt.scoring import metrics
from rnnmt.scoring.comparison import Pair, Variant, adjust, best, markdown, reading, twins
from rnnmt.scoring.settings import EvaluateSettings
from rnnmt.scoring.significance import holm, interval, paired_difference, paired_test

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


def variant(name: str, cell: str, attention: str, valid: float, hidden: int = 8) -> Variant:
    model = {"cell": cell, "attention": attention, "hidden": hidden}
    scores = [{"valid": {"beam": {"bleu": {"score": valid}}}}]
    return Variant(name, {"model": model}, [], [], scores)


def test_the_best_and_the_twins() -> None:
    plain, twin = variant("plain", "gru", "none", 50.0), variant("dot", "gru", "dot", 70.0)
    wider = variant("wider", "gru", "dot", 70.0, hidden=16)
    lone = variant("lone", "lstm", "dot", 60.0)
    assert best([plain, twin, wider, lone]) is twin
    assert twins([plain, twin, wider, lone]) == [(twin, plain)]


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
