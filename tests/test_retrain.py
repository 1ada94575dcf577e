"""Retraining as CI does it, for real: a bare remote, DVC's remote, PostgreSQL, fresh clones.

Only `gh` has a stand-in, which writes down what it is told.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import importlib
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import asyncssh
import pytest
from mlflow import MlflowClient
from packaging.requirements import Requirement
from ruamel.yaml import YAML

import servers
from clones import Clone, at_work, fails, run, shrink
from closure import ROOT
from rnnmt.corpora import files as corpora_files
from servers import BIN

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
GH = """#!/usr/bin/env python3
import json, os, pathlib, sys
file = pathlib.Path(os.environ["GH_FILE"])
calls = json.loads(file.read_text()) if file.exists() else []
arguments = sys.argv[1:]
if arguments[:2] == ["pr", "list"]:
    wanted, found = dict(zip(arguments[2::2], arguments[3::2])), []
    for number, call in enumerate(calls, 1):
        made = dict(zip(call["said"][2::2], call["said"][3::2]))
        if call["said"][1] == "create" and made["--head"] == wanted["--head"]:
            about = {"number": number, "isCrossRepository": "fork" in call}
            found.append({name: about[name] for name in wanted["--json"].split(",")})
    print(json.dumps(found))
else:
    said = dict(zip(arguments[2::2], arguments[3::2]))
    body = said.get("--body-file") or arguments[-1]
    calls.append({"said": arguments, "body": pathlib.Path(body).read_text()})
    file.write_text(json.dumps(calls))
