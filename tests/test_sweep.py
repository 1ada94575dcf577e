"""`rnnmt sweep` on one machine: several at once, and as jobs of submitit's own executor.

Hosts over SSH are tried in test_remotes.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from clones import Clone, fails, run
from rnnmt import sweep
from rnnmt.errors import UserError
from servers import KEYS, slurm

SWEEP = ("rnnmt", "sweep")
SUBMIT = (
    sys.executable,
    "-c",
    "from rnnmt import errors, sweep; "
    "errors.run_main(lambda: sweep.submit('logs', {}, minutes=60, cluster='local'))",
)
# What a task of SLURM finds, of which Lightning would take the number of tasks for its own.
ONE_TASK = {
    "SLURM_JOB_ID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_NNODES": "1",
    "SLURM_NODEID": "0",
    "SLURM_NTASKS": "1",
    "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_PROCID": "0",
}


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def give_remote(clone: Clone, store: str | Path = "empty") -> None:
    run("dvc", "remote", "add", "-d", "s", str(store), cwd=clone.folder, env=KEYS)


@pytest.mark.parametrize("options", [("--here",), ("--host", "me@there:/x")])
def test_without_a_remote_nothing_is_trained(clone: Clone, options: tuple[str, ...]) -> None:
    """Or else it would be at the end that no machine can have the results."""
    said = fails(*SWEEP, *options, cwd=clone.folder, env=clone.environment)
    assert "dvc remote add" in said
    assert ": on " not in said


def test_a_sweep_runs_in_one_kind_of_place(clone: Clone) -> None:
    said = fails(*SWEEP, "--here", "--slurm", "logs", cwd=clone.folder, env=clone.environment)
    assert "--slurm: not allowed with argument --here" in said


@pytest.mark.parametrize(("threads", "workers"), [(1, {"here 1", "here 2"}), (1024, {"here 1"})])
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_as_many_run_here_as_there_are_cores_for(
    clone: Clone, threads: int, workers: set[str]
) -> None:
    """Of a remote that has nothing, they fail at once; that is said too."""
    give_remote(clone)
    clone.write(clone.settings() | {"threads": threads})
    said = fails(*SWEEP, "--here", cwd=clone.folder, env=clone.environment)
    assert {line.split(": on ")[1] for line in said.splitlines() if ": on " in line} == workers
    assert "not done: gru-1, lstm-general-1" in said or "not done: lstm-general-1, gru-1" in said


def test_a_worker_that_cannot_begin_leaves_its_work_to_the_others(
    clone: Clone, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(clone.folder)
    workers = [sweep._Worker("gone", ["no-such-ssh"]), sweep._Worker("here", ["echo"])]
    sweep._run_on(workers, sweep.plan())
    said = capsys.readouterr()
    assert "gone is lost: no-such-ssh: No such file" in said.err
    assert "gru-1: done" in said.out
    assert "lstm-general-1: done" in said.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_it_stops_what_runs_and_none_begins(clone: Clone, number: int) -> None:
    """By a Ctrl-C, or a signal that only the sweep itself gets."""
    give_remote(clone)
    with subprocess.Popen(
        [*SWEEP, "--here", "--jobs", "1"],
        cwd=clone.folder,
        env=clone.environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "gru-1: on here 1\n"
        while not (chains := psutil.Process(process.pid).children()):
            assert process.poll() is None
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.terminate()
        assert "lstm-general-1" not in process.stdout.read()
    assert process.returncode == 128 + number
    assert not any(chain.is_running() for chain in chains)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--slurm", "logs"), "`--here` runs all on this machine"),
        (("--slurm", "logs", "--option", "time=60"), "say --minutes"),
        (("--slurm", "logs", "--option", "partition"), "expected NAME=VALUE"),
    ],
)
def test_what_cannot_be_submitted_is_said(
    clone: Clone, options: tuple[str, ...], message: str
) -> None:
    nowhere = clone.environment | {"PATH": str(Path(sys.executable).parent)}  # no srun
    assert message in fails(*SWEEP, *options, cwd=clone.folder, env=nowhere)


def test_an_option_unknown_to_slurm_is_named(clone: Clone) -> None:
    command = [*SUBMIT[:2], SUBMIT[2].replace("{}", "{'partitoin': 'cpu'}")]
    said = fails(*command, cwd=clone.folder, env=clone.environment)
    assert "Unknown argument 'partitoin'" in said


def test_a_variant_of_several_nodes_is_refused(clone: Clone) -> None:
    clone.write(clone.settings() | {"variants": {"wide": {"nodes": 2}}})
    said = fails(*SWEEP, cwd=clone.folder, env=clone.environment)
    assert "variant 'wide' has train.nodes 2" in said


LOST = sweep._Worker("lost", ["sh", "-c"], "sleep 1; exit 255; ")
THERE = sweep._Worker("there", ["sh", "-c"], "true; ")


@pytest.mark.timeout(60)
def test_a_host_that_is_lost_last_has_its_chain_done(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """By one that has long been idle; and where none is there, that is said."""
    monkeypatch.setattr(sweep, "plan", lambda: {"one": "echo 1", "two": "echo 2"})
    sweep._run_on([LOST, THERE], sweep.plan())
    printed = capfd.readouterr().out
    assert "one: on lost" in printed
    assert "one: on there\n1\none: done\nAll is done" in printed
    with pytest.raises(UserError, match="not done: one, two;"):
        sweep._run_on([LOST, LOST], sweep.plan())


@pytest.mark.parametrize("code", [3, sweep.CONNECTION_LOST])
def test_a_training_that_fails_costs_no_host(
    code: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Though DVC ends as ssh does where its connection is lost."""
    monkeypatch.setattr(sweep, "plan", lambda: {"one": f"exit {code}", "two": "sleep 1"})
    with pytest.raises(UserError, match="not done: one;"):
        sweep._run_on([THERE, THERE], sweep.plan())
    printed = capfd.readouterr()
    assert "one: failed" in printed.out
    assert "two: done" in printed.out
    assert "lost" not in printed.err


