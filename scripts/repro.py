"""What `make repro [RECIPE=name]` does: check all settings, `dvc repro`, complete MLflow's runs.

DVC reads one dvc.yaml with one params.yaml and one dvc.lock beside it. For a recipe, the same
stages are written to recipes/NAME/dvc.yaml with `recipes/NAME.yaml` as their settings, and their
lock is recipes/NAME/dvc.lock: the default's own files stay as they are. That dvc.yaml is removed at
the end, or else `dvc status` and `dvc metrics show` would speak of every recipe at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
from pathlib import Path

from ruamel.yaml import YAML

from rnnmt import params
from rnnmt.check import check_settings
from rnnmt.errors import UserError, run_main

ROOT = Path(__file__).parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(prog="make repro", description=__doc__)
    parser.add_argument("recipe", nargs="?", help="a file of recipes/, without .yaml")
    recipe = parser.parse_args().recipe
    os.chdir(ROOT)
    pipeline = "dvc.yaml"
    for left in Path("recipes").glob("*/dvc.yaml"):  # by a run that was killed
        left.unlink()
    if recipe:
        check_recipe(recipe)
    check_settings()
    if recipe:
        pipeline = str(write_pipeline(recipe))
    try:
        code = run("dvc", "repro", pipeline) or run("rnnmt", "sync")
    finally:
        if recipe:
            Path(pipeline).unlink(missing_ok=True)
    raise SystemExit(code)


def run(*command: str) -> int:
    """Run a command to its end and return its exit code.

    A Ctrl-C reaches it without help and is waited for, since DVC ends when its stage has; a
    SIGTERM is passed on.
    """
    process = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def check_recipe(recipe: str) -> None:
    """Take the recipe's settings. Raises UserError where it is missing or shares a folder."""
    if not Path("recipes", f"{recipe}.yaml").is_file():
        known = ", ".join(sorted(file.stem for file in Path("recipes").glob("*.yaml")))
        raise UserError(f"recipes/{recipe}.yaml: no such file; the recipes are {known}")
    default = params.corpus_name()
    os.environ["RNNMT_PARAMS"] = f"recipes/{recipe}.yaml"
    if params.corpus_name() == default:
        raise UserError(
            f"{params.path()}: corpus.name: '{default}' is that of params.yaml too: with another "
            "name, neither overwrites the other's models and reports"
        )


def write_pipeline(recipe: str) -> Path:
    """The stages of dvc.yaml with a recipe's settings."""
    settings = Path("recipes", f"{recipe}.yaml")
    folder = Path("recipes", recipe)
    folder.mkdir(parents=True, exist_ok=True)
    up = os.path.relpath(".", folder)
    yaml = YAML()
    stages = yaml.load(Path("dvc.yaml").read_text())["stages"]
    for stage in stages.values():
        stage["wdir"] = up
        stage["params"] = [{str(settings): stage["params"]}]
    with open(folder / "dvc.yaml", "w") as file:
        yaml.dump({"vars": [os.path.join(up, settings)], "stages": stages}, file)
    return folder / "dvc.yaml"


if __name__ == "__main__":
    run_main(main)
