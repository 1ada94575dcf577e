"""What `make ui` does: MLflow's pages over the runs, or a word on where a server has them."""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.exc import ArgumentError

from rnnmt.addresses import shown
from rnnmt.errors import UserError, run_main
from rnnmt.tracking.store import tracking_uri

ROOT = Path(__file__).parent.parent
PAGES = ("mlflow", "ui", "--host", "127.0.0.1", "--workers", "1", "--backend-store-uri")
QUIET = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def main() -> None:
    os.chdir(ROOT)
    address = tracking_uri()
    if address.startswith(("http://", "https://")):
        print(f"MLFLOW_TRACKING_URI is a server, which has pages of its own: {shown(address)}")
        return
    check_driver(address)
    os.execvpe(PAGES[0], [*PAGES, address], os.environ | QUIET)


def check_driver(address: str) -> None:
    """Raise UserError where the database of an address has a client that is not installed."""
    try:
        create_engine(address)
    except ModuleNotFoundError as error:
        raise UserError(
            f"MLFLOW_TRACKING_URI: no module {error.name}, its database's client. For PostgreSQL, "
            "`.venv/bin/pip install -r requirements-server.lock` and begin it with postgresql+psycopg2://"
        ) from None
    except ArgumentError:  # a folder: for MLflow to say what it thinks of it
        pass


if __name__ == "__main__":
    run_main(main)