@pytest.mark.parametrize("options", [(), ("--here",)])
def test_a_recipe_is_refused(clone: Clone, options: tuple[str, ...]) -> None:
    """Its labels would be trained with the settings of params.yaml, or be done already."""
    recipe = {"RNNMT_PARAMS": "recipes/tatoeba-en-fr.yaml"}
    said = fails(*SWEEP, *options, cwd=clone.folder, env=clone.environment | recipe)
    assert "RNNMT_PARAMS=recipes/tatoeba-en-fr.yaml" in said
    assert "make repro RECIPE=NAME" in said


def test_a_host_is_swept_again(tmp_path: Path) -> None:
    """Though the first sweep has left another dvc.lock in its clone."""
    origin, host = tmp_path / "origin", tmp_path / "host"
    run("git", "init", "--quiet", str(origin), cwd=tmp_path)
    for text in ("first", "second"):
        (origin / "dvc.lock").write_text(text)
        run("git", "add", "dvc.lock", cwd=origin)
        person = ("-c", "user.name=me", "-c", "user.email=me@localhost")
        run("git", *person, "commit", "--quiet", "--message", text, cwd=origin)
        if not host.exists():
            run("git", "clone", "--quiet", str(origin), str(host), cwd=tmp_path)
            (host / "dvc.lock").write_text("of the first sweep")
    last = run("git", "rev-parse", "HEAD", cwd=origin).strip()
    before = sweep._remote(f"me:{host}", last, "").before
    assert run("sh", "-c", f"{before} cat dvc.lock", cwd=tmp_path) == "second"


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("command", "environment"),
    [(SUBMIT, ONE_TASK), ((*SWEEP, "--here", "--jobs", "2"), {})],
    ids=["submitted", "here"],
)
def test_all_are_trained_and_a_failing_one_is_named(
    clone: Clone,
    tmp_path_factory: pytest.TempPathFactory,
    command: tuple[str, ...],
    environment: dict[str, str],
) -> None:
    """Two processes of one model, and more than there is work for."""
    values = clone.settings()
    values["train"]["max_epochs"] = 1
    values["variants"] = {"pair": {"processes": 2}, "crowd": {"processes": 31}}
    clone.write(values)
    store = str(tmp_path_factory.mktemp("store"))
    run("dvc", "remote", "add", "-d", "s", store, cwd=clone.folder, env=KEYS)
    clone.repro("tokenize")
    run("dvc", "push", "-q", cwd=clone.folder, env=KEYS)
    said = fails(*command, cwd=clone.folder, env=clone.environment | environment)
    assert "pair-1: done" in said
    assert "crowd-1: failed" in said
    assert "not done: crowd-1;" in said
    printed = run("dvc", "repro", "-s", "decode@pair-1", cwd=clone.folder, env=clone.environment)
    assert "Running stage" not in printed


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_slurm_trains_them(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> None:
    """As an array of jobs, and one model by the two tasks of a job."""
    values = clone.settings()
    values["train"]["max_epochs"] = 1
    values["variants"] = {"one": {}, "pair": {"processes": 2}}
    clone.write(values)
    store = str(tmp_path_factory.mktemp("store"))
    run("dvc", "remote", "add", "-d", "s", store, cwd=clone.folder, env=KEYS)
    clone.repro("tokenize")
    run("dvc", "push", "-q", cwd=clone.folder, env=KEYS)
    with slurm(tmp_path_factory.mktemp("slurm")) as cluster:
        environment = clone.environment | cluster
        options = ("--slurm", "logs", "--option", "partition=here", "--minutes", "20")
        said = run(*SWEEP, *options, cwd=clone.folder, env=environment)
        assert "one-1: done" in said
        assert "pair-1: done" in said
        stages = ("decode@one-1", "decode@pair-1")
        printed = run("dvc", "repro", "-s", *stages, cwd=clone.folder, env=environment)
        assert "Running stage" not in printed
        weights = clone.folder / "models/small/pair-1/weights.pt"
        before = weights.read_bytes()
        weights.unlink()
        task = (sys.executable, "-m", "rnnmt.stages.train", "pair", "1")
        run("srun", "--ntasks-per-node=2", *task, cwd=clone.folder, env=environment)
        assert weights.read_bytes() == before
