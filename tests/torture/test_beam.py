"""Beam search and what finds its likeliest tokens, on numbers that no sound model gives."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rnnmt.model.likeliest import candidates, largest, likeliest
from rnnmt.model.prepared import MARGIN, PackedOutput, QuantizedOutput, _has_8_bit_products
from rnnmt.search.beam import Hypothesis
from test_search import Tables, enumerate_all, plain_beam

torch.set_num_threads(1)
INF, NAN = math.inf, math.nan


class Hostile(Tables):
    """Tables of further kinds.

    nan      of a third of the prefixes all is NaN, as log-softmax makes it of one NaN; the plain
             searches are shown minus infinity instead
    near     neighbours in float32
    certain  one token has all the probability
    huge     up to 1e33, in steps that add up exactly
    tiny     smaller than float32's normal numbers
    mixed    another kind after every prefix; but not the last two, in whose sums others vanish
    """

    OWN = ("nan", "near", "certain", "huge", "tiny", "mixed")

    def _make(self, random: np.random.Generator) -> Tensor:
        kind = self.kind
        if kind == "mixed":
            kind = str(random.choice([*Tables.KINDS, *self.OWN[:3]]))
        uniform = torch.from_numpy(random.random(self.size)).float()
        if kind == "nan":
            kind = "random" if random.random() < 2 / 3 else kind
        if kind == "nan":
            return torch.full_like(uniform, NAN)
        if kind == "near":
            return -1 - torch.finfo(torch.float32).eps * (4 * uniform).floor()
        if kind == "huge":
            return -(2.0**100) * (1000 * uniform).floor()
        if kind == "tiny":
            return -1e-40 * uniform
        if kind == "certain":
            return torch.where(torch.arange(self.size) == random.integers(self.size), 0.0, -INF)
        usual = self.kind
        try:
            self.kind = kind
            return super()._make(random)
        finally:
            self.kind = usual


class Shown(Hostile):
    """The same for the plain searches, to which NaN is as impossible as minus infinity."""

    def _make(self, random: np.random.Generator) -> Tensor:
        return super()._make(random).nan_to_num(nan=-INF, neginf=-INF)


class Infinite(Hostile):
    """One token of sentence 0 is more than certain."""

    def log_probs(self, sentence: int, prefix: tuple[int, ...]) -> Tensor:
        log_probs = super().log_probs(sentence, prefix)
        if sentence:
            return log_probs
        return torch.where(torch.arange(self.size) == self.size - 1, INF, log_probs)


def case(trial: int, widest: int, longest: int) -> tuple[str, int, list[int], dict[str, Any]]:
    """Kind and size of the tables, limits of the sentences, and the search's options."""
    random = np.random.default_rng(trial)
    kind = str(random.choice([*Tables.KINDS, *Hostile.OWN]))
    size = int(random.integers(2, widest + 1))
    limits = random.integers(1, longest + 1, size=random.integers(1, 9)).tolist()
    penalty = [0.0, 1.0, random.uniform(-10, 10), random.uniform(-250, 250), 1e-300]
    options = {
        "beam": int(random.choice([1, 2, 5, random.integers(1, 2 * size + 3)])),
        "nbest": int(random.choice([1, 3, random.integers(1, 3 * size)])),
        "length_penalty": float(random.choice(penalty)),
    }
    return kind, size, limits, options


def plain(hypotheses: list[Hypothesis]) -> list[tuple[tuple[int, ...], float]]:
    """What is possible of them."""
    return [(h.ids, h.log_prob) for h in hypotheses if h.log_prob > -INF]


@pytest.mark.trials(20, 2_500)
def test_a_search_is_the_plain_one(trials: range, tally: Counter[str]) -> None:
    """In loops, without early ends and one by one; and no other sentence changes it."""
    for trial in trials:
        kind, size, limits, options = case(trial, 40, 9)
        told = f"trial {trial}: {kind}, {size} tokens, limits {limits}, {options}"
        rows = range(len(limits))
        found = Hostile(kind, size, trial).search(rows, limits, **options)
        shown, beam, penalty = Shown(kind, size, trial), options["beam"], options["length_penalty"]
        for row, limit in enumerate(limits):
            expected = plain_beam(shown, row, limit, beam, penalty)[: options["nbest"]]
            assert plain(found[row]) == [(e.ids, e.log_prob) for e in expected], told
            assert all(not math.isnan(h.score) for h in found[row]), told
            assert [h.score for h in found[row]][: len(expected)] == [e.score for e in expected]
            tally["sentences of which nothing is possible" if not expected else "sentences"] += 1
        row = trial % len(limits)
        [alone] = Hostile(kind, size, trial).search([row], [limits[row]], **options)
        assert [h[:3] for h in alone] == [h[:3] for h in found[row]], told


