"""The folder that a model is kept in: it loads with nothing else, without Lightning or pickle.

weights.pt      the parameters by name, read with weights_only=True
settings.json   what the model was built and trained from
source.model    SentencePiece tokenizers
target.model
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rnnmt.dataset.tokenizer import Tokenizer
from rnnmt.errors import UserError
from rnnmt.model.seq2seq import Seq2Seq, Vocabularies
from rnnmt.model.settings import ModelSettings


class TrainedModel(NamedTuple):
    model: Seq2Seq  # in evaluation mode
    source: Tokenizer
    target: Tokenizer
    settings: dict[str, Any]  # settings.json


def save_model(folder: Path, model: Seq2Seq, settings: dict[str, Any], tokens: Path) -> None:
    """Write a model's folder; `settings["model"]` and `["vocabularies"]` must rebuild it."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.detach() for name, weight in sorted(model.state_dict().items())}
    torch.save(weights, folder / "weights.pt")
    (folder / "settings.json").write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n")
    for side in ("source", "target"):
        shutil.copyfile(tokens / f"{side}.model", folder / f"{side}.model")


def load_model(folder: str | os.PathLike[str]) -> TrainedModel:
    """Read a model's folder. Raises UserError where a file is missing or does not fit."""
    folder = Path(folder)
    try:
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        weights = _weights(folder / "weights.pt")
        model = _build(settings, weights)
        source, target = (Tokenizer(folder / f"{side}.model") for side in ("source", "target"))
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: no such file; is {folder} a model's folder?") from None
    except Exception as error:  # a damaged file can raise nearly anything while it is read
        raise UserError(f"{folder}: not a model that this version can read: {error}") from None
    sizes = settings["vocabularies"]
    if (source.vocabulary_size, target.vocabulary_size) != (sizes["source"], sizes["target"]):
        raise UserError(f"{folder}: the tokenizers are not those that the model was trained with")
    return TrainedModel(model.eval(), source, target, settings)


def _build(settings: dict[str, Any], weights: dict[str, torch.Tensor]) -> Seq2Seq:
    """The model of settings.json with these weights. Raises ValueError where they do not fit."""
    parts = (
        ModelSettings.model_validate(settings["model"]),
        Vocabularies(**settings["vocabularies"]),
    )
    # Without memory at first: settings may ask for any size.
    with torch.device("meta"):
        wanted = {name: weight.shape for name, weight in Seq2Seq(*parts).state_dict().items()}
    if {name: weight.shape for name, weight in weights.items()} != wanted:
        raise ValueError("weights.pt does not fit settings.json")
    model = Seq2Seq(*parts)
    model.load_state_dict(weights)
    return model


def _weights(file: Path) -> dict[str, torch.Tensor]:
    try:
        weights: dict[str, torch.Tensor] = torch.load(file, weights_only=True)
    except FileNotFoundError:
        raise
    except Exception:  # torch's own message would advise to load what may hold code
        raise UserError(f"{file}: damaged, or not plain weights") from None
    return weights
