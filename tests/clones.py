"""Clones of this repository whose pipeline is shrunk, and the commands that run in them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from closure import ROOT
from servers import BIN

MAKE_REPRO = (sys.executable, "scripts/repro.py")
SMALL: dict[str, Any] = {
    "corpus": {
        "name": "small",
        "source": "bundled",
        "seed": 3,
        "sizes": {"train": 400, "valid": 30, "test": 30, "test_long": 20},
    },
    "tokenizer": {"algorithm": "bpe", "joint": True, "vocabulary": 300, "byte_fallback": False},
    "variants": {
        "gru": {"cell": "gru", "attention": "none"},
        "lstm-general": {
            "cell": "lstm",
            "attention": "general",
            "word_dropout": 0.1,
            "bpe_dropout": 0.1,
            "weight_average": 0.9,
        },
    },
}


def shrink(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of which everything runs in a minute, all else as it was."""
    small = settings | SMALL | {"threads": 1}  # tests run side by side
    small["model"] = settings["model"] | {"embedding": 16, "hidden": 16}
    small["train"] = settings["train"] | {
        "max_epochs": 3,
        "fraction": 1.0,
        "batch_tokens": 200,
        "learning_rate": 0.006,
        "checkpoint_seconds": 0.05,
    }
    small["evaluate"] = settings["evaluate"] | {"bootstrap_samples": 100}
    small["analyze"] = {"sentences": 8, "beams": [1, 2, 4], "examples": 3}
    small["memory"] = {"seeds": 2, "lags": [3, 5], "parameters": 200, "updates": 20}
    return small


class Clone:
    """A copy of the tracked files in a git repository of its own, as a stranger has it."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder, self.more = folder, environment
        files = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT)
        for name in files.splitlines():
            if (ROOT / name).is_file() and not name.startswith(("reports/", "dvc.lock")):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        yaml = YAML(typ="safe", pure=True)
        self.write(shrink(yaml.load((ROOT / "params.yaml").read_text())))
        run("git", "init", "--quiet", cwd=folder)

    def write(self, settings: dict[str, Any], file: str = "params.yaml") -> None:
        with open(self.folder / file, "w", encoding="utf-8") as stream:
            YAML(typ="safe", pure=True).dump(settings, stream)

    @property
    def environment(self) -> dict[str, str]:
        # The clone's own code, whichever copy the environment has installed.
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith(("RNNMT", "MLFLOW", "DVC"))},
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder / "src"),
            **self.more,
        }

    def repro(self, *arguments: str) -> str:
        return run("dvc", "repro", *arguments, cwd=self.folder, env=self.environment)

    def make_repro(self, *recipe: str) -> str:
        return run(*MAKE_REPRO, *recipe, cwd=self.folder, env=self.environment)

    def start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            start_new_session=True,
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def copy(self, folder: Path) -> Clone:
        """The same with its data, models, reports and caches, in another folder."""
        shutil.copytree(self.folder, folder, symlinks=True)
        other = Clone.__new__(Clone)
        other.folder, other.more = folder, self.more
        return other

    def settings(self) -> dict[str, Any]:
        yaml = YAML(typ="safe", pure=True)
        return dict(yaml.load((self.folder / "params.yaml").read_text()))

    def test_scores(self) -> dict[str, float]:
        """label -> test/bleu of the finished runs in MLflow that no other stands for."""
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")
        experiments = [e.experiment_id for e in client.search_experiments()]
        runs = client.search_runs(experiments, "attributes.status = 'FINISHED'")
        # A kill between a training's end and DVC's record of it leaves one that is superseded.
        return {
            run.info.run_name: run.data.metrics["test/bleu"]
            for run in runs
            if run.data.tags.get("superseded") != "true" and run.info.run_name != "summary"
        }

    def bytes(self) -> dict[str, str]:
        """The sums of all that must be the same each time; not of what was measured."""
        patterns = ("data/small/**/*", "models/small/*/*", "reports/small/**/*")
        files = {f for p in patterns for f in self.folder.glob(p) if f.is_file()}
        measured = (
            "summary.json", "comparison.md", "ablation.md", "comparison.json", "claims.md",
            "claims.json", "index.html", "cost.svg", "cost.csv", "mlflow-runs.js",
        )  # fmt: skip
        return {
            str(f.relative_to(self.folder)): hashlib.md5(f.read_bytes()).hexdigest()
            for f in sorted(files)
            if f.name not in measured
        }


def run(*command: str, cwd: Path, env: dict[str, str] | None = None, text: str = "") -> str:
    done = subprocess.run(
        command, cwd=cwd, env=env, input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def fails(*command: str, cwd: Path, env: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def at_work(folder: Path) -> list[str]:
    """The commands of the processes whose current folder it is."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink() == folder:
                found.append((process / "cmdline").read_text().replace("\0", " "))
    return found