@pytest.mark.trials(20, 3_000)
def test_a_full_beam_is_exact(trials: range, tally: Counter[str]) -> None:
    """Everything that can be said, enumerated; of equals any may be found."""
    for trial in trials:
        kind, size, limits, options = case(trial, 4, 4)
        options |= {"beam": size ** max(limits)}
        told = f"trial {trial}: {kind}, {size} tokens, limits {limits}, {options}"
        found = Hostile(kind, size, trial).search(range(len(limits)), limits, **options)
        for row, limit in enumerate(limits):
            everything = enumerate_all(
                Shown(kind, size, trial), row, limit, options["length_penalty"]
            )
            best = everything[: options["nbest"]]
            possible = plain(found[row])
            scores = [h.score for h in found[row]][: len(possible)]
            assert scores == pytest.approx([e.score for e in best], rel=1e-9), told
            assert len(set(possible)) == len(best), told
            known = {(e.ids, e.log_prob) for e in everything}
            assert all(
                any(ids == i and log_prob == pytest.approx(x, rel=1e-9) for i, x in known)
                for ids, log_prob in possible
            ), told
            tally["sentences"] += 1


@pytest.mark.filterwarnings("ignore:invalid value encountered in add")  # infinity minus infinity
@pytest.mark.trials(20, 1_500)
def test_plus_infinity_disturbs_no_other_sentence(trials: range, tally: Counter[str]) -> None:
    for trial in trials:
        kind, size, limits, options = case(trial, 20, 6)
        told = f"trial {trial}: {kind}, {size} tokens, limits {limits}, {options}"
        rows = range(len(limits))
        found = Infinite(kind, size, trial).search(rows, limits, **options)
        usual = Hostile(kind, size, trial).search(rows, limits, **options)
        for one, other in list(zip(found, usual, strict=True))[1:]:
            assert [h[:3] for h in one] == [h[:3] for h in other], told
        assert all(len(h.ids) <= limits[0] for h in found[0]), told
        tally["sentences"] += len(limits)


def numbers(random: np.random.Generator, rows: int, width: int) -> Tensor:
    """Rows of one kind each."""
    values = torch.from_numpy(random.normal(size=(rows, width))).float()
    for row in range(rows):
        kind = random.integers(10)
        if kind == 0:
            values[row] = values[row].round()  # ties
        elif kind == 1:
            values[row] = values[row].clamp(max=0)  # and at the top
        elif kind == 2:
            values[row, torch.from_numpy(random.random(width) < 0.9)] = -INF
        elif kind == 3:
            values[row] = -INF
        elif kind == 4:
            values[row, int(random.integers(width))] = NAN
        elif kind == 5:
            values[row] *= 3e37
        elif kind == 6:
            values[row] *= 1e-42
        elif kind == 7:
            values[row] = float(random.normal())
    return values


