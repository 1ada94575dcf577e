"""Where MLflow keeps the runs, and how to reach it without racing, chatting or hanging."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from rnnmt.addresses import shown

if TYPE_CHECKING:
    from mlflow import MlflowClient


def root() -> Path:
    """The repository: DVC_ROOT, which stages are given, else what is found around us."""
    if given := os.environ.get("DVC_ROOT"):
        return Path(given).resolve()
    here = Path.cwd()
    marked = (f for f in (here, *here.parents) if (f / ".dvc").is_dir() or (f / ".git").exists())
    return next(marked, here)


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, else the database `mlflow.db` in the repository's root."""
    # Absolute: in a queued DVC experiment the current folder is a copy that will be deleted.
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root() / 'mlflow.db'}"


def sync_command() -> str:
    """What adds to MLflow what is missing of the experiment at hand, to be typed in the root."""
    recipe = os.environ.get("RNNMT_PARAMS")
    return f"RNNMT_PARAMS={recipe} rnnmt sync" if recipe else "rnnmt sync"


def reason(error: Exception) -> str:
    """What went wrong at the bottom of it, in the first 200 characters of one line."""
    inner: BaseException = error
    while further := inner.__cause__ or inner.__context__:
        inner = further
    return shown(" ".join(str(inner).split()) or type(inner).__name__)[:200]


@contextlib.contextmanager
def alone(uri: str) -> Iterator[None]:
    """Let one process at a time open a SQLite file: two that make its tables at once crash.

    It also keeps two from making the same run. With a server, whose tables are made, it does
    nothing.
    """
    database = _database(uri)
    if database is None:
        yield
        return
    with open(f"{database}.lock", "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def connect(uri: str) -> MlflowClient:
    """A client of the store, whose tables are made first where it is new: be `alone` with it.

    Raises what mlflow and its database raise where the store is unusable; a server is not asked.
    """
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):  # migrations and other news that nobody asked for
        logging.getLogger(name).setLevel(logging.WARNING)
    database = _database(uri)
    if database and not database.exists():
        # Tables that were made in part, by a process that was killed, could never be used.
        new = Path(f"{database}.new")
        new.unlink(missing_ok=True)
        MlflowClient(f"sqlite:///{new}")
        new.replace(database)
    return MlflowClient(uri)


def exists(uri: str) -> bool:
    """Whether there is something to read: a SQLite file may still have to be made."""
    database = _database(uri)
    return database is None or database.exists()


def experiment(client: MlflowClient, name: str) -> str:
    """The id of the experiment, which is made where there is none, or brought back if deleted."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, _artifact_location(client.tracking_uri)))
        except MlflowException as error:
            # Another process was faster.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise error
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


@contextlib.contextmanager
def impatient(seconds: int, retries: int) -> Iterator[None]:
    """Within it, a request to a server is given up after `seconds`, and so many `retries`.

    mlflow's own are two minutes and seven.
    """
    names = ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES")
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ.update(zip(names, (str(seconds), str(retries)), strict=True))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def synced(uri: str) -> set[str]:
    """The digests of the finished runs of a SQLite file; none where it is something else.

    Read without mlflow, which takes two seconds to load, so that little to do takes little.
    """
    database = _database(uri)
    if database is None:
        return set()
    query = """
        SELECT tags.value
        FROM tags JOIN runs USING (run_uuid) JOIN experiments USING (experiment_id)
        WHERE tags.key = 'synced' AND runs.status = 'FINISHED'
        AND runs.lifecycle_stage = 'active' AND experiments.lifecycle_stage = 'active'
        AND run_uuid NOT IN (SELECT run_uuid FROM tags WHERE key = 'superseded')"""
    try:
        file = f"file:{quote(str(database))}?mode=ro"
        with contextlib.closing(sqlite3.connect(file, uri=True)) as connection:
            return {digest for (digest,) in connection.execute(query)}
    except sqlite3.Error:  # no file, or none of these tables: for mlflow to find out
        return set()


def _database(uri: str) -> Path | None:
    """The file of a SQLite database."""
    path = uri.removeprefix("sqlite:///").partition("?")[0]
    return Path(path) if path not in ("", uri) else None


def _artifact_location(uri: str) -> str | None:
    """A server chooses itself; without one it would be below whatever folder is the current."""
    return None if uri.startswith("http") else (root() / "mlruns").as_uri()
