"""A decoder prepared for a search: the same equations, laid out for one step at a time.

`Decoder` says what is computed; what is replaced here are its matrix products and its recurrent
layers, which take the same arguments and return the same values. Nothing of it can be trained.

Shapes: N live hypotheses, I input width, H hidden width, G gates of a cell (rnn 1, gru 3, lstm 4).
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from rnnmt.model.cells import Recurrent
from rnnmt.model.decoder import Decoder


def prepare(decoder: Decoder) -> Decoder:
    """`decoder`, as it is now, for calls with one token of each hypothesis and no gradients.

    It shares the embedding; other weights are copies, which later changes do not reach.
    """
    shared = {id(weight): weight for weight in decoder.parameters()}
    prepared: Decoder = copy.deepcopy(decoder, shared)
    if decoder.features.out_features >= decoder.features.in_features:
        # One product in place of two, where it is no larger: O (F h) + b = (O F) h + b.
        product = decoder.output.weight.detach() @ decoder.features.weight.detach()
        prepared.add_module("features", nn.Identity())
        prepared.add_module("output", PackedLinear(product, decoder.output.bias))
    for module in list(prepared.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, PackedLinear(child.weight, child.bias))
            elif isinstance(child, Recurrent):
                # As a layer of a ModuleList its name is a number.
                module.add_module(name, STEPS[child.cell](child))
    return prepared


class PackedLinear(nn.Module):
    """x W^T + b by oneDNN, the weights in its own layout.

    torch.nn.functional.linear calls MKL, which has half the speed on AMD's processors, and
    neither of them would keep the layout from one call to the next.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.bias = None if bias is None else bias.detach()
        self.packed = weight.dtype == torch.float32 and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        weight = weight.detach().contiguous()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight) if self.packed else weight

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., I) -> (..., O)"""
        if not self.packed:
            return nn.functional.linear(inputs, self.weight, self.bias)
        outputs: Tensor = torch.ops.mkldnn._linear_pointwise(
            inputs, self.weight, self.bias, "none", [], ""
        )
        return outputs


class RnnStep(nn.Module):
    """One time step of a layer; the equations stand in rnnmt.model.cells."""

    def __init__(self, layer: Recurrent) -> None:
        super().__init__()
        weights = layer.layer.state_dict()
        self.hidden = layer.hidden
        # [W U] [x; h] = W x + U h: one product for all gates.
        self.gates = PackedLinear(
            torch.cat([weights["weight_ih_l0"], weights["weight_hh_l0"]], dim=1),
            weights["bias_ih_l0"] + weights["bias_hh_l0"],
        )

    def forward(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """`inputs` (N, 1, I), state (K, N, H) -> hidden state (N, 1, H), state (K, N, H)."""
        last = self.step(inputs.squeeze(1), state)
        return last[0].unsqueeze(1), last

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """`x` (N, I) and the state before it -> the state after it, both (K, N, H)."""
        hidden: Tensor = self.gates(torch.cat([x, state[0]], dim=1)).tanh_()
        return hidden.unsqueeze(0)


class LstmStep(RnnStep):
    def step(self, x: Tensor, state: Tensor) -> Tensor:
        h, c = state
        gates = self.gates(torch.cat([x, h], dim=1))
        i, f, candidate, o = gates.chunk(4, dim=1)
        gates[:, : 2 * self.hidden].sigmoid_()  # i and f
        last = torch.empty_like(state)
        torch.mul(f, c, out=last[1]).addcmul_(i, candidate.tanh_())
        torch.tanh(last[1], out=last[0]).mul_(o.sigmoid_())
        return last


class GruStep(RnnStep):
    """The reset gate stands between U_n and the sum, so that n keeps two products apart."""

    def __init__(self, layer: Recurrent) -> None:
        nn.Module.__init__(self)
        weights = layer.layer.state_dict()
        self.hidden = layer.hidden
        self.inputs = PackedLinear(weights["weight_ih_l0"], weights["bias_ih_l0"])
        self.recurrent = PackedLinear(weights["weight_hh_l0"], weights["bias_hh_l0"])

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        (h,) = state
        inputs, recurrent = self.inputs(x), self.recurrent(h)
        gates = 2 * self.hidden
        r, z = recurrent[:, :gates].add_(inputs[:, :gates]).sigmoid_().chunk(2, dim=1)
        n = inputs[:, gates:].addcmul_(r, recurrent[:, gates:]).tanh_()
        return torch.lerp(n, h, z).unsqueeze(0)  # (1 - z) * n + z * h


STEPS: dict[str, Callable[[Recurrent], nn.Module]] = {
    "rnn": RnnStep, "gru": GruStep, "lstm": LstmStep,
}  # fmt: skip
