"""`rnnmt sync`: make MLflow hold one complete run for each model that DVC has made.

Everything is taken from the files of the stages train, decode, evaluate, compare and report. A run
that the training itself has logged is completed; one that is missing is made; one more, `summary`,
holds the report. A second sync adds nothing.
"""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnmt import params
from rnnmt.addresses import shown
from rnnmt.errors import UserError, run_stage
from rnnmt.scoring.comparison import rate
from rnnmt.scoring.settings import SEARCHES
from rnnmt.tracking import runs, store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

EXAMPLES = 20  # sentences of each test set
SUMMARY = "summary"  # the name of the run that holds the report
UI = "http://127.0.0.1:5000"  # where `make ui` shows a database
UNTRAINED = "not trained yet"
# What a stage waits for MLflow: for an answer, and in all.
REQUEST_SECONDS, STAGE_SECONDS = 3, 60


def main() -> None:
    """`python -m rnnmt.tracking.sync`: a sync without patience."""
    sync(REQUEST_SECONDS, retries=0)


def sync_or_warn() -> None:
    """`sync` for a stage: where it fails or takes long, that is a warning and no more.

    In a process of its own, which can be ended whatever it waits for.
    """
    command = [sys.executable, "-m", "rnnmt.tracking.sync"]
    try:
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=STAGE_SECONDS)
        ended = f"it ended with code {done.returncode}"  # killed, it has said nothing
        error = (done.stderr.strip() or ended) if done.returncode else ""
    except subprocess.TimeoutExpired:
        error = f"no answer for {STAGE_SECONDS} seconds"
    if error:
        reason = error.splitlines()[-1].removeprefix("rnnmt: error: ")
        print(
            "rnnmt: warning: the runs in MLflow are not complete; "
            f"`{store.sync_command()}` will add what is missing ({reason})",
            file=sys.stderr,
        )


def sync(request_seconds: int = 30, retries: int = 1) -> None:
    """Bring MLflow up to date with the outputs of every variant and seed of the settings file.

    Prints a line for each. Raises UserError where a file is damaged or where the tracking server
    or database cannot be used.
    """
    # From the settings, never from a listing: outputs of removed variants may still be there.
    labels = [f"{variant}-{seed}" for variant in params.variants() for seed in params.seeds()]
    found = {label: read_outputs(params.corpus_name(), label) for label in labels}
    report = read_report(params.corpus_name())
    uri = store.tracking_uri()
    synced = store.synced(uri)
    done = all(outputs is None or outputs.digest() in synced for outputs in found.values())
    if done and (report is None or (report.digest() in synced and report.links.exists())):
        _say_up_to_date(uri, found)
        return
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with store.impatient(request_seconds, retries), store.alone(uri):
            client = store.connect(uri)
            experiments = _sync_all(client, found)
            if report is not None and experiments:
                models = [outputs for outputs in found.values() if outputs]
                sync_report(client, experiments[0], report, models)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        at, reason = shown(uri), store.reason(error)
        raise UserError(f"cannot use MLflow at {at}: {reason}") from None


def _say_up_to_date(uri: str, found: Mapping[str, Outputs | None]) -> None:
    for label, outputs in found.items():
        print(f"{label}: {'up to date' if outputs else UNTRAINED}")
    for name in dict.fromkeys(runs.experiment_name(o.description) for o in found.values() if o):
        print(_where(uri, name))


def _sync_all(client: MlflowClient, found: Mapping[str, Outputs | None]) -> list[str]:
    """Returns the ids of the experiments, of which one corpus has one."""
    experiments: dict[str, str] = {}  # name -> id
    for label, outputs in found.items():
        if outputs is None:
            print(f"{label}: {UNTRAINED}")
            continue
        name = runs.experiment_name(outputs.description)
        if name not in experiments:
            experiments[name] = store.experiment(client, name)
        print(f"{label}: {sync_run(client, experiments[name], outputs)}", flush=True)
    for name, experiment in experiments.items():
        print(_where(client.tracking_uri, name, experiment))
    return list(experiments.values())


