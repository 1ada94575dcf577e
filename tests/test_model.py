"""Encoder, attention, decoder and the folder of a model, against plain references."""

from __future__ import annotations

import itertools
import json
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rnnmt.dataset.tokenizer import BOS, EOS, PAD, TokenizerSettings, train
from rnnmt.errors import UserError
from rnnmt.model.attention import ATTENTIONS, Memory
from rnnmt.model.decoder import State
from rnnmt.model.dropout import SequenceDropout, WordDropout
from rnnmt.model.folder import EQUATIONS, load_model, save_model, sums
from rnnmt.model.seq2seq import Seq2Seq, Vocabularies, greedy_limits
from rnnmt.model.settings import ModelSettings

torch.set_num_threads(1)

CELLS = ("rnn", "gru", "lstm")
KINDS = ("none", "dot", "general", "additive")
LAYERS = (1, 2)
HIDDEN, EMBEDDING, VOCABULARY = 8, 6, 19
SETTINGS = {
    "cell": "lstm", "attention": "general", "heads": 1, "embedding": EMBEDDING, "hidden": HIDDEN,
    "encoder_layers": 1, "decoder_layers": 1, "layer_norm": False, "dropout": 0.0,
    "word_dropout": 0.0, "tie_embeddings": False,
}  # fmt: skip
SENTENCES = [[5, 6, 7], [], [8], [9, 10, 11, 12, 13, 14, 15], [4, 4, 4, 4], [17, 5, 16, 8, 9]]
close = torch.testing.assert_close


def make(
    seed: int = 0, joint: bool = False, sharp: float = 0.5, end: float = 0.0, **changes: Any
) -> Seq2Seq:
    """A model in evaluation mode whose weights are all random, padding's vectors included.

    The larger `sharp` the surer it is of each token, and the larger `end` the likelier is <EOS>.
    """
    torch.manual_seed(seed)
    settings = ModelSettings(**{**SETTINGS, **changes})
    model = Seq2Seq(settings, Vocabularies(VOCABULARY, VOCABULARY, joint))
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=sharp)
        model.decoder.output.bias[EOS] += end
    return model.eval()


def batch(sentences: list[list[int]], extra: int = 0) -> tuple[Tensor, Tensor]:
    """Sentences with <EOS>, padded to the longest and `extra` positions more."""
    lengths = [len(s) + 1 for s in sentences]
    width = max(lengths) + extra
    rows = [[*s, EOS, *[PAD] * (width - len(s) - 1)] for s in sentences]
    return torch.tensor(rows), torch.tensor(lengths)


# --- the encoder ----------------------------------------------------------------------------------


def read_alone(model: Seq2Seq, sentence: list[int]) -> tuple[Tensor, Tensor]:
    """The encoder's equations for one sentence: no padding, and `flip` to read it backwards."""
    encoder = model.encoder
    states = encoder.embedding(torch.tensor([[*sentence, EOS]]))
    for forwards, backwards in zip(encoder.forwards, encoder.backwards, strict=True):
        right, _ = forwards(states)
        left, _ = backwards(states.flip(1))
        final = torch.cat([right[:, -1], left[:, -1]], dim=1)
        outputs = torch.cat([right, left.flip(1)], dim=2)
        states = states + outputs if states.shape == outputs.shape else outputs
    return states[0], final[0]


