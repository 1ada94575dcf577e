"""`rnnmt sweep`: many variants on many machines, one variant and seed at a time each.

A machine runs a variant's chain train, decode and push in its own clone; DVC's run cache, in a
remote that all share, carries the results. A last `dvc repro --pull` anywhere finds the chains
done, and scores and compares.
"""

from __future__ import annotations

import os
import queue
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rnnmt import params
from rnnmt.commands import Commands
from rnnmt.errors import UserError
from rnnmt.model.settings import cores, variant

LAST = "dvc repro --pull"
SSH = ("ssh", "-o", "BatchMode=yes")
CONNECTION_LOST = 255  # ssh's own exit code


def chain(label: str) -> str:
    """The shell command that trains, decodes and shares one variant and seed."""
    stages = f"train@{label} decode@{label}"
    return (
        "dvc --wait-for-lock pull --quiet tokenize && "
        f"dvc --wait-for-lock repro --single-item {stages} && "
        f"dvc --wait-for-lock push --quiet --run-cache {stages}"
    )


def plan() -> dict[str, str]:
    """label -> command, for every variant and seed of params.yaml.

    Raises UserError where RNNMT_PARAMS names another file, of which dvc.yaml knows nothing, and
    where a variant wants several nodes, since a command runs on one.
    """
    if params.path().resolve() != Path("params.yaml").resolve():
        raise UserError(
            f"RNNMT_PARAMS={params.path()}: a sweep trains what params.yaml says; unset it, or "
            "train a recipe on this machine: make repro RECIPE=NAME"
        )
    for name in params.variants():
        if (nodes := variant(name)[1].nodes) > 1:
            raise UserError(
                f"{params.path()}: variant '{name}' has train.nodes {nodes}, and a sweep gives "
                "each variant one machine: set it to 1, or train it with torchrun or srun"
            )
    return {label: chain(label) for label in labels()}


def labels() -> list[str]:
    """The name of every variant's training with every seed."""
    return [f"{variant}-{seed}" for variant in params.variants() for seed in params.seeds()]


def show() -> None:
    """Print the plan: each line may run on another machine, in a clone of this commit."""
    for command in plan().values():
        print(command)
    print(f"# then, on any machine:\n{LAST}")


