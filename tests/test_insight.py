"""What the analysis rests on, against cases whose answer is known by hand."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau
from torch import nn

from closure import ROOT
from rnnmt.corpora.bundled import Sentence, generate
from rnnmt.corpora.words import Links, read_links, spans, to_json, words
from rnnmt.dataset.batch import pad
from rnnmt.errors import UserError
from rnnmt.insight import cost, gates, memory, searching, slices
from rnnmt.insight.aligner import align
from rnnmt.insight.alignment import (
    aer_counts,
    by_words,
    diagonal,
    entropy,
    error_rate,
    kendall_tau,
    nearest,
    owners,
    strongest,
)
from rnnmt.insight.gates import Weights, gradient_flow, half_life, trace
from rnnmt.insight.settings import SOLVED
from rnnmt.model.cells import CELLS
from rnnmt.model.seq2seq import Seq2Seq, Vocabularies
from rnnmt.model.settings import ModelSettings
from rnnmt.stages.align import _pairs

H, STEPS = 6, 30


# --- gates and gradients --------------------------------------------------------------------


def a_layer(cell: str, inputs: int = 4) -> nn.RNNBase:
    torch.manual_seed(3)
    return CELLS[cell](inputs, H, batch_first=True).double()


@pytest.mark.parametrize("cell", CELLS)
def test_a_trace_has_the_layers_own_states(cell: str) -> None:
    layer = a_layer(cell)
    inputs = torch.randn(1, STEPS, 4, dtype=torch.float64)
    wanted, last = layer(inputs)
    found = trace(cell, gates.weights(layer), inputs[0].numpy())
    assert np.allclose(found.states[:, :H], wanted[0].detach().numpy())
    if cell == "lstm":
        assert np.allclose(found.states[-1, H:], last[1][0, 0].detach().numpy())
    assert set(found.gates) == set(gates.GATES[cell])
    assert all(values.shape == (STEPS, H) for values in found.gates.values())


@pytest.mark.parametrize("cell", CELLS)
def test_the_jacobians_are_those_of_automatic_differentiation(cell: str) -> None:
    layer = a_layer(cell)
    inputs = torch.randn(STEPS, 4, dtype=torch.float64)
    found = trace(cell, gates.weights(layer), inputs.numpy())

    def step(state: torch.Tensor) -> torch.Tensor:
        parts = state.view(-1, 1, 1, H)
        before = (parts[0], parts[1]) if cell == "lstm" else parts[0]
        _, after = layer(inputs[time].view(1, 1, -1), before)
        return torch.cat([part.flatten() for part in (after if cell == "lstm" else (after,))])

    for time in (1, 7, STEPS - 1):
        state = torch.tensor(found.states[time - 1])
        wanted = torch.autograd.functional.jacobian(step, state)
        assert np.allclose(found.jacobians[time], wanted.numpy())


def still(gates_: int, biases: dict[int, float], state: Any = None) -> Weights:
    """A layer that no input moves: zero weights, and these biases of whole gates."""
    bias = np.zeros((gates_, H))
    for gate, value in biases.items():
        bias[gate] = value
    matrix = np.zeros((gates_ * H, H)) if state is None else state
    return Weights(np.zeros((gates_ * H, 2)), matrix, bias.ravel(), np.zeros(gates_ * H))


def logit(share: float) -> float:
    return math.log(share / (1 - share))


def test_the_gradient_of_a_linear_rnn_falls_with_the_radius_of_its_matrix() -> None:
    orthogonal, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(H, H)))
    layer = still(1, {}, 0.5 * orthogonal)
    found = trace("rnn", layer, np.zeros((STEPS, 2)))  # at zero, tanh has slope one
    flow = gradient_flow(found.jacobians, 20)
    assert np.allclose(flow, 0.5 ** np.arange(1, 21))
    assert gates.spectral_radius(layer.state) == pytest.approx(0.5)


def test_the_gradient_of_a_gru_that_keeps_nine_tenths() -> None:
    found = trace("gru", still(3, {1: logit(0.9)}), np.zeros((STEPS, 2)))
    assert np.allclose(found.gates["update"], 0.9)
    assert np.allclose(gradient_flow(found.jacobians, 20), 0.9 ** np.arange(1, 21))


def test_the_gradient_of_an_lstm_that_keeps_four_fifths() -> None:
    found = trace("lstm", still(4, {1: logit(0.8)}), np.zeros((STEPS, 2)))
    assert np.allclose(found.gates["forget"], 0.8)
    # d c / d c is 0.8, d h / d c half of it, through the output gate; nothing comes from h.
    wanted = 0.8 ** np.arange(1, 21) * math.sqrt((1 + 0.25) / 2)
    assert np.allclose(gradient_flow(found.jacobians, 20), wanted)


def test_half_lives() -> None:
    kept = np.array([[0.5, math.sqrt(0.5), 0.25], [0.5, math.sqrt(0.5), 1.0]])
    assert np.allclose(half_life(kept), [1, 2, 1])


def test_the_correlation_time_of_waves() -> None:
    time = np.arange(400)
    waves = np.stack([np.cos(2 * np.pi * time / period) for period in (12, 48)], axis=1)
    # cos has half of its height after a sixth of its period
    assert np.allclose(gates.correlation_time(waves), [2, 8], rtol=0.1)
    assert np.allclose(gates.correlation_time(waves[:1]), 0)  # of one step nothing is known


# --- alignments -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("L'éléphant qui a bu.", ["L'", "éléphant", "qui", "a", "bu", "."]),
        ("The fisherman's big cat", ["The", "fisherman", "'s", "big", "cat"]),
        ("Quand boit-il?", ["Quand", "boit-il", "?"]),
        ("می\u200cخواهم کتاب", ["می\u200cخواهم", "کتاب"]),
        ("❤️ cats", ["❤", "\ufe0f", "cats"]),
        ("यह एक छोटा वाक्य है।", ["यह", "एक", "छोटा", "वाक्य", "है", "।"]),
        ("", []),
    ],
)
def test_words(text: str, found: list[str]) -> None:
    assert words(text) == found
    assert [text[a:b] for a, b in spans(text)] == found


def test_link_files_come_back_as_they_were(tmp_path: Path) -> None:
    links = Links(["a", "b"], ["c"], {(0, 0)}, {(0, 0), (1, 0)})
    file = tmp_path / "links.jsonl"
    file.write_text(to_json(links) + "\n")
    assert read_links(file) == [links]
    file.write_text('{"source": 3}\n')
    with pytest.raises(UserError, match="damaged"):
        read_links(file)
    with pytest.raises(UserError, match="dvc repro align"):
        read_links(tmp_path / "nowhere")


def test_pieces_belong_to_the_word_of_their_first_letter() -> None:
    pieces = ["▁L", "'", "élé", "phant", "▁bo", "it", ".", "<EOS>"]
    assert owners("L'éléphant boit.", pieces) == [0, 0, 1, 1, 2, 2, 3, -1]
    assert owners("a b", ["▁a", "▁", "b", "<EOS>"]) == [0, 1, 1, -1]


def test_attention_of_pieces_becomes_that_of_words() -> None:
    attention = np.array([[0.1, 0.2, 0.7, 0.0], [0.3, 0.4, 0.1, 0.2], [0.0, 0.0, 1.0, 0.0]])
    merged = by_words(attention, [0, 0, 1, -1], [0, 0, 1])
    assert np.allclose(merged, [[0.5, 0.4], [0.0, 1.0]])
    assert strongest(merged) == {(0, 0), (1, 1)}


def test_entropy_is_the_logarithm_of_how_many_are_looked_at() -> None:
    assert entropy(np.full((3, 4), 0.25)) == pytest.approx(2)
    assert entropy(np.eye(4)) == pytest.approx(0)


def test_alignment_error_rate() -> None:
    true = Links(["a", "b", "c"], ["x", "y", "z"], {(0, 0), (1, 1)}, {(0, 0), (1, 1), (2, 1)})
    rate = lambda found: error_rate([aer_counts(found, true)])  # noqa: E731
    assert rate({(0, 0), (1, 1)}) == 0
    assert rate({(0, 0), (1, 1), (2, 1)}) == 0  # a possible link is no error
    assert rate({(0, 0), (2, 2)}) == pytest.approx(1 - (1 + 1) / (2 + 2))
    assert rate({(2, 2)}) == 1
    assert diagonal(true) == {(0, 0), (1, 1), (2, 2)}
    some = Links(["a", "b"], ["x", "y", "z"], {(1, 0)}, {(0, 0), (1, 0), (1, 1)})
    assert nearest(some) == {(1, 0), (1, 1), (0, 2)}  # sure, possible, none


def test_kendalls_tau_by_hand() -> None:
    assert kendall_tau([(0, 0), (1, 1), (2, 2)]) == 1
    assert kendall_tau([(0, 2), (1, 1), (2, 0)]) == -1
    assert kendall_tau([(0, 0), (1, 2), (2, 1)]) == pytest.approx(1 / 3)  # "the cat black"
    assert kendall_tau([(0, 0)]) == kendall_tau([]) == 1
    assert kendall_tau([(0, 0), (0, 1), (1, 2)]) == 1  # two words for one have no order


@given(st.permutations(range(7)))
def test_kendalls_tau_is_scipys(order: Sequence[int]) -> None:
    assert kendall_tau(list(enumerate(order))) == pytest.approx(
        kendalltau(range(7), order).statistic
    )


@pytest.fixture(scope="module")
def corpus() -> dict[str, list[Sentence]]:
    return generate(5, {"train": 500, "test": 80})


def test_a_pair_without_words_or_with_very_many_has_no_links() -> None:
    """And nothing is learned from it, also where it is the only one."""
    black, cat = (["black", "cat"], ["chat", "noir"]), (["cat"], ["chat"])
    none: list[tuple[list[str], list[str]]] = [([], ["chat"]), (["cat"], []), ([], [])]
    none.append((["black"] * 20_000, ["noir"] * 20_000))  # gigabytes, if each were held to each
    whole, alone = align([*none, black, cat, *none], [cat, *none]), align([black, cat], [cat])
    assert whole[0].sure == alone[0].sure == {(0, 0)}
    assert [links.sure for links in whole[1:]] == [set()] * 4
    assert [links.sure for links in align(none, none)] == [set()] * 4
    assert align([black], []) == []


def test_the_aligner_finds_most_of_the_true_links(corpus: dict[str, list[Sentence]]) -> None:
    pairs = {s: [(words(x.source), words(x.target)) for x in corpus[s]] for s in corpus}
    found = align(pairs["train"], pairs["test"])
    true = [sentence.links for sentence in corpus["test"]]
    rate = error_rate(aer_counts(a.sure, b) for a, b in zip(found, true, strict=True))
    straight = error_rate(aer_counts(diagonal(b), b) for b in true)
    assert rate < 0.15 < straight


@pytest.mark.parametrize(("at_most", "step"), [(None, 1), (11, 1), (10, 2), (3, 4), (1, 11)])
def test_the_aligner_learns_from_lines_evenly_spread(
    at_most: int | None, step: int, tmp_path: Path
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("".join(f"line {n}\u2028 .\r\n" for n in range(10)), newline="")
    target.write_text("".join(f"ligne {n}\n" for n in range(10)), newline="")
    expected = [(["line", f"{n}", "."], ["ligne", f"{n}"]) for n in range(0, 10, step)]
    assert list(_pairs(source, target, at_most)) == expected


@pytest.mark.parametrize("kind", ["true", "statistical"])
def test_the_stage_takes_true_links_where_there_are_some(
    kind: str, corpus: dict[str, list[Sentence]], tmp_path: Path
) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    raw, tokens = tmp_path / "data/bundled/raw", tmp_path / "data/bundled/tokens"
    for folder, split, ends in ((raw, "train", ("", "")), (tokens, "test", (".txt", ".txt"))):
        folder.mkdir(parents=True)
        for side, end in zip(("source", "target"), ends, strict=True):
            lines = [getattr(sentence, side) for sentence in corpus[split]]
            (folder / f"{split}.{side}{end}").write_text("\n".join(lines) + "\n")
    (tokens / "valid.target.txt").write_text("Un chat.\n")
    manifest = {"source_language": "en", "target_language": "fr", "splits": {"test": {}}}
    (tokens / "manifest.json").write_text(json.dumps(manifest))
    if kind == "true":
        lines = [to_json(sentence.links) for sentence in corpus["test"]]
        (raw / "test.links.jsonl").write_text("\n".join(lines) + "\n")
    subprocess.run([sys.executable, "-m", "rnnmt.stages.align"], cwd=tmp_path, check=True)
    out = tmp_path / "data/bundled/links"
    assert json.loads((out / "source.json").read_text()) == {"links": kind}
    found = read_links(out / "test.links.jsonl")
    true = [sentence.links for sentence in corpus["test"]]
    rate = error_rate(aer_counts(a.sure, b) for a, b in zip(found, true, strict=True))
    assert rate == 0 if kind == "true" else 0 < rate < 0.15


# --- search ---------------------------------------------------------------------------------


def a_model() -> Seq2Seq:
    torch.manual_seed(2)
    settings = ModelSettings(
        cell="gru", attention="general", embedding=8, hidden=8, encoder_layers=1,
        decoder_layers=1, dropout=0.0, tie_embeddings=True, word_dropout=0.0, heads=1,
        layer_norm=False,
    )  # fmt: skip
    return Seq2Seq(settings, Vocabularies(12, 12, True)).eval()


def test_nothing_forced_is_greedy_search_and_what_is_forced_stays() -> None:
    model, source = a_model(), [[4, 5, 6], [7, 8], [9, 10, 11, 4, 5]]
    ids, lengths = pad(source)
    free = searching.continued(model, source, [[], [], []], 2.0)
    assert free == model.greedy(ids, lengths, searching.greedy_limits(lengths, 2.0))
    prefixes = [[5, 5], free[1][:3], [6]]
    forced = searching.continued(model, source, prefixes, 2.0)
    assert forced[0][:2] == [5, 5]
    assert forced[1] == free[1]  # forced to say what it would have said
    assert forced[2][0] == 6


@pytest.mark.parametrize(
    ("greedy", "forced", "wanted"),
    [
        ("un chat noir", "un chat noir", "right"),
        ("un chien noir", "un chat noir", "one word"),
        ("un chatonnet noir", "un chat noir", "one word"),  # of several pieces
        ("un noir", "un chat noir", "one word"),  # missing
        ("un chat", "un chat noir", "one word"),
        ("un gros chat noir", "un chat noir", "one word"),  # too many
        ("un chat noir noir", "un chat noir", "one word"),
        ("un chat noir et un chat noir", "un chat noir", "ruined"),  # right at both ends
        ("un gros chien noir", "un chat noir", "ruined"),
        ("un chien blanc", "un chat noir", "ruined"),
        ("un chien blanc", "un chat blanc", "lost"),
        ("", "un chat noir", "ruined"),
    ],
)
def test_what_the_first_wrong_piece_did(greedy: str, forced: str, wanted: str) -> None:
    assert searching.outcome(greedy, "un chat noir", forced) == wanted


def test_outcomes_are_judged_by_words_and_not_by_pieces() -> None:
    model, source = a_model(), [[4, 5, 6], [9, 10, 11, 4, 5]]
    spell = lambda rows: [" ".join(f"w{i // 2}" for i in row) for row in rows]  # noqa: E731
    trained: Any = SimpleNamespace(model=model, target=SimpleNamespace(decode=spell))
    greedy = searching.continued(model, source, [[], []], 2.0)
    assert searching.outcomes(trained, source, greedy, 2.0) == ["right", "right"]
    other = [[*row[:-1], (row[-1] + 2) % 12] for row in greedy]
    assert searching.outcomes(trained, source, other, 2.0) == ["one word", "one word"]


# --- slices ---------------------------------------------------------------------------------


def test_length_bins_hold_every_sentence_once() -> None:
    sizes = np.random.default_rng(1).integers(3, 16, 500)
    bins = slices.length_bins(sizes)
    counts = [int(((low <= sizes) & (sizes <= high)).sum()) for low, high in bins]
    assert sum(counts) == 500
    assert min(counts) > 40
    assert slices.length_bins(np.array([4, 4, 4])) == [(4, 4)]


def test_examples_are_of_all_lengths() -> None:
    sources = ["x" * n for n in (5, 1, 4, 2, 3)]
    assert [len(sources[i]) for i in slices.examples(sources, 5)] == [1, 2, 3, 4, 5]
    assert [len(sources[i]) for i in slices.examples(sources, 1)] == [3]


def test_what_is_looked_into_is_not_too_long() -> None:
    sources = ["x" * n for n in (slices.LONGEST, slices.LONGEST + 1, 5)]
    assert slices.short(sources) == [0, 2]
    assert slices.short(sources, ["x"] * 3) == slices.short(["x"] * 3, sources) == [0, 2]
    assert slices.examples(sources, 3) == [2, 0]
    assert slices.short([text * 9999 for text in sources]) == [2]  # one at least


# --- memory tasks ---------------------------------------------------------------------------


def test_the_tasks_are_what_they_say() -> None:
    inputs, sums = memory.adding(50, 9, torch.Generator().manual_seed(0))
    assert (inputs[..., 1].sum(dim=1) == 2).all()
    assert (inputs[:, :4, 1].sum(dim=1) == 1).all()
    assert torch.allclose((inputs[..., 0] * inputs[..., 1]).sum(dim=1), sums)
    inputs, symbols = memory.copying(50, 9, torch.Generator().manual_seed(0))
    assert (inputs[:, : memory.SYMBOLS].argmax(dim=2) == symbols).all()
    assert (inputs[:, memory.SYMBOLS : -memory.SYMBOLS, memory.KINDS] == 1).all()
    assert inputs.shape[1] == 9 + 2 * memory.SYMBOLS


def test_who_remembers_nothing_has_error_one() -> None:
    _, sums = memory.adding(20_000, 10, torch.Generator().manual_seed(0))
    assert float(((sums - 1) ** 2).mean()) == pytest.approx(1 / 6, rel=0.05)


def test_cells_have_equally_many_parameters_and_a_gru_solves_a_short_lag() -> None:
    found = {cell: memory.run("adding", cell, 4, 800, 1) for cell in CELLS}
    assert all(700 < one["parameters"] <= 800 for one in found.values())
    solved = memory.run("adding", "gru", 4, 800, 300)
    assert solved["solved_after"]
    assert solved["error"] < SOLVED
    assert solved == memory.run("adding", "gru", 4, 800, 300)
    assert solved != memory.run("adding", "gru", 4, 800, 300, seed=2)


def test_operations_counted_by_hand() -> None:
    model = {
        "cell": "lstm", "attention": "none", "embedding": 2, "hidden": 4, "encoder_layers": 1,
        "decoder_layers": 1,
    }  # fmt: skip
    # encoder 2 x 4 x 2 x (2 + 2), decoder 4 x 4 x (2 + 4), combine 4 x 4, output 4 x 2 + 2 x 10,
    # first state 2 x 4 x 4 once for all pieces
    bridge = 32 // cost.PIECES
    assert cost.operations(model, 10) == 64 + 96 + 16 + 28 + bridge
    general = cost.operations(model | {"attention": "general"}, 10)
    assert general == 204 + bridge + 16 + 2 * cost.PIECES * 4 + 16  # wider combine, looking, keys
    gru = cost.operations(model | {"cell": "gru"}, 10) - 44 - 16 // cost.PIECES
    assert gru / (204 - 44) == 3 / 4
