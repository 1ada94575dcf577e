"""Trainings with settings, data and losses that no one would wish for, through the stage itself.

Either the model that comes out is whole, finite and the best of its epochs, or a message says what
to change and where the best model so far is. Started again, a failed training fails the same way.
"""

from __future__ import annotations

import csv
import json
import math
import random
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from clones import Clone, run
from rnnmt.model.folder import load_model
from rnnmt.search.translator import Translator

CHANCES: dict[str, list[Any]] = {
    "cell": ["rnn", "gru", "lstm"],
    "attention": ["none", "dot", "general", "additive"],
    "heads": [1, 2],
    "embedding": [1, 8, 32],
    "hidden": [2, 8, 32],
    "encoder_layers": [1, 3],
    "decoder_layers": [1, 3],
    "layer_norm": [False, True],
    "dropout": [0.0, 0.5, 0.999],
    "word_dropout": [0.0, 0.5, 0.999],
    "tie_embeddings": [False, True],
    "fraction": [1e-9, 0.02, 1.0],
    "batch_tokens": [1, 60, 100_000],
    "patience": [1, 5],
    "monitor": ["val/bleu", "val/loss"],
    "learning_rate": [1e-12, 0.01, 1.0, 10.0],
    "warmup_steps": [0, 1, 1_000_000],
    "schedule": ["cosine", "inverse-sqrt", "constant"],
    "bpe_dropout": [0.0, 0.3, 0.99],
    "label_smoothing": [0.0, 0.1, 0.999],
    "gradient_clip": [1e-30, 1.0, 1e30],
    "weight_decay": [0.0, 0.1, 1.0],
    "weight_average": [0.0, 0.9, 0.99999],
    "precision": ["float32", "bfloat16"],
    "checkpoint_seconds": [0.001, 60.0],
}

# Training, with a loss that becomes VALUE from update FROM on; for ever, or once.
FAULTY = """
import sys
import torch
import rnnmt.model.training as training
from rnnmt.errors import run_stage
from rnnmt.stages import train

value, since, once = float(sys.argv.pop()), int(sys.argv.pop()), sys.argv.pop() == "once"
calls, real = 0, training.linear_cross_entropy

def faulty(*arguments):
    global calls
    loss, nll = real(*arguments)
    calls += torch.is_grad_enabled()
    if torch.is_grad_enabled() and (calls == since if once else calls >= since):
        loss, nll = loss * value, nll * value
    return loss, nll

training.linear_cross_entropy = faulty
run_stage(train.main)
"""

WORDS = ["cat", "dog", "milk", "sees", "drinks", "black", "small", "the", "a", "it"]


class Corpora:
    """An ordinary corpus, one validation sentence, a very long one, and words never seen."""

    NAMES = ("ordinary", "one", "long", "unseen")

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cache  # noqa: B019
    def get(self, name: str) -> Clone:
        dice = random.Random(1)

        def text(count: int) -> list[str]:
            return [" ".join(dice.choices(WORDS, k=dice.randint(1, 9))) for _ in range(count)]

        valid = {
            "ordinary": text(10),
            "one": ["the cat"],
            "long": [*text(3), " ".join(dice.choices(WORDS, k=3000))],
            "unseen": ["§ é 猫 ☃"] * 3,
        }[name]
        clone = Clone(self.folder / name)
        for split, lines in ("train", text(120)), ("valid", valid), ("test", ["the dog"]):
            (clone.folder / f"{split}.txt").write_text("".join(f"{line}\n" for line in lines))
        settings = clone.settings()
        settings["corpus"] = {
            "name": "small", "source": "files", "source_language": "en", "target_language": "fr",
            "splits": {split: [f"{split}.txt"] * 2 for split in ("train", "valid", "test")},
        }  # fmt: skip
        settings["cleaning"] |= {"drop_identical": False, "drop_duplicates": False}
        settings["tokenizer"] |= {"vocabulary": 300, "byte_fallback": True}
        clone.write(settings)
        for stage in "download", "tokenize":
            command = (sys.executable, "-m", f"rnnmt.stages.{stage}")
            run(*command, cwd=clone.folder, env=clone.environment)
        return clone


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Corpora:
    return Corpora(tmp_path_factory.mktemp("corpora"))


