"""What the gates of a recurrent layer did at each word. The equations: rnnmt.model.cells."""

from __future__ import annotations

import torch
from torch import Tensor

from rnnmt.model.cells import Recurrent

# In the order in which torch stacks their weights; the candidate between them is no gate.
GATES: dict[str, tuple[str | None, ...]] = {
    "rnn": (None,),
    "gru": ("reset", "update", None),
    "lstm": ("input", "forget", None, "output"),
}
# How much of the old state a cell keeps, between 0 (forgets all) and 1 (keeps all).
KEEPS = {"gru": "update", "lstm": "forget"}


@torch.inference_mode()
def gates(layer: Recurrent, inputs: Tensor, state: Tensor | None = None) -> dict[str, Tensor]:
    """Each gate by name (T, H) while `layer` reads `inputs` (T, I) after `state` (K, 1, H).

    A plain RNN has none.
    """
    hidden, _ = layer(inputs.unsqueeze(0), state)
    first = hidden.new_zeros(1, layer.hidden) if state is None else state[0]
    before = torch.cat([first, hidden[0, :-1]])  # (T, H), h_{t-1}
    weights = dict(layer.layer.named_parameters())
    sums = (
        torch.nn.functional.linear(inputs, weights["weight_ih_l0"], weights["bias_ih_l0"])
        + torch.nn.functional.linear(before, weights["weight_hh_l0"], weights["bias_hh_l0"])
    )  # fmt: skip
    blocks = sums.sigmoid().chunk(len(GATES[layer.cell]), dim=1)
    return {n: b for n, b in zip(GATES[layer.cell], blocks, strict=True) if n is not None}
