"""What a training does from update to update, and which of its models it keeps."""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import sacrebleu
import torch

from clones import Clone, fails, run
from rnnmt.dataset.batch import make_batch
from rnnmt.dataset.store import ParallelStore, TokenStore, open_split
from rnnmt.dataset.tokenizer import PAD, Tokenizer, TokenizerSettings, train
from rnnmt.model.folder import load_model
from rnnmt.model.seq2seq import Seq2Seq, Vocabularies, greedy_limits
from rnnmt.model.settings import ModelSettings, TrainSettings
from rnnmt.model.training import ParallelData, TranslationModule
from rnnmt.stages import train as stage
from rnnmt.stages.train import _trainer

WORDS = ["aa", "bb", "cc", "dd", "ee"]


def settings(**changes: Any) -> TrainSettings:
    values = {
        "fraction": 1.0, "batch_tokens": 50, "max_epochs": 2, "patience": 9, "processes": 1,
        "monitor": "val/loss", "learning_rate": 0.05, "warmup_steps": 4, "schedule": "cosine",
        "bpe_dropout": 0.0, "label_smoothing": 0.1, "gradient_clip": 1.0, "weight_decay": 0.0,
        "weight_average": 0.0, "precision": "float32", "nodes": 1, "checkpoint_seconds": 60.0,
    }  # fmt: skip
    return TrainSettings(**values | changes)


