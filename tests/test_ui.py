"""`make ui`, with its own database, a server and a database whose client is missing."""

from __future__ import annotations

import os
import sys
import urllib.request
from pathlib import Path

import pytest

import servers
from clones import fails, run
from closure import ROOT

UI = (sys.executable, "scripts/ui.py")


def test_make_runs_it() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "scripts/ui.py" in makefile.partition("\nui:")[2].partition("\n\n")[0]


def test_a_server_has_pages_of_its_own() -> None:
    address = {"MLFLOW_TRACKING_URI": "https://me:secret@mlflow.example.org"}
    said = run(*UI, cwd=ROOT, env=os.environ | address)
    assert "https://mlflow.example.org" in said
    assert "secret" not in said


# Without a client named, SQLAlchemy looks for one that is in no lock; the other one nobody has.
@pytest.mark.parametrize("database", ["postgresql", "mssql+pymssql"])
def test_a_missing_client_is_named(database: str) -> None:
    address = {"MLFLOW_TRACKING_URI": f"{database}://me:secret@127.0.0.1/mlflow"}
    said = fails(*UI, cwd=ROOT, env=os.environ | address)
    assert "pip install -r requirements-server.lock" in said
    assert "secret" not in said


@pytest.mark.long
def test_without_a_server_its_pages_are_shown(tmp_path: Path) -> None:
    port = servers.free_port()
    here = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db", "MLFLOW_PORT": str(port)}
    with (
        open(tmp_path / "log", "w", encoding="utf-8") as log,
        servers.running(UI, port, log, os.environ | here),
        urllib.request.urlopen(f"http://127.0.0.1:{port}/") as page,
    ):
        assert b"MLflow" in page.read()
