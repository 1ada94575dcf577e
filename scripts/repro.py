"""What `make repro [RECIPE=name]` does: check all settings, `dvc repro`, complete MLflow's runs.

DVC reads one dvc.yaml with one params.yaml and one dvc.lock beside it. For a recipe, the same
stages are written to recipes/NAME/dvc.yaml with `recipes/NAME.yaml` as their settings, and their
lock is recipes/NAME/dvc.lock: the default's own files stay as they are.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ruamel.yaml import YAML

from rnnmt.check import check_settings
from rnnmt.errors import UserError, run_main

ROOT = Path(__file__).parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(prog="make repro", description=__doc__)
    parser.add_argument("recipe", nargs="?", help="a file of recipes/, without .yaml")
    recipe = parser.parse_args().recipe
    os.chdir(ROOT)
    pipeline = "dvc.yaml"
    if recipe:
        os.environ["RNNMT_PARAMS"] = f"recipes/{recipe}.yaml"
        pipeline = str(write_pipeline(recipe))
    check_settings()
    os.execvp("sh", ["sh", "-c", 'dvc repro "$0" && rnnmt sync', pipeline])


def write_pipeline(recipe: str) -> Path:
    """The stages of dvc.yaml with a recipe's settings. Raises UserError where there is none."""
    settings = Path("recipes", f"{recipe}.yaml")
    if not settings.is_file():
        known = ", ".join(sorted(file.stem for file in Path("recipes").glob("*.yaml")))
        raise UserError(f"{settings}: no such file; the recipes are {known}")
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
