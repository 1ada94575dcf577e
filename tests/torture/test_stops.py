"""Stopped at any moment, without room, rights or memory, or beside another: nothing is lost.

A trial takes a copy of an undisturbed clone, forgets what one stage has made, disturbs that stage
by chance, and ends with the command that a user types: it must go on to the undisturbed bytes.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from clones import MAKE_REPRO, Clone, at_work, run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, prlimit and mount")

# Without --trials there is no time for torch and for DVC: these stages alone, and what they make.
QUICK = {"download": "data/small/raw", "tokenize": "data/small/tokens", "align": "data/small/links"}
DVC_SECONDS = 4.0  # of its start, on a slow core
SECONDS = {
    "download": 3, "tokenize": 2, "align": 1, "train": 15, "decode": 9, "evaluate": 4,
    "analyze": 12, "memory": 12, "ensemble": 3, "compare": 5, "report": 12,
}  # fmt: skip
PLACES = (".", "data/small", "models/small", "reports/small", "work", ".dvc/cache", "temporary")


@pytest.fixture(scope="module", autouse=True)
def _interruptible() -> Iterator[None]:
    """What is started takes a Ctrl-C, also where pytest runs in the background and does not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def undisturbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    made = Clone(tmp_path_factory.mktemp("undisturbed"))
    if request.config.getoption("--trials"):
        made.repro()
        shutil.rmtree(made.folder / ".dvc/cache")  # or else every stage would come from there
    else:
        for stage in QUICK:
            run(*command_of(stage), cwd=made.folder, env=made.environment)
    for place in PLACES:
        (made.folder / place).mkdir(parents=True, exist_ok=True)
    return made


def command_of(stage: str) -> tuple[str, ...]:
    """The command of a stage, as DVC starts it."""
    name, _, run_of = stage.partition("@")
    return ("python", "-m", f"rnnmt.stages.{name}", *(run_of.rsplit("-", 1) if run_of else ()))


class Trial:
    """A clone in which one stage has to run again, and what happens to it."""

    def __init__(self, number: int, undisturbed: Clone, folder: Path) -> None:
        self.undisturbed = undisturbed
        self.chance = random.Random(number)
        lock = undisturbed.folder / "dvc.lock"
        self.outputs = {stage: [out] for stage, out in QUICK.items()}
        if with_dvc := lock.exists():
            stages = YAML(typ="safe").load(lock.read_text())["stages"]
            self.outputs = {name: [o["path"] for o in s["outs"]] for name, s in stages.items()}
        self.stage = self.chance.choice(sorted(self.outputs))
        self.command = ("dvc", "repro", self.stage) if with_dvc else command_of(self.stage)
        self.seconds = SECONDS[self.stage.partition("@")[0]] + with_dvc * DVC_SECONDS
        self.clone = undisturbed.copy(folder / str(number))
        self.log = folder / f"{number}.log"
        self.story = [f"trial {number}: {self.stage}"]

    def forget(self) -> None:
        """Remove what the stage has made, and what DVC knows of it."""
        lock = self.clone.folder / "dvc.lock"
        if lock.exists():
            yaml = YAML()
            known = yaml.load(lock.read_text())
            del known["stages"][self.stage]
            yaml.dump(known, lock)
        for name in self.outputs[self.stage]:
            path = self.clone.folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def start(self, *command: str) -> subprocess.Popen[str]:
        with open(self.log, "a") as log:
            print("$", *command, file=log, flush=True)
            return subprocess.Popen(
                command,
                cwd=self.clone.folder,
                env=self.clone.environment | {"TMPDIR": str(self.clone.folder / "temporary")},
                start_new_session=True,
                text=True,
                stdout=log,
                stderr=log,
            )

    def outcome(self, *limits: str) -> str:
        """How the command ends under some limits: well, with a clear error, or not so well."""
        before = self.log.stat().st_size if self.log.exists() else 0
        code = self.start(*limits, *self.command).wait(600)
        text = self.log.read_bytes()[before:].decode()
        if code == 0:
            return "enough after all"
        if "Traceback" in text:
            return "traceback"
        if code < 0 or "ERROR: failed to reproduce" in text and "-" in text.split("exited with")[-1][:4]:
            return "ended by a signal"
        return "clear error" if "rnnmt: error: " in text or "ERROR: " in text else "error"

    def ends_as_if_undisturbed(self, *command: str) -> None:
        """Raises AssertionError where the last command, or what is there then, is not as it was."""
        code = self.start(*(command or self.command)).wait(600)
        told = " -> ".join(self.story)
        assert code == 0, f"{told}:\n{self.log.read_text()}"
        now, wanted = self.clone.bytes(), self.undisturbed.bytes()
        different = sorted(f for f in now.keys() | wanted.keys() if now.get(f) != wanted.get(f))
        assert not different, f"{told}: {different}\n{self.log.read_text()}"
        if self.command[0] == "dvc":
            self._dvc_and_mlflow_have_it_whole(told)
        shutil.rmtree(self.clone.folder)

    def _dvc_and_mlflow_have_it_whole(self, told: str) -> None:
        for file in (self.clone.folder / ".dvc/cache/files/md5").glob("??/*"):
            name = (file.parent.name + file.name).removesuffix(".dir")
            assert hashlib.md5(file.read_bytes()).hexdigest() == name, f"{told}: {file}"
        run("dvc", "status", "-q", self.stage, cwd=self.clone.folder, env=self.clone.environment)
        for label, metrics in epochs_in_mlflow(self.clone).items():
            with open(self.clone.folder / f"models/small/{label}/history.csv") as file:
                rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
            wanted = {name: [(row["step"], row[name]) for row in rows] for name in metrics}
            assert metrics == wanted, f"{told}: {label}"