@pytest.mark.parametrize("extra", [0, 3])
@pytest.mark.parametrize("embedding", [EMBEDDING, HIDDEN])
@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("cell", CELLS)
def test_padding_changes_nothing(cell: str, layers: int, embedding: int, extra: int) -> None:
    model = make(cell=cell, encoder_layers=layers, embedding=embedding)
    source, lengths = batch(SENTENCES, extra)
    encoding = model.encoder(source, lengths)
    assert encoding.states.shape == (len(SENTENCES), source.shape[1], HIDDEN)
    for row, sentence in enumerate(SENTENCES):
        states, final = read_alone(model, sentence)
        close(encoding.states[row, : len(states)], states, atol=1e-5, rtol=1e-5)
        close(encoding.final[row], final, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("cell", CELLS)
def test_what_stands_in_the_padding_is_never_seen(cell: str, layers: int) -> None:
    model = make(cell=cell, encoder_layers=layers)
    source, lengths = batch(SENTENCES, 2)
    real = torch.arange(source.shape[1]) < lengths.unsqueeze(1)
    rubbish = torch.where(real, source, torch.randint_like(source, 4, VOCABULARY))
    assert not torch.equal(source, rubbish)
    one, other = model.encoder(source, lengths), model.encoder(rubbish, lengths)
    close(one.states[real], other.states[real])
    close(one.final, other.final)


@pytest.mark.parametrize("cell", CELLS)
def test_both_directions_see_the_whole_sentence(cell: str) -> None:
    """Another first or last word changes the final state of either direction."""
    model, half = make(cell=cell), HIDDEN // 2
    finals = model.encoder(*batch([[5, 6, 7, 8], [9, 6, 7, 8], [5, 6, 7, 9]], 2)).final
    for other, part in itertools.product((1, 2), (slice(half), slice(half, None))):
        assert (finals[0, part] - finals[other, part]).abs().max() > 1e-4


@pytest.mark.parametrize("cell", CELLS)
def test_rows_do_not_see_each_other(cell: str) -> None:
    model = make(cell=cell, encoder_layers=2)
    source, lengths = batch(SENTENCES)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    straight, mixed = model.encoder(source, lengths), model.encoder(source[order], lengths[order])
    close(straight.states[order], mixed.states)
    close(straight.final[order], mixed.final)


# --- attention ------------------------------------------------------------------------------------


def dot_score(weights: dict[str, Any], part: slice, h: Any, s: Any) -> float:
    return float(weights["scale"] * (h[part] @ s[part])) / math.sqrt(part.stop - part.start)


def general_score(weights: dict[str, Any], part: slice, h: Any, s: Any) -> float:
    return float(h[part] @ (weights["project.weight"] @ s)[part])


def additive_score(weights: dict[str, Any], part: slice, h: Any, s: Any) -> float:
    query = weights["query.weight"] @ h + weights["query.bias"]
    energies = np.tanh(query + weights["project.weight"] @ s)
    return float(weights["energy"][part] @ energies[part])


SCORES: dict[str, Callable[..., float]] = {
    "dot": dot_score, "general": general_score, "additive": additive_score,
}  # fmt: skip


@pytest.mark.parametrize("heads", [1, 2, 8])
@pytest.mark.parametrize("kind", ATTENTIONS)
def test_attention_is_its_equation(kind: str, heads: int) -> None:
    """Of each head, with its part of everything."""
    torch.manual_seed(1)
    attention = ATTENTIONS[kind](HIDDEN, heads).double()
    for weight in attention.parameters():
        torch.nn.init.normal_(weight)
    lengths = [4, 1, 6, 2]
    states = torch.randn(len(lengths), max(lengths), HIDDEN, dtype=torch.float64)
    query = torch.randn(len(lengths), 3, HIDDEN, dtype=torch.float64)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    contexts, weights = attention(query, Memory(states, attention.keys(states), mask))
    parameters = {name: w.detach().numpy() for name, w in attention.named_parameters()}
    assert weights.shape == (len(lengths), 3, max(lengths))
    width = HIDDEN // heads
    for row, length in enumerate(lengths):
        for step in range(3):
            h, memory = query[row, step].numpy(), states[row].numpy()
            shown, context = np.zeros(length), []
            for part in (slice(i, i + width) for i in range(0, HIDDEN, width)):
                scores = [SCORES[kind](parameters, part, h, memory[j]) for j in range(length)]
                shares = np.exp(scores) / np.exp(scores).sum()
                shown += shares / heads
                context += list(shares @ memory[:length, part])
            given = weights[row, step].tolist()
            assert given[:length] == pytest.approx(shown.tolist(), rel=1e-9)
            assert given[length:] == [0.0] * (max(lengths) - length)
            assert sum(given) == pytest.approx(1.0, rel=1e-12)
            assert contexts[row, step].tolist() == pytest.approx(context, rel=1e-9)


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_memory_select_names_rows(kind: str) -> None:
    model = make(attention=kind)
    _, memory = model.encode(*batch(SENTENCES))
    assert memory is not None
    chosen = memory.select(torch.tensor([4, 4, 0]))
    for part, selected in zip(memory, chosen, strict=True):
        close(selected, part[[4, 4, 0]], rtol=0.0, atol=0.0)


# --- the decoder ----------------------------------------------------------------------------------

TARGET = torch.tensor([[BOS, 5, 6, 7, 8, 9], [BOS, 10, 11, 12, EOS, PAD], [BOS, 4, 4, 4, 4, 4]])
SOURCES = [[5, 6, 7], [8], [9, 10, 11, 12, 13]]


MORE = {"heads": 4, "layer_norm": True}


@pytest.mark.parametrize("more", [{}, MORE], ids=["plain", "heads, norm"])
@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_whole_target_is_its_steps(
    cell: str, kind: str, layers: int, more: dict[str, Any]
) -> None:
    model = make(cell=cell, attention=kind, decoder_layers=layers, **more)
    state, memory = model.encode(*batch(SOURCES))
    whole = model.decoder(TARGET, state, memory)
    assert whole.features.shape == (*TARGET.shape, EMBEDDING)
    for t in range(TARGET.shape[1]):
        step = model.decoder(TARGET[:, t : t + 1], state, memory)
        close(step.features[:, 0], whole.features[:, t], atol=1e-5, rtol=1e-5)
        if kind == "none":
            assert step.attention is None
            assert whole.attention is None
        else:
            close(step.attention[:, 0], whole.attention[:, t], atol=1e-5, rtol=1e-5)
        state = step.state
    close(state.layers, whole.state.layers, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("more", [{}, MORE], ids=["plain", "heads, norm"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", CELLS)
def test_every_weight_learns(cell: str, kind: str, more: dict[str, Any]) -> None:
    """Or several processes could not train it together."""
    model = make(cell=cell, attention=kind, encoder_layers=2, decoder_layers=2, **more)
    model.decoder.logits(model(*batch(SOURCES), TARGET).features).sum().backward()
    assert not [name for name, weight in model.named_parameters() if weight.grad is None]


@pytest.mark.parametrize("at_once", [1, 25, 1000])
@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("kind", KINDS)
def test_features_in_parts_are_those_of_the_whole(
    kind: str, layers: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rnnmt.model.seq2seq.ATTENDED_AT_ONCE", at_once)
    model = make(attention=kind, decoder_layers=layers)
    source, lengths = batch(SOURCES)
    parts = model.features(source, lengths, TARGET)
    close(parts, model(source, lengths, TARGET).features, atol=1e-5, rtol=1e-5)
    assert not parts.requires_grad


@pytest.mark.parametrize("kind", KINDS[1:])
def test_attention_of_a_very_long_sentence_takes_little_memory(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, largest = make(attention=kind), 0
    attend = model.decoder.attention.forward

    def watched(query: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        nonlocal largest
        context, weights = attend(query, memory)
        largest = max(largest, weights.numel())
        return context, weights

    monkeypatch.setattr(model.decoder.attention, "forward", watched)
    source, target = torch.full((1, 5000), 7), torch.full((1, 1500), 7)
    assert model.features(source, torch.tensor([5000]), target).shape == (1, 1500, EMBEDDING)
    assert 0 < largest <= 1 << 19


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("embedding", [EMBEDDING, HIDDEN])
@pytest.mark.parametrize("kind", ["none", "general"])
def test_the_decoder_is_its_equations(kind: str, embedding: int, layers: int) -> None:
    """h + tanh(W [h; context]) or h + tanh(W h), word vectors, residual layers, features."""
    model = make(attention=kind, decoder_layers=layers, embedding=embedding)
    decoder = model.decoder
    state, memory = model.encode(*batch(SOURCES))
    output = decoder(TARGET, state, memory)
    hidden, _ = decoder.layers[0](decoder.embedding(TARGET), state.layers[0])
    seen = hidden
    if memory is not None:
        scores = hidden @ (memory.states @ decoder.attention.project.weight.t()).transpose(1, 2)
        scores = scores.masked_fill(~memory.mask.unsqueeze(1), -1e30)
        seen = torch.cat([hidden, scores.softmax(dim=2) @ memory.states], dim=2)
    hidden = hidden + torch.tanh(seen @ decoder.combine.weight.t() + decoder.combine.bias)
    if embedding == HIDDEN:
        hidden = hidden + decoder.embedding(TARGET)
    if layers == 2:
        hidden = hidden + decoder.layers[1](hidden, state.layers[1])[0]
    features = hidden @ decoder.features.weight.t()
    close(output.features, features)
    close(
        decoder.logits(output.features),
        features @ decoder.output.weight.t() + decoder.output.bias,
    )


@pytest.mark.parametrize("cell", CELLS)
def test_the_first_state_is_made_of_the_encoders_last(cell: str) -> None:
    model = make(cell=cell, decoder_layers=2)
    encoding = model.encoder(*batch(SOURCES))
    start = model.decoder.start(encoding).layers
    kinds = 2 if cell == "lstm" else 1
    bridge = model.decoder.bridge
    for row in range(len(SOURCES)):
        flat = torch.tanh(bridge.weight @ encoding.final[row] + bridge.bias)
        parts = flat.split(HIDDEN)
        for part, (layer, kind) in zip(
            parts, itertools.product(range(2), range(kinds)), strict=True
        ):
            close(start[layer, kind, row], part)


@pytest.mark.parametrize("cell", CELLS)
def test_without_attention_the_source_is_seen_through_the_first_state_alone(cell: str) -> None:
    model = make(cell=cell, attention="none")
    source, lengths = batch(SOURCES)
    encoding = model.encoder(source, lengths)
    mask = torch.arange(source.shape[1]) < lengths.unsqueeze(1)
    state, memory = model.decoder.start(encoding), model.decoder.memory(encoding, mask)
    assert memory is None
    other = encoding._replace(states=torch.randn_like(encoding.states))
    close(model.decoder.start(other).layers, state.layers, rtol=0.0, atol=0.0)
    assert model.decoder.memory(other, mask) is None
    # And through that state it is seen:
    moved = State(state.layers.roll(1, dims=2))
    one = model.decoder(TARGET, state, None).features
    assert (one - model.decoder(TARGET, moved, None).features).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ATTENTIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_with_attention_it_sees_the_states_too(cell: str, kind: str) -> None:
    model = make(cell=cell, attention=kind)
    state, memory = model.encode(*batch(SOURCES))
    other = memory._replace(states=memory.states + 1.0)
    one = model.decoder(TARGET, state, memory).features
    assert (one - model.decoder(TARGET, state, other).features).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", CELLS)
def test_state_select_names_rows(cell: str, kind: str) -> None:
    model = make(cell=cell, attention=kind, decoder_layers=2)
    state, memory = model.encode(*batch(SOURCES))
    before = state.layers.clone()
    rows = torch.tensor([2, 0, 2, 2])
    whole = model.decoder(TARGET, state, memory)
    part = model.decoder(TARGET[rows], state.select(rows), memory and memory.select(rows))
    close(part.features, whole.features[rows])
    close(part.state.layers, whole.state.select(rows).layers)
    close(state.layers, before, rtol=0.0, atol=0.0)  # a value: nothing was changed in place


# --- embeddings, weights and dropout --------------------------------------------------------------


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_tied_embeddings_are_one_tensor(tied: bool, joint: bool) -> None:
    model = make(joint=joint, tie_embeddings=tied)
    source, target = model.encoder.embedding.weight, model.decoder.embedding.weight
    output = model.decoder.output.weight
    assert (target is output) == tied
    assert (source is target) == (tied and joint)
    count = sum(w.shape == (VOCABULARY, EMBEDDING) for w in model.parameters())
    assert count == 3 - tied - (tied and joint)


def test_the_same_seed_gives_the_same_weights() -> None:
    def fresh(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        vocabularies = Vocabularies(VOCABULARY, VOCABULARY, False)
        return Seq2Seq(ModelSettings(**{**SETTINGS, "attention": "additive"}), vocabularies)

    one, same, other = (fresh(seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["decoder.combine.weight"], other["decoder.combine.weight"])
    assert not torch.equal(one["decoder.embedding.weight"], other["decoder.embedding.weight"])


def test_paddings_vectors_start_and_stay_at_zero() -> None:
    torch.manual_seed(0)
    model = Seq2Seq(ModelSettings(**SETTINGS), Vocabularies(VOCABULARY, VOCABULARY, False))
    for embedding in (model.encoder.embedding, model.decoder.embedding):
        assert not embedding.weight[PAD].any()
        embedding(torch.tensor([PAD, 5])).sum().backward()
        assert not embedding.weight.grad[PAD].any()
        assert embedding.weight.grad[5].all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", ["dropout", "word_dropout"])
def test_dropout_is_off_in_evaluation_and_on_in_training(rate: str, kind: str) -> None:
    changes = {"attention": kind, "encoder_layers": 2, "decoder_layers": 2}
    model, plain = make(**{rate: 0.5}, **changes), make(**changes)
    source, lengths = batch(SOURCES)
    expected = plain(source, lengths, TARGET).features
    close(model(source, lengths, TARGET).features, expected, rtol=0.0, atol=0.0)
    model.train()
    one, other = (model(source, lengths, TARGET).features for _ in range(2))
    assert not torch.allclose(one, other)
    plain.train()
    close(plain(source, lengths, TARGET).features, expected, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_has_one_mask_for_a_whole_sequence(rate: float) -> None:
    torch.manual_seed(3)
    dropout = SequenceDropout(rate)
    sequence = torch.ones(400, 5, 50)
    dropped = dropout(sequence)
    mask = dropped[:, 0]
    close(dropped, mask.unsqueeze(1).expand_as(dropped), rtol=0.0, atol=0.0)
    assert mask.unique().tolist() == pytest.approx([0.0, 1.0 / (1.0 - rate)])
    # The expectation is kept: the mean is within five standard errors of one.
    error = math.sqrt(rate / (1.0 - rate) / mask.numel())
    assert abs(float(mask.mean()) - 1.0) < 5 * error
    # Sentences and features have masks of their own.
    assert len(mask.unique(dim=0)) > 1
    assert len(mask.unique(dim=1)) > 1
    assert dropout.eval()(sequence) is sequence


def test_layer_norm_makes_every_layer_see_features_of_one_size() -> None:
    """However large the weights of the layers, memory and features keep their size."""
    sizes = {}
    for norm, sharp in itertools.product((False, True), (0.05, 0.5)):
        torch.manual_seed(1)
        model = make(sharp=sharp, encoder_layers=2, layer_norm=norm)
        for module in (*model.encoder.norms, *model.decoder.norms):
            if norm:
                module.reset_parameters()
        sizes[norm, sharp] = float(model.encoder(*batch(SENTENCES)).states.detach().std())
    assert sizes[False, 0.5] > 3 * sizes[False, 0.05]
    assert sizes[True, 0.5] == pytest.approx(sizes[True, 0.05], rel=0.3)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_word_dropout_drops_whole_time_steps(rate: float) -> None:
    torch.manual_seed(3)
    dropout = WordDropout(rate)
    dropped = dropout(torch.ones(400, 50, 5))
    mask = dropped[:, :, 0]
    close(dropped, mask.unsqueeze(2).expand_as(dropped), rtol=0.0, atol=0.0)
    assert mask.unique().tolist() == pytest.approx([0.0, 1.0 / (1.0 - rate)])
    error = math.sqrt(rate / (1.0 - rate) / mask.numel())
    assert abs(float(mask.mean()) - 1.0) < 5 * error
    assert len(mask.unique(dim=0)) > 1
    assert len(mask.unique(dim=1)) > 1
    assert dropout.eval()(dropped) is dropped


# --- greedy search --------------------------------------------------------------------------------


END = 8.0  # some translations end by themselves and some at their limits


def greedy_by_teacher_forcing(model: Seq2Seq, sentence: list[int], limit: int) -> list[int]:
    """The whole prefix again for each token, one sentence at a time."""
    ids: list[int] = []
    while len(ids) < limit:
        features = model(*batch([sentence]), torch.tensor([[BOS, *ids]])).features
        best = int(model.decoder.logits(features[0, -1]).argmax())
        if best == EOS:
            break
        ids.append(best)
    return ids


def random_sentences(seed: int, count: int) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(0, 9, size=count)
    return [generator.integers(4, VOCABULARY, size=n).tolist() for n in lengths]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", CELLS)
def test_greedy_takes_the_likeliest_token_whatever_the_batch(cell: str, kind: str) -> None:
    sentences = random_sentences(1, 10)
    limits = torch.tensor([3 + row % 7 for row in range(len(sentences))])
    cut_off = []
    for seed in range(4):
        model = make(seed, cell=cell, attention=kind, sharp=1.0, end=END)
        expected = [
            greedy_by_teacher_forcing(model, sentence, int(limit))
            for sentence, limit in zip(sentences, limits, strict=True)
        ]
        cut_off += [len(e) == limit for e, limit in zip(expected, limits.tolist(), strict=True)]
        assert model.greedy(*batch(sentences), limits) == expected
        for rows in ([0], [5, 3], [9, 1, 8, 2, 2], list(reversed(range(10)))):
            found = model.greedy(*batch([sentences[r] for r in rows], extra=2), limits[rows])
            assert found == [expected[r] for r in rows]
    assert any(cut_off), "a weak test: none reaches its limit"
    assert not all(cut_off), "a weak test: all reach their limits"


def test_finished_rows_leave_the_batch() -> None:
    model = make(sharp=1.0, end=END)
    sizes: list[int] = []
    model.decoder.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    sentences = random_sentences(1, 16)
    limits = torch.full((16,), 9)
    found = model.greedy(*batch(sentences), limits)
    steps = [min(len(ids) + 1, 9) for ids in found]
    assert sizes == [sum(s > t for s in steps) for t in range(max(steps))]
    assert sizes[0] > sizes[-1]


def test_greedy_ids_have_no_marks() -> None:
    model = make(sharp=1.0, end=END)
    limits = torch.full((30,), 12)
    found = model.greedy(*batch(random_sentences(2, 30)), limits)
    assert max(map(len, found)) <= 12
    assert all(EOS not in ids for ids in found)


def test_greedy_limits() -> None:
    assert greedy_limits(torch.tensor([1, 7, 100]), 1.5).tolist() == [11, 20, 160]


# --- the folder -----------------------------------------------------------------------------------

WORDS = ["the cat eats", "a small black cat", "milk and houses", "today Anna eats the milk"]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokens")
    settings = TokenizerSettings(algorithm="bpe", joint=False, vocabulary=40, byte_fallback=False)
    for side in ("source", "target"):
        (folder / f"{side}.model").write_bytes(train(WORDS, settings, side))
    return folder


def save(folder: Path, tokens: Path, **changes: Any) -> Seq2Seq:
    settings = ModelSettings(**{**SETTINGS, **changes})
    vocabularies = Vocabularies(40, 40, settings.tie_embeddings)
    torch.manual_seed(5)
    model = Seq2Seq(settings, vocabularies).eval()
    described = {"model": settings.model_dump(), "vocabularies": vocabularies._asdict()}
    save_model(folder, model, described | {"variant": "x"}, tokens)
    return model


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_saved_model_is_the_same_model(
    tmp_path: Path, tokens: Path, cell: str, kind: str, tied: bool
) -> None:
    model = save(
        tmp_path, tokens, cell=cell, attention=kind, tie_embeddings=tied, dropout=0.5,
        encoder_layers=2, decoder_layers=2,
    )  # fmt: skip
    trained = load_model(tmp_path)
    assert not trained.model.training
    assert trained.settings["variant"] == "x"
    expected = model(*batch(SOURCES), TARGET)
    given = trained.model(*batch(SOURCES), TARGET)
    close(given.features, expected.features, rtol=0.0, atol=0.0)
    close(
        trained.model.decoder.logits(given.features),
        model.decoder.logits(expected.features),
        rtol=0.0,
        atol=0.0,
    )
    decoder = trained.model.decoder
    assert (decoder.output.weight is decoder.embedding.weight) == tied
    assert (decoder.output.weight is trained.model.encoder.embedding.weight) == tied
    assert trained.target.decode(trained.source.encode(WORDS)) == WORDS


def test_saving_twice_gives_the_same_bytes(tmp_path: Path, tokens: Path) -> None:
    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        save(folder, tokens)
    names = sorted(file.name for file in folders[0].iterdir())
    assert names == ["settings.json", "source.model", "target.model", "weights.pt"]
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", CELLS)
def test_it_loads_and_translates_without_lightning(
    tmp_path: Path, tokens: Path, cell: str, kind: str
) -> None:
    """And without torch's compiler, whose import would take most of the time."""
    save(tmp_path, tokens, cell=cell, attention=kind)
    program = (
        "import sys\n"
        "from rnnmt.model.folder import load_model\n"
        "from rnnmt.search.translator import Translator\n"
        "translator = Translator(load_model(sys.argv[1]))\n"
        "translator.greedy(['the cat']), translator.beam(['the cat'], 2, 1, 0.0)\n"
        "heavy = ('pytorch_lightning', 'lightning', 'mlflow', 'dvc', 'sacrebleu')\n"
        "print([name for name in (*heavy, 'torch._dynamo') if name in sys.modules])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


def sign(folder: Path) -> None:
    """Put the sums of a folder's files into its settings, as who has exchanged them can too."""
    file = folder / "settings.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"files": sums(folder)}))


class Evil:
    """Unpickling this would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_pickle_with_code_is_refused(tmp_path: Path, tokens: Path, writer: str) -> None:
    folder, proof = tmp_path / "model", tmp_path / "executed"
    weights = save(folder, tokens).state_dict() | {"evil": Evil(proof)}
    with (folder / "weights.pt").open("wb") as file:
        torch.save(weights, file) if writer == "torch" else pickle.dump(weights["evil"], file, 2)
    sign(folder)
    with pytest.raises(UserError) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value)
    assert "not plain weights" in str(caught.value)
    assert not proof.exists()


class Huge:
    """Unpickling this would take 16 GB."""

    def __reduce__(self) -> tuple[Any, ...]:
        return bytearray, (1 << 34,)


@pytest.mark.parametrize("layout", ["zip", "pickle", "pickle before zip"])
def test_a_pickle_that_asks_for_memory_is_refused(
    tmp_path: Path, tokens: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = save(tmp_path, tokens).state_dict()
    file = tmp_path / "weights.pt"
    whole = file.read_bytes()
    torch.save(weights | {"huge": Huge()}, file, _use_new_zipfile_serialization=layout == "zip")
    if layout == "pickle before zip":
        file.write_bytes(file.read_bytes() + whole)
    sign(tmp_path)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it would have been made"))
    with pytest.raises(UserError, match="not plain weights"):
        load_model(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_weights_of_any_precision_are_plain(
    tmp_path: Path, tokens: Path, dtype: torch.dtype
) -> None:
    weights = {name: w.to(dtype) for name, w in save(tmp_path, tokens).state_dict().items()}
    torch.save(weights, tmp_path / "weights.pt")
    sign(tmp_path)
    loaded = load_model(tmp_path).model.state_dict()
    assert all(torch.equal(loaded[name], w.float()) for name, w in weights.items())


@pytest.mark.parametrize("name", ["settings.json", "weights.pt", "source.model", "target.model"])
def test_a_missing_file_is_named(tmp_path: Path, tokens: Path, name: str) -> None:
    save(tmp_path, tokens)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=f"{name}: no such file"):
        load_model(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [b"", b"rubbish", b"PK\x03\x04 cut", b"\x80\x02."], ids=repr)
@pytest.mark.parametrize("name", ["settings.json", "weights.pt", "source.model", "target.model"])
def test_a_damaged_file_is_a_user_error(
    tmp_path: Path, tokens: Path, name: str, content: bytes
) -> None:
    save(tmp_path, tokens)
    (tmp_path / name).write_bytes(content)
    if name != "settings.json":
        sign(tmp_path)
    with pytest.raises(UserError, match=str(tmp_path)):
        load_model(tmp_path)


def test_weights_that_were_cut_short_are_a_user_error(tmp_path: Path, tokens: Path) -> None:
    save(tmp_path, tokens)
    whole = (tmp_path / "weights.pt").read_bytes()
    (tmp_path / "weights.pt").write_bytes(whole[: len(whole) // 2])
    sign(tmp_path)
    with pytest.raises(UserError, match=str(tmp_path)):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["weights.pt", "source.model", "target.model"])
def test_a_file_of_another_model_is_named(tmp_path: Path, tokens: Path, name: str) -> None:
    """As when a folder is read while another model is put into it."""
    save(tmp_path / "one", tokens)
    trained = torch.load(tmp_path / "one/weights.pt", weights_only=True)
    file = tmp_path / "one" / name
    if name == "weights.pt":
        torch.save({key: weight + 1 for key, weight in trained.items()}, file)
    else:
        file.write_bytes(file.read_bytes() + b"\n")
    with pytest.raises(UserError, match=f"{name}: not the file that settings.json belongs to"):
        load_model(tmp_path / "one")


def test_a_pipe_is_not_waited_for(tmp_path: Path, tokens: Path) -> None:
    save(tmp_path, tokens)
    (tmp_path / "weights.pt").unlink()
    os.mkfifo(tmp_path / "weights.pt")
    with pytest.raises(UserError, match=r"weights\.pt: no such file"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"model": {**SETTINGS, "hidden": 16}},
        {"model": {**SETTINGS, "cell": "lsmt"}},
        {"model": {**SETTINGS, "new": 1}},
        {"model": None},
        {"model": {**SETTINGS, "hidden": 8192, "encoder_layers": 16, "decoder_layers": 16}},
        {"vocabularies": {"source": 10**8, "target": 10**8, "joint": False}},
        {"vocabularies": {"source": 10**15, "target": 40, "joint": False}},
        {"vocabularies": {"source": 40}},
        {"vocabularies": {"source": 40, "target": 41, "joint": False}},
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_a_user_error(
    tmp_path: Path, tokens: Path, change: dict[str, Any]
) -> None:
    save(tmp_path, tokens)
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=str(tmp_path)):
        load_model(tmp_path)


@pytest.mark.parametrize("change", [{"equations": EQUATIONS - 1}, {"equations": None}, {}])
def test_weights_for_other_equations_are_refused(
    tmp_path: Path, tokens: Path, change: dict[str, Any]
) -> None:
    """They would fit, and translate into nonsense."""
    save(tmp_path, tokens)
    file = tmp_path / "settings.json"
    kept = {key: value for key, value in json.loads(file.read_text()).items() if key != "equations"}
    file.write_text(json.dumps(kept | change))
    with pytest.raises(UserError, match=f"{file}: weights for equations .* train it anew"):
        load_model(tmp_path)
