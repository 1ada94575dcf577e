"""What a run is in MLflow: how it is named and described, and how it is found again.

One experiment for each corpus and direction, in it one run for each variant, seed and
fingerprint. A run is described by the `settings.json` of its training.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Metric, Run

Description = dict[str, Any]  # settings.json
# Outputs of the pipeline that are in git: they do not make the code another one.
_OUTPUTS = (":!dvc.lock", ":!recipes/*/dvc.*", ":!reports")


def label(description: Description) -> str:
    """`lstm-attention-1`: the name of a run."""
    return f"{description['variant']}-{description['seed']}"


def experiment_name(description: Description) -> str:
    """`bundled en-fr`, or the corpus alone where its name says the direction."""
    corpus, direction = str(description["corpus"]), _direction(description)
    return corpus if corpus.endswith(direction) else f"{corpus} {direction}"


def find(client: MlflowClient, experiment: str, description: Description) -> list[Run]:
    """The runs of this fingerprint that are not superseded, the newest first."""
    runs = client.search_runs(
        [experiment],
        f"tags.fingerprint = '{description['fingerprint']}'",
        order_by=["attributes.start_time DESC"],
    )
    return [run for run in runs if run.data.tags.get("superseded") != "true"]


def every(client: MlflowClient, experiment: str) -> list[Run]:
    """All runs of an experiment, however many pages of them there are, the newest first."""
    found: list[Run] = []
    token = None
    while True:
        page = client.search_runs([experiment], page_token=token)
        found += page
        if not (token := page.token):
            return found


def supersede(client: MlflowClient, runs: Iterable[Run]) -> None:
    """Mark runs that another one of the same fingerprint stands for."""
    for run in runs:
        client.set_tag(run.info.run_id, "superseded", "true")


def create(
    client: MlflowClient,
    experiment: str,
    description: Description,
    started: float,
    tags: Mapping[str, str],
) -> Run:
    """A new run in state RUNNING, which began at `started`, in seconds since 1970."""
    return client.create_run(
        experiment,
        start_time=round(started * 1000),
        tags=_tags(description) | git_tags() | dict(tags),
        run_name=label(description),
    )


def describe(client: MlflowClient, run: Run, description: Description) -> None:
    """Give a run its parameters and its dataset, where it does not have them yet."""
    from mlflow.entities import Param

    known = run.data.params
    new = [Param(k, v) for k, v in parameters(description).items() if k not in known]
    if new:
        client.log_batch(run.info.run_id, params=new)
    if not (run.inputs and run.inputs.dataset_inputs):
        client.log_inputs(run.info.run_id, datasets=[_dataset(description)])


def parameters(description: Description) -> dict[str, str]:
    """The settings under the names that they have in an entry of `variants`, plain numbers."""
    sizes = {f"vocabulary_{key}": value for key, value in description["vocabularies"].items()}
    values = {
        "variant": description["variant"],
        "seed": description["seed"],
        "threads": description["threads"],
        **description["model"],
        **description["train"],
        **sizes,
    }
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}


def log_metrics(client: MlflowClient, run_id: str, metrics: Iterable[Metric]) -> None:
    """Log metrics in as few requests as MLflow allows."""
    rest = iter(metrics)
    while chunk := list(islice(rest, 1000)):
        client.log_batch(run_id, metrics=chunk)


def history(client: MlflowClient, run_id: str, name: str) -> dict[int, float]:
    """A run's values of a metric, by step."""
    return {metric.step: metric.value for metric in client.get_metric_history(run_id, name)}


def _direction(description: Description) -> str:
    return f"{description['source_language']}-{description['target_language']}"


def _tags(description: Description) -> dict[str, str]:
    return {
        "variant": description["variant"],
        "cell": description["model"]["cell"],
        "attention": description["model"]["attention"],
        "seed": str(description["seed"]),
        "corpus": description["corpus"],
        "direction": _direction(description),
        "data": description["data"],
        "fingerprint": description["fingerprint"],
    }


@cache
def git_tags() -> dict[str, str]:
    """The commit that runs, and whether its files have changes; nothing outside of git."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return {}
    changes = _git("status", "--porcelain", "--", ".", *_OUTPUTS)
    dirty = "unknown" if changes is None else str(bool(changes)).lower()
    # MLflow's interface shows its own tag in the column "Version".
    return {"git.commit": commit, "git.dirty": dirty, "mlflow.source.git.commit": commit}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return os.fsdecode(done.stdout).strip() if done.returncode == 0 else None


def _dataset(description: Description) -> DatasetInput:
    """The token ids that were trained on: where they came from, their digest and their counts."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    folder = Path("data", description["corpus"])
    tokens = folder / "tokens"
    manifest = _manifest(tokens)
    profile = {
        f"{split} {name}": value
        for split, counts in manifest.get("splits", {}).items()
        for name, value in _counts(counts)
    }
    if manifest.get("sha256") != description["data"]:
        profile = {}  # of other data, or of none that are here
    origin = [at for at in _manifest(folder / "raw").get("origin", []) if "://" in at]
    source = {"url": origin[0]} if origin else {"uri": str(tokens)}
    dataset = Dataset(
        name=description["corpus"],
        digest=description["data"][:36],  # MLflow's limit
        source_type="http" if origin else "local",
        source=json.dumps(source),
        profile=json.dumps(profile),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def _counts(counts: dict[str, Any]) -> Iterator[tuple[str, int]]:
    yield "pairs", counts["kept"]
    for side, tokens in counts["tokens"].items():
        yield f"{side} tokens", tokens


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        values = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # data that were not pulled
    return values if isinstance(values, dict) else {}
