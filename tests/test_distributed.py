"""One model trained by several processes, on one node and on two: the training of a single one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from clones import Clone, fails, run
from rnnmt.stages import train as train_stage
from servers import free_port

pytestmark = pytest.mark.timeout(1800)  # the first test waits for three trainings

TRAIN = (sys.executable, "-m", "rnnmt.stages.train")
# Everything that draws random numbers, or that is kept beside the weights.
NOISY = {
    "dropout": 0.2,
    "word_dropout": 0.1,
    "bpe_dropout": 0.1,
    "weight_average": 0.9,
    "processes": 2,
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """With tokens, and models that one and two processes have trained."""
    made = Clone(tmp_path_factory.mktemp("distributed"))
    values = made.settings()
    values["model"]["dropout"] = 0.0
    values["train"] |= {"max_epochs": 2, "checkpoint_seconds": 0.3}
    values["variants"] = {
        "one": {},
        "two": {"processes": 2},
        "noisy": NOISY,
        "nodes": {**NOISY, "processes": 1, "nodes": 2},
        "crowd": {"processes": 31},  # of 30 validation sentences
    }
    made.write(values)
    for stage in ("download", "tokenize"):
        run(sys.executable, "-m", f"rnnmt.stages.{stage}", cwd=made.folder, env=made.environment)
    for variant in ("one", "two", "noisy"):
        train(made, variant)
    return made


def train(made: Clone, variant: str) -> None:
    printed = run(*TRAIN, variant, "1", cwd=made.folder, env=made.environment)
    assert printed.count("epoch   1  ") == 1  # one process speaks


def weights(made: Clone, variant: str) -> dict[str, torch.Tensor]:
    file = made.folder / "models" / "small" / f"{variant}-1" / "weights.pt"
    loaded: dict[str, torch.Tensor] = torch.load(file, weights_only=True)
    return loaded


def history(made: Clone, variant: str) -> np.ndarray:
    file = made.folder / "models" / "small" / f"{variant}-1" / "history.csv"
    return np.loadtxt(file, delimiter=",", skiprows=1)


def test_two_processes_train_what_one_does(clone: Clone) -> None:
    np.testing.assert_allclose(history(clone, "two"), history(clone, "one"), rtol=1e-3)
    single, both = weights(clone, "one"), weights(clone, "two")
    for name, weight in single.items():
        torch.testing.assert_close(both[name], weight, rtol=1e-3, atol=1e-3)


def together(made: Clone, started: list[tuple[list[str], dict[str, str]]]) -> None:
    """Commands, each with its environment, that end well only beside each other."""
    processes = [
        subprocess.Popen(
            command,
            cwd=made.folder,
            env=made.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command, environment in started
    ]
    printed = [process.communicate(timeout=300)[0] for process in processes]
    assert not any(process.returncode for process in processes), printed


@pytest.mark.long
def test_two_nodes_train_what_two_processes_do(clone: Clone) -> None:
    port = free_port()
    nodes = [
        [
            sys.executable, "-m", "torch.distributed.run", "--nnodes", "2",
            "--nproc-per-node", "1", "--node-rank", str(rank), "--master-addr", "127.0.0.1",
            "--master-port", str(port), "-m", "rnnmt.stages.train", "nodes", "1",
        ]
        for rank in range(2)
    ]  # fmt: skip
    together(clone, [(node, {}) for node in nodes])
    np.testing.assert_allclose(history(clone, "nodes"), history(clone, "noisy"), rtol=1e-6)
    for name, weight in weights(clone, "noisy").items():
        torch.testing.assert_close(weights(clone, "nodes")[name], weight, rtol=1e-5, atol=1e-6)


def slurm(tasks: int, rank: int) -> dict[str, str]:
    """What srun tells its tasks on one node."""
    told = {
        "NTASKS": tasks, "NTASKS_PER_NODE": tasks, "STEP_NUM_TASKS": tasks, "PROCID": rank,
        "LOCALID": rank, "NODEID": 0, "NNODES": 1, "JOB_ID": 1000 + free_port(),
        "JOB_NAME": "rnnmt", "NODELIST": "127.0.0.1",
    }  # fmt: skip
    return {f"SLURM_{name}": str(value) for name, value in told.items()}


@pytest.mark.parametrize(
    ("told", "several"),
    [({}, False), ({"NTASKS": "4"}, False), (slurm(1, 0), False), (slurm(2, 1), True)],
)
def test_the_shell_of_an_allocation_is_no_task(
    told: dict[str, str], several: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in told.items():
        monkeypatch.setenv(f"SLURM_{name.removeprefix('SLURM_')}", value)
    assert train_stage._by_srun() == several


@pytest.mark.long
@pytest.mark.parametrize("tasks", [1, 2])
def test_in_a_slurm_job_they_train_the_same(clone: Clone, tmp_path: Path, tasks: int) -> None:
    """Also in a job of one task, which starts the second process itself."""
    other, port = clone.copy(tmp_path / "other"), str(free_port())
    model = other.folder / "models" / "small" / "noisy-1"
    for file in model.iterdir():
        file.unlink()
    environments = [slurm(tasks, rank) | {"MASTER_PORT": port} for rank in range(tasks)]
    together(other, [([*TRAIN, "noisy", "1"], environment) for environment in environments])
    wanted = clone.folder / "models" / "small" / "noisy-1"
    for name in ("weights.pt", "settings.json", "history.csv"):
        assert (model / name).read_bytes() == (wanted / name).read_bytes()


@pytest.mark.long
def test_killed_they_go_on_to_the_same_bytes(clone: Clone, tmp_path: Path) -> None:
    """All of them; the second process alone, whose end is the first one's; told to end, the first
    alone, which tells the second.
    """
    wanted = clone.folder / "models" / "small" / "noisy-1"
    other = clone.copy(tmp_path / "other")
    model = other.folder / "models" / "small" / "noisy-1"
    for file in model.iterdir():
        file.unlink()
    for victim in ("all", "second", "told"):
        process = other.start(*TRAIN, "noisy", "1")
        before = {file: file.stat().st_mtime_ns for file in other.folder.glob("work/*/last.ckpt")}
        while process.poll() is None and not any(
            file.stat().st_mtime_ns != before.get(file)
            for file in other.folder.glob("work/*/last.ckpt")
        ):
            time.sleep(0.01)
        assert process.poll() is None
        if victim == "all":
            os.killpg(process.pid, signal.SIGKILL)
        elif victim == "second":
            os.kill(second(process), signal.SIGKILL)
        else:
            process.terminate()
        code = process.wait(60)
        assert code == 128 + signal.SIGTERM if victim == "told" else code
    train(other, "noisy")
    for name in ("weights.pt", "settings.json", "history.csv"):
        assert (model / name).read_bytes() == (wanted / name).read_bytes()


def second(process: subprocess.Popen[str]) -> int:
    """The process that trains beside the first one."""
    import psutil

    [child] = [
        child
        for child in psutil.Process(process.pid).children()
        if "rnnmt.stages.train" in " ".join(child.cmdline())
    ]
    return int(child.pid)


def test_one_run_in_mlflow_has_every_epoch_once(clone: Clone) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{clone.folder / 'mlflow.db'}")
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments, "attributes.run_name = 'two-1'")
    assert [run.info.status for run in runs] == ["FINISHED"]
    epochs = client.get_metric_history(runs[0].info.run_id, "epoch")
    assert [metric.value for metric in epochs] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("variant", "environment", "message"),
    [
        ("nodes", {}, "start this stage on each node"),
        ("two", {"RANK": "0", "WORLD_SIZE": "3"}, "3 processes were started"),
        ("crowd", {"RANK": "0", "WORLD_SIZE": "31"}, "more than the 30 validation sentences"),
        ("two", slurm(2, 0) | {"SLURM_NTASKS_PER_NODE": "4"}, "--nodes 1 --ntasks-per-node 2"),
        ("nodes", slurm(2, 0), "--nodes 2 --ntasks-per-node 1"),
    ],
)
def test_what_cannot_be_is_said(
    clone: Clone, variant: str, environment: dict[str, str], message: str
) -> None:
    said = fails(*TRAIN, variant, "1", cwd=clone.folder, env=clone.environment | environment)
    assert message in said
