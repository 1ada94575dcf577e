"""Checkpoints of a training: whole or not there, and good also where the repository is moved."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from rnnmt.model.training import Best, Stop, WholeFiles


def best(folder: Path) -> Best:
    return Best(dirpath=folder, filename="best", monitor="val/bleu", mode="max")


def test_the_best_model_is_known_where_the_training_was_moved_to(tmp_path: Path) -> None:
    before, after = best(tmp_path / "old"), best(tmp_path / "new")
    path, score = str(tmp_path / "old/best.ckpt"), torch.tensor(40.0)
    before.best_model_path = before.kth_best_model_path = path
    before.best_model_score = before.kth_value = score
    before.best_k_models = {path: score}
    after.load_state_dict(before.state_dict())
    here = str(tmp_path / "new/best.ckpt")
    assert after.best_model_path == after.kth_best_model_path == here
    assert after.best_model_score == after.kth_value == score
    assert after.best_k_models == {here: score}
    assert after.dirpath == str(tmp_path / "new")


def test_before_the_first_epochs_end_there_is_no_best_model(tmp_path: Path) -> None:
    after = best(tmp_path / "new")
    after.load_state_dict(best(tmp_path / "old").state_dict())
    assert after.best_model_path == ""
    assert not after.best_k_models


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And needs no other folder, such as TMPDIR."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    path = tmp_path / "last.ckpt"
    WholeFiles().save_checkpoint({"step": 1}, path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        WholeFiles().save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}


class Worse(pl.LightningModule):
    """Its validation is worse each time."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.epochs = torch.nn.Parameter(torch.ones(1)), 0

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> Any:
        return (self.weight * batch).sum() * batch_idx

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("val/bleu", float(-self.current_epoch * len(batch) - batch_idx))

    def on_train_epoch_end(self) -> None:
        self.epochs += 1

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_training_that_patience_has_ended_does_not_go_on(tmp_path: Path) -> None:
    """Killed before its model was written, and begun again."""
    data = DataLoader(torch.ones(4, 1))

    def fit(checkpoint: Path | None) -> tuple[pl.Trainer, Worse]:
        module, trainer = Worse(), pl.Trainer(
            accelerator="cpu", max_epochs=9, callbacks=[Stop("val/bleu", mode="max", patience=2)],
            logger=False, enable_progress_bar=False, enable_model_summary=False,
            enable_checkpointing=False, default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(module, data, data, ckpt_path=checkpoint, weights_only=True)
        return trainer, module

    trainer, module = fit(None)
    assert module.epochs == 3
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert fit(tmp_path / "last.ckpt")[1].epochs == 0