"""
PERSON = ("-c", "user.name=me", "-c", "user.email=me@localhost")
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
        assert not re.search(r"\$\(|\bgit |\[", command)  # what decides is in scripts/
        for target in re.findall(r"\bmake ([\w./-]+)", command):
            name = target.replace(".venv/.ready", "$(READY)")
            assert re.search(rf"^{re.escape(name)}:", makefile, re.MULTILINE)
        for script, verb in re.findall(r"python (scripts/\S+) (\w+)", command):
            options = re.findall(r"--[a-z]+", command)
            usage = run(sys.executable, script, verb, "--help", cwd=ROOT)
            assert all(option in usage for option in options)


@pytest.fixture
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of each test's own: the champion of another one would judge its models."""
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
            "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_REPOSITORY": "me/rnnmt",
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
        printed = process.communicate(timeout=1500)[0]
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

    def propose(self, base: str = "main") -> None:
        """In a clone of its own, as the second job."""
        other = Runner(self.lab, base)
        shutil.copytree(self.folder / "work/retrain", other.folder / "work/retrain")
        code, printed = other.do("propose", "--base", base)
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

    def change(
        self, section: str, to: str = "main", file_name: str = "params.yaml", **values: Any
    ) -> None:
        """Push another setting, as a person would."""
        runner = Runner(self)
        file = runner.folder / file_name
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
        command = ("git", *PERSON, "merge", "--quiet", f"origin/{branch}")
        run(*command, cwd=runner.folder)
        run("git", "push", "--quiet", "origin", "main", cwd=runner.folder)

    def calls(self) -> list[Any]:
        return list(json.loads(self.gh.read_text()))

    def champion(self) -> Any:
        return MlflowClient(self.mlflow).get_model_version_by_alias("small-en-fr", "champion")

    def _push(self, folder: Path, target: str, message: str) -> None:
        run("git", "add", "--all", cwd=folder)
        run("git", *PERSON, "commit", "--quiet", "--message", message, cwd=folder)
        run("git", "push", "--quiet", str(self.origin), target, cwd=folder)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_retraining_from_a_push_to_a_champion(
    tmp_path: Path, mlflow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    lab = Lab(tmp_path, mlflow_server)
    decoding = {f"{stage}@gru-1" for stage in ("decode", "evaluate", "analyze")}
    decoding |= {"ensemble", "compare", "report"}
    all_stages = decoding | {"download", "tokenize", "align", "memory", "train@gru-1"}

    # The first run makes everything, a challenger, and a pull request.
    first = Runner(lab)
    code, stages, changed = first.train("--event", "push")
    assert (code, stages, changed) == (0, all_stages, "changed=true")
    assert "is the challenger of small-en-fr" in first.summary()
    first.propose()
    assert lab.calls()[-1]["said"][:2] == ["pr", "create"]
    assert "## Gate" in lab.calls()[-1]["body"]
    lab.merge("retrain/default/main")

    # On demand it becomes the champion, with nothing to train, and what is known of it is proposed.
    crowned = Runner(lab)
    assert crowned.train("--promote") == (0, set(), "changed=true")
    assert "is the champion of small-en-fr" in crowned.summary()
    assert int(lab.champion().version) == 1
    crowned.propose()
    lab.merge("retrain/default/main")
    assert (Runner(lab).folder / "reports/small/champion").is_dir()

    # Nothing has changed: nothing runs, nothing is proposed.
    for options in ((), ("--event", "push"), ("--event", "repository_dispatch")):
        assert Runner(lab).train(*options) == (0, set(), "changed=false")

    # Fewer hypotheses kept: it decodes again, and the champion is the same model and search. What
    # it needs comes from DVC's remote.
    lab.change("decode", nbest=1)
    second = Runner(lab)
    code, stages, changed = second.train()
    assert (code, stages) == (0, decoding)
    assert "| decode.nbest |" in re.sub(" +", " ", second.summary())
    second.propose()
    assert lab.calls()[-1]["said"][:2] == ["pr", "edit"]
    lab.merge("retrain/default/main")

    # Killed: the next job goes on with what it kept.
    lab.change("train", max_epochs=8)
    third = Runner(lab)
    begun = time.monotonic()
    killed = third.start("train")
    for _ in range(3600):
        if list((third.folder / "work").glob("gru-1-*/last.ckpt")):
            break
        time.sleep(0.1)
    until_trained = time.monotonic() - begun
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

    # Out of time amid a training: exit code 75, nothing proposed, and nothing goes on.
    lab.change("train", to="long", max_epochs=1000, patience=1000)
    late = Runner(lab, "long")
    minutes = str(2 * until_trained / 60)
    assert late.train("--minutes", minutes)[::2] == (75, "changed=false")
    assert not at_work(late.folder)
    assert list((late.folder / "work").glob("gru-1-*/last.ckpt"))
    assert not (late.folder / "work/retrain").exists()

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
@pytest.mark.timeout(3600)
def test_a_pushed_recipe_is_retrained_and_later_one_variant_of_it(
    tmp_path: Path, mlflow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    lab = Lab(tmp_path, mlflow_server)
    lab.add_recipe("other", {"gru": {"cell": "gru"}, "lstm": {"cell": "lstm"}})

    # The push retrains params.yaml, which has no results yet, and the recipe: two pull requests.
    pushed = Runner(lab)
    code, stages, changed = pushed.train("--event", "push")
    assert (code, changed) == (0, "changed=true")
    assert {"report", "train@gru-1", "train@lstm-1"} < stages
    for name in ("gru-1 is the challenger of small-en-fr", "the challenger of other-en-fr"):
        assert name in pushed.summary()
    pushed.propose()
    created = [call["said"] for call in lab.calls() if call["said"][1] == "create"]
    branches = ["retrain/default/main", "retrain/other/main"]
    assert [said[said.index("--head") + 1] for said in created] == branches
    about_recipe = lab.calls()[-1]["body"]
    assert "https://github.com/me/rnnmt/blob/retrain/other/main/reports/other/" in about_recipe
    assert "/reports/small/" not in about_recipe
    for branch in branches:
        lab.merge(branch)
    assert Runner(lab).train("--event", "push") == (0, set(), "changed=false")

    # Another beam of one variant: the other one stays, nothing is compared.
    lab.change("decode", file_name="recipes/other.yaml", beam=2, nbest=1)
    last = Runner(lab)
    code, stages, changed = last.train("--recipe", "other", "--variants", "lstm")
    assert (code, stages, changed) == (0, {"decode@lstm-1", "evaluate@lstm-1"}, "changed=true")
    assert not run("git", "status", "--porcelain", "dvc.lock", "params.yaml", cwd=last.folder)
    parameters, metrics = (
        last.summary().split(f"## {title}\n\n")[1].split("\n\n")[0].splitlines()[2:]
        for title in ("Parameters", "Metrics")
    )
    assert {row.split("|")[2].strip() for row in parameters} == {"decode.beam", "decode.nbest"}
    assert {row.split("|")[1].strip() for row in metrics} == {"reports/other/scores/lstm-1.json"}
    assert not [row for row in metrics if row.split("|")[3].strip() == "-"]
    client = MlflowClient(mlflow_server)
    scores = json.loads((last.folder / "reports/other/scores/lstm-1.json").read_text())
    experiment = client.get_experiment_by_name("other en-fr")
    assert experiment
    runs = client.search_runs([experiment.experiment_id], "attributes.run_name = 'lstm-1'")
    assert [run.data.metrics["test/bleu"] for run in runs] == [scores["test"]["bleu"]]
    last.propose()
    lab.merge("retrain/other/main")
    code, stages, changed = Runner(lab).train("--recipe", "other", "--variants", "lstm")
    assert (code, stages, changed) == (0, set(), "changed=false")


@pytest.fixture
def retrain(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """scripts/retrain.py as a module, with the environment of a job."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")
    for name in ("RNNMT_PARAMS", "GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"):
        monkeypatch.delenv(name, raising=False)
    return importlib.import_module("retrain")


def commit(folder: Path, files: dict[str, str]) -> None:
    """Commit these files and whatever else there is."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    run("git", "add", "--all", cwd=folder)
    run("git", *PERSON, "commit", "--quiet", "--message", "x", cwd=folder)


def test_a_push_retrains_the_recipes_that_have_changed_since_their_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retrain: ModuleType
) -> None:
    monkeypatch.chdir(tmp_path)
    run("git", "init", "--quiet", cwd=tmp_path)

    def wanted(event: str = "push", recipe: str = "") -> list[str]:
        found = retrain._wanted(argparse.Namespace(event=event, recipe=recipe))
        return [experiment.name for experiment in found]

    def retrained(*codes: int, variants: str = "") -> int:
        """A job after a push, each of whose retrainings ends with one of the codes."""
        ends = iter(codes)
        monkeypatch.setattr(retrain, "_retrain", lambda *_: next(ends))
        arguments = argparse.Namespace(event="push", recipe="", variants=variants, minutes=1)
        return int(retrain.train(arguments))

    monkeypatch.setattr(retrain, "_use_remote", lambda: None)
    monkeypatch.setattr(retrain.Experiment, "at_hand", lambda _: contextlib.nullcontext())
    commit(tmp_path, {"params.yaml": "1", "recipes/never.yaml": "1", "recipes/ran.yaml": "1"})
    assert wanted() == ["default"]  # nothing has ever been run here: no recipe, let alone all
    commit(tmp_path, {"dvc.lock": "1", "recipes/ran/dvc.lock": "1"})
    assert wanted() == ["default"]
    commit(tmp_path, {"recipes/never.yaml": "2"})
    assert wanted() == ["default", "never"]
    commit(tmp_path, {"recipes/ran.yaml": "2"})
    assert wanted() == ["default", "never", "ran"]
    commit(tmp_path, {"README": "a later push; the one before has run out of time"})
    assert wanted() == ["default", "never", "ran"]
    # Nor do results of another one hide what has not been retrained, or not to its end.
    for codes in ((75,), (0, 75)):
        assert retrained(*codes) == 75
        commit(tmp_path, {"dvc.lock": str(codes)})
        assert wanted() == ["default", "never", "ran"]
    assert retrained(0, 0, 0, variants="gru") == 0
    assert wanted() == ["default", "never", "ran"]
    assert retrained(0, 3, 0) == 3
    commit(tmp_path, {"recipes/never/dvc.lock": "2"})
    assert wanted() == ["default", "ran"]
    assert retrained(0, 0) == 0
    commit(tmp_path, {"recipes/ran/dvc.lock": "2"})
    assert wanted() == ["default"]
    # On demand, it is what was asked for.
    assert wanted("workflow_dispatch") == ["default"]
    assert wanted("workflow_dispatch", "never") == ["never"]


def test_the_differences_of_a_recipe_are_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retrain: ModuleType
) -> None:
    clone = Clone(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name, value in (
        ("SERVER_URL", "https://x"),
        ("REPOSITORY", "me/rnnmt"),
        ("REF_NAME", "a b"),
    ):
        monkeypatch.setenv(f"GITHUB_{name}", value)
    other = clone.settings()
    other["corpus"]["name"] = "other"
    clone.write(other, "recipes/other.yaml")
    scores = tmp_path / "reports/other/scores"
    scores.mkdir(parents=True)
    for file in ("gru-1.json", "gru-1.detail.json", "lstm-1.json"):
        (scores / file).write_text('{"test": {"bleu": 3.0}}')
    (scores.parent / "comparison.md").write_text("# other, en-fr\n\n## `test`\n")
    commit(tmp_path, {"recipes/other/dvc.lock": "{}\n", "reports/other/figures/a": ""})
    other["decode"]["beam"] = 2
    clone.write(other, "recipes/other.yaml")
    commit(tmp_path, {})
    for file in ("gru-1.json", "gru-1.detail.json"):
        (scores / file).write_text('{"test": {"bleu": 4.0}}')
    (tmp_path / "reports/other/figures/one.svg").write_text("")
    recipe = retrain.Experiment("other")
    with recipe.at_hand():
        parameters, metrics, comparison, pictures = retrain._differences(recipe, [])
        assert comparison == "## other, en-fr\n\n### `test`"
        *_, instead = retrain._differences(recipe, ["gru"])
        assert instead == "Single variants: nothing has been compared or reported anew."
        assert [row.split("|")[2].strip() for row in parameters.splitlines()[4:]] == ["decode.beam"]
        (row,) = metrics.splitlines()[4:]
        assert [cell.strip() for cell in row.split("|")[1:-1]] == [
            "reports/other/scores/gru-1.json", "test.bleu", "3.0", "4.0", "1.0",
        ]  # fmt: skip
        address = "https://x/me/rnnmt/blob/retrain/other/a%20b/reports/other/figures/one.svg"
        assert f"({address}?raw=true)" in pictures
        (failed,) = retrain._table("Parameters", "params", "nonsense", ["params.yaml"])
    assert "unknown Git revision 'nonsense'" in failed
    assert not (tmp_path / "recipes/other/dvc.yaml").exists()


def test_results_are_proposed_although_the_gate_cannot_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retrain: ModuleType
) -> None:
    (tmp_path / "clone").mkdir()
    clone = Clone(tmp_path / "clone")
    commit(clone.folder, {"reports/small/claims.md": "old\n"})
    (clone.folder / "reports/small/claims.md").write_text("new\n")
    away = "#!/bin/sh\necho to the gate\necho MLflow is away >&2\nexit 1\n"
    (tmp_path / "rnnmt").write_text(away)
    (tmp_path / "rnnmt").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "outputs"))
    monkeypatch.chdir(clone.folder)
    monkeypatch.setattr(retrain, "_reproduce", lambda *_: 0)
    experiment, arguments = retrain.Experiment(), argparse.Namespace(variants="", promote="")
    assert retrain._retrain(experiment, arguments, 0.0) == 1
    assert "+new" in (clone.folder / experiment.patch).read_text()
    gate = (clone.folder / experiment.summary).read_text().split("## Gate")[1]
    assert "to the gate" in gate
    assert "```\nMLflow is away\n```" in gate
    assert (tmp_path / "outputs").read_text() == "changed=true\n"