def epochs_in_mlflow(clone: Clone) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """label -> metric -> its steps and values, of the finished runs that no other stands for.

    Raises AssertionError where a run has two.
    """
    from mlflow import MlflowClient

    from rnnmt.tracking.training import EPOCH_METRICS

    client = MlflowClient(f"sqlite:///{clone.folder / 'mlflow.db'}")
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = [
        one
        for one in client.search_runs(experiments, "attributes.status = 'FINISHED'")
        if one.data.tags.get("superseded") != "true" and one.info.run_name != "summary"
    ]
    assert sorted(one.info.run_name for one in runs) == ["gru-1", "lstm-general-1"], runs
    return {
        one.info.run_name: {
            name: sorted(
                (m.step, m.value) for m in client.get_metric_history(one.info.run_id, name)
            )
            for name in EPOCH_METRICS
        }
        for one in runs
    }


def processes(folder: Path, word: str) -> list[int]:
    """Those at work in a folder whose command has a word, the newest last."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink() == folder:
                command = (process / "cmdline").read_text().split("\0")
                if any(word in part for part in command):
                    found.append(int(process.name))
    return sorted(found)


def stop(trial: Trial, tally: Counter[str], *command: str) -> None:
    """Start the command, send a signal to all or one of its processes, and wait for its end."""
    number = trial.chance.choice([signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
    victim = trial.chance.choice(["group", "first", "dvc", "stage"])
    delay = trial.chance.uniform(0, trial.seconds)
    process = trial.start(*command)
    time.sleep(delay)
    word = {"dvc": "/dvc", "stage": "rnnmt."}.get(victim)
    found = processes(trial.clone.folder, word) if word else [process.pid]
    if process.poll() is not None or not found:
        tally["no such process then"] += 1
    elif victim == "group":
        os.killpg(process.pid, number)
    else:
        with contextlib.suppress(ProcessLookupError):
            os.kill(found[-1], number)
    trial.story.append(f"{number.name} to {victim} after {delay:.2f} s")
    tally[number.name] += 1
    process.wait(600)
    deadline = time.monotonic() + 5
    while (left := at_work(trial.clone.folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left, f"{' -> '.join(trial.story)}: {left}"


@pytest.mark.trials(3, 100)
def test_stopped_by_signals(
    undisturbed: Clone, trials: range, tally: Counter[str], tmp_path: Path
) -> None:
    for number in trials:
        trial = Trial(number, undisturbed, tmp_path)
        trial.forget()
        with_make = trial.command[0] == "dvc" and trial.chance.random() < 0.2
        for _ in range(trial.chance.randint(1, 3)):
            stop(trial, tally, *(MAKE_REPRO if with_make else trial.command))
        trial.ends_as_if_undisturbed(*(("dvc", "repro") if with_make else ()))
        tally["survived"] += 1
