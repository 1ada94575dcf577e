"""A decoder prepared for a search: the same equations, laid out for one step at a time.

`Decoder` says what is computed. Here are its matrix products and its recurrent layers as functions
that a step calls with little ado, and an output layer that gives the likeliest tokens. Nothing of
it can be trained.

Shapes: N live hypotheses, I input width, H hidden width, G gates of a cell (rnn 1, gru 3, lstm 4),
V vocabulary, K tokens asked for, C candidates for them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from rnnmt.model.attention import Attention, Memory, SharedMemory
from rnnmt.model.cells import Recurrent
from rnnmt.model.decoder import Decoder, Output, State
from rnnmt.model.likeliest import ROWS, candidates, largest, likeliest

QUANTIZED_FROM = 1000  # words of a vocabulary; fewer are weighed as fast in float32
MARGIN = 3  # candidates beyond those that are asked for
TABLE = 2**24  # numbers (64 MB) of the largest table of a first layer's products that is made


class PreparedDecoder:
    """A decoder, as it is now, for calls with one token of each hypothesis and no gradients.

    Its weights are copies, which later changes do not reach. The features that `step` gives are for
    `output`, in place of the decoder's own output layer; without `quantized` that is in float32 and
    gives logits too. No modules: to call one takes longer than a small product.
    """

    def __init__(self, decoder: Decoder, quantized: bool = True) -> None:
        recurrent = cast(Iterable[Recurrent], decoder.layers)
        self._layers = [STEPS[layer.cell](layer) for layer in recurrent]
        self._norms = [
            None if isinstance(norm, nn.Identity) else norm.forward for norm in decoder.norms
        ]
        self._combine = PackedLinear(decoder.combine.weight, decoder.combine.bias).forward
        self._attend = None if decoder.attention is None else _packed(decoder.attention).forward
        self._vectors, first = decoder.embedding.weight.detach().clone(), self._layers[0]
        self._adds_vectors = self._vectors.shape[1] == first.hidden
        # W x + b of the first layer, once for all words.
        is_small = len(self._vectors) * first.gates * first.hidden <= TABLE
        self._table = first.inputs(self._vectors) if is_small else None
        self.output = _output(decoder, quantized)

    def step(self, tokens: Tensor, state: State, memory: Memory | SharedMemory | None) -> Output:
        """`tokens` (N, 1) that follow `state` -> what Decoder gives for a target of one token."""
        first, *above = self._layers
        words = tokens[:, 0]
        if self._table is None:
            inputs = first.inputs(self._vectors.index_select(0, words))
        else:
            inputs = self._table.index_select(0, words)
        last = first.step(inputs, state.layers[0])
        hidden, weights = self._normed(0, last[0]), None  # (N, H)
        states, seen = [last], hidden
        if self._attend is not None:
            assert memory is not None
            context, weights = self._attend(hidden.unsqueeze(1), memory)
            seen = torch.cat([hidden, context[:, 0]], dim=1)
        hidden = self._combine(seen).tanh_().add_(hidden)
        if self._adds_vectors:
            hidden += self._vectors.index_select(0, words)
        for number, layer in enumerate(above, start=1):
            last = layer.step(layer.inputs(hidden), state.layers[number])
            hidden = hidden + self._normed(number, last[0])
            states.append(last)
        layers = torch.stack(states) if above else last.unsqueeze(0)
        return Output(hidden.unsqueeze(1), State(layers), weights)

    def _normed(self, layer: int, hidden: Tensor) -> Tensor:
        norm = self._norms[layer]
        return hidden if norm is None else norm(hidden)


def _packed(attention: Attention) -> Attention:
    """A copy that has the same weights, its products packed."""
    shared = {id(weight): weight for weight in attention.parameters()}
    copied = copy.deepcopy(attention, shared)
    for name, child in list(copied.named_children()):
        if isinstance(child, nn.Linear):
            setattr(copied, name, PackedLinear(child.weight, child.bias))
    return copied


def _output(decoder: Decoder, quantized: bool) -> PackedOutput | QuantizedOutput:
    # One product in place of two: O (F h) + b = (O F) h + b.
    weight = decoder.output.weight.detach() @ decoder.features.weight.detach()
    bias = decoder.output.bias.detach()
    # A tanh, hidden states below 1 and a word vector; normalised states have no such bound.
    bounded = all(isinstance(norm, nn.Identity) for norm in decoder.norms)
    reach = 1.0 + len(decoder.layers) + float(decoder.embedding.weight.detach().abs().max())
    if quantized and bounded and len(weight) >= QUANTIZED_FROM and _has_8_bit_products(weight):
        return QuantizedOutput(weight, bias, reach)
    return PackedOutput(weight, bias)


def _has_8_bit_products(weight: Tensor) -> bool:
    # Without these instructions they are slow and overflow.
    vnni = torch.cpu._is_vnni_supported() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return vnni and weight.dtype == torch.float32


class PackedOutput:
    """The output layer in float32."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.logits = PackedLinear(weight, bias).forward

    def best(self, features: Tensor) -> Tensor:
        """The likeliest token (N,) after each of `features` (N, H)."""
        return largest(self.logits(features), 1)[1].squeeze(1)

    def likeliest(self, features: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Log-probabilities and tokens (N, K) of the `count` likeliest, best first."""
        logits = self.logits(features)
        return likeliest(logits, min(count, logits.shape[1]))


class QuantizedOutput:
    """The output layer, whose likeliest tokens are looked for in 8 bits and weighed in float32.

        h ~ a (p - 128)     p (N, H) unsigned, a = reach / 127, since each |h_k| <= reach
        W ~ diag(b) Q       Q (V, H) signed, each row with a scale of its own

    The integer product p Q^T is exact, so that no batch can change it, and gives logits with
    errors of some hundredths. Its best K + MARGIN tokens are candidates; their logits are computed
    in float32, and take the place of the approximate ones also in the sum of the softmax. So a
    log-probability has an error only through the small share of all other words, where errors
    cancel.
    """

    def __init__(self, weight: Tensor, bias: Tensor, reach: float) -> None:
        self.weight, self.bias = weight, bias
        self.levels = 127 / reach
        self.scales = (weight.abs().amax(1) / 127).clamp_min(torch.finfo(weight.dtype).tiny)
        rows = (weight / self.scales.unsqueeze(1)).round_().to(torch.int8)
        self.packed = torch.ops.onednn.qlinear_prepack(rows, None)
        self.zeros = torch.zeros(len(weight), dtype=torch.int64)

    def best(self, features: Tensor) -> Tensor:
        """The likeliest token (N,) after each of `features` (N, H)."""
        tokens = candidates(self._approximate(features), 1 + MARGIN)
        logits = self._logits(features, tokens)
        worse = logits < logits.amax(1, keepdim=True)
        return tokens.masked_fill_(worse, len(self.bias)).amin(1)  # of equals the first

    def likeliest(self, features: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Log-probabilities and tokens (N, K) of the `count` likeliest, best first."""
        blocks = [self._likeliest(rows, count) for rows in torch.split(features, ROWS)]
        log_probs, tokens = zip(*blocks, strict=True)
        return torch.cat(log_probs), torch.cat(tokens)

    def _likeliest(self, features: Tensor, count: int) -> tuple[Tensor, Tensor]:
        approximate = self._approximate(features)
        tokens = candidates(approximate, min(count + MARGIN, approximate.shape[1]))
        logits, tokens = self._weighed(features, tokens)
        top = logits[:, :1]
        others = approximate.scatter_(1, tokens, -math.inf).sub_(top).exp_().sum(1, keepdim=True)
        logits = logits - top
        total = others.add_(logits.exp().sum(1, keepdim=True))
        return logits[:, :count] - total.log_(), tokens[:, :count]

    def _approximate(self, features: Tensor) -> Tensor:
        """Logits (N, V) with the errors of 8 bits."""
        points = (features * self.levels).add_(128.5).clamp_(0, 255).to(torch.uint8)
        logits: Tensor = torch.ops.onednn.qlinear_pointwise(
            points, 1 / self.levels, 128, self.packed, self.scales, self.zeros, self.bias,
            1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        return logits

    def _weighed(self, features: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Logits in float32 of `tokens` (N, C) and these, both best first."""
        tokens = tokens.sort(dim=1).values  # of equals the first stays the first
        logits, order = self._logits(features, tokens).sort(dim=1, descending=True, stable=True)
        return logits, tokens.gather(1, order)

    def _logits(self, features: Tensor, tokens: Tensor) -> Tensor:
        """In float32, of `tokens` (N, C), in their order."""
        rows = tokens.flatten()
        weights = self.weight.index_select(0, rows).view(*tokens.shape, -1)
        # Faster than a product of each row's own small matrix.
        logits = weights.mul_(features.unsqueeze(1)).sum(2)
        return logits.add_(self.bias.index_select(0, rows).view_as(tokens))


class PackedLinear(nn.Module):
    """x W^T + b by oneDNN, the weights in its own layout.

    torch.nn.functional.linear calls MKL, which has half the speed on AMD's processors, and
    neither of them would keep the layout from one call to the next. For one row alone, a sentence
    translated greedily, MKL takes half of oneDNN's time if the weights are transposed.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.bias = None if bias is None else bias.detach()
        self.packed = weight.dtype == torch.float32 and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        weight = weight.detach().contiguous()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight) if self.packed else weight
        self.columns = weight.t().contiguous() if self.packed else None  # (I, O)

    def forward(self, inputs: Tensor, plus: Tensor | None = None) -> Tensor:
        """`inputs` (..., I) -> their product, with `plus` added to it, both (..., O)"""
        product: Tensor
        if not self.packed:
            product = nn.functional.linear(inputs, self.weight, self.bias)
            return product if plus is None else product + plus
        if self.columns is not None and inputs.numel() == len(self.columns):
            product = inputs @ self.columns
            for added in (self.bias, plus):
                if added is not None:
                    product += added
        elif plus is None:
            product = torch.ops.mkldnn._linear_pointwise(
                inputs, self.weight, self.bias, "none", [], ""
            )
        else:
            product = torch.ops.mkldnn._linear_pointwise.binary(
                inputs, plus, self.weight, self.bias, "add"
            )
        return product


class RnnStep:
    """One time step of a layer; the equations stand in rnnmt.model.cells.

    `inputs` gives W x + b of all gates (N, G H) and `recurrent` U h.
    """

    one_sum = True  # of W x + b and U h, so that one bias is enough

    def __init__(self, layer: Recurrent) -> None:
        weights = layer.layer.state_dict()
        self.hidden = layer.hidden
        self.gates = len(weights["weight_ih_l0"]) // layer.hidden
        bias, own = weights["bias_ih_l0"], weights["bias_hh_l0"]
        if self.one_sum:
            bias, own = bias + own, None
        self.inputs = PackedLinear(weights["weight_ih_l0"], bias).forward
        self.recurrent = PackedLinear(weights["weight_hh_l0"], own).forward

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """W x + b (N, G H) and the state before it -> the state after it, both (K, N, H)."""
        return self.recurrent(state[0], x).tanh_().unsqueeze(0)


class LstmStep(RnnStep):
    def step(self, x: Tensor, state: Tensor) -> Tensor:
        h, c = state
        gates = self.recurrent(h, x)
        i, f, candidate, o = gates.chunk(4, dim=1)
        gates[:, : 2 * self.hidden].sigmoid_()  # i and f
        last = torch.empty_like(state)
        torch.mul(f, c, out=last[1]).addcmul_(i, candidate.tanh_())
        torch.tanh(last[1], out=last[0]).mul_(o.sigmoid_())
        return last


class GruStep(RnnStep):
    """The reset gate stands between U_n and the sum, so that n keeps two products apart."""

    one_sum = False

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        (h,) = state
        recurrent = self.recurrent(h)
        gates = 2 * self.hidden
        r, z = recurrent[:, :gates].add_(x[:, :gates]).sigmoid_().chunk(2, dim=1)
        n = torch.addcmul(x[:, gates:], r, recurrent[:, gates:]).tanh_()
        return torch.lerp(n, h, z).unsqueeze(0)  # (1 - z) * n + z * h


STEPS: dict[str, type[RnnStep]] = {"rnn": RnnStep, "gru": GruStep, "lstm": LstmStep}
