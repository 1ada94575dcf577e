"""Retraining as CI does it, for real: a bare remote, DVC's remote, PostgreSQL, fresh clones.

Only `gh` has a stand-in, which writes down what it is told.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from ruamel.yaml import YAML

import servers
from clones import Clone, run
from closure import ROOT
from servers import BIN

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
GH = """#!/usr/bin/env python3
import json, os, pathlib, sys
file = pathlib.Path(os.environ["GH_FILE"])
calls = json.loads(file.read_text()) if file.exists() else []
arguments = sys.argv[1:]
if arguments[:2] == ["pr", "list"]:
    wanted = dict(zip(arguments[2::2], arguments[3::2]))
    for number, call in enumerate(calls, 1):
        made = dict(zip(call["said"][2::2], call["said"][3::2]))
        if call["said"][1] == "create" and made["--head"] == wanted["--head"]:
            print(number)
            break
else:
    said = dict(zip(arguments[2::2], arguments[3::2]))
    body = said.get("--body-file") or arguments[-1]
    calls.append({"said": arguments, "body": pathlib.Path(body).read_text()})
    file.write_text(json.dumps(calls))
"""
SETTINGS: dict[str, Any] = {
    "corpus": {
        "name": "small",
        "source": "bundled",
        "seed": 3,
        "sizes": {"train": 1500, "valid": 60, "test": 60, "test_long": 30},
    },
    "variants": {"gru": {"cell": "gru", "attention": "general", "learning_rate": 0.01}},
}


def test_the_workflows_are_valid_and_safe() -> None:
    schema = ("check-jsonschema", "--builtin-schema", "vendor.github-workflows")
    for command in (schema, ("zizmor", "--offline", "--quiet")):
        run(str(BIN / command[0]), *command[1:], *map(str, WORKFLOWS), cwd=ROOT)


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_every_command_of_a_workflow_exists(file: Path) -> None:
    jobs = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert commands
    makefile = (ROOT / "Makefile").read_text()
    for command in commands:
        subprocess.run(["bash", "-n"], input=command, text=True, check=True)
        assert "${{" not in command  # what others write must not become code
        for target in re.findall(r"\bmake ([\w./-]+)", command):
            name = target.replace(".venv/.ready", "$(READY)")
            assert re.search(rf"^{re.escape(name)}:", makefile, re.MULTILINE)
        for script, verb in re.findall(r"python (scripts/\S+) (\w+)", command):
            options = re.findall(r"--[a-z]+", command)
            usage = run(sys.executable, script, verb, "--help", cwd=ROOT)
            assert all(option in usage for option in options)


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.mlflow(tmp_path_factory.mktemp("servers")) as address:
        yield address


class Runner:
    """A clone of the repository as a job of CI has it, which keeps nothing for the next one."""

    def __init__(self, lab: Lab, branch: str = "main", keep: Path | None = None) -> None:
        self.lab = lab
        self.folder = Path(tempfile.mkdtemp(dir=lab.folder))
        run("git", "clone", "--quiet", "-b", branch, str(lab.origin), str(self.folder), cwd=ROOT)
        for name in (".dvc/cache", "work") if keep else ():
            assert keep
            if (keep / name).exists():
                shutil.copytree(keep / name, self.folder / name, symlinks=True)
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("RNNMT", "MLFLOW", "DVC"))},
            "PATH": f"{lab.folder}:{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder / "src"),
            "OMP_NUM_THREADS": "1",
            "DVC_REMOTE_URL": str(lab.remote),
            "MLFLOW_TRACKING_URI": lab.mlflow,
            "GH_FILE": str(lab.gh),
            "GITHUB_REF_NAME": branch,
            "GITHUB_OUTPUT": str(self.folder / "work/outputs"),
            "GITHUB_STEP_SUMMARY": str(self.folder / "work/page"),
            "GIT_AUTHOR_NAME": "ci", "GIT_AUTHOR_EMAIL": "ci@localhost",
            "GIT_COMMITTER_NAME": "ci", "GIT_COMMITTER_EMAIL": "ci@localhost",
        }  # fmt: skip
        (self.folder / "work").mkdir(exist_ok=True)

    def start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "scripts/retrain.py", *command],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def do(self, *command: str) -> tuple[int, str]:
        process = self.start(*command)
        printed = process.communicate(timeout=500)[0]
        return process.returncode, printed

    def train(self, *options: str) -> tuple[int, set[str], str]:
        """Exit code, the stages that have run, and whether results have changed."""
        code, printed = self.do("train", *options)
        assert "Traceback" not in printed, printed
        stages = set(re.findall(r"Running stage '(?:\S+:)?([\w@-]+)'", printed))
        assert code in (0, 3, 75), printed
        outputs = (self.folder / "work/outputs").read_text().split()
        (self.folder / "work/outputs").unlink()
        return code, stages, outputs[-1]

    def propose(self, base: str = "main", recipe: str = "") -> None:
        """In a clone of its own, as the second job."""
        other = Runner(self.lab, base)
        shutil.copytree(self.folder / "work/retrain", other.folder / "work/retrain")
        code, printed = other.do("propose", "--base", base, "--recipe", recipe)
        assert code == 0, printed

    def summary(self) -> str:
        return (self.folder / "work/page").read_text()


class Lab:
    """The repository that everybody pushes to, and what else there is outside of the runners."""

    def __init__(self, folder: Path, mlflow: str) -> None:
        self.folder, self.mlflow = folder, mlflow
        self.origin, self.remote, self.gh = folder / "origin", folder / "remote", folder / "calls"
        (folder / "gh").write_text(GH)
        (folder / "gh").chmod(0o755)
        (folder / "first").mkdir()
        first = Clone(folder / "first")
        settings = first.settings() | SETTINGS
        settings["model"] |= {"embedding": 32, "hidden": 64}
        settings["train"] |= {"max_epochs": 2, "warmup_steps": 10, "checkpoint_seconds": 1.0}
        settings["promote"] |= {"max_slowdown": 1000.0}  # this machine is no place to measure
        first.write(settings)
        run("git", "init", "--quiet", "--bare", "-b", "main", str(self.origin), cwd=folder)
        self._push(first.folder, "HEAD:main", "The laboratory")

    def change(self, section: str, to: str = "main", **values: Any) -> None:
        """Push another setting, as a person would."""
        runner = Runner(self)
        file = runner.folder / "params.yaml"
        yaml = YAML(typ="safe", pure=True)
        settings = yaml.load(file.read_text())
        settings[section] |= values
        with open(file, "w", encoding="utf-8") as stream:
            yaml.dump(settings, stream)
        self._push(runner.folder, f"HEAD:{to}", f"Other {section}")

    def add_recipe(self, name: str, variants: dict[str, Any]) -> None:
        """Push a recipe: the settings as they are, but for its name and its variants."""
        runner = Runner(self)
        yaml = YAML(typ="safe", pure=True)
        settings = yaml.load((runner.folder / "params.yaml").read_text())
        settings["corpus"]["name"] = name
        settings["variants"] = variants
        with open(runner.folder / "recipes" / f"{name}.yaml", "w", encoding="utf-8") as stream:
            yaml.dump(settings, stream)
        self._push(runner.folder, "HEAD:main", "A recipe")

    def merge(self, branch: str) -> None:
        runner = Runner(self)
        run("git", "merge", "--quiet", f"origin/{branch}", cwd=runner.folder)
        run("git", "push", "--quiet", "origin", "main", cwd=runner.folder)

    def calls(self) -> list[Any]:
        return list(json.loads(self.gh.read_text()))

    def champion(self) -> Any:
        return MlflowClient(self.mlflow).get_model_version_by_alias("small-en-fr", "champion")

    def _push(self, folder: Path, target: str, message: str) -> None:
        person = ("-c", "user.name=me", "-c", "user.email=me@localhost")
        run("git", "add", "--all", cwd=folder)
        run("git", *person, "commit", "--quiet", "--message", message, cwd=folder)
        run("git", "push", "--quiet", str(self.origin), target, cwd=folder)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_retraining_from_a_push_to_a_champion(
    tmp_path: Path, mlflow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    lab = Lab(tmp_path, mlflow_server)
    decoding = {f"{stage}@gru-1" for stage in ("decode", "evaluate", "analyze")}
    decoding |= {"ensemble", "compare", "report"}
    all_stages = decoding | {"download", "tokenize", "align", "memory", "train@gru-1"}

    # The first run makes everything, the first champion, and a pull request.
    first = Runner(lab)
    code, stages, changed = first.train("--promote")
    assert (code, stages, changed) == (0, all_stages, "changed=true")
    assert "is the champion of small-en-fr" in first.summary()
    assert int(lab.champion().version) == 1
    first.propose()
    assert lab.calls()[-1]["said"][:2] == ["pr", "create"]
    assert "## Gate" in lab.calls()[-1]["body"]
    lab.merge("retrain/default/main")

    # Nothing has changed: nothing runs, nothing is proposed.
    code, stages, changed = Runner(lab).train()
    assert (code, stages, changed) == (0, set(), "changed=false")

    # Another beam decodes again; what it needs comes from DVC's remote.
    lab.change("decode", beam=2, nbest=1)
    second = Runner(lab)
    code, stages, changed = second.train()
    assert (code, stages) == (0, decoding)
    assert "| decode.beam |" in re.sub(" +", " ", second.summary())
    second.propose()
    assert lab.calls()[-1]["said"][:2] == ["pr", "edit"]
    lab.merge("retrain/default/main")

    # Out of time: exit code 75, nothing proposed. Killed: the next job goes on with what it kept.
    lab.change("train", max_epochs=8)
    third = Runner(lab)
    assert third.train("--minutes", "0.01")[::2] == (75, "changed=false")
    killed = third.start("train")
    for _ in range(1200):
        if list((third.folder / "work").glob("gru-1-*/last.ckpt")):
            break
        time.sleep(0.1)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    time.sleep(2)  # its children end by themselves
    fourth = Runner(lab, keep=third.folder)
    code, stages, changed = fourth.train("--promote")
    assert (code, stages, changed) == (0, {"train@gru-1"} | decoding, "changed=true")
    assert int(lab.champion().version) == 2
    about = json.loads((fourth.folder / "models/small/gru-1/settings.json").read_text())
    client = MlflowClient(mlflow_server)
    runs = client.search_runs(
        [e.experiment_id for e in client.search_experiments()],
        f"tags.fingerprint = '{about['fingerprint']}'",
    )
    assert len(runs) == 1  # gone on with, not begun anew
    fourth.propose()
    lab.merge("retrain/default/main")

    # A worse model, on a branch that has a pull request: refused, and said there.
    lab.change("train", to="tune", max_epochs=1, learning_rate=0.00001)
    other = Runner(lab, "tune")
    pull_request = other.folder / "work/body"
    pull_request.write_text("please")
    run(
        str(lab.folder / "gh"), "pr", "create", "--head", "tune", "--body-file", str(pull_request),
        cwd=tmp_path, env=other.environment,
    )  # fmt: skip
    settings = YAML(typ="safe", pure=True).load((other.folder / "params.yaml").read_text())
    settings["variants"]["gru"].pop("learning_rate")
    with open(other.folder / "params.yaml", "w", encoding="utf-8") as stream:
        YAML(typ="safe", pure=True).dump(settings, stream)
    code, stages, changed = other.train("--promote")
    assert (code, stages, changed) == (3, {"train@gru-1"} | decoding, "changed=true")
    assert int(lab.champion().version) == 2
    other.propose("tune")
    assert [call["said"][1] for call in lab.calls()[-2:]] == ["create", "comment"]
    assert "FAILED" in lab.calls()[-1]["body"]


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_of_a_recipe_one_variant_is_retrained(
    tmp_path: Path, mlflow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other is trained, nothing is compared, and the default's lock stays."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    lab = Lab(tmp_path, mlflow_server)
    lab.add_recipe("other", {"gru": {"cell": "gru"}, "lstm": {"cell": "lstm"}})
    last = Runner(lab)
    code, stages, changed = last.train("--recipe", "other", "--variants", "lstm")
    wanted = {"download", "tokenize", "train@lstm-1", "decode@lstm-1", "evaluate@lstm-1"}
    assert (code, stages, changed) == (0, wanted, "changed=true")
    assert "lstm-1 is the challenger of other-en-fr" in last.summary()
    last.propose(recipe="other")
    assert "retrain/other/main" in lab.calls()[-1]["said"]
    assert not (last.folder / "dvc.lock").exists()
    lab.merge("retrain/other/main")
    code, stages, changed = Runner(lab).train("--recipe", "other", "--variants", "lstm")
    assert (code, stages, changed) == (0, set(), "changed=false")


def test_new_data_are_noticed_once(tmp_path: Path) -> None:
    (tmp_path / "clone").mkdir()
    clone = Clone(tmp_path / "clone")
    settings = clone.settings()
    for name in ("my.en", "my.fr"):
        (clone.folder / name).write_text("one\ntwo\n")
    settings["corpus"] = {
        "name": "mine", "source": "files", "source_language": "en", "target_language": "fr",
        "splits": {"train": ["my.en", "my.fr"]}, "held_out": {"valid": 1, "test": 1}, "seed": 1,
    }  # fmt: skip
    clone.write(settings)

    def refresh() -> str:
        command = (sys.executable, "scripts/retrain.py", "refresh")
        return run(*command, cwd=clone.folder, env=clone.environment)

    assert refresh() == "params.yaml: the data are new\n"
    assert refresh() == "params.yaml: the data are the same\n"
    (clone.folder / "my.en").write_text("one\nthree\n")
    assert refresh() == "params.yaml: the data are new\n"
    run("rnnmt", "check", cwd=clone.folder, env=clone.environment)