@pytest.mark.trials(8, 1_500)
def test_the_largest_of_any_numbers(trials: range, tally: Counter[str]) -> None:
    """As a stable sort has them, whatever stands in other rows; of NaN nothing is asked."""
    for trial in trials:
        random = np.random.default_rng(trial)
        rows = int(random.integers(1, 70))
        width = int(random.choice([1, 2, random.integers(3, 300), random.integers(300, 9000)]))
        if trial % 500 == 7:
            width, rows = 1_000_000, 2
        count = int(random.choice([1, min(5, width), random.integers(1, min(width, 60) + 1)]))
        values = numbers(random, rows, width)
        told = f"trial {trial}: {rows} rows, {width} wide, {count} asked for"
        top, places = largest(values, count)
        ordered, order = values.sort(dim=1, descending=True, stable=True)
        sound = ~values.isnan().any(1)
        assert torch.equal(top[sound], ordered[sound, :count]), told
        possible = (top > -INF) & sound.unsqueeze(1)
        assert torch.equal(places[possible], order[:, :count][possible]), told
        whichever = candidates(values, count)
        found = values.gather(1, whichever).sort(dim=1, descending=True).values
        assert torch.equal(found[sound], ordered[sound, :count]), told
        for chosen in (places, whichever):
            assert chosen.min() >= 0, told
            assert chosen.max() < width, told
            assert (chosen.sort(dim=1).values.diff(dim=1) > 0).all(), told
        log_probs, tokens = likeliest(values, count)
        assert torch.equal(tokens[possible], places[possible]), told
        exact = values.double().log_softmax(1).gather(1, tokens)
        fine = sound & values.amax(1).isfinite()
        assert torch.allclose(log_probs[fine].double(), exact[fine], atol=1e-4), told
        assert not (log_probs[~fine] > -INF).any(), told  # a search takes that for impossible
        tally["rows"] += rows
        tally["rows with NaN"] += int((~sound).sum())


@pytest.mark.trials(10, 4_000)
def test_output_layers_on_any_numbers(trials: range, tally: Counter[str]) -> None:
    """Prepared ones against plain torch; a hidden state of NaN is that hypothesis' alone."""
    layers: list[type[PackedOutput] | type[QuantizedOutput]] = [PackedOutput]
    if _has_8_bit_products(torch.zeros(1)):
        layers.append(QuantizedOutput)
    for trial in trials:
        random = np.random.default_rng(trial)
        words = int(random.choice([1, 3, random.integers(4, 100), random.integers(100, 4000)]))
        hidden, rows = int(random.integers(1, 65)), int(random.integers(1, 140))
        count = int(random.integers(1, min(words, 12) + 1))
        told = f"trial {trial}: {words} words, {hidden} hidden, {rows} rows, {count} asked for"
        weight = torch.from_numpy(random.normal(size=(words, hidden))).float()
        weight *= float(10 ** random.uniform(-4, 1.5))
        bias = torch.from_numpy(random.normal(size=words)).float()
        weight[:: int(random.integers(1, 9))] = weight[0].clone()  # many are equal
        bias[torch.from_numpy(random.random(words) < random.random() / 2)] = -INF
        features = torch.from_numpy(random.uniform(-1, 1, size=(rows, hidden))).float()
        ill = torch.from_numpy(random.random(rows) < 0.2)
        exact = features.double() @ weight.double().T + bias.double()
        possible = bool((bias > -INF).any())
        for layer in layers if words > MARGIN else layers[:1]:
            made = layer(weight, bias) if layer is PackedOutput else layer(weight, bias, 1.0)  # type: ignore[call-arg]
            best, (log_probs, tokens) = made.best(features), made.likeliest(features, count)
            told_of = f"{told}, {layer.__name__}"
            assert (tokens.sort(dim=1).values.diff(dim=1) > 0).all(), told_of
            if possible:
                # Of an integer product, the errors of rounding: half a step in each factor.
                steps = weight.abs().amax(1).max() / 127 + weight.abs().max() / 127
                slack = 1e-4 + 1e-6 * float(exact[exact > -INF].abs().max())
                slack += float(steps) * hidden * 0.5 if layer is QuantizedOutput else 0.0
                behind = exact.amax(1) - exact.gather(1, best.unsqueeze(1)).squeeze(1)
                assert float(behind.max()) <= 2 * slack, told_of
                wanted = exact.log_softmax(1).gather(1, tokens)
                seen = wanted > -INF
                assert torch.equal(log_probs > -INF, seen), told_of
                off = (log_probs.double() - wanted)[seen].abs()
                assert float(off.max()) <= 2 * slack, told_of
            else:
                assert not (log_probs > -INF).any(), told_of
            broken = features.clone()
            broken[ill] = NAN
            again, chosen = made.likeliest(broken, count)
            assert torch.equal(chosen[~ill], tokens[~ill]), told_of
            assert torch.allclose(again[~ill], log_probs[~ill], 0, 0, equal_nan=True), told_of
            assert not (again[ill] > -INF).any(), told_of
            made.best(broken)
            tally[layer.__name__] += rows
