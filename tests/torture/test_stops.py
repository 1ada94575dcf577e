"""Stopped at any moment, without room, rights or memory, or beside another: nothing is lost.

A trial takes a copy of an undisturbed clone, forgets what one stage has made, disturbs that stage
by chance, and ends with the command that a user types: it must go on to the undisturbed bytes.
DVC writes two files of its own over the old ones; where it was stopped in these milliseconds,
`dvc repro` names the one that is cut off, and `make repro` has to go on.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import random
import re
import runpy
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
from closure import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, prlimit and mount")

# Without --trials there is no time for torch and for DVC: these stages alone, and what they make.
QUICK = {"tokenize": "data/small/tokens", "align": "data/small/links"}
DVC_SECONDS = 4.0  # of its start, on a slow core
SECONDS = {
    "download": 3, "tokenize": 2, "align": 1, "train": 15, "decode": 9, "evaluate": 4,
    "analyze": 12, "memory": 12, "ensemble": 3, "compare": 5, "report": 12,
}  # fmt: skip
# Where stages and DVC write, beside the stage's own outputs.
PLACES = (".", "work", ".dvc/cache", "temporary")


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
        shutil.rmtree(made.folder / ".dvc/cache/runs")  # or else every stage would come from there
    else:
        for stage in ("download", *QUICK):
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
        if lock.exists():
            stages = YAML(typ="safe").load(lock.read_text())["stages"]
            self.outputs = {name: [o["path"] for o in s["outs"]] for name, s in stages.items()}
        self.stage = self.chance.choice(sorted(self.outputs))
        with_dvc = lock.exists() and self.chance.random() < 0.5
        self.command = ("dvc", "repro", self.stage) if with_dvc else command_of(self.stage)
        self.seconds = SECONDS[self.stage.partition("@")[0]] + with_dvc * DVC_SECONDS
        self.clone = undisturbed.copy(folder / str(number))
        outputs = "/".join(Path(self.outputs[self.stage][0]).parts[:2])
        self.places = [outputs, *(PLACES if lock.exists() else PLACES[:1])]
        self.log = folder / f"{number}.log"
        self.story = [f"trial {number}: {self.stage}"]

    def forget(self) -> None:
        """Remove what the stage has made, and what DVC knows and keeps of it."""
        lock = self.clone.folder / "dvc.lock"
        if lock.exists():
            yaml = YAML()
            known = yaml.load(lock.read_text())
            outputs = known["stages"].pop(self.stage, {"outs": []})["outs"]
            yaml.dump(known, lock)
            for md5 in (out["md5"] for out in outputs if out["md5"] not in lock.read_text()):
                kept = self.clone.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
                kept.unlink(missing_ok=True)
        for name in self.outputs[self.stage]:
            path = self.clone.folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def start(self, *command: str) -> subprocess.Popen[str]:
        with open(self.log, "a", encoding="utf-8") as log:
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

    def ends(self, *command: str) -> tuple[int, str]:
        """Start a command and wait: its exit code and what it has printed."""
        begun = self.log.stat().st_size if self.log.exists() else 0
        code = self.start(*command).wait(600)
        return code, self.log.read_bytes()[begun:].decode()

    def outcome(self, *command: str) -> str:
        """How a command ends: well, or with an error that a person can read."""
        code, text = self.ends(*command)
        if code == 0:
            return "enough after all"
        if "Traceback" in text:
            return "traceback"
        return "clear error" if re.search("^(rnnmt: error|ERROR): ", text, re.M) else "ended"

    def ends_as_if_undisturbed(self, *command: str) -> None:
        """Raises AssertionError where the last command, or what is there then, is not as it was."""
        code, text = self.ends(*(command or self.command))
        if code and (cut := re.search(r"'\S*(dvc\.lock|\.dvc/tmp/rwlock)'[ ,.]", text)):
            self.story.append(f"cut off {cut[1]}")
            code, _ = self.ends(*MAKE_REPRO)
        told = " -> ".join(self.story)
        assert code == 0, f"{told}:\n{self.log.read_text()}"
        now, wanted = self.clone.bytes(), self.undisturbed.bytes()
        different = sorted(f for f in now.keys() | wanted.keys() if now.get(f) != wanted.get(f))
        assert not different, f"{told}: {different}\n{self.log.read_text()}"
        if (self.clone.folder / "mlflow.db").exists():
            self._dvc_and_mlflow_have_it_whole(told)

    def _dvc_and_mlflow_have_it_whole(self, told: str) -> None:
        for file in (self.clone.folder / ".dvc/cache/files/md5").glob("??/*"):
            name = (file.parent.name + file.name).removesuffix(".dir")
            assert hashlib.md5(file.read_bytes()).hexdigest() == name, f"{told}: {file}"
        if self.command[0] == "dvc":
            status = ("dvc", "status", "-q", self.stage)
            run(*status, cwd=self.clone.folder, env=self.clone.environment)
        for label, metrics in epochs_in_mlflow(self.clone).items():
            with open(
                self.clone.folder / f"models/small/{label}/history.csv", encoding="utf-8"
            ) as file:
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
    by_dvc = command[0] != "python"
    victim = trial.chance.choice(["group", "first", *(["dvc", "stage"] if by_dvc else [])])
    delay, began = trial.chance.uniform(0, trial.seconds), time.monotonic()
    process = trial.start(*command)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(delay)
        # It has ended: once more, and as far into what it takes on this machine.
        delay *= (time.monotonic() - began) / trial.seconds
        trial.forget()
        process = trial.start(*command)
        time.sleep(delay)
    word = {"dvc": "/dvc", "stage": "rnnmt."}.get(victim)
    found = [] if word else [process.pid]
    while not found and word and process.poll() is None:
        found = processes(trial.clone.folder, word)
    if process.poll() is not None or not found:
        tally["no such process then"] += 1
    elif victim == "group":
        os.killpg(process.pid, number)
        tally[number.name] += 1
    else:
        with contextlib.suppress(ProcessLookupError):
            os.kill(found[-1], number)
            tally[number.name] += 1
    trial.story.append(f"{number.name} to {victim} after {delay:.2f} s")
    process.wait(600)
    deadline = time.monotonic() + 5
    while (left := at_work(trial.clone.folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    tally["outlived the stop"] += bool(left)
    while at_work(trial.clone.folder):
        time.sleep(0.5)


@pytest.mark.trials(2, 100)
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
        tally["needed make repro"] += "cut off" in trial.story[-1]
        tally["survived"] += 1
        shutil.rmtree(trial.clone.folder)


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """A folder as a file system of its own; skips the test where nothing may be mounted."""
    command = ["mount", *options, str(folder)]
    if subprocess.run(command, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("needs the right to mount: run as root")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def resize(folder: Path, room: int) -> None:
    """Leave so many bytes free in a tmpfs, in whole pages."""
    disk = os.statvfs(folder)
    size = (disk.f_blocks - disk.f_bfree) * disk.f_frsize + room
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


@pytest.mark.trials(1, 40)
def test_a_full_disk(
    undisturbed: Clone, trials: range, tally: Counter[str], tmp_path: Path
) -> None:
    """The whole clone's, or that of one of its folders."""
    for number in trials:
        trial = Trial(number, undisturbed, tmp_path)
        place = trial.clone.folder / trial.chance.choice(trial.places)
        room = int(10 ** trial.chance.uniform(2, 5))
        trial.story.append(f"{room} bytes of room in {place}")
        before = place.rename(tmp_path / "before")
        place.mkdir()
        with mounted(place, "-t", "tmpfs", "tmpfs"):
            shutil.copytree(before, place, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(before)
            trial.forget()
            resize(place, room)
            tally[trial.outcome(*trial.command)] += 1
            resize(place, 1 << 30)
            trial.ends_as_if_undisturbed()
        shutil.rmtree(trial.clone.folder)


@pytest.mark.trials(1, 20)
def test_files_of_limited_size(
    undisturbed: Clone, trials: range, tally: Counter[str], tmp_path: Path
) -> None:
    for number in trials:
        trial = Trial(number, undisturbed, tmp_path)
        limit = int(10 ** trial.chance.uniform(2, 4.5))
        trial.story.append(f"files of {limit} bytes")
        trial.forget()
        tally[trial.outcome("prlimit", f"--fsize={limit}", *trial.command)] += 1
        trial.ends_as_if_undisturbed()
        shutil.rmtree(trial.clone.folder)


@pytest.mark.trials(1, 20)
def test_a_read_only_folder(
    undisturbed: Clone, trials: range, tally: Counter[str], tmp_path: Path
) -> None:
    for number in trials:
        trial = Trial(number, undisturbed, tmp_path)
        place = trial.clone.folder / trial.chance.choice(trial.places)
        trial.story.append(f"{place} is read-only")
        trial.forget()
        with mounted(place, "--bind", str(place)):
            subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)
            tally[trial.outcome(*trial.command)] += 1
        trial.ends_as_if_undisturbed()
        shutil.rmtree(trial.clone.folder)


