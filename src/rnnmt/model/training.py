"""Training with Lightning: the module, the data module, and the callbacks that make it resumable.

Everything here is a function of settings, data and seed: the batches of an epoch, the random
numbers of a step, and so the weights, also where training was stopped and went on.
"""

from __future__ import annotations

import io
import math
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import sacrebleu
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from rnnmt.dataset.batch import WHOLE, Batch, BatchLoader, Sampling, Share, in_chunks, make_batch
from rnnmt.dataset.store import ParallelStore
from rnnmt.dataset.tokenizer import PAD, Tokenizer
from rnnmt.errors import UserError
from rnnmt.model.decoder import Output
from rnnmt.model.loss import linear_cross_entropy
from rnnmt.model.seq2seq import Seq2Seq, greedy_limits
from rnnmt.model.settings import TrainSettings

LOG_STEPS = 50  # updates between two logged ones
CPUINFO = Path("/proc/cpuinfo")
VALIDATION_SENTENCES = 128  # validated together, at most; no effect on what is measured


def usable_precision(precision: str) -> str:
    """`precision`; float32 in place of bfloat16 where the processor is no faster with it."""
    if precision == "bfloat16" and not _has_fast_bfloat16():
        print("train.precision: bfloat16 is not faster on this processor, so float32 is used")
        return "float32"
    return precision


def _has_fast_bfloat16() -> bool:
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False  # it would be emulated
    # Intel's processors without AMX have the instructions of avx512_bf16, which take them twice
    # the time of float32's; on AMD's and ARM's they take half of it.
    intel = CPUINFO.exists() and "GenuineIntel" in CPUINFO.read_text(encoding="utf-8")
    return not intel or torch.cpu._is_amx_tile_supported()


class ParallelData(pl.LightningDataModule):
    """Training batches in random order, validation batches sorted by length."""

    def __init__(
        self,
        train: ParallelStore,
        valid: ParallelStore,
        batch_tokens: int,
        seed: int,
        sampling: Sampling | None,
        share: Share = WHOLE,
    ) -> None:
        super().__init__()
        self.train = BatchLoader(train, batch_tokens, seed, sampling, share)
        order = sorted(range(len(valid.source)), key=lambda i: int(valid.source.lengths[i]))
        if share.of > len(order):
            raise UserError(
                f"train.processes: {share.of} are more than the {len(order)} validation sentences"
            )
        sides = valid.source.lengths, valid.target.lengths
        own = order[share.rank :: share.of]
        chunks = in_chunks(
            own, lambda row: max(int(lengths[row]) for lengths in sides), VALIDATION_SENTENCES
        )
        self.valid = [(rows, make_batch(valid, rows)) for rows in chunks]

    def train_dataloader(self) -> BatchLoader:
        return self.train

    def val_dataloader(self) -> DataLoader[tuple[list[int], Batch]]:
        # Lightning would take a plain list for several loaders.
        dataset = cast(Dataset[tuple[list[int], Batch]], self.valid)
        return DataLoader(dataset, batch_size=None, collate_fn=lambda batch: batch)


@dataclass(frozen=True)
class Validation:
    """What a process has seen of the validation set: loss in nats, tokens, texts by row."""

    nll: float
    tokens: int
    texts: dict[int, str]

    @classmethod
    def empty(cls) -> Validation:
        return cls(0.0, 0, {})

    def __add__(self, other: Validation) -> Validation:
        return Validation(
            self.nll + other.nll, self.tokens + other.tokens, self.texts | other.texts
        )


