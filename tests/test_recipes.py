"""Every recipe, shrunk: one through `make repro`, the others through what they set differently."""

from __future__ import annotations

import importlib
import json
import sqlite3
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ruamel.yaml import YAML

from clones import Clone, fails, run, shrink
from closure import ROOT
from rnnmt.dataset.store import open_split

WHOLE = "multi30k-en-fr-best"
OTHERS = sorted({f.stem for f in (ROOT / "recipes").glob("*.yaml")} - {WHOLE})


def read(file: str) -> dict[str, Any]:
    return dict(YAML(typ="safe", pure=True).load((ROOT / file).read_text()))


def shrunk(recipe: str) -> dict[str, Any]:
    """One variant on the small corpus, which the other recipes share here.

    The one with the least training data; of equal ones the last.
    """
    settings = read(f"recipes/{recipe}.yaml")
    small = shrink(settings)
    variants = {name: own or {} for name, own in reversed(settings["variants"].items())}
    name, own = min(variants.items(), key=lambda variant: variant[1].get("fraction", 1.0))
    return small | {
        "variants": {name: {key: own[key] for key in own if key != "max_epochs"}},
        "seeds": settings["seeds"][:1],
        "corpus": small["corpus"] | {"name": "shrunk"},
    }


def files(clone: Clone) -> set[str]:
    folders = [clone.folder / name / "shrunk" for name in ("data", "models", "reports")]
    return {str(file) for folder in folders for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which `make repro` of a recipe has run once; the others share its corpus."""
    made = Clone(tmp_path_factory.mktemp("clone"))
    made.write(shrunk(WHOLE), f"recipes/{WHOLE}.yaml")
    (made.folder / "shrunk").mkdir()
    for recipe in OTHERS:
        made.write(shrunk(recipe), f"shrunk/{recipe}.yaml")
    made.make_repro(WHOLE)
    return made


def test_make_repro_runs_a_recipe_once_beside_params_yaml(clone: Clone) -> None:
    assert "Running stage" not in clone.make_repro(f"recipes/{WHOLE}.yaml")
    assert (clone.folder / "reports/shrunk/comparison.md").exists()
    assert (clone.folder / f"recipes/{WHOLE}/dvc.lock").exists()
    assert not (clone.folder / f"recipes/{WHOLE}/dvc.yaml").exists()
    assert not (clone.folder / "dvc.lock").exists()
    assert clone.settings() == shrink(read("params.yaml"))


def test_what_it_made_outlives_a_checkout_of_the_default(clone: Clone) -> None:
    """`dvc exp run` and `dvc pull` check out too, and a recipe's files are in no dvc.yaml then."""
    before = files(clone)
    assert any(name.endswith("weights.pt") for name in before)
    run("dvc", "checkout", "--allow-missing", cwd=clone.folder, env=clone.environment)
    assert files(clone) == before


def test_two_recipes_of_one_name_would_overwrite_each_other(clone: Clone) -> None:
    """Whatever the shell takes for the settings of other commands."""
    copy = clone.folder / "recipes/copy.yaml"
    copy.write_text((clone.folder / f"recipes/{WHOLE}.yaml").read_text())
    environment = clone.environment | {"RNNMT_PARAMS": f"recipes/{WHOLE}.yaml"}
    command = (sys.executable, "scripts/repro.py", "copy")
    said = fails(*command, cwd=clone.folder, env=environment)
    copy.unlink()
    assert f"recipes/copy.yaml: corpus.name: 'shrunk' is that of recipes/{WHOLE}.yaml too" in said


@pytest.mark.parametrize("recipe", OTHERS)
def test_every_recipe_trains_and_translates(recipe: str, clone: Clone) -> None:
    """With its own settings of model, training and search."""
    settings = shrunk(recipe)
    ((variant, own),) = settings["variants"].items()
    (seed,) = settings["seeds"]
    environment = clone.environment | {"RNNMT_PARAMS": f"shrunk/{recipe}.yaml"}
    for stage in ("train", "decode"):
        command = (sys.executable, "-m", f"rnnmt.stages.{stage}", variant, str(seed))
        run(*command, cwd=clone.folder, env=environment)
    label = f"{variant}-{seed}"
    about = json.loads((clone.folder / f"models/shrunk/{label}/settings.json").read_text())
    wanted = settings["model"] | settings["train"] | own
    assert (about["model"] | about["train"]).items() <= wanted.items()
    pairs = open_split(clone.folder / "data/shrunk/tokens", "train").first(wanted["fraction"])
    history = (clone.folder / f"models/shrunk/{label}/history.csv").read_text().splitlines()
    if not wanted["bpe_dropout"]:  # which makes other tokens of the same pairs
        seen = int(history[1].split(",")[history[0].split(",").index("tokens")])
        assert seen == len(pairs.target.ids) + len(pairs.target)
    summary = clone.folder / f"reports/shrunk/translations/{label}/summary.json"
    assert json.loads(summary.read_text())["beam"] == settings["decode"]["beam"]


@pytest.fixture
def repro(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("repro")


class Repo:
    """DVC's, on a full disk where `full`."""

    full = False

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def state(self) -> Any:
        return self

    links = state

    def clear(self) -> None:
        assert Path("dvc.yaml").exists(), "a kill now would leave nothing to begin again from"
        if self.full:
            raise sqlite3.OperationalError("disk I/O error")


@pytest.mark.parametrize("full", [False, True])
def test_a_pipeline_stays_until_dvc_has_forgotten_its_files(
    full: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    repro: ModuleType,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Or a kill in between would leave the next checkout to remove all models."""
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").touch()
    monkeypatch.setattr(Repo, "full", full)
    monkeypatch.setattr("dvc.repo.Repo", Repo)
    repro.remove_pipeline(Path("dvc.yaml"))
    assert Path("dvc.yaml").exists() == full
    assert ("dvc.yaml stays until the next run" in capsys.readouterr().err) == full


def test_outputs_of_former_variants_and_seeds_are_moved_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repro: ModuleType
) -> None:
    """No other clone has them, whose stages depend on the same folders; others' files stay."""
    monkeypatch.chdir(tmp_path)
    labels = ["gru-1", "gru-2", "gone-1"]
    outs = {label: [f"models/x/{label}", f"reports/x/{label}.json"] for label in labels}
    for folder, file in outs.values():
        Path(folder).mkdir(parents=True)
        Path(folder, "weights.pt").write_text(folder, encoding="utf-8")
        Path("reports/x").mkdir(parents=True, exist_ok=True)
        Path(file).write_text(file, encoding="utf-8")
    Path("models/x/mine").mkdir()
    stages = {f"train@{k}": {"outs": [{"path": path} for path in v]} for k, v in outs.items()}
    stages["compare"] = {"outs": [{"path": "reports/x"}]}
    YAML().dump({"schema": "2.0", "stages": stages}, Path("dvc.lock"))
    settings = read("params.yaml") | {"variants": {"gru": {"cell": "gru"}}, "seeds": [1]}
    YAML().dump(settings, Path("params.yaml"))
    for _ in range(2):
        repro.move_former_outputs("dvc.yaml")
    assert sorted(path.name for path in Path("models/x").iterdir()) == ["gru-1", "mine"]
    assert [path.name for path in Path("reports/x").iterdir()] == ["gru-1.json"]
    moved = Path("work/former/models/x/gru-2/weights.pt")
    assert moved.read_text(encoding="utf-8") == "models/x/gru-2"
    for conflict in ("<<<<<<< HEAD\n", "stages:\n<<<<<<< HEAD\n  a: {}\n=======\n"):
        Path("dvc.lock").write_text(conflict, encoding="utf-8")
        repro.move_former_outputs("dvc.yaml")  # DVC will say what is wrong
