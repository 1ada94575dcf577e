"""What the pipeline costs where nothing is computed: `python benchmarks/overhead.py`.

In a temporary clone with a shrunk corpus and two tiny models: commands that have nothing to do,
and each stage beside its imports. A stage's rest is its whole time without its imports and the
work that it measures itself: train its epochs, decode its searches, the others nothing; it has a
bar where there is no other work.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import common

sys.path.insert(0, str(common.ROOT / "tests"))
from clones import MAKE_REPRO, Clone

RUNS = 5
BARS = {"dvc repro": 3.0, "make repro": 3.0, "rnnmt --help": 0.3}
COMMANDS = {
    "dvc repro": ("dvc", "repro"),
    "make repro": MAKE_REPRO,  # but for make itself, which finds the environment ready
    "rnnmt sync": ("rnnmt", "sync"),
    "rnnmt check": ("rnnmt", "check"),
    "rnnmt --help": ("rnnmt", "--help"),
}
STAGES = {
    "download": (),
    "tokenize": (),
    "align": (),
    "train": ("lstm-general", "1"),
    "decode": ("lstm-general", "1"),
    "evaluate": ("lstm-general", "1"),
    "ensemble": (),  # of one seed, which is nothing to do
    "compare": (),
    "memory": (),
    "analyze": ("lstm-general", "1"),
    "report": (),
}
UNMEASURED = ("download", "memory", "analyze", "report")  # their work is in their rest
LIGHT = ("download", "tokenize", "align", "evaluate", "ensemble", "compare")  # without HEAVY
HEAVY = {"torch", "pytorch_lightning", "mlflow"}
REST_BAR = 1.0  # seconds


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clone = Clone(Path(folder))
        clone.make_repro()
        commands = measure_commands(clone)
        stages = measure_stages(clone)
    rows = [[name, common.shown(s, 2), BARS.get(name, "")] for name, s in commands.items()]
    print(common.table(["nothing to do", "seconds", "bar"], rows), end="\n\n")
    columns = ("whole", "imports", "work", "rest")
    rows = [[name, *(common.shown(s[c], 2) for c in columns)] for name, s in stages.items()]
    print(common.table(["stage", *columns], rows), end="\n\n")
    missed = [name for name, bar in BARS.items() if commands[name]["median"] >= bar]
    missed += [
        name
        for name, s in stages.items()
        if s["rest"]["median"] >= REST_BAR and name not in UNMEASURED
    ]
    print("bars missed:", ", ".join(missed) or "none")
    file = common.write("overhead", threads=1, results={"commands": commands, "stages": stages})
    print(file)


def measure_commands(clone: Clone) -> dict[str, dict[str, float]]:
    """Seconds of each command, one after the other in turn."""
    found: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, command in COMMANDS.items():
            found[name].append(seconds(lambda c=command: execute(clone, *c)))  # type: ignore[misc]
    return {name: common.spread(values) for name, values in found.items()}


def measure_stages(clone: Clone) -> dict[str, dict[str, dict[str, float]]]:
    """Whole, imports, work and rest of each stage, in seconds."""
    measured = {}
    for stage, arguments in STAGES.items():
        command = ("-m", f"rnnmt.stages.{stage}", *arguments)
        modules = imported(clone, *command)
        if stage in LIGHT:
            assert not HEAVY & set(modules), f"{stage} imports {HEAVY & set(modules)}"
        # As a stage does, with run_main's care for a quick start and end.
        load = "import contextlib\nfrom rnnmt.errors import run_main\ndef main():\n" + "".join(
            f"  with contextlib.suppress(ImportError): import {name}\n" for name in modules
        )
        load += "run_main(main)"
        found: dict[str, list[float]] = {"whole": [], "imports": [], "work": [], "rest": []}
        for _ in range(RUNS):
            imports = seconds(lambda code=load: execute(clone, sys.executable, "-c", code))  # type: ignore[misc]
            whole = seconds(lambda c=command: execute(clone, sys.executable, *c))  # type: ignore[misc]
            work = own_work(clone, stage)
            values = (whole, imports, work, whole - imports - work)
            for name, value in zip(found, values, strict=True):
                found[name].append(value)
        measured[stage] = {name: common.spread(values) for name, values in found.items()}
    return measured


def imported(clone: Clone, *command: str) -> list[str]:
    """What a program imports by itself, in order, from the first to its last function."""
    done = execute(clone, sys.executable, "-X", "importtime", *command)
    return re.findall(r"^import time:[ \d]+\|[ \d]+\| ([\w.]+)$", done.stderr, re.MULTILINE)


def own_work(clone: Clone, stage: str) -> float:
    """The seconds of the stage's last run that it has measured itself."""
    if stage == "train":
        file = clone.folder / "models/small/lstm-general-1/summary.json"
        return float(json.loads(file.read_text())["seconds"])
    if stage == "decode":
        file = clone.folder / "reports/small/translations/lstm-general-1/summary.json"
        splits = json.loads(file.read_text())["splits"].values()
        return float(sum(search["seconds"] for split in splits for search in split.values()))
    return 0.0


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def execute(clone: Clone, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=clone.folder,
        env=clone.environment,
        check=True,
        capture_output=True,
        text=True,
    )


if __name__ == "__main__":
    main()