def _where(uri: str, name: str, experiment: str = "") -> str:
    if uri.startswith("http"):
        return f"MLflow experiment '{name}': {shown(uri)}/#/experiments/{experiment}"
    return f"MLflow experiment '{name}' in {shown(uri)}; to look at it: make ui"


@dataclass(frozen=True)
class Outputs:
    """What the pipeline has written about one model."""

    description: runs.Description
    rows: list[dict[str, float]]  # of history.csv
    results: dict[str, float]  # metrics of the whole training, and of its translations
    artifacts: dict[str, str]  # file name -> text
    epoch_seconds: list[float]
    ended: float  # seconds since 1970

    @property
    def label(self) -> str:
        return runs.label(self.description)

    def digest(self) -> str:
        """Of everything that is logged, but for times: a checkout changes those of files."""
        values = asdict(self) | {"ended": 0, "parameters": runs.parameters(self.description)}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def epoch_ends(self) -> list[float]:
        """When each epoch ended, as if the training had never been interrupted."""
        left, ends = self.ended, []
        for seconds in reversed(self.epoch_seconds):
            ends.append(left)
            left -= seconds
        return ends[::-1]


def read_outputs(corpus: str, label: str) -> Outputs | None:
    """What there is of a model; None before it is trained. Raises UserError for damaged files."""
    model, reports = Path("models", corpus, label), Path("reports", corpus)
    description, rows = _json(model / "settings.json"), _rows(model / "history.csv")
    summary = _json(model / "summary.json")
    if not (description and rows and summary):
        return None
    if "fingerprint" not in description:
        raise UserError(
            f"{model / 'settings.json'}: no fingerprint; run: {params.remake(f'train@{label}')}"
        )
    translations = reports / "translations" / label
    scores = reports / "scores" / f"{label}.json"
    files = [model / "history.csv", model / "settings.json", scores, reports / "comparison.md"]
    return Outputs(
        description,
        rows,
        _training_results(summary)
        | _decoding_results(_json(translations / "summary.json"))
        | _scores(_json(scores)),
        {file.name: text for file in files if (text := _text(file)) is not None}
        | dict(_examples(translations, Path("data", corpus, "tokens")))
        | dict(_pictures(reports / "figures")),
        summary["epoch_seconds"],
        (model / "summary.json").stat().st_mtime,
    )


def _training_results(summary: dict[str, Any]) -> dict[str, float]:
    return {
        "best/epoch": summary["best_epoch"],
        "best/val_loss": summary["best"]["val/loss"],
        "best/val_perplexity": summary["best"]["val/perplexity"],
        "best/val_bleu": summary["best"]["val/bleu"],
        "model/parameters": summary["parameters"],
        "time/train_s": summary["seconds"],
        "time/train_tokens_per_s": summary["target_tokens_per_second"],
        "memory/train_mb": summary["memory_mb"],
    }


def _decoding_results(summary: dict[str, Any]) -> dict[str, float]:
    """Sentences a second of both searches, as the comparison has them."""
    if not summary.get("splits"):
        return {}
    return {
        f"time/{search}_sentences_per_s": round(rate(summary, search), 1) for search in SEARCHES
    }


def _scores(scores: dict[str, Any]) -> dict[str, float]:
    """`test/bleu`, `test/bleu_greedy`, ... of every test set."""
    # `val/bleu` is greedy search after each epoch: the chosen model's beam search goes by `best/`.
    names = {"valid/bleu": "best/val_bleu_beam"}
    flat = {f"{split}/{k}": v for split, of_split in scores.items() for k, v in of_split.items()}
    return {names.get(name, name): value for name, value in flat.items()}


