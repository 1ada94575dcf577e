"""Two tasks that nothing but memory solves, for cells of equally many parameters.

The adding problem (Hochreiter & Schmidhuber 1997): of L random numbers between 0 and 1 two are
marked, one in each half; what is their sum? To say 1 always has the squared error 1/6.

Copy memory (after Arjovsky et al. 2016): `SYMBOLS` symbols, then L empty steps, then a mark, at
which the symbols have to be said again. To guess has the cross-entropy ln `KINDS`.

Shapes: B sequences, T steps, I input width, H hidden width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from rnnmt.insight.settings import SOLVED, MemorySettings
from rnnmt.model.cells import CELLS, Recurrent

SYMBOLS, KINDS = 3, 4
BATCH, HELD_OUT = 32, 500
EVERY = 25  # updates between two measurements
# Of Adam; of 0.001, 0.003, 0.01 and 0.03 those with which each cell solves the longest lags.
RATES = {"rnn": 0.003, "gru": 0.03, "lstm": 0.03}
CLIP = 1.0


def adding(count: int, lag: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs (count, lag, 2), a number and its mark, and the sums (count,) of those marked."""
    numbers = torch.rand(count, lag, generator=random)
    marks = torch.zeros(count, lag)
    rows, half = torch.arange(count), lag // 2
    marks[rows, torch.randint(half, (count,), generator=random)] = 1
    marks[rows, half + torch.randint(lag - half, (count,), generator=random)] = 1
    return torch.stack([numbers, marks], dim=2), (numbers * marks).sum(dim=1)


def copying(count: int, lag: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs (count, T, KINDS + 2), one-hot, and the symbols (count, SYMBOLS) to be said last."""
    symbols = torch.randint(KINDS, (count, SYMBOLS), generator=random)
    steps = torch.full((count, SYMBOLS + lag + SYMBOLS), KINDS)
    steps[:, :SYMBOLS] = symbols
    steps[:, SYMBOLS + lag :] = KINDS + 1
    return nn.functional.one_hot(steps, KINDS + 2).float(), symbols


class Rememberer(nn.Module):
    """One recurrent layer, whose gates begin as those of models without attention, and a linear
    one.
    """

    def __init__(self, cell: str, inputs: int, outputs: int, hidden: int) -> None:
        super().__init__()
        self.recurrent = Recurrent(cell, inputs, hidden, remembers=True)
        self.output = nn.Linear(hidden, outputs)

    def forward(self, inputs: Tensor, last: int) -> Tensor:
        """Inputs (B, T, I) -> outputs (B, last, O) of the last steps."""
        states, _ = self.recurrent(inputs)
        outputs: Tensor = self.output(states[:, -last:])
        return outputs


def width(cell: str, inputs: int, outputs: int, parameters: int) -> int:
    """The hidden width with which a `Rememberer` has about so many parameters, at most."""
    gates = {"rnn": 1, "gru": 3, "lstm": 4}[cell]

    def count(hidden: int) -> int:
        return gates * hidden * (inputs + hidden + 2) + outputs * (hidden + 1)

    hidden = 1
    while count(hidden + 1) <= parameters:
        hidden += 1
    return hidden


def run(
    task: str, cell: str, lag: int, parameters: int, updates: int, seed: int = 1
) -> dict[str, Any]:
    """Train one cell on one task, until solved or for so many updates.

    `seed` is that of the first weights and of the sequences to learn from, never of those held out.
    """
    make, inputs, outputs, last, trivial = {
        "adding": (adding, 2, 1, 1, 1 / 6),
        "copy": (copying, KINDS + 2, KINDS, SYMBOLS, math.log(KINDS)),
    }[task]
    torch.manual_seed(seed)
    model = Rememberer(cell, inputs, outputs, width(cell, inputs, outputs, parameters))
    optimizer = torch.optim.Adam(model.parameters(), lr=RATES[cell])
    random = torch.Generator().manual_seed(seed)
    held_out = make(HELD_OUT, lag, torch.Generator().manual_seed(0))
    curve: list[tuple[int, float]] = []
    for update in range(1, updates + 1):
        optimizer.zero_grad()
        _loss(task, model, make(BATCH, lag, random), last).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        if update % EVERY == 0 or update == updates:
            with torch.no_grad():
                error = float(_loss(task, model, held_out, last)) / trivial
            curve.append((update, round(error, 4)))
            if error < SOLVED:
                break
    return {
        "task": task,
        "cell": cell,
        "lag": lag,
        "seed": seed,
        "hidden": model.recurrent.hidden,
        "parameters": sum(p.numel() for p in model.parameters()),
        "error": curve[-1][1],  # 1 is that of one who remembers nothing
        "solved_after": curve[-1][0] if curve[-1][1] < SOLVED else None,
        "curve": curve,
    }


def run_all(settings: MemorySettings) -> Iterator[dict[str, Any]]:
    """Every task, cell, lag and seed."""
    seeds = range(1, settings.seeds + 1)
    for task, cell, lag, seed in product(("adding", "copy"), CELLS, settings.lags, seeds):
        yield run(task, cell, lag, settings.parameters, settings.updates, seed)


def _loss(task: str, model: Rememberer, batch: tuple[Tensor, Tensor], last: int) -> Tensor:
    inputs, wanted = batch
    outputs = model(inputs, last)
    if task == "adding":
        return nn.functional.mse_loss(outputs[:, 0, 0], wanted)
    return nn.functional.cross_entropy(outputs.flatten(0, 1), wanted.flatten())