def test_what_is_ended_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retrain: ModuleType
) -> None:
    """DVC ends at once, its stage when it has put in order what it was at."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stage.py").write_text(
        "import pathlib, signal, sys, time\n"
        "def end(*_): time.sleep(2); pathlib.Path('ended').touch(); sys.exit(1)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "pathlib.Path('begun').touch()\n"
        "time.sleep(600)\n"
    )
    (tmp_path / "dvc.yaml").write_text("stages:\n  one: {cmd: python stage.py}\n")
    run("git", "init", "--quiet", cwd=tmp_path)
    run("dvc", "init", "--quiet", cwd=tmp_path)
    process = subprocess.Popen(["dvc", "repro"], process_group=0)
    for _ in range(600):
        if (tmp_path / "begun").exists():
            break
        time.sleep(0.1)
    retrain._end(process)
    assert process.returncode
    assert (tmp_path / "ended").exists()
    assert not [command for command in at_work(tmp_path) if "stage.py" in command]


GOOD = """diff --git a/reports/small/a.md b/reports/small/a.md
new file mode 100644
--- /dev/null
+++ b/reports/small/a.md
@@ -0,0 +1 @@
+good
"""
LINK = r"""diff --git a/reports/small/link b/reports/small/link
new file mode 120000
--- /dev/null
+++ b/reports/small/link
@@ -0,0 +1 @@
+../../src
\ No newline at end of file
"""
HOSTILE = {
    "renames": """diff --git a/src/rnnmt/cli.py b/reports/small/cli.py