class TranslationModule(pl.LightningModule):
    """Fits a Seq2Seq to label-smoothed cross-entropy; validates by loss and greedy BLEU."""

    def __init__(
        self,
        model: Seq2Seq,
        settings: TrainSettings,
        precision: str,
        total_steps: int,
        seed: int,
        tokenizer: Tokenizer,
        references: list[str],
        share: Share = WHOLE,
    ) -> None:
        super().__init__()
        self.model = model
        self.share = share
        self.precision = precision
        self.settings = settings
        self.total_steps = total_steps  # never trainer.estimated_stepping_batches: it would
        self.seed = seed  # silently drop the loader's place in a resumed epoch
        self.tokenizer = tokenizer
        self.references = references
        self.validation = Validation.empty()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        # Dropout of a step depends on the step alone, so that a resumed training is the same.
        step = self.global_step * self.share.of + self.share.rank
        torch.manual_seed((self.seed << 32) + step)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:  # noqa: ARG002
        loss, nll, tokens = self._loss(batch, self.settings.label_smoothing)
        processes = self.share.of
        if processes > 1:
            sums = torch.tensor([float(nll), tokens], dtype=torch.float64)
            nll, tokens = cast(Tensor, self.trainer.strategy.reduce(sums, reduce_op="sum"))
        # Lightning takes the mean of all processes' gradients.
        return {"loss": loss * processes / tokens, "nll": nll.detach(), "tokens": int(tokens)}

    def validation_step(self, batch: tuple[list[int], Batch], batch_idx: int) -> None:  # noqa: ARG002
        rows, pairs = batch
        _, nll, tokens = self._loss(pairs, 0.0)
        limits = greedy_limits(pairs.source_lengths, ratio=3.0)
        ids = self.model.greedy(pairs.source, pairs.source_lengths, limits)
        texts = dict(zip(rows, self.tokenizer.decode(ids), strict=True))
        self.validation += Validation(float(nll), tokens, texts)

    def on_validation_epoch_end(self) -> None:
        whole = self._of_all_processes(self.validation)
        loss = whole.nll / whole.tokens
        check_finite(loss, "the validation loss", self.trainer)
        hypotheses = [whole.texts[row] for row in range(len(self.references))]
        bleu = sacrebleu.corpus_bleu(hypotheses, [self.references], force=True).score
        self.log("val/loss", loss)
        self.log("val/perplexity", math.exp(min(loss, 88.0)))  # as a float32
        self.log("val/bleu", bleu, prog_bar=True)
        self.validation = Validation.empty()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            fused=True,
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def _loss(self, batch: Batch, smoothing: float) -> tuple[Tensor, Tensor, int]:
        """Sums of smoothed and of plain cross-entropy in nats, and their number of tokens."""
        features = self._features(batch.source, batch.source_lengths, batch.decoder_input)
        real = batch.labels != PAD
        layer = self.model.decoder.output
        labels = batch.labels[real]
        loss, nll = linear_cross_entropy(
            features[real], layer.weight, layer.bias, labels, smoothing
        )
        return loss, nll, len(labels)

    def _features(self, *batch: Tensor) -> Tensor:
        """Matrix products and states in bfloat16; weights, their updates, validation in float32."""
        if not self.training:
            return self.model.features(*batch)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bfloat16"):
            output: Output = self.model(*batch)
        return output.features

    def _of_all_processes(self, own: Validation) -> Validation:
        parts = [own] * self.share.of
        if len(parts) > 1:
            torch.distributed.all_gather_object(parts, own)
        return sum(parts, Validation.empty())

    def _rate(self, step: int) -> float:
        """The learning rate of an update as a fraction of its peak."""
        warmup = self.settings.warmup_steps
        if step < warmup:
            return (step + 1) / warmup
        if self.settings.schedule == "cosine":
            done = (step - warmup) / max(1, self.total_steps - warmup)
            return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
        if self.settings.schedule == "inverse-sqrt":
            return math.sqrt(max(1, warmup) / max(1, step))
        return 1.0


def check_finite(value: float, name: str, trainer: pl.Trainer) -> None:
    """Raises UserError where training has diverged."""
    if not math.isfinite(value):
        best = Path(trainer.default_root_dir, "best.ckpt")
        kept = f"; the best model so far stays in {best}" if best.exists() else ""
        raise UserError(
            f"{name} became {value} at update {trainer.global_step}: lower "
            f"train.learning_rate or train.gradient_clip{kept}"
        )


def averaging(decay: float) -> WeightAveraging:
    """Exponential moving average of the weights (Polyak & Juditsky 1992), which is what is
    validated and kept; `decay` is what remains of it at each update. Less remains of the first
    ones, or else a short training would be judged by the random weights it began with.
    """

    def average(kept: Any, weights: Any, updates: Tensor | int) -> None:
        remaining = min(decay, (1.0 + int(updates)) / (10.0 + int(updates)))
        get_ema_multi_avg_fn(remaining)(kept, weights, updates)  # type: ignore[no-untyped-call]

    return WeightAveraging(multi_avg_fn=average)


