"""What makes a search fast, against what it stands for."""

from __future__ import annotations

import math
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rnnmt.dataset.tokenizer import BOS
from rnnmt.model import likeliest as likeliest_module
from rnnmt.model import prepared
from rnnmt.model.attention import SharedMemory
from rnnmt.model.cells import Recurrent
from rnnmt.model.likeliest import CHUNK, ROWS, largest, likeliest
from rnnmt.model.prepared import (
    QUANTIZED_FROM,
    STEPS,
    PackedLinear,
    PackedOutput,
    PreparedDecoder,
    QuantizedOutput,
)
from rnnmt.model.seq2seq import Seq2Seq, Vocabularies
from rnnmt.model.settings import ModelSettings

torch.set_num_threads(1)

CELLS = ("rnn", "gru", "lstm")
KINDS = ("none", "dot", "general", "additive")
VOCABULARY = 300
close = torch.testing.assert_close


def make(**changes: Any) -> Seq2Seq:
    """A model in evaluation mode whose weights are all random."""
    torch.manual_seed(3)
    options = {
        "cell": "lstm", "attention": "general", "heads": 1, "embedding": 12, "hidden": 8,
        "encoder_layers": 1, "decoder_layers": 1, "layer_norm": False, "dropout": 0.3,
        "word_dropout": 0.0, "tie_embeddings": False,
    }  # fmt: skip
    model = Seq2Seq(
        ModelSettings(**(options | changes)), Vocabularies(VOCABULARY, VOCABULARY, False)
    )
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.4)
    return model.eval()


