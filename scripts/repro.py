"""What `make repro [RECIPE=name]` does: `dvc repro`, with several variants trained at a time.

All settings are checked and the shared stages brought up to date. Then every variant and seed has
its chain of stages, train, decode, evaluate, analyze, and the memory tasks have one; as many
chains run at once as there are processors for. A last `dvc repro` verifies everything, compares
and reports.

DVC reads one dvc.yaml with one params.yaml and one dvc.lock beside it. For a recipe, the same
stages are written to recipes/NAME/dvc.yaml with `recipes/NAME.yaml` as their settings, and their
lock is recipes/NAME/dvc.lock: the default's own files stay as they are. That dvc.yaml is removed at
the end, or else `dvc status` and `dvc metrics show` would speak of every recipe at once; and DVC
forgets what it has written for it, or else its next checkout would remove all that.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import psutil
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from rnnmt import params
from rnnmt.check import check_settings
from rnnmt.commands import Commands
from rnnmt.corpora import files
from rnnmt.corpora import settings as corpora
from rnnmt.errors import UserError, run_main
from rnnmt.model.settings import cores as training_cores
from rnnmt.sweep import labels

ROOT = Path(__file__).parent.parent
LOCK = Path(".dvc/tmp/make-repro.lock")
FORMER = Path("work", "former")  # outputs of variants that are gone
SHARED = ("download", "tokenize", "align")
CHAIN = ("train", "decode", "evaluate", "analyze")
# Several DVCs may run, each of which locks the repository for moments.
DVC = ("dvc", "--wait-for-lock")


def main() -> None:
    parser = argparse.ArgumentParser(prog="make repro", description=__doc__)
    parser.add_argument("recipe", nargs="?", help="a file of recipes/, without .yaml")
    recipe = parser.parse_args().recipe
    recipe = recipe and recipe.removeprefix("recipes/").removesuffix(".yaml")
    os.chdir(ROOT)
    os.environ.pop("RNNMT_PARAMS", None)  # the argument says which recipe it is
    with alone():
        for left in Path("recipes").glob("*/dvc.yaml"):  # by a run that was killed
            remove_pipeline(left)
        if recipe:
            check_recipe(recipe)
        check_settings()
        pipeline = write_pipeline(recipe) if recipe else Path("dvc.yaml")
        try:
            reproduce(str(pipeline))
        finally:
            if recipe:
                remove_pipeline(pipeline)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Only one runs in a clone. The system frees the lock however that one ends.

    Raises UserError where another one runs: this one would take its recipe's dvc.yaml for one
    that a killed run has left.
    """
    LOCK.parent.mkdir(exist_ok=True)
    with open(LOCK, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            process = file.read()
            raise UserError(
                f"another `make repro` runs in this folder, as process {process}: wait for it, "
                f"or end it with `kill {process}`"
            ) from None
        file.truncate(0)
        print(os.getpid(), end="", file=file, flush=True)
        yield


def drop_broken_locks(pipeline: str) -> None:
    """Begin a dvc.lock anew that was cut off while it was written: the run cache knows all.

    DVC writes it over the old one after each stage, and refuses to do anything while one of the
    repository is half there. Cut off between two entries it is only shorter.
    """
    for lock in {Path("dvc.lock"), Path(pipeline).with_suffix(".lock")}:
        text = lock.read_bytes() if lock.exists() else b"\n"
        if not text.endswith(b"\n") or text.endswith(b":\n"):
            print(f"{lock}: cut off by a kill or a full disk; DVC makes it again from its cache")
            lock.unlink()


def drop_dead_locks(locks: Path = Path(".dvc/tmp/rwlock")) -> None:
    """Remove DVC's record of who reads and writes what, where all of them have been killed.

    DVC itself takes a killed process for a living one until its parent has asked how it ended, and
    whatever has got its number since, after a power failure for one, for the killed process.
    """
    if locks.exists():
        written, text = locks.stat().st_mtime, locks.read_text(encoding="utf-8")
        processes = {int(number) for number in re.findall(r'"pid": *(\d+)', text)}
        if not any(is_running(process, written) for process in processes):
            locks.unlink()


def remove_partial_files() -> None:
    """Remove what DVC was about to rename into an output when it was killed.

    By its .dvcignore, DVC takes such a file for no part of an output, and leaves it there.
    """
    for folder in ("data", "models", "reports"):
        for file in Path(folder).rglob(".*.tmp"):
            if re.fullmatch(r"\.[\w-]{22}\.tmp", file.name):
                file.unlink(missing_ok=True)


def is_running(process: int, known_at: float) -> bool:
    """Whether a process exists, is more than the memory of its end, a zombie, and began before.

    When a process began is known to a second or two.
    """
    try:
        found = psutil.Process(process)
        return bool(found.status() != psutil.STATUS_ZOMBIE and found.create_time() < known_at + 5)
    except psutil.NoSuchProcess:
        return False


def remove_pipeline(pipeline: Path) -> None:
    """Take away a recipe's dvc.yaml, and let DVC forget which files it has written for it.

    `dvc checkout`, which `dvc pull` and `dvc exp run` do too, removes whatever DVC remembers to
    have written and finds in no dvc.yaml: all of the recipe's models and translations. Where it
    cannot be made to forget, its dvc.yaml stays, and the next run tries again.
    """
    from diskcache import Timeout
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            repo.state.links.clear()
    except (sqlite3.Error, Timeout, OSError) as error:
        reason = f"{type(error).__name__}: {error}"
        print(f"rnnmt: warning: {pipeline} stays until the next run ({reason})", file=sys.stderr)
    else:
        pipeline.unlink(missing_ok=True)


def move_former_outputs(pipeline: str) -> None:
    """Take what variants and seeds have made that the settings no longer name out of the way.

    The stages that compare depend on whole folders: with what only this clone has in them, no
    other clone would find them up to date. DVC's lock knows all outputs of a recipe.
    """
    lock, wanted = Path(pipeline).with_suffix(".lock"), set(labels())
    known = None
    with contextlib.suppress(FileNotFoundError, YAMLError):  # a broken one is for DVC to name
        known = YAML(typ="safe").load(lock.read_text(encoding="utf-8"))
    stages = known.get("stages") if isinstance(known, dict) else None
    for name, stage in (stages or {}).items():
        label = name.partition("@")[2]
        for out in stage.get("outs", ()) if label and label not in wanted else ():
            path = Path(out["path"])
            if path.exists():
                print(f"{path}: of no variant and seed any more, moved to {FORMER / path}")
                shutil.rmtree(FORMER / path, ignore_errors=True)
                (FORMER / path).parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, FORMER / path)