def _examples(translations: Path, tokens: Path) -> Iterator[tuple[str, str]]:
    """The first sentences of each test set as text: source, reference and translations."""
    for file in sorted(translations.glob("test*.beam.txt")):
        split = file.name.removesuffix(".beam.txt")
        texts = {
            "source": tokens / f"{split}.source.txt",
            "reference": tokens / f"{split}.target.txt",
            "greedy": translations / f"{split}.greedy.txt",
            "beam": file,
        }
        columns = {
            name: text.removesuffix("\n").split("\n")[:EXAMPLES]
            for name, path in texts.items()
            if (text := _text(path)) is not None  # the data may not be here
        }
        blocks = (
            "".join(f"{name + ':':11}{line}\n" for name, line in zip(columns, lines, strict=True))
            for lines in zip(*columns.values(), strict=False)
        )
        yield f"examples/{split}.txt", "\n".join(blocks)


def _pictures(folder: Path) -> Iterator[tuple[str, str]]:
    """Attention and gates over example sentences, of all variants side by side."""
    for kind in ("attention", "gates"):
        for file in sorted(folder.glob(f"{kind}-[0-9]*.svg")):
            if (text := _text(file)) is not None:
                yield f"pictures/{file.name}", text


@dataclass(frozen=True)
class Report:
    """What the stage `report` has written."""

    corpus: str
    artifacts: dict[str, str]  # file name -> text

    @property
    def links(self) -> Path:
        """A script beside the page, which is in no repository: the page links runs by it."""
        return Path("reports", self.corpus, "mlflow-runs.js")

    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def verdicts(self) -> dict[str, int]:
        """How many claims have each verdict, as metrics."""
        claims = json.loads(self.artifacts["claims.json"]).values()
        names = [f"claims/{claim['verdict'].replace(' ', '_')}" for claim in claims]
        return {name: names.count(name) for name in sorted(set(names))}


def read_report(corpus: str) -> Report | None:
    """None before there is a report."""
    folder = Path("reports", corpus)
    names = ["index.html", "claims.md", "claims.json", "comparison.md"]
    linked = [folder / name for name in ("ablation.md", "comparison.json")]  # by the page
    files = [*(folder / name for name in names), *linked]
    files += sorted((folder / "figures").glob("*.svg"))
    texts = {str(file.relative_to(folder)): _text(file) for file in files}
    if any(texts[name] is None for name in names):
        return None
    return Report(corpus, {name: text for name, text in texts.items() if text is not None})


def sync_report(
    client: MlflowClient, experiment: str, report: Report, models: Iterable[Outputs]
) -> None:
    """Make or renew the run that holds the report, and the links from the page to the runs.

    `models` are those that the report speaks of: their runs alone are tagged as `current`, since
    means over an experiment's runs would mix them with earlier trainings and variants.
    """
    found = client.search_runs([experiment], f"tags.kind = '{SUMMARY}'")
    runs.supersede(client, found[1:])  # of two syncs at once
    tags = {"kind": SUMMARY, "corpus": report.corpus, "mlflow.source.name": "rnnmt sync"}
    run = found[0] if found else client.create_run(experiment, run_name=SUMMARY, tags=tags)
    run_id, digest = run.info.run_id, report.digest()
    if run.data.tags.get("synced") != digest:
        client.set_tag(
            run_id, "mlflow.note.content", "The report, `index.html`, and what it is made of."
        )
        gone = {name: 0 for name in run.data.metrics if name.startswith("claims/")}
        for name, value in (gone | report.verdicts()).items():
            client.log_metric(run_id, name, value)
        for name, text in report.artifacts.items():
            client.log_text(run_id, text, name)
        client.set_terminated(run_id, "FINISHED")
        client.set_tag(run_id, "synced", digest)
        print(f"{SUMMARY}: {'completed' if found else 'created'}")
    own = {model.description["fingerprint"] for model in models}
    every = runs.every(client, experiment)
    for one in every:
        tags = one.data.tags
        current = tags.get("fingerprint") in own and tags.get("superseded") != "true"
        if tags.get("current") != (said := str(current).lower()) and "fingerprint" in tags:
            client.set_tag(one.info.run_id, "current", said)
    others = [one for one in every if one.data.tags.get("fingerprint") in own]
    base = shown(client.tracking_uri) if client.tracking_uri.startswith("http") else UI
    at = {
        str(one.info.run_name): f"{base}/#/experiments/{experiment}/runs/{one.info.run_id}"
        for one in reversed(others)  # the newest of a name comes first
        if one.data.tags.get("superseded") != "true"
    }
    part = report.links.with_name(f".{report.links.name}")
    part.write_text(f"linkRuns({json.dumps(at, indent=1, sort_keys=True)});\n", encoding="utf-8")
    part.replace(report.links)  # whole, or not there and made anew