similarity index 100%
rename from src/rnnmt/cli.py
rename to reports/small/cli.py
""",
    "links": LINK,
    "writes behind a link": LINK
    + """diff --git a/reports/small/link/evil.py b/reports/small/link/evil.py
new file mode 100644
--- /dev/null
+++ b/reports/small/link/evil.py
@@ -0,0 +1 @@
+evil
""",
    "leaves": GOOD.replace("small/a.md", "small/../../../../a.md"),
    "dots": GOOD.replace("small/a.md", "small/../../src/a.md"),
    "is a program": GOOD.replace("100644", "100755"),
    "is of others": GOOD.replace("reports/small", "recipes/small"),
    "only begins like a result": GOOD.replace("reports/small/", "reports/small-too/"),
}


def test_only_results_are_proposed(tmp_path: Path) -> None:
    lab = Lab(tmp_path, "")

    def proposed(patch: str) -> str:
        runner = Runner(lab)
        (runner.folder / "work/retrain/default").mkdir(parents=True)
        (runner.folder / "work/retrain/default/changes.patch").write_text(patch)
        (runner.folder / "work/retrain/default/summary.md").write_text("text")
        code, printed = runner.do("propose", "--base", "main")
        assert "Traceback" not in printed
        there = run("git", "ls-remote", str(lab.origin), "refs/heads/retrain/*", cwd=tmp_path)
        assert (code == 0) == bool(there) == lab.gh.exists()
        return printed

    for what, patch in HOSTILE.items():
        printed = proposed(patch)
        assert "changes more than results: " in printed or "git apply has failed" in printed, what
    assert "src/rnnmt/cli.py" in proposed(HOSTILE["renames"])
    assert "reports/small/link" in proposed(HOSTILE["links"])
    proposed(GOOD)
    assert lab.gh.exists()
    here = Runner(lab)  # in which `train` has just run
    (here.folder / "reports/small").mkdir(parents=True, exist_ok=True)
    (here.folder / "work/retrain/default").mkdir(parents=True)
    (here.folder / "work/retrain/default/changes.patch").write_text(GOOD)
    (here.folder / "work/retrain/default/summary.md").write_text("text")
    run("git", "apply", "work/retrain/default/changes.patch", cwd=here.folder)
    before = run("git", "status", "--porcelain", "--branch", cwd=here.folder)
    code, printed = here.do("propose", "--base", "main")
    assert code == 0, printed
    assert run("git", "status", "--porcelain", "--branch", cwd=here.folder) == before
    run("git", "fetch", "--quiet", str(lab.origin), "retrain/default/main", cwd=lab.origin)
    committed = run("git", "show", "--name-only", "--format=", "FETCH_HEAD", cwd=lab.origin)
    assert committed.split() == ["reports/small/a.md"]


def test_a_pull_request_of_a_fork_is_not_taken_for_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retrain: ModuleType
) -> None:
    (tmp_path / "gh").write_text(GH)
    (tmp_path / "gh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("GH_FILE", str(tmp_path / "calls"))
    own: dict[str, Any] = {"said": ["pr", "create", "--head", "tune"]}
    for calls, number in (
        ([], ""),
        ([own | {"fork": True}], ""),
        ([own | {"fork": True}, own], "2"),
    ):
        (tmp_path / "calls").write_text(json.dumps(calls))
        assert retrain._pull_request("--head", "tune") == number


LOCKS = {
    name: dict(line.split("==") for line in (ROOT / f"{name}.lock").read_text().splitlines())
    for name in ("requirements", "requirements-dev", "requirements-remotes")
}


def test_the_remotes_have_all_that_they_need_and_nothing_else() -> None:
    remotes = LOCKS["requirements-remotes"]
    workflow = ROOT / ".github/workflows/retrain.yml"
    assert "pip install --quiet --no-deps --requirement requirements-remotes.lock" in (
        workflow.read_text()
    )
    assert remotes.items() <= LOCKS["requirements-dev"].items()
    # boto3: MLflow's client, where artifacts are in S3
    needed, waiting = set[str](), [Requirement(name) for name in ("dvc-s3", "dvc-ssh", "boto3")]
    while waiting:
        one = waiting.pop()
        name = re.sub("[-_.]+", "-", one.name).lower()
        if name not in LOCKS["requirements"]:
            needed.add(name)
        for line in importlib.metadata.requires(name) or [] if name in needed or one.extras else []:
            further = Requirement(line)
            extras = [{"extra": extra} for extra in ("", *one.extras)]
            if further.marker is None or any(map(further.marker.evaluate, extras)):
                waiting.append(further)
    assert needed == set(remotes)


@pytest.fixture
def ssh_server(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """The port of an SSH server with SFTP, and the private key that it lets in."""
    key, ready = asyncssh.generate_private_key("ssh-ed25519"), threading.Event()
    authorized = tmp_path / "authorized"
    authorized.write_bytes(key.export_public_key())
    port, loop = servers.free_port(), asyncio.new_event_loop()

    async def serve() -> None:
        await asyncssh.listen(
            "127.0.0.1", port, server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
            authorized_client_keys=str(authorized), sftp_factory=True,
        )  # fmt: skip
        ready.set()

    def work() -> None:
        loop.run_until_complete(serve())
        loop.run_forever()

    threading.Thread(target=work, daemon=True).start()
    assert ready.wait(30)
    yield port, key.export_private_key().decode()
    loop.call_soon_threadsafe(loop.stop)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a stage that has run, as the current folder."""
    folder = tmp_path / "stage"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "dvc.yaml").write_text("stages:\n  one: {cmd: echo some > out, outs: [out]}\n")
    run("git", "init", "--quiet", cwd=folder)
    run("dvc", "init", "--quiet", cwd=folder)
    run("dvc", "repro", cwd=folder)
    return folder