def say_changed_files() -> None:
    """Of the user's own files DVC sees only what the settings say of them."""
    manifest = Path("data", params.corpus_name(), "raw", "manifest.json")
    own = corpora.own_files(corpora.load())
    if not own or not manifest.exists():
        return
    known = json.loads(manifest.read_text(encoding="utf-8")).get("origin_sha256", {})
    for name, digest in files.digests(own).items():
        if digest and digest != known.get(name, digest):
            print(
                f"{name} has changed since it was read, which DVC does not see: `python "
                "scripts/retrain.py refresh` notes it in the settings"
            )


def reproduce(pipeline: str) -> None:
    """Run what has changed. Raises SystemExit, or UserError naming the chains that failed."""
    drop_dead_locks()
    drop_broken_locks(pipeline)
    remove_partial_files()
    move_former_outputs(pipeline)
    stale = changed(pipeline)
    if "download" not in stale:
        say_changed_files()
    if not stale:
        print("Nothing has changed: models, translations, scores and comparison are up to date.")
    # Settings tend to go from small models to large, and no long chain must begin last: the memory
    # tasks, of some minutes, begin when the first of the others is done.
    chains = {label: [f"{stage}@{label}" for stage in CHAIN] for label in labels()[::-1]}
    chains = dict(islice(chains.items(), side_by_side())) | {"memory": ["memory"]} | chains
    with Commands() as commands:
        if stale.intersection(SHARED):
            commands.check(*DVC, "repro", address(pipeline, "align"))
            stale = changed(pipeline)
        run_chains(
            {
                # -s: these stages alone, since two at once must not both check what they share.
                label: [*DVC, "repro", "-s", *(address(pipeline, stage) for stage in chain)]
                for label, chain in chains.items()
                if stale.intersection(chain)
            },
            commands,
        )
        if stale:
            commands.check(*DVC, "repro", pipeline)
        commands.run("rnnmt", "sync")  # where MLflow is away it says so, and nothing has failed