def sync_run(client: MlflowClient, experiment: str, outputs: Outputs) -> str:
    """Make or complete the run of a model. Returns what was done, in words."""
    found = runs.find(client, experiment, outputs.description)
    if found and _of_another_machine(client, found[0], outputs):
        runs.supersede(client, found)
        found = []
    runs.supersede(client, found[1:])
    digest = outputs.digest()
    if not found:
        started = outputs.ended - sum(outputs.epoch_seconds)
        tags = {"mlflow.source.name": "rnnmt sync", "dvc.stage": f"train@{outputs.label}"}
        run = runs.create(client, experiment, outputs.description, started, tags)
        done = "created"
    elif found[0].data.tags.get("synced") == digest and found[0].info.status == "FINISHED":
        return "up to date"
    else:
        run, done = found[0], "completed"
    _complete(client, run, outputs)
    # Last, so that a sync that was interrupted is done again.
    client.set_tag(run.info.run_id, "synced", digest)
    return done


def _complete(client: MlflowClient, run: Run, outputs: Outputs) -> None:
    run_id = run.info.run_id
    runs.describe(client, run, outputs.description)
    runs.log_metrics(client, run_id, _missing_metrics(client, run, outputs))
    for name, text in outputs.artifacts.items():
        client.log_text(run_id, text, name)
    if run.info.status != "FINISHED":
        client.set_terminated(run_id, "FINISHED", round(outputs.ended * 1000))


def _of_another_machine(client: MlflowClient, run: Run, outputs: Outputs) -> bool:
    """Whether the run's validations are not those of the model that is here.

    Other kinds of processors differ in the last digits, and so in what becomes of them.
    """
    name = "val/loss"
    if name not in run.data.metrics:
        return False
    logged = runs.history(client, run.info.run_id, name)
    own = {int(row["step"]): row[name] for row in outputs.rows}
    return any(step in own and own[step] != value for step, value in logged.items())


def _missing_metrics(client: MlflowClient, run: Run, outputs: Outputs) -> Iterator[Metric]:
    from mlflow.entities import Metric

    known = run.data.metrics
    for name in (column for column in outputs.rows[0] if column != "step"):
        steps = runs.history(client, run.info.run_id, name) if name in known else {}
        for row, end in zip(outputs.rows, outputs.epoch_ends(), strict=True):
            if int(row["step"]) not in steps:
                yield Metric(name, row[name], round(end * 1000), int(row["step"]))
    # MLflow draws bars, one for each run, of metrics that have step 0 alone.
    for name, value in outputs.results.items():
        if known.get(name) != value:
            # Of values with one step and time, MLflow takes the highest for the latest.
            at = max(outputs.ended, time.time()) if name in known else outputs.ended
            yield Metric(name, float(value), round(at * 1000), 0)


def _rows(path: Path) -> list[dict[str, float]]:
    rows = csv.DictReader((_text(path) or "").splitlines())
    try:
        return [{name: float(value) for name, value in row.items()} for row in rows]
    except (TypeError, ValueError):
        raise UserError(f"{path}:{rows.line_num}: expected numbers; repeat the training") from None


def _json(path: Path) -> dict[str, Any]:
    """The object in a file, empty where there is no file."""
    text = _text(path)
    try:
        values = json.loads(text or "{}")
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}); make it again: {params.remake('')}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a JSON object; make it again: {params.remake('')}")
    return values


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8: {error}") from None


if __name__ == "__main__":
    run_stage(main)
