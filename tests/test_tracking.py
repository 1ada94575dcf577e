"""MLflow as a view: complete, each step once, and never in the way of a training."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from torch.utils.data import DataLoader

from rnnmt.errors import UserError
from rnnmt.model.training import History, ResumePoint
from rnnmt.tracking import runs, store, training
from rnnmt.tracking.sync import sync, sync_or_warn
from rnnmt.tracking.training import LogEpochs, TrainingLogger, training_logger

EPOCHS, BATCHES = 3, 60
PARAMS = Path(__file__).parent.parent / "params.yaml"
# Used by two processes at once: what a stage and `rnnmt sync` do first.
FIRST_USE = """
import sys
from rnnmt.tracking import store, sync
uri = store.tracking_uri()
with store.alone(uri):
    print(store.experiment(store.connect(uri), "first"), "torch" in sys.modules)
"""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, str]]]:
    """A database that two processes have made at the same time, and what they printed."""
    folder = tmp_path_factory.mktemp("fresh")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", FIRST_USE],
            cwd=folder,
            env=os.environ | {"DVC_ROOT": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    return folder / "mlflow.db", [process.communicate(timeout=120) for process in processes]


@pytest.fixture
def root(fresh: tuple[Path, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository with two variants, and a database whose tables are made."""
    shutil.copy(fresh[0], tmp_path / "mlflow.db")
    text = PARAMS.read_text().replace("name: bundled", "name: tiny")
    head, _, _ = text.partition("\nvariants:")
    (tmp_path / "params.yaml").write_text(f"{head}\nvariants:\n  lstm: {{}}\n  other: {{}}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    # Lightning's logger sets this variable; it is put back after each test.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    return tmp_path


class Tiny(pl.LightningModule):
    """A module that returns and logs what the real one does."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.stop_at = stop_at

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:  # noqa: ARG002
        if self.trainer.global_step == self.stop_at:
            raise KeyboardInterrupt
        loss = self.layer(batch).square().mean()
        return {"loss": loss, "nll": 3 * loss.detach(), "tokens": 3}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def on_validation_epoch_end(self) -> None:
        for name in ("val/loss", "val/perplexity", "val/bleu"):
            self.log(name, float(self.trainer.global_step))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def describe(variant: str = "lstm") -> dict[str, Any]:
    return {
        "corpus": "tiny",
        "variant": variant,
        "seed": 1,
        "threads": 2,
        "model": {"cell": "lstm", "attention": "none", "hidden": 8, "dropout": 0.1},
        "train": {"learning_rate": 0.01, "max_epochs": EPOCHS},
        "vocabularies": {"source": 9, "target": 9, "joint": True},
        "source_language": "en",
        "target_language": "fr",
        "data": "d" * 64,
        "code": "c" * 64,
        "fingerprint": f"of-{variant}",
    }


def fit(logger: TrainingLogger, resume: Path | None = None, stop_at: int | None = None) -> History:
    history = History()
    data = DataLoader(torch.ones(BATCHES, 2), batch_size=1)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        log_every_n_steps=10,
        num_sanity_val_steps=0,
        callbacks=[history, LogEpochs(history, logger), ResumePoint(Path("last.ckpt"), 0.0)],
        logger=logger,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    valid = DataLoader(torch.ones(1, 2))
    try:
        trainer.fit(Tiny(stop_at), data, valid, ckpt_path=resume, weights_only=True)
    except SystemExit:
        assert stop_at
    return history


def write_outputs(history: History, variant: str = "lstm", bleu: float = 50.0) -> None:
    """What the stages train, decode, evaluate and compare leave."""
    model, reports = Path("models/tiny", f"{variant}-1"), Path("reports/tiny")
    translations, tokens = reports / "translations" / f"{variant}-1", Path("data/tiny/tokens")
    for folder in (model, reports / "scores", translations, tokens):
        folder.mkdir(parents=True, exist_ok=True)
    with open(model / "history.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, history.COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(history.rows)
    speed = {"seconds": 2.0, "sentences": 30, "tokens": 90}
    files: dict[Path, Any] = {
        model / "settings.json": describe(variant),
        model / "summary.json": {
            "parameters": 3,
            "seconds": 3.0,
            "epoch_seconds": [1.0] * EPOCHS,
            "target_tokens_per_second": 5.0,
            "memory_mb": 700.0,
            "best_epoch": 3,
            "best": {"val/loss": 1.5, "val/perplexity": 4.5, "val/bleu": 49.0},
        },
        reports / "scores" / f"{variant}-1.json": {
            "test": {"bleu": bleu, "chrf": 60.0, "ter": 30.0, "bleu_greedy": 48.0},
            "valid": {"bleu": 51.0},
        },
        translations / "summary.json": {"splits": {"test": {"greedy": speed, "beam": speed}}},
    }
    for path, values in files.items():
        path.write_text(json.dumps(values))
    (reports / "comparison.md").write_text("# all of them\n")
    for path in (tokens / "test.source.txt", tokens / "test.target.txt"):
        path.write_text("".join(f"{path.name} {i}\n" for i in range(30)))
    for search in ("greedy", "beam"):
        text = "".join(f"{search} {i}\n" for i in range(30))
        (translations / f"test.{search}.txt").write_text(text)


def made_up_history() -> History:
    history = History()
    history.rows = [
        {name: float(epoch) for name in history.COLUMNS} | {"step": epoch * BATCHES}
        for epoch in range(1, EPOCHS + 1)
    ]
    return history


def all_runs(root: Path) -> list[Run]:
    """All runs of the database, superseded ones included, the newest first."""
    client = client_of(root)
    experiment = client.get_experiment_by_name("tiny en-fr")
    assert experiment
    return list(client.search_runs([experiment.experiment_id]))


def client_of(root: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{root / 'mlflow.db'}")


@pytest.fixture(autouse=True)
def _frequent_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """These trainings are short: log each tenth update, as their trainers are told to."""
    monkeypatch.setattr("rnnmt.model.training.LOG_STEPS", 10)


def points(root: Path, run: Run) -> dict[str, list[int]]:
    """The steps of every metric of a run, in order, duplicates included."""
    client = client_of(root)
    return {
        name: sorted(m.step for m in client.get_metric_history(run.info.run_id, name))
        for name in run.data.metrics
    }


def assert_complete(root: Path, history: History, live: bool = True) -> Run:
    """There is one run, finished, with each epoch once and exactly as in the history."""
    (run,) = all_runs(root)
    found, ends = points(root, run), [BATCHES * epoch for epoch in range(1, EPOCHS + 1)]
    assert run.info.status == "FINISHED"
    for name in training.EPOCH_METRICS:
        assert found[name] == ends
        logged = client_of(root).get_metric_history(run.info.run_id, name)
        assert [m.value for m in sorted(logged, key=lambda m: m.step)] == [
            row[name] for row in history.rows
        ]
    if live:
        assert found["train/batch_loss"] == found["lr"] == list(range(10, 181, 10))
    return run


def test_two_processes_make_the_database_at_once(
    fresh: tuple[Path, list[tuple[str, str]]],
) -> None:
    # The same experiment for both; sync loads no torch; and nobody chats.
    assert fresh[1] == [("1 False\n", "")] * 2


def test_tables_that_were_made_in_part_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(uri: str) -> None:
        Path(uri.removeprefix("sqlite:///")).touch()
        raise KeyboardInterrupt

    database = tmp_path / "mlflow.db"
    monkeypatch.setattr("mlflow.MlflowClient", killed)
    with pytest.raises(KeyboardInterrupt):
        store.connect(f"sqlite:///{database}")
    assert not database.exists()


def test_a_training_is_one_run_that_can_be_compared(
    root: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_STAGE", "train@lstm-1")
    history = fit(training_logger(describe(), resume=False))
    assert_complete(root, history)
    write_outputs(history)
    sync()
    run = assert_complete(root, history)
    assert run.info.run_name == "lstm-1"
    assert run.info.artifact_uri.startswith((root / "mlruns").as_uri())
    wanted = {"hidden": "8", "dropout": "0.1", "learning_rate": "0.01", "seed": "1"}
    assert wanted.items() <= run.data.params.items()
    tags = {"variant": "lstm", "cell": "lstm", "attention": "none", "seed": "1", "corpus": "tiny"}
    assert (tags | {"dvc.stage": "train@lstm-1"}).items() <= run.data.tags.items()
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("tiny", "d" * 36)
    assert "rnnmt: warning" not in capfd.readouterr().err


@pytest.mark.parametrize("stop_at", [35, 60, 95])
def test_an_interrupted_training_continues_its_run(root: Path, stop_at: int) -> None:
    fit(training_logger(describe(), resume=False), stop_at=stop_at)
    assert all_runs(root)[0].info.status == "FAILED"
    history = fit(training_logger(describe(), resume=True), Path("last.ckpt"))
    assert_complete(root, history)


def test_steps_that_are_repeated_are_logged_once(root: Path) -> None:
    """As after kill -9 with no checkpoint: all begins again in the run that was left RUNNING."""
    logger = training_logger(describe(), resume=False)
    logger.log_metrics({"train/loss": 1.0, "lr": 0.1, "epoch": 0}, 9)
    logger.log_epoch(made_up_history().rows[0])
    history = fit(training_logger(describe(), resume=False))
    (run,) = all_runs(root)
    found = points(root, run)
    assert found["val/loss"] == [60, 120, 180]
    assert found["lr"] == list(range(10, 181, 10))[:1] + list(range(20, 181, 10))
    assert len(history.rows) == EPOCHS


def test_a_forced_training_supersedes_the_finished_run(root: Path) -> None:
    for _ in range(2):
        logger = training_logger(describe(), resume=False)
        logger.finalize("success")
    write_outputs(made_up_history())
    sync()
    new, old = all_runs(root)
    assert old.data.tags["superseded"] == "true"
    assert "superseded" not in new.data.tags
    assert new.data.metrics["val/loss"] == 3.0
    assert "val/loss" not in old.data.metrics


def test_a_training_without_server_warns_once_and_sync_repairs(
    root: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed, monkeypatch.context() as patch:
        closed.bind(("127.0.0.1", 0))  # never listens: refused
        patch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{closed.getsockname()[1]}")
        history = fit(training_logger(describe(), resume=False))
        write_outputs(history)
        with pytest.raises(UserError, match=r"MLflow at http://127\.0\.0\.1.*Connection refused"):
            sync()
    errors = capfd.readouterr().err
    assert errors.count("rnnmt: warning") == errors.count("rnnmt sync") == 1
    assert "secret" not in errors
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
    sync()
    assert_complete(root, history, live=False)


def test_a_server_that_hangs_costs_seconds(
    root: Path,  # noqa: ARG001
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "REQUEST_SECONDS", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # connections are taken and nothing is ever answered
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        before = time.monotonic()
        logger = training_logger(describe(), resume=False)
        for row in made_up_history().rows:
            logger.log_epoch(row)
        logger.finalize("success")
    assert time.monotonic() - before < 5
    assert capfd.readouterr().err.count("rnnmt: warning") == 1


@pytest.mark.parametrize("pause", [1000.0, 0.0], ids=["gone for good", "comes back"])
def test_a_server_that_dies_in_the_middle(
    root: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    pause: float,
) -> None:
    monkeypatch.setattr(training, "FIRST_PAUSE", pause)
    logger = training_logger(describe(), resume=False)
    real, calls = runs.log_metrics, 0

    def failing(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        # Logged until then: nothing, six batches, an epoch, a batch.
        if 10 <= calls < (13 if pause == 0.0 else 1000):
            raise ConnectionError("the server has gone away")
        real(*arguments)

    monkeypatch.setattr(runs, "log_metrics", failing)
    history = fit(logger)
    monkeypatch.setattr(runs, "log_metrics", real)
    assert capfd.readouterr().err.count("rnnmt: warning") == 1
    if pause:
        (run,) = all_runs(root)
        assert run.info.status == "RUNNING"
        assert points(root, run)["val/loss"] == [60]
        write_outputs(history)
        sync()
    assert_complete(root, history, live=not pause)


def test_a_server_that_is_away_when_a_training_resumes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(training_logger(describe(), resume=False), stop_at=95)
    real = store.connect

    def away(uri: str) -> MlflowClient:
        raise ConnectionError(uri)

    monkeypatch.setattr(training, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(store, "connect", away)
    logger = training_logger(describe(), resume=True)
    for row in made_up_history().rows:
        logger.log_epoch(row)
    monkeypatch.setattr(store, "connect", real)
    logger.finalize("success")
    (run,) = all_runs(root)
    assert points(root, run)["val/loss"] == [60, 120, 180]


def test_sync_makes_what_is_missing_once(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_outputs(made_up_history())
    sync()
    assert capsys.readouterr().out.split("\n")[:2] == [
        "lstm-1: created",
        "other-1: not trained yet",
    ]
    run = assert_complete(root, made_up_history(), live=False)
    metrics = {
        "test/bleu": 50.0,
        "test/chrf": 60.0,
        "test/ter": 30.0,
        "test/bleu_greedy": 48.0,
        "best/val_bleu": 49.0,
        "best/val_bleu_beam": 51.0,
        "best/epoch": 3.0,
        "model/parameters": 3.0,
        "time/train_s": 3.0,
        "time/beam_sentences_per_s": 15.0,
    }
    assert metrics.items() <= run.data.metrics.items()
    assert run.data.tags["dvc.stage"] == "train@lstm-1"
    assert run.info.end_time - run.info.start_time == 3000
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    assert {"history.csv", "settings.json", "lstm-1.json", "comparison.md"} <= {
        file.name for file in artifacts.iterdir()
    }
    blocks = (artifacts / "examples/test.txt").read_text().split("\n\n")
    assert len(blocks) == 20
    assert blocks[3].split("\n")[3] == "beam:      beam 3"

    before = dump(root)
    sync()
    assert "lstm-1: up to date" in capsys.readouterr().out
    assert dump(root) == before

    write_outputs(made_up_history(), bleu=55.0)  # decoded anew, by a wider beam
    write_outputs(made_up_history(), "other")
    sync()
    out = capsys.readouterr().out
    assert "lstm-1: completed" in out
    assert "other-1: created" in out
    (changed,) = (r for r in all_runs(root) if r.info.run_name == "lstm-1")
    assert changed.data.metrics["test/bleu"] == 55.0
    assert points(root, changed) == points(root, run) | {"test/bleu": [0, 0]}
    write_outputs(made_up_history(), bleu=50.0)  # and back, by the old one
    sync()
    (back,) = (r for r in all_runs(root) if r.info.run_name == "lstm-1")
    assert back.data.metrics["test/bleu"] == 50.0


def dump(root: Path) -> str:
    import sqlite3

    with sqlite3.connect(root / "mlflow.db") as database:
        return "\n".join(database.iterdump())


def test_sync_mixes_no_two_trainings(root: Path) -> None:
    """Of one fingerprint, by processors that differ in the last digits."""
    write_outputs(made_up_history())
    sync()
    other = made_up_history()
    other.rows[1]["val/loss"] += 1e-9
    other.rows[2]["val/bleu"] = 50.0
    write_outputs(other)
    for _ in range(2):
        sync()
    new, old = all_runs(root)
    assert old.data.tags["superseded"] == "true"
    assert new.data.metrics["val/bleu"] == 50.0
    assert old.data.metrics["val/bleu"] == 3.0
    assert points(root, new)["val/loss"] == [60, 120, 180]


def test_all_pages_of_runs_are_read(root: Path) -> None:
    write_outputs(made_up_history())
    write_outputs(made_up_history(), "other")
    sync()

    class Small(MlflowClient):
        def search_runs(self, *arguments: Any, **named: Any) -> Any:
            return super().search_runs(*arguments, **named, max_results=1)

    client = Small(f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny en-fr")
    assert experiment
    found = runs.every(client, experiment.experiment_id)
    assert sorted(str(run.info.run_name) for run in found) == ["lstm-1", "other-1"]


def test_sync_completes_a_run_that_sync_left_half_made(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_outputs(made_up_history())
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_text", lambda *_: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(UserError, match="full"):
            sync()
    sync()
    assert_complete(root, made_up_history(), live=False)


@pytest.mark.parametrize(
    ("seconds", "reason"), [(60, "timed out"), (0.1, "no answer for 0.1 seconds")]
)
def test_a_stage_does_not_wait_for_a_server_that_hangs(
    root: Path,  # noqa: ARG001
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    reason: str,
) -> None:
    write_outputs(made_up_history())
    monkeypatch.setattr("rnnmt.tracking.sync.STAGE_SECONDS", seconds)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        sync_or_warn()
    errors = capfd.readouterr().err
    assert errors.count("\n") == errors.count("rnnmt: warning") == errors.count("rnnmt sync") == 1
    assert reason in errors


def test_a_sync_that_was_killed_is_a_warning(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(killed))
    sync_or_warn()
    assert re.search("rnnmt: warning: .* code -9", capfd.readouterr().err)


@pytest.mark.parametrize("loss", ["file", "experiment", "run", "superseded", "unfinished"])
def test_sync_sees_without_mlflow_whether_there_is_something_to_do(
    root: Path, loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_outputs(made_up_history())
    sync()
    with monkeypatch.context() as patch:
        patch.setattr(store, "connect", lambda _: pytest.fail("mlflow is asked"))
        sync()
    (run,) = all_runs(root)
    client = client_of(root)
    match loss:
        case "file":
            (root / "mlflow.db").unlink()
        case "experiment":
            client.delete_experiment(run.info.experiment_id)
        case "run":
            client.delete_run(run.info.run_id)
        case "superseded":
            client.set_tag(run.info.run_id, "superseded", "true")
        case "unfinished":
            client.update_run(run.info.run_id, status="RUNNING")
    sync()
    assert [r.info.status for r in all_runs(root) if "superseded" not in r.data.tags] == [
        "FINISHED"
    ]


def test_sync_names_a_damaged_file(root: Path) -> None:  # noqa: ARG001
    write_outputs(made_up_history())
    file = Path("models/tiny/lstm-1/history.csv")
    file.write_text("epoch,step,tokens\n1,60,x\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"history\.csv:2: "):
        sync()


def test_the_store_is_in_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(inner)
    assert store.tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    # A queued DVC experiment runs in a copy of the repository within the repository.
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "real"))
    assert store.tracking_uri() == f"sqlite:///{tmp_path}/real/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert store.tracking_uri() == "http://server:5000"


def test_experiments_are_named_by_corpus_and_direction() -> None:
    names = [
        runs.experiment_name(describe() | {"corpus": c}) for c in ("bundled", "multi30k-en-fr")
    ]
    assert names == ["bundled en-fr", "multi30k-en-fr"]


def test_the_report_is_a_run_of_its_own_and_its_page_finds_the_others(root: Path) -> None:
    write_outputs(made_up_history())
    sync()
    (of_model,) = all_runs(root)
    folder = Path("reports/tiny")
    (folder / "figures").mkdir()
    (folder / "figures/attention-01.svg").write_text("<svg/>")
    (folder / "index.html").write_text("<p>")
    (folder / "claims.md").write_text("# claims\n")
    (folder / "claims.json").write_text('{"a": {"verdict": "not supported"}}')
    (folder / "ablation.md").write_text("# one setting at a time\n")
    (folder / "comparison.json").write_text("{}")
    for _ in range(2):
        sync()
    client = client_of(root)
    (summary,) = (run for run in all_runs(root) if run.info.run_name == "summary")
    assert summary.data.metrics == {"claims/not_supported": 1}
    kept = {file.path for file in client.list_artifacts(summary.info.run_id)}
    linked = {"ablation.md", "comparison.json"}  # by the page
    assert kept == {"index.html", "claims.md", "claims.json", "comparison.md", "figures", *linked}
    pictures = client.list_artifacts(of_model.info.run_id, "pictures")
    assert [file.path for file in pictures] == ["pictures/attention-01.svg"]
    links = (folder / "mlflow-runs.js").read_text()
    assert '"lstm-1": "http://127.0.0.1:5000/#/experiments/' in links
    assert f"/runs/{of_model.info.run_id}" in links
    assert summary.info.run_id not in links
    (folder / "claims.json").write_text('{"a": {"verdict": "supported"}}')
    sync()
    (summary,) = (run for run in all_runs(root) if run.info.run_name == "summary")
    assert summary.data.metrics == {"claims/not_supported": 0, "claims/supported": 1}
    settings = json.loads(Path("models/tiny/lstm-1/settings.json").read_text("utf-8"))
    changed = settings | {"fingerprint": "of a later training"}
    Path("models/tiny/lstm-1/settings.json").write_text(json.dumps(changed), "utf-8")
    sync()
    current = {run.info.run_id: run.data.tags.get("current") for run in all_runs(root)}
    assert current.pop(of_model.info.run_id) == "false"
    assert current.pop(summary.info.run_id) is None
    assert list(current.values()) == ["true"]


def test_a_file_name_that_is_no_utf8_is_a_change_like_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    person = ("-c", "user.name=me", "-c", "user.email=me@localhost")
    for command in (["init"], ["config", "core.quotepath", "false"]):
        subprocess.run(["git", *command], check=True, capture_output=True)
    subprocess.run(["git", *person, "commit", "--allow-empty", "-m", "one"], check=True)
    with open(os.fsencode(tmp_path) + b"/caf\xe9.py", "w", encoding="utf-8"):
        pass
    assert runs.git_tags.__wrapped__()["git.dirty"] == "true"
