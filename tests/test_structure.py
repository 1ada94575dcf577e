"""What the pipeline and the sources must look like, whatever they compute."""

from __future__ import annotations

import ast
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from closure import ROOT, closure

PIPELINE: dict[str, Any] = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text())
STAGES = PIPELINE["stages"]
RECIPES = sorted(file.stem for file in (ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_just_the_code_it_imports(stage: str) -> None:
    code = {dep for dep in STAGES[stage]["deps"] if dep.startswith("src/")}
    templates = {str(f.relative_to(ROOT)) for f in (ROOT / "src/rnnmt/insight").rglob("*.j2")}
    assert code == closure(f"rnnmt.stages.{stage}") | (templates if stage == "report" else set())
    assert "requirements.lock" in STAGES[stage]["deps"]


def test_every_stage_is_a_module_and_every_module_a_stage() -> None:
    modules = {f.stem for f in (ROOT / "src/rnnmt/stages").glob("*.py")} - {"__init__"}
    assert modules == set(STAGES)
    for name, stage in STAGES.items():
        assert stage["cmd"].split()[:3] == ["python", "-m", f"rnnmt.stages.{name}"]


def test_make_lets_python_keep_what_it_compiles() -> None:
    """Or every stage, where the environment forbids it, would compile torch anew."""
    told = subprocess.run(
        ["make", "--eval", "show: ; @env", "show"],
        cwd=ROOT, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "PATH=" in told
    assert "PYTHONDONTWRITEBYTECODE" not in told


def test_tuning_the_search_never_trains_again() -> None:
    assert not {f for f in closure("rnnmt.stages.train") if f.startswith("src/rnnmt/search/")}
    assert "src/rnnmt/search/beam.py" in closure("rnnmt.stages.decode")
    assert "decode" not in STAGES["train"]["params"]


def test_the_closure_sees_imports_within_functions() -> None:
    assert "src/rnnmt/model/training.py" in closure("rnnmt.stages.train")
    assert not {f for f in closure("rnnmt.stages.train") if "tracking" in f}


@pytest.mark.parametrize("stage", STAGES)
def test_outputs_are_cached_or_in_git_and_carry_the_corpus_name(stage: str) -> None:
    """`persist` would switch DVC's run cache off, uncached models could not be pulled."""
    for entry in [*STAGES[stage].get("outs", []), *STAGES[stage].get("metrics", [])]:
        path, options = (entry, {}) if isinstance(entry, str) else next(iter(entry.items()))
        assert "/${corpus.name}/" in path
        assert "persist" not in options
        if stage in ("download", "tokenize", "train", "decode"):
            assert not options


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_pipeline_of_a_recipe_is_that_of_dvc_yaml(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in ("dvc.yaml", f"recipes/{recipe}.yaml"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text((ROOT / file).read_text())
    monkeypatch.chdir(tmp_path)
    repro = runpy.run_path(str(ROOT / "scripts/repro.py"))
    made = YAML(typ="safe", pure=True).load(repro["write_pipeline"](recipe).read_text())
    assert made["vars"] == [f"../../recipes/{recipe}.yaml"]
    for name, stage in STAGES.items():
        params = [{f"recipes/{recipe}.yaml": stage["params"]}]
        assert made["stages"][name] == stage | {"wdir": "../..", "params": params}
    assert not list((ROOT / "recipes").glob("*/dvc.yaml"))  # DVC would speak of it everywhere


def test_two_recipes_never_share_a_corpus_name() -> None:
    yaml = YAML(typ="safe", pure=True)
    files = [ROOT / "params.yaml", *(ROOT / "recipes").glob("*.yaml")]
    names = [yaml.load(file.read_text())["corpus"]["name"] for file in files]
    assert len(names) == len(set(names))


def test_no_pickle_is_loaded() -> None:
    """Weights load with weights_only=True, arrays without pickle, nothing by pickle itself."""
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                call, options = ast.unparse(node.func), {k.arg for k in node.keywords}
                where = f"{file}:{node.lineno}"
                assert call != "torch.load" or "weights_only=True" in ast.unparse(node), where
                assert call != "np.load" or "allow_pickle=False" in ast.unparse(node), where
                assert not call.endswith(".fit") or "weights_only" in options, where
                assert not re.fullmatch(r"(c?pickle|joblib|dill)\.loads?", call), where


def test_loading_never_relies_on_lightnings_step_estimate() -> None:
    """`estimated_stepping_batches` silently drops a resumed loader's place."""
    code = "".join(f.read_text() for f in (ROOT / "src").rglob("*.py"))
    assert not re.findall(r"^[^#\n]*trainer\.estimated_stepping_batches", code, re.MULTILINE)


def test_start_up_loads_nothing_heavy() -> None:
    modules = ["rnnmt.cli", "rnnmt.check", "rnnmt.sweep", *map("rnnmt.stages.{}".format, STAGES)]
    subprocess.run([sys.executable, "-c", _LIGHT, *modules], check=True)


_LIGHT = """
import importlib, sys
for module in sys.argv[1:]:
    importlib.import_module(module)
    heavy = {"torch", "pytorch_lightning", "mlflow", "dvc", "pyrealb", "mtdata"} & {*sys.modules}
    assert not heavy, f"{module} loads {heavy}"
"""


BENCHMARKS = sorted(
    str(file.relative_to(ROOT))
    for file in (ROOT / "benchmarks").glob("*.py")
    if "__main__" in file.read_text()
)


def test_every_benchmark_starts() -> None:
    """What it imports exists; `--help` measures nothing."""
    files = [*BENCHMARKS, "benchmarks/peers/ours.py"]
    done = subprocess.run(
        [sys.executable, "-c", _HELP, *files], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage:") == len(files)


# In one process, which imports torch once. The last line: what trains for a benchmark.
_HELP = """
import os, runpy, sys
for file in sys.argv[1:]:
    print(file, file=sys.stderr)
    sys.argv, sys.path[0] = [file, "--help"], os.path.dirname(file)
    try:
        runpy.run_path(file, run_name="__main__")
    except SystemExit as end:
        assert not end.code, end.code
import ours_training
"""


def test_letters_that_the_locale_lacks_are_printed_as_numbers() -> None:
    program = "from rnnmt.errors import run_main; run_main(lambda: print('M\\xfcller'))"
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=os.environ | ascii_only, capture_output=True, check=True)
    assert done.stdout == rb"M\xfcller" + b"\n"


def test_a_killed_process_of_a_stage_is_a_message() -> None:
    program = """
import os, signal
from concurrent.futures import ProcessPoolExecutor
from rnnmt.errors import run_main

def main():
    with ProcessPoolExecutor(1) as pool:
        pool.submit(os.kill, os.getpid(), 0).result()  # it is there
        pool.submit(signal.raise_signal, signal.SIGKILL).result()

run_main(main)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("rnnmt: error: one of its processes was killed")
    assert "Traceback" not in done.stderr
