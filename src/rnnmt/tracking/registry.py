"""MLflow's registry of models: versions of one name, of which aliases tell what they are for.

`champion` is the model in use, `challenger` the last one that has passed the gate. A version has
its scores, sums of data, commit and signatures as tags, and the evidence that it was judged by
among its files.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnmt.addresses import shown
from rnnmt.errors import UserError
from rnnmt.scoring.gate import Evidence
from rnnmt.tracking import runs, store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER = "champion", "challenger"
MODEL_FILES = ("settings.json", "source.model", "target.model", "weights.pt")
REPLACED, ROLLED_BACK, FINGERPRINT = "replaced", "rolled_back", "fingerprint"  # tags


def model_name(about: dict[str, Any]) -> str:
    """`bundled-en-fr`: what the registry calls the models of a corpus and direction."""
    return runs.experiment_name(about).replace(" ", "-")


class Registry:
    """The versions of one model's name."""

    def __init__(self, client: MlflowClient | None, name: str) -> None:
        self._client = client  # None: a database that does not exist
        self.name = name

    def champion(self) -> ModelVersion | None:
        """The version in use."""
        return self.by_alias(CHAMPION)

    def by_alias(self, alias: str) -> ModelVersion | None:
        """The version that an alias stands for."""
        from mlflow.exceptions import MlflowException

        if self._client is None:
            return None
        try:
            return self._client.get_model_version_by_alias(self.name, alias)
        except MlflowException as error:
            # A server that is away must not look like a registry without a champion.
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    def version(self, number: str) -> ModelVersion:
        """A version by its number. Raises UserError where there is none."""
        if self._client is None:
            raise UserError(f"{self.name} {number}: there is no registry yet")
        from mlflow.exceptions import MlflowException

        try:
            return self._open.get_model_version(self.name, number)
        except MlflowException as error:
            raise UserError(f"{self.name} {number}: {store.reason(error)}") from None

    def find(self, fingerprint: str) -> ModelVersion | None:
        """The newest version that is the model of this fingerprint."""
        if self._client is None:
            return None
        found = self._client.search_model_versions(
            f"name = '{self.name}' AND tags.`{FINGERPRINT}` = '{fingerprint}'"
        )
        return max(found, key=lambda version: int(version.version), default=None)

    def register(self, evidence: Evidence, folder: Path) -> ModelVersion:
        """A new version of the model in `folder`, with what is known of it."""
        from mlflow.exceptions import MlflowException

        with contextlib.suppress(MlflowException):  # that it exists already
            self._open.create_registered_model(self.name)
        logged, run_id = _log(self._open, evidence, folder)
        return self._open.create_model_version(
            self.name,
            logged.model_uri,
            run_id,
            tags=_tags(evidence),
            model_id=logged.model_id,
        )

    def alias(self, name: str, version: ModelVersion) -> None:
        """Let the alias stand for this version and no other."""
        self._open.set_registered_model_alias(self.name, name, version.version)

    def crown(self, version: ModelVersion) -> None:
        """Make it the champion, and note which version it takes the place of."""
        before = self.champion()
        if before and before.version != version.version:
            self.tag(version, REPLACED, str(before.version))
        self.alias(CHAMPION, version)
        challenger = self.by_alias(CHALLENGER)
        if challenger and challenger.version == version.version:
            self._open.delete_registered_model_alias(self.name, CHALLENGER)

    def tag(self, version: ModelVersion, key: str, value: str) -> None:
        """Set a tag of a version."""
        self._open.set_model_version_tag(self.name, version.version, key, value)

    def evidence(self, version: ModelVersion) -> Evidence:
        """What a version was judged by."""
        with self._downloaded(version, "artifacts/evidence") as folder:
            return Evidence.read(folder)

    @contextlib.contextmanager
    def model_folder(self, version: ModelVersion) -> Iterator[Path]:
        """The model's own folder, as long as the context lasts."""
        with self._downloaded(version, "artifacts/model") as folder:
            yield folder

    @property
    def _open(self) -> MlflowClient:
        assert self._client is not None
        return self._client

    @contextlib.contextmanager
    def _downloaded(self, version: ModelVersion, part: str) -> Iterator[Path]:
        from mlflow.artifacts import download_artifacts

        uri = self._open.get_model_version_download_uri(self.name, version.version)
        with tempfile.TemporaryDirectory() as folder:
            download_artifacts(
                artifact_uri=f"{uri}/{part}",
                dst_path=folder,
                tracking_uri=self._open.tracking_uri,
            )
            yield Path(folder, part.rpartition("/")[2])


