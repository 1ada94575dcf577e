"""The container files, as far as can be told without building them."""

from __future__ import annotations

import fnmatch
import itertools
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest
from mlflow.server.security_utils import is_allowed_host_header, should_block_cors_request
from ruamel.yaml import YAML

from clones import run
from closure import ROOT
from servers import BIN, KEYS

FILES = sorted((ROOT / "containers").glob("*.Containerfile"))
COMPOSE: dict[str, Any] = YAML(typ="safe").load(
    (ROOT / "containers/compose.yaml").read_text("utf-8")
)


def instructions(file: Path) -> list[tuple[str, str]]:
    """(instruction, arguments), with each ARG's default in its place."""
    lines = [line for line in file.read_text("utf-8").split("\n") if not line.startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    found = [(line.split()[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line]
    defaults = dict(value.split("=", 1) for name, value in found if name == "ARG")
    return [
        (name, re.sub(r"\$\{(\w+)\}", lambda match: defaults[match[1]], value))
        for name, value in found
    ]


def filled(text: str, **given: str) -> str:
    """What compose makes of a text where nothing but `given` is set."""
    pattern = r"\$\{(\w+)(?::-([^}]*)|:\?)?\}"
    return re.sub(pattern, lambda match: given.get(match[1], match[2] or ""), text)


def environment(service: str, **given: str) -> dict[str, str]:
    """What compose gives a service where nothing but `given` is set; `KEY:` passes a set one on."""
    settings = COMPOSE["services"][service]["environment"]
    return {
        name: filled(text or f"${{{name}}}", **given)
        for name, text in settings.items()
        if text or name in given
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_hadolint_finds_nothing(file: Path) -> None:
    run(str(BIN / "hadolint"), str(file), cwd=ROOT)


def test_the_compose_file_follows_its_schema() -> None:
    check = (str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec")
    run(*check, "containers/compose.yaml", cwd=ROOT)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_is_copied_is_there_and_not_ignored(file: Path) -> None:
    ignore = (ROOT / ".dockerignore").read_text("utf-8").split()
    build = COMPOSE["services"]["mlflow"]["build"]
    assert (ROOT / "containers" / build["context"] / build["dockerfile"]).is_file()
    copies = [value.split()[:-1] for name, value in instructions(file) if name == "COPY"]
    assert copies
    for name in [*itertools.chain(*copies), build["args"]["EXTRA_LOCK"]]:
        assert (ROOT / name).exists()
        assert ignore[0] == "**"
        assert any(fnmatch.fnmatch(name, kept[1:]) for kept in ignore if kept[0] == "!")


def test_training_runs_the_code_of_the_mounted_clone(tmp_path: Path) -> None:
    """The file's own installation, into an environment of its own, with /lab elsewhere."""
    [file] = [file for file in FILES if file.stem == "train"]
    steps = instructions(file)
    [step] = [value for name, value in steps if "--no-build-isolation" in value]
    _, *options = step.partition("&&")[0].split()
    [*_, folder] = [value for name, value in steps if name == "WORKDIR"]
    assert folder == "/lab"
    lab, python = tmp_path / "lab", tmp_path / "venv/bin/python"
    shutil.copytree(ROOT / "src", lab / "src", ignore=shutil.ignore_patterns("*.egg-info"))
    shutil.copy(ROOT / "pyproject.toml", lab)
    venv.create(tmp_path / "venv")
    packages = {"PYTHONPATH": sysconfig.get_path("purelib")}
    pip = (sys.executable, "-m", "pip", "--python", str(python), *options)
    run(*pip, cwd=lab, env=os.environ | packages)
    shutil.rmtree(lab / "src")  # a clone is mounted over it
    (lab / "src/rnnmt").mkdir(parents=True)
    (lab / "src/rnnmt/__init__.py").write_text("print('edited')")
    variables = dict(
        pair.split("=") for name, value in steps if name == "ENV" for pair in value.split()
    )
    done = subprocess.run(
        [python, "-c", "import rnnmt"],
        cwd=tmp_path,
        env={name: value.replace("/lab", str(lab)) for name, value in variables.items()},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "edited\n"


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ({}, "https://s3.amazonaws.com"),
        ({"AWS_DEFAULT_REGION": "eu-west-3"}, "https://s3.eu-west-3.amazonaws.com"),
        ({"MLFLOW_S3_ENDPOINT_URL": "https://s3.example.org"}, "https://s3.example.org"),
    ],
)
def test_the_server_reaches_s3_of_amazon_and_of_others(given: dict[str, str], address: str) -> None:
    program = (
        "from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository as S3\n"
        "print(S3('s3://bucket/mlflow')._get_s3_client().meta.endpoint_url)"
    )
    keys = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "secret"}
    plain = {name: value for name, value in KEYS.items() if not name.startswith("AWS_")}
    variables = plain | environment("mlflow", **keys, **given)
    assert run(sys.executable, "-c", program, cwd=ROOT, env=variables).split()[-1] == address


@pytest.mark.parametrize("given", [{}, {"PROXY_NAME": "mlflow.example.org"}])
def test_the_server_answers_through_a_proxy(given: dict[str, str]) -> None:
    """It lets in the name that browsers and clients know, and no other."""
    words = filled(COMPOSE["services"]["mlflow"]["command"], **given).split()
    options = dict(itertools.pairwise(words))
    hosts, origins = (
        options[name].split(",") for name in ("--allowed-hosts", "--cors-allowed-origins")
    )
    for name in ("mlflow.example.org", "other.example.org"):
        known = name in given.values()
        assert is_allowed_host_header(hosts, name) == known
        assert should_block_cors_request(f"https://{name}", "POST", origins) != known
    for host in ("localhost:5000", "127.0.0.1:5000", "mlflow:5000"):
        assert is_allowed_host_header(hosts, host)
