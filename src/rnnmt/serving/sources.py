"""Where `rnnmt serve` takes its model from: a folder, or MLflow's registry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rnnmt.errors import UserError
from rnnmt.model.folder import load_model
from rnnmt.search.answers import Search
from rnnmt.search.translator import Translator
from rnnmt.serving.batching import Model
from rnnmt.serving.service import Source


def source(reference: str, poll_seconds: float) -> Source:
    """The source that `--model` names."""
    if reference.startswith("models:/"):
        return _Registered(reference, poll_seconds)
    return _Folder(Path(reference))


class _Folder:
    """A model's folder; SIGHUP loads what is there then."""

    poll_seconds = None

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self, current: str | None) -> Model | None:
        file = self._path / "settings.json"
        try:
            there = self._name(json.loads(file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise UserError(f"{file}: no such file; is {self._path} a model's folder?") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file}: not a model's settings ({error})") from None
        if there == current:
            return None
        trained = load_model(self._path)  # which may be another one by now
        return Model(self._name(trained.settings), Translator(trained), Search())

    def _name(self, settings: dict[str, Any]) -> str:
        fingerprint = str(settings["fingerprint"])[:12]
        return f"{self._path.parent.name}/{self._path.name} {fingerprint}"


class _Registered:
    """A version of MLflow's registry. Whoever moves the alias changes the model."""

    def __init__(self, reference: str, poll_seconds: float) -> None:
        self._reference = reference
        self.poll_seconds = poll_seconds if "@" in reference else None

    def load(self, current: str | None) -> Model | None:
        from rnnmt.tracking.registry import FINGERPRINT, referred

        with referred(self._reference) as (models, version):
            # Not the number alone: after the loss of a database they begin at 1 again.
            fingerprint = version.tags.get(FINGERPRINT, "")[:12]
            name = f"{models.name} {version.version} {fingerprint}"
            if name == current:
                return None
            decode = models.evidence(version).decode
            with models.model_folder(version) as folder:
                translator = Translator(load_model(folder), decode["max_length_ratio"])
        search = Search(beam=decode["beam"], length_penalty=decode["length_penalty"])
        return Model(name, translator, search)