def small_training(
    chosen: TrainSettings, steps: int, dropout: float = 0.0
) -> tuple[TranslationModule, ParallelData]:
    random = np.random.default_rng(1)
    lines = [" ".join(random.choice(WORDS, random.integers(1, 6))) for _ in range(40)]
    tokens = TokenizerSettings(algorithm="bpe", joint=True, vocabulary=20, byte_fallback=False)
    tokenizer = Tokenizer(train([" ".join(WORDS)] * 50, tokens, ""))
    store = TokenStore.of(*tokenizer.encode_flat(lines))
    pairs = ParallelStore(store, store)
    size = tokenizer.vocabulary_size
    model = ModelSettings(
        cell="gru", attention="dot", heads=1, embedding=8, hidden=8, encoder_layers=1,
        decoder_layers=1, layer_norm=False, dropout=dropout, word_dropout=dropout,
        tie_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(1)
    seq2seq = Seq2Seq(model, Vocabularies(size, size, True))
    module = TranslationModule(seq2seq, chosen, "float32", steps, 1, tokenizer, lines)
    return module, ParallelData(pairs, pairs, chosen.batch_tokens, 1, None)


class Watch(pl.Callback):
    """The learning rate and the norm of the gradient of each update."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.norms: list[float] = []

    def on_before_zero_grad(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:  # noqa: ARG002
        gradients = [p.grad.norm() for p in module.parameters() if p.grad is not None]
        if gradients:  # as the update that has just been made used them
            self.norms.append(float(torch.stack(gradients).norm()))

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def watched(chosen: TrainSettings, folder: Path) -> Watch:
    _, data = small_training(chosen, 1)
    module, _ = small_training(chosen, len(data.train_dataloader()) * chosen.max_epochs)
    watch = Watch()
    folder.mkdir(exist_ok=True)
    _trainer(chosen, folder, [watch], None).fit(module, data)
    return watch


@pytest.mark.parametrize("schedule", ["constant", "cosine", "inverse-sqrt"])
def test_the_rate_grows_to_its_peak_and_then_follows_its_schedule(
    schedule: str, tmp_path: Path
) -> None:
    found = watched(settings(schedule=schedule), tmp_path).rates
    steps = len(found)
    assert steps > 6
    warm = [0.05 * (step + 1) / 4 for step in range(4)]
    after = {
        "constant": lambda step: 0.05,  # noqa: ARG005
        "cosine": lambda step: 0.025 * (1 + math.cos(math.pi * (step - 4) / (steps - 4))),
        "inverse-sqrt": lambda step: 0.05 * math.sqrt(4 / step),
    }[schedule]
    assert found == pytest.approx(warm + [after(step) for step in range(4, steps)])


def test_gradients_are_clipped_to_their_norm(tmp_path: Path) -> None:
    free = watched(settings(gradient_clip=1e9), tmp_path / "free").norms
    clipped = watched(settings(gradient_clip=1e-3), tmp_path / "clipped").norms
    assert len(free) == len(clipped) > 5
    assert min(free) > 2e-3
    assert clipped == pytest.approx([1e-3] * len(clipped), rel=1e-3)


def test_the_model_that_is_kept_is_that_of_the_best_epoch(tmp_path: Path) -> None:
    """By the monitored figure and its direction, where the last epoch was not the best."""
    clone = Clone(tmp_path)
    chosen = clone.settings()
    chosen["train"] |= {"max_epochs": 60, "learning_rate": 0.02, "schedule": "constant"}
    chosen["train"] |= {"patience": 1, "batch_tokens": 400}
    chosen["model"] |= {"embedding": 64, "hidden": 64, "dropout": 0.0}
    chosen["variants"] = {
        "by-loss": {"cell": "gru", "attention": "general", "monitor": "val/loss"},
        "by-bleu": {"cell": "gru", "attention": "general", "monitor": "val/bleu"},
        "averaged": {
            "cell": "gru", "attention": "general", "monitor": "val/loss", "weight_average": 0.9,
        },
    }  # fmt: skip
    clone.write(chosen)
    clone.repro("tokenize")
    for variant in chosen["variants"]:
        monitor, choose = ("val/bleu", max) if variant == "by-bleu" else ("val/loss", min)
        stage = (sys.executable, "-m", "rnnmt.stages.train", variant, "1")
        run(*stage, cwd=clone.folder, env=clone.environment)
        folder = clone.folder / f"models/small/{variant}-1"
        with (folder / "history.csv").open() as file:
            rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
        row = choose(rows, key=lambda row: row[monitor])
        assert row != rows[-1], "a weak test"
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["best_epoch"] == row["epoch"]
        loss, bleu = validated(clone.folder, folder)
        assert loss == pytest.approx(row["val/loss"], rel=1e-5)
        assert bleu == pytest.approx(row["val/bleu"])


@pytest.mark.parametrize("library", ["torch", "pytorch-lightning"])
def test_another_version_or_precision_resumes_nothing(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RNNMT_PARAMS", str(tmp_path / "params.yaml"))
    model = Clone(tmp_path).settings()["model"]
    manifest = {
        "vocabulary": {"source": 9, "target": 9}, "joint": True, "sha256": "d",
        "source_language": "en", "target_language": "fr",
    }  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))

    def fingerprint() -> str:
        arguments = argparse.Namespace(variant="gru", seed=1)
        described = stage._describe(arguments, ModelSettings(**model), settings(), tmp_path)
        return str(described["fingerprint"])

    before, installed = fingerprint(), stage.version
    assert fingerprint() == before
    with monkeypatch.context() as patch:
        patch.setattr(stage, "version", lambda name: installed(name) + "1" * (name == library))
        assert fingerprint() != before
    monkeypatch.setattr("rnnmt.model.training.usable_precision", lambda _: "another")
    assert fingerprint() != before  # as after a move to another processor


@torch.inference_mode()
def validated(root: Path, folder: Path) -> tuple[float, float]:
    """Cross-entropy and greedy BLEU on the validation set, one sentence at a time."""
    trained = load_model(folder)
    pairs = open_split(root / "data/small/tokens", "valid")
    nll, tokens, texts = 0.0, 0, []
    for row in range(len(pairs.source)):
        batch = make_batch(pairs, [row])
        output = trained.model(batch.source, batch.source_lengths, batch.decoder_input)
        log_probs = trained.model.decoder.output(output.features).log_softmax(dim=2)
        real = batch.labels != PAD
        nll -= float(log_probs.gather(2, batch.labels.unsqueeze(2)).squeeze(2)[real].sum())
        tokens += int(real.sum())
        limits = greedy_limits(batch.source_lengths, 3.0)
        ids = trained.model.greedy(batch.source, batch.source_lengths, limits)
        texts += trained.target.decode(ids)
    references = (root / "data/small/tokens/valid.target.txt").read_text(encoding="utf-8")
    bleu = sacrebleu.corpus_bleu(texts, [references.splitlines()], force=True).score
    return nll / tokens, bleu


def test_a_training_needs_no_files_that_the_tokens_were_made_of(tmp_path: Path) -> None:
    """On another machine they are not there; the settings are checked all the same."""
    clone = Clone(tmp_path)
    corpus = {
        "name": "mine",
        "source": "files",
        "source_language": "en",
        "target_language": "fr",
        "tsv": "/nowhere/mine.tsv",
        "columns": [1, 2],
        "held_out": {"valid": 2, "test": 2},
        "seed": 1,
    }
    clone.write(clone.settings() | {"corpus": corpus})
    command = (sys.executable, "-m", "rnnmt.stages.train", "gru", "1")
    environment = clone.environment | {"DVC_STAGE": "train@gru-1"}
    said = fails(*command, cwd=clone.folder, env=environment)
    assert "manifest.json: no such file; run: dvc repro tokenize" in said
    clone.write(clone.settings() | {"evaluate": {}})
    assert "params.yaml" in fails(*command, cwd=clone.folder, env=environment)