class History(pl.Callback):
    """One row for each epoch, kept in checkpoints; prints it where there is no terminal."""

    COLUMNS = ("epoch", "step", "tokens", "train/loss", "val/loss", "val/perplexity", "val/bleu")

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        # Of each epoch, and of its validation alone; measured, so kept apart from the rows.
        self.seconds: list[float] = []
        self.validation_seconds: list[float] = []
        self._nll, self._tokens, self._elapsed = 0.0, 0, 0.0
        self._since = self._validating = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "seconds": self.seconds,
            "validation_seconds": self.validation_seconds,
            "epoch": (self._nll, self._tokens, self._elapsed + time.perf_counter() - self._since),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.seconds = state_dict["rows"], state_dict["seconds"]
        self.validation_seconds = state_dict["validation_seconds"]
        self._nll, self._tokens, self._elapsed = state_dict["epoch"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        self._since = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        nll = float(outputs["nll"])
        check_finite(nll, "the loss", trainer)
        self._nll += nll
        self._tokens += outputs["tokens"]
        # Logging costs as much as a tenth of a small model's update.
        if trainer.global_step % LOG_STEPS == 0:
            pl_module.log("train/loss", nll / outputs["tokens"], prog_bar=True)
            pl_module.log("lr", trainer.optimizers[0].param_groups[0]["lr"])

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        self._validating = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        self.validation_seconds.append(time.perf_counter() - self._validating)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        before = self.rows[-1]["tokens"] if self.rows else 0
        row = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "tokens": before + self._tokens,
            "train/loss": self._nll / self._tokens,
        }
        self.rows.append(row | {name: metrics[name] for name in self.COLUMNS[4:]})
        self.seconds.append(self._elapsed + time.perf_counter() - self._since)
        self._nll, self._tokens, self._elapsed = 0.0, 0, 0.0
        self._since = time.perf_counter()
        if trainer.is_global_zero and not sys.stderr.isatty():
            self._print()

    def _print(self) -> None:
        row = self.rows[-1]
        print(
            f"epoch {row['epoch']:3d}  train/loss {row['train/loss']:.3f}  "
            f"val/loss {row['val/loss']:.3f}  val/bleu {row['val/bleu']:5.2f}  "
            f"{self.seconds[-1]:.1f} s",
            flush=True,
        )


class WholeFiles(TorchCheckpointIO):
    """Writes checkpoints such that only whole ones, safe from power failures, get their names.

    Lightning's own way passes through TMPDIR, and copies where that is another file system.
    """

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:  # noqa: ARG002
        buffer, part = io.BytesIO(), Path(f"{path}.part")
        torch.save(checkpoint, buffer)
        with open(part, "wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)


class Best(ModelCheckpoint):
    """Keeps the best epoch, and knows which it is also where the repository has been moved."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        def here(path: str) -> str:
            return path and str(Path(str(self.dirpath), Path(path).name))

        names = ("best_model_path", "kth_best_model_path", "last_model_path")
        kept = {here(path): score for path, score in state_dict["best_k_models"].items()}
        moved = {"dirpath": self.dirpath, "best_k_models": kept}
        super().load_state_dict(
            state_dict | moved | {name: here(state_dict[name]) for name in names}
        )


class Stop(EarlyStopping):
    """Stops when patience has ended, also where it had and the training was killed then."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        trainer.should_stop |= self.wait_count >= self.patience


class ResumePoint(pl.Callback):
    """Saves the whole state of training after every epoch and every `seconds` within one."""

    def __init__(self, file: Path, seconds: float) -> None:
        self.file, self.seconds = file, seconds
        self._saved, self._told_to_end = time.monotonic(), False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Lightning's own handler of SIGTERM talks to the other processes from wherever the signal
        finds it; if they talk of something else then, all wait for ever.
        """
        launcher = trainer.strategy.launcher

        def end(number: int, _: Any) -> None:
            if not self._told_to_end and launcher is not None:
                launcher.kill(number)
            self._told_to_end = True

        if trainer.world_size > 1:
            signal.signal(signal.SIGTERM, end)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ARG002
        batch: Batch,  # noqa: ARG002
        batch_idx: int,
    ) -> None:
        if trainer.world_size > 1:  # whoever is told to end, all of them end after the same update
            trainer._signal_connector.received_sigterm = trainer.strategy.reduce_boolean_decision(
                self._told_to_end, all=False
            )
        # Never after the last batch: the epoch's validation is still to come, and is not made up.
        if batch_idx + 1 == trainer.num_training_batches:
            return
        due = time.monotonic() - self._saved >= self.seconds or trainer.received_sigterm
        # All processes save together.
        if trainer.strategy.reduce_boolean_decision(due, all=False):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.file)
        self._saved = time.monotonic()