def assert_pushed_and_pulled(retrain: ModuleType, folder: Path) -> None:
    retrain._forget_empty_variables()
    retrain._use_remote()
    retrain._push()
    (folder / "out").unlink()
    shutil.rmtree(folder / ".dvc/cache")
    run("dvc", "pull", cwd=folder)
    assert (folder / "out").read_text() == "some\n"


def test_a_remote_in_s3(
    tmp_path: Path, stage: Path, monkeypatch: pytest.MonkeyPatch, retrain: ModuleType
) -> None:
    with servers.s3(tmp_path) as address:
        for name, value in (
            ("DVC_REMOTE_URL", "s3://rnnmt/dvc"), ("DVC_SSH_KEY", ""),
            ("AWS_ENDPOINT_URL", address), ("AWS_DEFAULT_REGION", ""),
            ("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"),
        ):  # fmt: skip
            monkeypatch.setenv(name, value)
        assert_pushed_and_pulled(retrain, stage)


def test_a_remote_over_ssh(
    tmp_path: Path,
    stage: Path,
    ssh_server: tuple[int, str],
    monkeypatch: pytest.MonkeyPatch,
    retrain: ModuleType,
) -> None:
    port, key = ssh_server
    monkeypatch.setenv("DVC_REMOTE_URL", f"ssh://me@127.0.0.1:{port}{tmp_path}/store")
    monkeypatch.setenv("DVC_SSH_KEY", key)
    assert_pushed_and_pulled(retrain, stage)
    assert list((tmp_path / "store/files/md5").iterdir())
    assert not run("git", "status", "--porcelain", "--ignored=no", ".dvc/tmp", cwd=stage)