def outcome(clone: Clone, command: list[str]) -> str:
    """Train, and look at what is there then."""
    done = subprocess.run(
        [sys.executable, *command], cwd=clone.folder, env=clone.environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = done.stderr
    assert "Traceback" not in said, said
    folder = clone.folder / "models/small/wild-1"
    if done.returncode == 0:
        _is_whole(folder)
        assert not list((clone.folder / "work").glob("wild*"))
        return "trained"
    assert done.returncode == 1, (done.returncode, said)
    assert not folder.exists()
    assert re.search(r"^rnnmt: error: .*(train|model)\.\w+", said, re.MULTILINE), said
    if best := re.search(r"stays in (\S+)", said):
        weights = torch.load(clone.folder / best[1], weights_only=True)["state_dict"]
        assert all(weight.isfinite().all() for weight in weights.values())
        return "diverged, best model kept"
    return "clear error"


def _is_whole(folder: Path) -> None:
    with (folder / "history.csv").open() as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
    assert all(math.isfinite(value) for row in rows for value in row.values())
    summary = json.loads((folder / "summary.json").read_text())
    monitor = json.loads((folder / "settings.json").read_text())["train"]["monitor"]
    best = {"val/bleu": max, "val/loss": min}[monitor](row[monitor] for row in rows)
    assert rows[int(summary["best_epoch"]) - 1][monitor] == summary["best"][monitor] == best
    trained = load_model(folder)
    assert all(weight.isfinite().all() for weight in trained.model.parameters())
    assert len(Translator(trained, 1.0).beam(["the cat", "é"], 3, 1, 1.0)) == 2


def test_a_loss_beyond_all_perplexities_is_no_infinity(corpora: Corpora, tmp_path: Path) -> None:
    """Which JSON cannot hold, so that no variant could be compared."""
    clone = corpora.get("ordinary").copy(tmp_path / "clone")
    settings = clone.settings()
    settings["train"] |= {"max_epochs": 2}
    settings["variants"] = {"wild": {"learning_rate": 3.0, "warmup_steps": 0}}
    clone.write(settings)
    assert outcome(clone, ["-m", "rnnmt.stages.train", "wild", "1"]) == "trained"
    history = (clone.folder / "models/small/wild-1/history.csv").read_text().splitlines()
    losses = [float(row["val/loss"]) for row in csv.DictReader(history)]
    assert max(losses) > 100


@pytest.mark.trials(1, 300)
def test_settings_and_data(
    trials: range, tally: Counter[str], corpora: Corpora, tmp_path: Path
) -> None:
    for number in trials:
        dice = random.Random(number)
        clone = corpora.get(dice.choice(Corpora.NAMES)).copy(tmp_path / str(number))
        changes = {key: dice.choice(CHANCES[key]) for key in dice.sample([*CHANCES], 6)}
        settings = clone.settings()
        settings["train"] |= {"max_epochs": 3}
        settings["variants"] = {"wild": changes}
        clone.write(settings)
        try:
            command = ["-m", "rnnmt.stages.train", "wild", "1"]
            result = outcome(clone, command)
            if result.startswith("diverged"):
                assert outcome(clone, command) == result
        except Exception as error:
            raise AssertionError(f"trial {number}, {changes}: {error}") from error
        tally[result] += 1


@pytest.mark.trials(1, 100)
def test_losses(trials: range, tally: Counter[str], corpora: Corpora, tmp_path: Path) -> None:
    for number in trials:
        dice = random.Random(number)
        clone = corpora.get("ordinary").copy(tmp_path / str(number))
        settings = clone.settings()
        settings["train"] |= {"max_epochs": 4, "batch_tokens": 100, "checkpoint_seconds": 0.001}
        settings["variants"] = {"wild": {"cell": dice.choice(CHANCES["cell"])}}
        clone.write(settings)
        fault = [
            dice.choice(("once", "ever")),
            str(dice.randint(1, 30)),
            dice.choice(("nan", "inf")),
        ]
        try:
            result = outcome(clone, ["-c", FAULTY, "wild", "1", *fault])
            assert result != "trained"
            # Without the fault, it goes on from before it, or a message says what to do.
            again = outcome(clone, ["-c", FAULTY, "wild", "1", "once", "-1", "nan"])
        except Exception as error:
            raise AssertionError(f"trial {number}, {fault}: {error}") from error
        tally[f"{result}, then {again}"] += 1
