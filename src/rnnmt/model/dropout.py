"""Dropout with one mask for a whole sequence."""

from __future__ import annotations

from torch import Tensor, nn


class SequenceDropout(nn.Module):
    """Zeroes the same features at every time step of a sentence (Gal & Ghahramani 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, sequence: Tensor) -> Tensor:
        """`sequence` (B, T, W), scaled so that its expectation stays the same."""
        if not self.training or self.rate == 0.0:
            return sequence
        keep = 1.0 - self.rate
        mask = sequence.new_empty(sequence.shape[0], 1, sequence.shape[2]).bernoulli_(keep)
        return sequence * (mask / keep)