@pytest.mark.trials(1, 40)
def test_little_memory(
    undisturbed: Clone, trials: range, tally: Counter[str], tmp_path: Path
) -> None:
    for number in trials:
        trial = Trial(number, undisturbed, tmp_path)
        # Of the stage alone, DVC says nothing clear then; and enough for Python's first imports.
        kind, megabytes = trial.chance.choice(["as", "data"]), trial.chance.randint(60, 1200)
        trial.story.append(f"{megabytes} MB ({kind})")
        trial.forget()
        limit = f"--{kind}={megabytes << 20}"
        tally[trial.outcome("prlimit", limit, *command_of(trial.stage))] += 1
        trial.ends_as_if_undisturbed()
        shutil.rmtree(trial.clone.folder)


@pytest.mark.trials(0, 10)
def test_two_at_once(
    undisturbed: Clone, trials: range, tally: Counter[str], tmp_path: Path
) -> None:
    """`dvc repro` beside another one or beside `make repro`: one may give way, and says so."""
    for number in trials:
        trial = Trial(number, undisturbed, tmp_path)
        trial.forget()
        second = trial.chance.choice([trial.command, ("dvc", "repro"), MAKE_REPRO])
        delay = trial.chance.uniform(0, trial.seconds)
        trial.story.append(f"after {delay:.2f} s also {second}")
        first = trial.start(*trial.command)
        time.sleep(delay)
        codes = trial.start(*second).wait(600), first.wait(600)
        assert "Traceback" not in trial.log.read_text(), trial.story
        tally["both went well" if not any(codes) else "one gave way"] += 1
        trial.ends_as_if_undisturbed(*second)
        shutil.rmtree(trial.clone.folder)