@pytest.mark.parametrize("there", [(), ("second",)])
def test_what_the_remote_lacks_is_made_again(
    tmp_path: Path, stage: Path, monkeypatch: pytest.MonkeyPatch, retrain: ModuleType,
    there: tuple[str, ...],
) -> None:  # fmt: skip
    """As in a fork: the lock is committed, and a setting of a late stage has changed."""
    (stage / "params.yaml").write_text("rate: 1\n")
    (stage / "dvc.yaml").write_text(
        "stages:\n"
        "  first: {cmd: mkdir a && echo some > a/x, outs: [a]}\n"
        "  second: {cmd: mkdir b && cp a/x b, deps: [a], outs: [b]}\n"
        "  third: {cmd: mkdir -p c && cp b/x c && echo done > c/y, deps: [b], params: [rate],"
        " outs: [c/x, c/y]}\n"
        "  last: {cmd: cat c/* > d, deps: [c], outs: [d: {cache: false}]}\n"
    )
    monkeypatch.setenv("DVC_REMOTE_URL", str(tmp_path / "store"))
    run("dvc", "repro", cwd=stage)
    commit(stage, {})
    retrain._use_remote()
    if there:
        run("dvc", "push", *there, cwd=stage)
    fork = tmp_path / "fork"
    run("git", "clone", "--quiet", str(stage), str(fork), cwd=tmp_path)
    monkeypatch.chdir(fork)
    retrain._use_remote()
    (fork / "params.yaml").write_text("rate: 2\n")
    assert retrain._reproduce("dvc.yaml", [], time.monotonic() + 60) == 0
    assert (fork / "d").read_text() == "some\ndone\n"
    assert (fork / "b/x").read_text() == "some\n"  # for the gate