def run_here(jobs: int | None) -> None:
    """Run the plan on this machine, as many chains at once as its cores have threads for.

    Raises UserError naming the chains that failed.
    """
    chains = plan()
    _need_remote()
    jobs = jobs or max(1, (os.cpu_count() or 1) // cores())
    _run_on([_Worker(f"here {number}", ["sh", "-c"]) for number in range(1, jobs + 1)], chains)


def run_on_hosts(hosts: Sequence[str], environment: str) -> None:
    """Run the plan over SSH; a host is `[USER@]NAME[:PORT]:FOLDER`, the folder a clone.

    Every clone is brought to this commit first, and loses what else has changed in its tracked
    files; `environment` is a shell command that makes `dvc` known there. A host that is lost has
    its chain done by another one. Raises UserError naming what failed.
    """
    chains = plan()
    _need_remote()
    commit = _commit()
    _run_on([_remote(host, commit, environment) for host in hosts], chains)


def submit(folder: str, options: dict[str, str], minutes: int, cluster: str = "slurm") -> None:
    """Run the plan as one SLURM array, from a clone that all its nodes see, and wait for its end.

    Its logs go to `folder`; a job may take `minutes`. With `cluster` "local", submitit itself runs
    all jobs at once on this machine. Raises UserError where submitit or SLURM is missing or refuses
    an option, and naming the chains that failed.
    """
    try:
        import submitit
        from submitit.helpers import CommandFunction
    except ImportError:
        raise UserError("--slurm needs submitit: pip install 'rnnmt[slurm]'") from None
    if "time" in options:
        raise UserError("--option time: say --minutes instead")
    chains = plan()
    try:
        executor = submitit.AutoExecutor(folder, cluster=cluster)
        executor.update_parameters(
            name="rnnmt",
            timeout_min=minutes,
            cpus_per_task=cores(),
            slurm_srun_args=[f"--cpus-per-task={cores()}"],  # srun does not take it from sbatch
            # submitit itself reckons with one of them
            **{f"slurm_{k}": int(v) if k == "array_parallelism" else v for k, v in options.items()},
        )
        _need_remote()
        with executor.batch():
            jobs = {
                label: executor.submit(CommandFunction(["sh", "-c", command]))
                for label, command in chains.items()
            }
    except (RuntimeError, NameError, ValueError) as error:
        raise UserError(f"--slurm: {error}; `--here` runs all on this machine") from None
    for label, job in jobs.items():
        print(f"{label}: job {job.job_id}")
    print("waiting for them; after a Ctrl-C they go on without this command", flush=True)
    failed = []
    for label, job in jobs.items():
        if job.exception():  # of what has ended, for which it waits
            failed.append(label)
        print(f"{label}: {f'failed, see {job.paths.stderr}' if label in failed else 'done'}")
    _conclude(failed)


@dataclass(frozen=True)
class _Worker:
    """What runs one shell command at a time: this machine or another."""

    name: str
    prefix: list[str]
    before: str = ""  # what another machine has to do first

    def run(self, command: str, commands: Commands) -> int:
        # DVC's own exit code of a failure is 255, too; here only ssh's means a lost connection.
        return commands.run(*self.prefix, f"{self.before}({command}) || exit 1")


def _remote(host: str, commit: str, environment: str) -> _Worker:
    name, _, folder = host.rpartition(":")
    if not name or not folder:
        raise UserError(f"--host {host}: expected [USER@]NAME[:PORT]:FOLDER")
    address, _, port = name.partition(":")
    steps = [f"cd {shlex.quote(folder)}", environment, "git fetch --quiet"]
    # --force: an earlier sweep has left its dvc.lock.
    steps += [f"git checkout --quiet --force --detach {commit}"]
    before = "".join(f"{step} && " for step in steps if step)
    return _Worker(host, [*SSH, *(["-p", port] if port else []), address], before)


def _need_remote() -> None:
    """Raises UserError before the hours of a sweep whose results could not be shared."""
    command = ["dvc", "config", "core.remote"]
    found = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if not found.stdout.strip():
        raise UserError(
            "a sweep shares its results through DVC's remote, and there is none: dvc remote add "
            "-d NAME URL; on this machine alone, `make repro` trains as many at once"
        )


def _run_on(workers: Sequence[_Worker], chains: dict[str, str]) -> None:
    left = dict(chains)  # neither done nor failed
    waiting: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()
    for item in left.items():
        waiting.put(item)
    failed: list[str] = []

    def end() -> None:
        for _ in workers:
            waiting.put(None)

    def work(worker: _Worker) -> None:
        # Until none is left, also of those at work: another host may be lost.
        while (item := waiting.get()) and left:
            label, command = item
            print(f"{label}: on {worker.name}", flush=True)
            try:
                code, lost = worker.run(command, commands), ""
            except OSError as error:
                code, lost = CONNECTION_LOST, f": {error.filename}: {error.strerror}"
            if commands.stopped:
                break
            if code == CONNECTION_LOST:
                print(f"rnnmt: warning: {worker.name} is lost{lost}", file=sys.stderr, flush=True)
                waiting.put(item)
                return
            print(f"{label}: {'done' if code == 0 else f'failed ({code})'}", flush=True)
            if code:
                failed.append(label)
            left.pop(label, None)
            if not left:
                end()
        if commands.stopped:
            end()

    with Commands() as commands, ThreadPoolExecutor(len(workers)) as pool:
        list(pool.map(work, workers))
    commands.end_if_stopped()
    _conclude([*failed, *left])


def _conclude(failed: Sequence[str]) -> None:
    if failed:
        raise UserError(f"not done: {', '.join(failed)}; the same command goes on with the rest")
    print(f"All is done; now: {LAST}")


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    if done.returncode:
        raise UserError("not a git repository: the other machines need a commit to check out")
    return done.stdout.strip()