@contextlib.contextmanager
def referred(reference: str) -> Iterator[tuple[Registry, ModelVersion]]:
    """The version that `models:/NAME@ALIAS` or `models:/NAME/VERSION` speaks of.

    Raises UserError where there is none, or where MLflow cannot be used.
    """
    found = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))", reference)
    if not found:
        raise UserError(f"{reference}: expected models:/NAME@champion or models:/NAME/VERSION")
    name, alias, number = found.groups()
    with opened(name, read_only=True) as models:
        version = models.by_alias(alias) if alias else models.version(number)
        if version is None:
            raise UserError(f"{reference}: no such model in {shown(store.tracking_uri())}")
        yield models, version


@contextlib.contextmanager
def opened(name: str, read_only: bool = False) -> Iterator[Registry]:
    """The registry's models of this name. `read_only` makes no database, and locks none.

    Raises UserError where MLflow cannot be used.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    uri = store.tracking_uri()
    if read_only and not store.exists(uri):
        yield Registry(None, name)
        return
    try:
        with store.impatient(60, 2):
            # Nobody else waits for a whole promotion: who was promoted meanwhile, it looks itself.
            with contextlib.nullcontext() if read_only else store.alone(uri):
                client = store.connect(uri)
            yield Registry(client, name)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        at, reason = shown(uri), store.reason(error)
        raise UserError(f"cannot use MLflow at {at}: {reason}") from None


def _log(client: MlflowClient, evidence: Evidence, folder: Path) -> tuple[Any, str | None]:
    """Store the model's files in its experiment. Returns them, and the run of its training."""
    import mlflow

    experiment = store.experiment(client, runs.experiment_name(evidence.about))
    found = runs.find(client, experiment, evidence.about)
    mlflow.set_tracking_uri(client.tracking_uri)
    mlflow.set_experiment(experiment_id=experiment)
    with tempfile.TemporaryDirectory() as kept, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that an example would be of use
        evidence.write(Path(kept, "evidence"))
        Path(kept, "model").mkdir()
        for name in MODEL_FILES:
            shutil.copyfile(folder / name, Path(kept, "model", name))
        logged = mlflow.pyfunc.log_model(
            name=evidence.label,
            python_model=str(Path(__file__).with_name("pyfunc.py")),
            artifacts={part: str(Path(kept, part)) for part in ("model", "evidence")},
            model_config={"max_length_ratio": evidence.decode["max_length_ratio"]},
            signature=_signature(evidence.decode),
            pip_requirements=["rnnmt"],
        )
    return logged, found[0].info.run_id if found else None


def _signature(decode: dict[str, Any]) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema

    return ModelSignature(
        Schema([ColSpec("string")]),
        Schema([ColSpec("string")]),
        ParamSchema(
            [
                ParamSpec("beam", "long", decode["beam"]),
                ParamSpec("nbest", "long", 1),
                ParamSpec("length_penalty", "double", decode["length_penalty"]),
                ParamSpec("alignments", "boolean", False),
            ]
        ),
    )


def _tags(evidence: Evidence) -> dict[str, str]:
    about = evidence.about
    tags = {
        name: str(about[name]) for name in ("corpus", "variant", "seed", "data", FINGERPRINT)
    } | {"git.commit": evidence.commit, "sentences_per_second": str(evidence.sentences_per_second)}
    tags |= {f"data.{split}": total for split, total in evidence.sums.items()}
    tags |= {f"signature.{name}": signature for name, signature in evidence.signatures.items()}
    return tags | {
        f"score.{split}.{name}": str(points)
        for split, points_of in evidence.scores.items()
        for name, points in points_of.items()
    }