OWN = {
    "name": "mine", "source": "files", "source_language": "en", "target_language": "fr",
    "splits": {"train": ["my.en", "my.fr"]}, "held_out": {"valid": 1, "test": 1}, "seed": 1,
}  # fmt: skip


def test_new_data_are_noticed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retrain: ModuleType
) -> None:
    (tmp_path / "clone").mkdir()
    clone = Clone(tmp_path / "clone")
    mine = clone.settings()
    for name in ("my.en", "my.fr"):
        (clone.folder / name).write_text("one\ntwo\n")
    mine["corpus"] = OWN
    clone.write(mine, "recipes/mine.yaml")
    mine["corpus"] = OWN | {"name": "away", "splits": {"train": ["your.en", "your.fr"]}}
    clone.write(mine, "recipes/away.yaml")
    commit(clone.folder, {"recipes/mine/dvc.lock": "1", "recipes/away/dvc.lock": "1"})

    def refresh() -> dict[str, str]:
        command = (sys.executable, "scripts/retrain.py", "refresh")
        printed = run(*command, cwd=clone.folder, env=clone.environment)
        return dict(line.split(": ", 1) for line in printed.splitlines())

    first = refresh()
    assert first["recipes/mine.yaml"] == "the data are new"
    assert first["recipes/away.yaml"] == "not looked at: your.en: No such file or directory"
    assert first["params.yaml"] == "bundled has no files here to look at"
    assert first["recipes/tatoeba-en-fr.yaml"] == "tatoeba-en-fr has no files here to look at"
    assert refresh()["recipes/mine.yaml"] == "the data are the same"
    commit(clone.folder, {"recipes/mine/dvc.lock": "2"})
    (clone.folder / "my.en").write_text("one\nthree\n")
    monkeypatch.chdir(clone.folder)
    wanted = retrain._wanted(argparse.Namespace(event="schedule", recipe=""))
    assert [experiment.name for experiment in wanted] == ["default", "mine"]
    assert not run("git", "status", "--porcelain", "params.yaml", cwd=clone.folder)
    (clone.folder / "recipes/broken.yaml").write_text("corpus: [")  # which stands before mine
    (clone.folder / "my.en").write_text("one\nfour\n")
    command = (sys.executable, "scripts/retrain.py", "refresh")
    said = fails(*command, cwd=clone.folder, env=clone.environment)
    assert "recipes/broken.yaml: not looked at: recipes/broken.yaml:1: not valid YAML" in said
    assert "recipes/mine.yaml: the data are new" in said


