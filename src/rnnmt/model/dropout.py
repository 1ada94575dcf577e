"""Dropout with one mask for a whole sequence, and of whole words."""

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
        return sequence * _mask(sequence, (sequence.shape[0], 1, sequence.shape[2]), self.rate)


class WordDropout(nn.Module):
    """Zeroes all features of some time steps of a sentence (Sennrich et al. 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, sequence: Tensor) -> Tensor:
        """`sequence` (B, T, W), scaled so that its expectation stays the same."""
        if not self.training or self.rate == 0.0:
            return sequence
        return sequence * _mask(sequence, (*sequence.shape[:2], 1), self.rate)


def _mask(like: Tensor, shape: tuple[int, ...], rate: float) -> Tensor:
    """Of the type of `like`: zero with probability `rate`, else what makes the mean one."""
    keep = 1.0 - rate
    return like.new_empty(shape).bernoulli_(keep) / keep