REPRO = runpy.run_path(str(ROOT / "scripts/repro.py"))


def test_the_locks_of_the_dead(tmp_path: Path) -> None:
    """Those of processes whose numbers others have got are dropped, those of the living are not."""
    locks = tmp_path / "rwlock"
    locks.write_text(json.dumps({"write": {"models": {"pid": os.getpid(), "cmd": "dvc repro"}}}))
    REPRO["drop_dead_locks"](locks)
    assert locks.exists()
    os.utime(locks, times=(0, 0))  # before this process began
    REPRO["drop_dead_locks"](locks)
    assert not locks.exists()


def test_a_lock_file_cut_off_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make repro` leaves DVC none that it would refuse, of a recipe neither."""
    monkeypatch.chdir(tmp_path)
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils.serialize import loads_yaml

    lock, lines = tmp_path / "dvc.lock", (ROOT / "dvc.lock").read_text()[:2000].splitlines(True)
    for whole, line in enumerate(lines):
        for cut in ("".join(lines[:whole]), "".join(lines[:whole]) + line[: len(line) // 2]):
            lock.write_text(cut)
            REPRO["drop_broken_locks"]("recipes/other/dvc.yaml")
            if lock.exists():
                COMPILED_LOCKFILE_SCHEMA(loads_yaml(cut))
