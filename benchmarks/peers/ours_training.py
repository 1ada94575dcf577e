"""The training of rnnmt's worker: the product's module and trainer, with the gate's batches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from gate import SEED, Gate, LengthBuckets, read_lines
from ours import translate
from torch.nn.functional import cross_entropy

from rnnmt.dataset.batch import Batch, make_batch
from rnnmt.dataset.store import ParallelStore, open_split
from rnnmt.dataset.tokenizer import PAD, Tokenizer
from rnnmt.model.folder import TrainedModel, save_model
from rnnmt.model.seq2seq import Seq2Seq, Vocabularies
from rnnmt.model.settings import variant
from rnnmt.model.training import History, TranslationModule, usable_precision
from rnnmt.search.translator import Translator
from rnnmt.stages.train import _trainer

ENDLESS = 1 << 40  # batches of the one epoch: no end, no validation, no checkpoint


class Loader:
    """Batches of 64 sentences; the product's own loader counts tokens instead."""

    def __init__(self, gate: Gate, store: ParallelStore) -> None:
        self.gate, self.store = gate, store
        self.buckets = LengthBuckets(store.source.lengths.tolist(), store.target.lengths.tolist())

    def __len__(self) -> int:
        return ENDLESS

    def __iter__(self) -> Iterator[Batch]:
        return self.gate.batches(self._batches(), lambda batch: int((batch.labels != PAD).sum()))

    def _batches(self) -> Iterator[Batch]:
        while True:
            for rows in self.buckets:
                yield make_batch(self.store, rows)


class Worker:
    def __init__(self, data: Path, model: Seq2Seq) -> None:
        self.model = model
        self.tokens = data / "tokens"
        self.settings: dict[str, Any] = {}

    @property
    def actions(self) -> dict[str, Any]:
        return {"loss": self.loss, "translate": self.translate, "save": self.save}

    def loss(self) -> dict[str, Any]:
        """In float32, whatever the precision of training."""
        store, nll, tokens = open_split(self.tokens, "valid"), 0.0, 0
        self.model.eval()
        with torch.inference_mode():
            for start in range(0, len(store.source), 64):
                rows = range(start, min(start + 64, len(store.source)))
                batch = make_batch(store, rows)
                output = self.model(batch.source, batch.source_lengths, batch.decoder_input)
                real = batch.labels != PAD
                logits = self.model.decoder.logits(output.features[real])
                nll += float(cross_entropy(logits, batch.labels[real], reduction="sum"))
                tokens += int(real.sum())
        self.model.train()
        return {"nll": nll, "tokens": tokens}

    def translate(self, split: str, beam: int, batch: int, every: int = 1) -> dict[str, Any]:
        source, target = (Tokenizer(self.tokens / f"{side}.model") for side in ("source", "target"))
        translator = Translator(TrainedModel(self.model.eval(), source, target, self.settings))
        result = translate(translator, self.tokens.parent, split, beam, batch, every)
        self.model.train()
        return result

    def save(self, model: str) -> dict[str, Any]:
        save_model(Path(model), self.model, self.settings, self.tokens)
        return {}


def train(gate: Gate, kind: str, data: Path, work: Path) -> None:
    """The product's module and trainer, as its stage `train` puts them together."""
    model_settings, settings = variant(kind)
    tokens = data / "tokens"
    manifest = json.loads((tokens / "manifest.json").read_text())
    sizes = Vocabularies(**manifest["vocabulary"], joint=manifest["joint"])
    pl.seed_everything(SEED, workers=True, verbose=False)
    worker = Worker(data, Seq2Seq(model_settings, sizes))
    worker.settings = {"model": model_settings.model_dump(), "vocabularies": sizes._asdict()}
    gate.actions |= worker.actions
    module = TranslationModule(
        worker.model,
        settings,
        usable_precision(settings.precision),
        total_steps=ENDLESS,
        seed=SEED,
        tokenizer=Tokenizer(tokens / "target.model"),
        references=read_lines(tokens / "valid.target.txt"),
    )
    trainer = _trainer(settings, work, [History()], logger=False)  # type: ignore[arg-type]
    trainer.fit(module, Loader(gate, open_split(tokens, "train")))
