"""The Lightning logger of a training. Whatever becomes of the tracking server, training goes on."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import pytorch_lightning as pl
from mlflow import MlflowClient
from mlflow.entities import Metric
from pytorch_lightning.loggers import MLFlowLogger
from pytorch_lightning.loggers.logger import Logger

from rnnmt.addresses import shown
from rnnmt.tracking import runs, store

# Of what Lightning logs, the numbers of a batch. Those of an epoch come with `log_epoch`, just
# as history.csv has them; `train/loss` is the epoch's mean, which variants are compared by.
BATCH_METRICS = {"train/loss": "train/batch_loss", "lr": "lr"}
EPOCH_METRICS = ("epoch", "tokens", "train/loss", "val/loss", "val/perplexity", "val/bleu")
# One request a failure, and ever fewer failures: a dead server costs some seconds in an hour.
REQUEST_SECONDS = 3
FIRST_PAUSE = 60.0


class History(Protocol):
    """What keeps the rows of history.csv."""

    rows: list[dict[str, float]]


def training_logger(description: runs.Description, resume: bool) -> TrainingLogger:
    """The logger of the training that `description`, its future settings.json, describes.

    With `resume`, the run that the training began is continued. Without, a run that was never
    finished is taken over too, since the same training logs the same numbers again; next to a
    finished one, which is marked as superseded, a new run is made.
    """
    return TrainingLogger(description, resume)


class TrainingLogger(Logger):
    """Lightning's MLFlowLogger, opened when the store answers; what fails is sent again later.

    Each metric has one value at each step, also where a resumed training repeats steps. A step is
    a number of updates of the weights.
    """

    def __init__(self, description: runs.Description, resume: bool) -> None:
        super().__init__()
        self._description, self._resume = description, resume
        self._uri = store.tracking_uri()
        self._mlflow: MLFlowLogger | None = None
        self._waiting: list[Metric] = []
        self._last: dict[str, int] = {}  # metric -> the last step that is logged or waits
        self._warned, self._pause, self._next_try = False, FIRST_PAUSE, 0.0
        self._attempt(self._send)

    @property
    def name(self) -> str:
        """The experiment."""
        return runs.experiment_name(self._description)

    @property
    def version(self) -> str | None:
        """The id of the run, where the store has answered."""
        return self._mlflow.run_id if self._mlflow else None

    @property
    def experiment(self) -> MlflowClient | None:
        """MLflow's client, where the store has answered."""
        return self._mlflow.experiment if self._mlflow else None

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: a run gets its parameters when it is made."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log the numbers of a batch, whose `step` Lightning counts from zero."""
        values = {BATCH_METRICS[k]: float(v) for k, v in metrics.items() if k in BATCH_METRICS}
        self._add(values, (step or 0) + 1)

    def log_epoch(self, row: Mapping[str, float]) -> None:
        """Log a row of history.csv."""
        self._add({name: float(row[name]) for name in EPOCH_METRICS}, int(row["step"]))

    def finalize(self, status: str) -> None:
        """Send what waits and close the run as FINISHED, or as FAILED to be continued."""
        self._next_try = 0.0  # a last try
        self._attempt(self._send)
        if mlflow := self._mlflow:
            self._attempt(lambda: mlflow.finalize(status))

    def _add(self, values: Mapping[str, float], step: int) -> None:
        now = round(time.time() * 1000)
        new = {name: v for name, v in values.items() if step > self._last.get(name, -1)}
        self._waiting += [Metric(name, value, now, step) for name, value in new.items()]
        self._last |= dict.fromkeys(new, step)
        if new:
            self._attempt(self._send)

    def _send(self) -> None:
        if self._mlflow is None:
            self._mlflow = self._open()
        # Sent twice, a metric with its time is still logged once.
        runs.log_metrics(self._mlflow.experiment, self._mlflow.run_id or "", self._waiting)
        self._waiting = []

    def _open(self) -> MLFlowLogger:
        with store.alone(self._uri):
            client = store.connect(self._uri)
            run_id = open_run(client, self._description, self._resume)
        for name in (*EPOCH_METRICS, *BATCH_METRICS.values()):
            last = max(runs.history(client, run_id, name), default=-1)
            self._waiting = [m for m in self._waiting if m.key != name or m.step > last]
            self._last[name] = max(last, self._last.get(name, -1))
        return MLFlowLogger(tracking_uri=self._uri, run_id=run_id)

    def _attempt(self, action: Callable[[], None]) -> None:
        """Do it, unless the store failed a short while ago; if it fails, say so once."""
        if time.monotonic() < self._next_try:
            return
        try:
            with store.impatient(REQUEST_SECONDS, retries=0):
                action()
            self._pause = FIRST_PAUSE
        except Exception as error:  # of any kind: a training is worth more than its log
            self._next_try = time.monotonic() + self._pause
            self._pause *= 2
            self._warn(error)

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            print(
                f"rnnmt: warning: cannot log to MLflow at {shown(self._uri)}; training goes "
                f"on, `{store.sync_command()}` will add what is missing ({store.reason(error)})",
                file=sys.stderr,
                flush=True,
            )
        self._warned = True


class LogEpochs(pl.Callback):
    """Gives every row of the history to the logger, those of before a resume included."""

    def __init__(self, history: History, logger: TrainingLogger) -> None:
        self._history, self._logger = history, logger

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        self._log(self._history.rows)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        self._log(self._history.rows[-1:])

    def _log(self, rows: Sequence[Mapping[str, float]]) -> None:
        for row in rows:
            self._logger.log_epoch(row)


def open_run(client: MlflowClient, description: runs.Description, resume: bool) -> str:
    """The id of the run to log to, in state RUNNING: see `training_logger`."""
    experiment = store.experiment(client, runs.experiment_name(description))
    found = runs.find(client, experiment, description)
    usable = [run for run in found if resume or run.info.status != "FINISHED"]
    if usable:
        run = usable[0]
        client.update_run(run.info.run_id, status="RUNNING")
    else:
        run = runs.create(client, experiment, description, time.time(), _tags())
    runs.describe(client, run, description)
    runs.supersede(client, [other for other in found if other is not run])
    return str(run.info.run_id)


def _tags() -> dict[str, str]:
    tags = {
        "mlflow.source.name": "rnnmt.stages.train",
        "dvc.stage": os.environ.get("DVC_STAGE"),
        "dvc.exp": os.environ.get("DVC_EXP_NAME"),
    }
    return {name: value for name, value in tags.items() if value}