def changed(pipeline: str) -> set[str]:
    """The stages that have something to do, but for those that will only follow from others."""
    command = [*DVC, "status", "--json", pipeline]
    status = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if status.returncode:
        raise SystemExit(status.returncode)
    return {stage.removeprefix(address(pipeline, "")) for stage in json.loads(status.stdout)}


def address(pipeline: str, stage: str) -> str:
    """What DVC calls a stage of a pipeline."""
    return stage if pipeline == "dvc.yaml" else f"{pipeline}:{stage}"


def side_by_side() -> int:
    """How many chains run at once."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # on Linux: those that this process may use
        cores = len(os.sched_getaffinity(0))
    return max(1, cores // training_cores())


def run_chains(chains: dict[str, list[str]], commands: Commands) -> None:
    """Run a command for each label, several at once. Raises UserError naming those that failed."""
    with ThreadPoolExecutor(side_by_side()) as pool:
        codes = pool.map(lambda label: commands.run(*chains[label], label=label), chains)
        failed = [label for label, code in zip(chains, codes, strict=True) if code]
    commands.end_if_stopped()
    if failed:
        raise UserError(
            f"failed: {', '.join(failed)}; their lines above say why. The same command goes on "
            "with what is left; to compare the others alone, take it out of `variants`"
        )


def check_recipe(recipe: str) -> None:
    """Take the recipe's settings. Raises UserError where it is missing or shares a folder."""
    file, recipes = Path("recipes", f"{recipe}.yaml"), sorted(Path("recipes").glob("*.yaml"))
    if file not in recipes:
        raise UserError(
            f"{file}: no such file; the recipes are {', '.join(r.stem for r in recipes)}"
        )
    names = {path: named(path) for path in (Path("params.yaml"), *recipes)}
    os.environ["RNNMT_PARAMS"] = str(file)
    own = params.corpus_name()
    for other, name in names.items():
        if name == own and other != file:
            raise UserError(
                f"{file}: corpus.name: '{name}' is that of {other} too: with another name, "
                "neither overwrites the other's models and reports"
            )


def named(settings: Path) -> str | None:
    """The name of its corpus; None where it cannot be read, which is for its own run to say."""
    os.environ["RNNMT_PARAMS"] = str(settings)
    with contextlib.suppress(UserError):
        return params.corpus_name()
    return None


def write_pipeline(recipe: str) -> Path:
    """The stages of dvc.yaml with a recipe's settings."""
    settings = Path("recipes", f"{recipe}.yaml")
    folder = Path("recipes", recipe)
    folder.mkdir(parents=True, exist_ok=True)
    up = os.path.relpath(".", folder)
    yaml = YAML()
    stages = yaml.load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for stage in stages.values():
        stage["wdir"] = up
        stage["params"] = [{str(settings): stage["params"]}]
    whole, part = folder / "dvc.yaml", folder / "dvc.yaml.part"  # DVC refuses half a dvc.yaml
    with open(part, "w", encoding="utf-8") as file:
        yaml.dump({"vars": [os.path.join(up, settings)], "stages": stages}, file)
    return part.replace(whole)


if __name__ == "__main__":
    run_main(main)
