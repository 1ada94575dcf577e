"""The moving average of the weights: what is validated and kept, and what goes on training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from rnnmt.model.training import ResumePoint, TranslationModule, averaging
from test_training import settings, small_training

torch.set_num_threads(1)

DECAY = 0.8
EPOCHS = 3


class Watch(pl.Callback):
    """The weights after each update, and those that each validation sees."""

    def __init__(self) -> None:
        self.updates: list[list[Tensor]] = []
        self.validated: list[list[Tensor]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:  # noqa: ARG002
        self.updates.append(weights(module))

    def on_validation_batch_start(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:  # noqa: ARG002
        self.validated.append(weights(module))


class StopError(Exception):
    pass


class Stop(pl.Callback):
    """Ends training after so many updates, as a kill does."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.steps:
            raise StopError


def weights(module: TranslationModule) -> list[Tensor]:
    return [weight.detach().clone() for weight in module.model.parameters()]


def fit(callbacks: list[pl.Callback], last: Path | None = None) -> TranslationModule:
    """Train, with an average of the weights if it is among `callbacks`; go on from `last`."""
    chosen = settings(max_epochs=EPOCHS, warmup_steps=2, schedule="constant", weight_average=DECAY)
    module, data = small_training(chosen, 1, dropout=0.2)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=EPOCHS, callbacks=callbacks, logger=False,
        enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=False,
        num_sanity_val_steps=0, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(module, data, ckpt_path=last, weights_only=True)
    return module


def average(updates: list[list[Tensor]]) -> list[Tensor]:
    """The plain reference: the first, then of what it was DECAY, or less in the beginning, and the
    rest of what is new.
    """
    mean = updates[0]
    for count, new in enumerate(updates[1:], 1):
        kept = min(DECAY, (1 + count) / (10 + count))
        mean = [kept * old + (1 - kept) * weight for old, weight in zip(mean, new, strict=True)]
    return mean


def test_the_average_is_validated_and_the_weights_go_on() -> None:
    plain, watch = Watch(), Watch()
    fit([plain])
    module = fit([averaging(DECAY), watch])
    steps = len(watch.updates) // EPOCHS
    assert steps > 3
    for one, other in zip(plain.updates, watch.updates, strict=True):
        torch.testing.assert_close(one, other, rtol=0.0, atol=0.0)
    for epoch, seen in enumerate(watch.validated, 1):
        torch.testing.assert_close(seen, average(watch.updates[: epoch * steps]))
        assert not torch.allclose(seen[0], watch.updates[epoch * steps - 1][0])
    torch.testing.assert_close(weights(module), average(watch.updates))


def test_resumed_the_average_is_the_same(tmp_path: Path) -> None:
    whole = weights(fit([averaging(DECAY)]))
    last = tmp_path / "last.ckpt"
    for steps in (1, 5):
        with pytest.raises(StopError):
            fit([averaging(DECAY), ResumePoint(last, 0.0), Stop(steps)])
        resumed = weights(fit([averaging(DECAY)], last))
        torch.testing.assert_close(resumed, whole, rtol=0.0, atol=0.0)