def test_files_that_have_changed_are_told_where_nothing_else_has(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    retrain: ModuleType,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """DVC sees the settings, not the files that they name."""
    monkeypatch.chdir(tmp_path)
    names = ["my.en", "my.fr"]
    for name in names:
        Path(name).write_text("one\ntwo\n", encoding="utf-8")
    settings = shrink(dict(YAML(typ="safe").load(ROOT / "params.yaml"))) | {"corpus": OWN}
    YAML().dump(settings, Path("params.yaml"))
    folder = Path("data/mine/raw")
    folder.mkdir(parents=True)
    known = {"origin_sha256": corpora_files.digests(names)}
    (folder / "manifest.json").write_text(json.dumps(known))
    retrain.repro.say_changed_files()
    assert not capsys.readouterr().out
    Path("my.fr").write_text("one\nthree\n", encoding="utf-8")
    Path("my.en").unlink()  # is not needed any more
    retrain.repro.say_changed_files()
    said = capsys.readouterr().out
    assert said.startswith("my.fr has changed since it was read")
    paths = [str(tmp_path / side / "train.txt") for side in ("en", "fr")]
    for path in paths:
        Path(path).parent.mkdir()
        Path(path).write_text(path, encoding="utf-8")
    assert len(set(corpora_files.digests(paths).values())) == 2
    assert "retrain.py refresh" in said


def test_settings_are_whole_where_noting_new_data_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retrain: ModuleType
) -> None:
    (tmp_path / "clone").mkdir()
    clone = Clone(tmp_path / "clone")
    for name in ("my.en", "my.fr"):
        (clone.folder / name).write_text("one\ntwo\n")
    settings = clone.settings()
    settings["corpus"] = OWN
    clone.write(settings)
    monkeypatch.chdir(clone.folder)
    before = clone.settings()

    class Full(YAML):
        def dump(self, _: Any, stream: Any) -> None:
            stream.write("corpus:\n")
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(retrain, "YAML", Full)
    with pytest.raises(OSError, match="No space"):
        retrain._refresh()
    assert clone.settings() == before
    monkeypatch.setattr(retrain, "YAML", YAML)
    assert retrain._refresh() == "the data are new"
    assert retrain._refresh() == "the data are the same"