def sources(count: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    lengths = torch.tensor([9, 3, 1, 7, 6])[:count]
    return torch.randint(4, VOCABULARY, (count, 9), generator=generator), lengths


# --- the prepared decoder -------------------------------------------------------------------------


@pytest.mark.parametrize("table", [0, prepared.TABLE], ids=["product", "table"])
@pytest.mark.parametrize("more", [{}, {"heads": 4, "layer_norm": True}], ids=["plain", "heads"])
@pytest.mark.parametrize("embedding", [5, 8, 12], ids=["narrow", "even", "wide"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", CELLS)
def test_prepared_steps_are_the_whole_target(
    cell: str, kind: str, layers: int, embedding: int, more: dict[str, Any], table: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(prepared, "TABLE", table)
    model = make(cell=cell, attention=kind, decoder_layers=layers, embedding=embedding, **more)
    target = torch.randint(4, VOCABULARY, (5, 7), generator=torch.Generator().manual_seed(5))
    target[:, 0] = BOS
    state, own = model.encode(*sources())
    whole = model.decoder(target, state, own)
    decoder, memory = PreparedDecoder(model.decoder), None if own is None else SharedMemory.of(own)
    assert isinstance(decoder.output, PackedOutput)  # of a small vocabulary
    with torch.inference_mode():
        for t in range(target.shape[1]):
            step = decoder.step(target[:, t : t + 1], state, memory)
            logits = decoder.output.logits(step.features[:, 0])
            close(logits, model.decoder.logits(whole.features[:, t]), atol=1e-5, rtol=1e-5)
            if kind != "none":
                close(step.attention[:, 0], whole.attention[:, t], atol=1e-5, rtol=1e-5)
            state = step.state
    close(state.layers, whole.state.layers, atol=1e-5, rtol=1e-5)


def test_preparing_changes_nothing() -> None:
    model = make(tie_embeddings=True)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    PreparedDecoder(model.decoder)
    assert not any(isinstance(m, PackedLinear) for m in model.modules())
    for name, weight in model.state_dict().items():
        close(weight, before[name], rtol=0.0, atol=0.0)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_step_of_a_cell_is_a_sequence_of_one(cell: str, dtype: torch.dtype) -> None:
    torch.manual_seed(6)
    layer = Recurrent(cell, 5, 4).to(dtype)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.normal_()
    inputs = torch.randn(3, 1, 5, dtype=dtype)
    state = torch.randn(layer.states, 3, 4, dtype=dtype)
    before = state.clone()
    with torch.inference_mode():
        hidden, last = layer(inputs, state)
        one = STEPS[cell](layer)
        step_last = one.step(one.inputs(inputs[:, 0]), state)
    close(step_last[:1].transpose(0, 1), hidden)
    close(step_last, last)
    close(state, before, rtol=0.0, atol=0.0)  # a value: nothing was changed in place


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1,), (1, 1), (2,), (5,), (3, 1)])
def test_a_packed_product_is_the_product(
    shape: tuple[int, ...], dtype: torch.dtype, bias: bool, plus: bool
) -> None:
    """Of one row, which has its own way, as of many."""
    generator = torch.Generator().manual_seed(7)

    def random(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=dtype)

    weight, added, inputs, more = random(6, 4), random(6), random(*shape, 4), random(*shape, 6)
    expected = inputs @ weight.t() + (added if bias else 0) + (more if plus else 0)
    layer = PackedLinear(weight, added if bias else None)
    with torch.inference_mode():
        found = layer(inputs, more) if plus else layer(inputs)
    close(found, expected)


# --- the output layer in 8 bits -------------------------------------------------------------------

needs_vnni = pytest.mark.skipif(
    not torch.cpu._is_vnni_supported(), reason="the processor has no products of 8 bits"
)


def output_layer(words: int = 3000, width: int = 96, scale: float = 0.3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(words)
    # Rows of very different sizes, as those of frequent and of unseen words are.
    sizes = torch.rand(words, 1, generator=generator) * scale
    weight = torch.randn(words, width, generator=generator) * sizes
    return weight, torch.randn(words, generator=generator)


def hidden(rows: int, width: int = 96, reach: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(rows)
    return reach * torch.randn(rows, width, generator=generator).mul(2).tanh()


@needs_vnni
@pytest.mark.parametrize("reach", [1.0, 3.0])
@pytest.mark.parametrize("rows", [1, ROWS + 6])
def test_output_in_8_bits_is_the_output_in_float32(rows: int, reach: float) -> None:
    weight, bias = output_layer()
    exact, quick = PackedOutput(weight, bias), QuantizedOutput(weight, bias, reach)
    features = hidden(rows, reach=reach)
    assert torch.equal(quick.best(features), exact.best(features))
    log_probs, tokens = quick.likeliest(features, 5)
    expected, order = exact.likeliest(features, 5)
    assert torch.equal(tokens, order)
    close(log_probs, expected, atol=2e-3 * reach, rtol=0.0)


@needs_vnni
def test_output_in_8_bits_is_exact_where_the_candidates_are_all_there_is() -> None:
    """Peaked distributions: what is beyond the candidates has no probability."""
    weight, bias = output_layer(scale=6.0)
    features = hidden(40)
    log_probs, tokens = QuantizedOutput(weight, bias, 1.0).likeliest(features, 5)
    exact, order = (features @ weight.T + bias).log_softmax(1).topk(5)
    sure = exact[:, -1] > -30
    assert sure.any()
    assert torch.equal(tokens[sure], order[sure])
    close(log_probs[sure], exact[sure], atol=1e-4, rtol=0.0)


@needs_vnni
def test_output_in_8_bits_does_not_depend_on_the_batch() -> None:
    quick, features = QuantizedOutput(*output_layer(), 1.0), hidden(ROWS + 6)
    log_probs, tokens = quick.likeliest(features, 5)
    for rows in ([0], [ROWS + 3, 5, 1], list(range(40, ROWS + 6))):
        some_log_probs, some_tokens = quick.likeliest(features[rows], 5)
        assert torch.equal(some_tokens, tokens[rows])
        close(some_log_probs, log_probs[rows], atol=1e-6, rtol=1e-6)


@needs_vnni
def test_output_in_8_bits_of_extreme_weights() -> None:
    """Rows of zeros, equal rows, and logits beyond what exp can hold."""
    weight, bias = output_layer()
    weight[7], weight[20:40] = 0.0, weight[50]
    weight[50] *= 1000
    features = hidden(9)
    log_probs, tokens = QuantizedOutput(weight, bias, 1.0).likeliest(features, 3)
    assert log_probs.isfinite().all()
    assert (log_probs <= 0).all()
    exact = (features @ weight.T + bias).log_softmax(1)
    close(log_probs, exact.gather(1, tokens), atol=2e-2, rtol=1e-4)


@pytest.mark.parametrize("words", [QUANTIZED_FROM - 1, QUANTIZED_FROM])
def test_only_large_vocabularies_are_quantized(words: int) -> None:
    settings_ = make().decoder
    settings_.output = torch.nn.Linear(12, words)
    large = words >= QUANTIZED_FROM and torch.cpu._is_vnni_supported()
    assert isinstance(PreparedDecoder(settings_).output, QuantizedOutput if large else PackedOutput)


# --- shared memory --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows",
    [
        [0, 1, 2, 3, 4],
        [0, 0, 1, 1, 2, 2, 3, 3, 4, 4],  # a full grid
        [0, 0, 0, 1, 3, 3, 4],  # one is gone
        [1, 1, 1, 4],  # so few that the others' memory is dropped
        [2],
    ],
    ids=str,
)
@pytest.mark.parametrize("heads", [1, 2, 8])  # up to one for each of the width's features
@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_shared_memory_is_a_copy_for_each_hypothesis(
    kind: str, heads: int, rows: list[int]
) -> None:
    model = make(attention=kind, heads=heads)
    _, memory = model.encode(*sources())
    assert memory is not None
    attention, chosen = model.decoder.attention, torch.tensor(rows)
    query = torch.randn(len(rows), 1, 8)
    shared = SharedMemory.of(memory).select(chosen)
    for _ in range(2):  # selected once, and once more from what was selected
        copied = attention(query, memory.select(chosen))
        for one, other in zip(attention(query, shared), copied, strict=True):
            assert one.shape == other.shape
            close(one, other)
        half = torch.arange(0, len(chosen), 2)
        chosen, query, shared = chosen[half], query[half], shared.select(half)


def test_a_shared_memory_is_kept_until_half_of_it_is_needed_no_more() -> None:
    _, memory = make().encode(*sources(4))
    assert memory is not None
    shared = SharedMemory.of(memory).select(torch.tensor([0, 0, 1, 3]))
    assert shared.memory is memory
    shared = shared.select(torch.tensor([0, 1, 3]))
    assert len(shared.memory.states) == 2
    assert shared.rows.tolist() == [0, 0, 1]


# --- the likeliest --------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.sampled_from([0, likeliest_module.FEW]),
    st.sampled_from([1, 2, 8, 13]),
    st.integers(1, 3 * CHUNK + 5),
    st.integers(1, 6),
    st.integers(1, 40),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.integers(0, 2**20),
)
def test_largest_is_a_stable_sort(
    few: int, rows: int, width: int, count: int, levels: int, impossible: float, seed: int
) -> None:
    """Few levels make many equals, also across chunks and behind the last whole one."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(levels, (rows, width), generator=generator).float()
    values[torch.rand(values.shape, generator=generator) < impossible] = -math.inf
    count = min(count, width)
    with mock.patch.object(likeliest_module, "FEW", few):  # so that few are searched in chunks too
        top, places = largest(values, count)
    ordered, order = values.sort(dim=1, descending=True, stable=True)
    assert torch.equal(top, ordered[:, :count])
    possible = top > -math.inf
    assert torch.equal(places[possible], order[:, :count][possible])


@pytest.mark.parametrize("width", [50, CHUNK * 40, CHUNK * 40 + 7])
@pytest.mark.parametrize("count", [1, 5, 20])
def test_largest_of_many_is_a_stable_sort(width: int, count: int) -> None:
    values = torch.randn(70, width, generator=torch.Generator().manual_seed(width)).mul(40).round()
    top, places = largest(values, count)
    ordered, order = values.sort(dim=1, descending=True, stable=True)
    assert torch.equal(top, ordered[:, :count])
    assert torch.equal(places, order[:, :count])


@pytest.mark.parametrize("rows", [1, ROWS, 2 * ROWS + 3])
def test_likeliest_gives_the_log_probabilities(rows: int) -> None:
    logits = torch.randn(rows, 1000, generator=torch.Generator().manual_seed(rows)) * 5
    log_probs, tokens = likeliest(logits, 4)
    expected, order = logits.log_softmax(dim=1).sort(dim=1, descending=True, stable=True)
    assert torch.equal(tokens, order[:, :4])
    close(log_probs, expected[:, :4])
