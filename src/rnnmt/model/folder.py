"""The folder that a model is kept in: it loads with nothing else, without Lightning or pickle.

weights.pt      the parameters by name, read with weights_only=True
source.model    SentencePiece tokenizers
target.model
settings.json   what the model was built and trained from, and the sums of the other files
"""

from __future__ import annotations

import hashlib
import json
import os
import pickletools
import shutil
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode

from rnnmt.dataset.tokenizer import Tokenizer
from rnnmt.errors import UserError
from rnnmt.model.seq2seq import Seq2Seq, Vocabularies
from rnnmt.model.settings import ModelSettings

WEIGHTS, SOURCE, TARGET = FILES = ("weights.pt", "source.model", "target.model")
# Of the model, counted on with each change of them in which earlier weights would still fit, and
# say something else.
EQUATIONS = 2
# What the pickle of plain weights calls; torch itself would also let it make, say, a bytearray
# of any size.
_CALLED = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    *(f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16")),
}


class TrainedModel(NamedTuple):
    model: Seq2Seq  # in evaluation mode
    source: Tokenizer
    target: Tokenizer
    settings: dict[str, Any]  # settings.json


def save_model(folder: Path, model: Seq2Seq, settings: dict[str, Any], tokens: Path) -> None:
    """Write a model's folder; `settings["model"]` and `["vocabularies"]` must rebuild it."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.detach() for name, weight in sorted(model.state_dict().items())}
    torch.save(weights, folder / WEIGHTS)
    for name in (SOURCE, TARGET):
        shutil.copyfile(tokens / name, folder / name)
    settings = settings | {"equations": EQUATIONS, "files": sums(folder)}
    text = json.dumps(settings, indent=1, sort_keys=True)
    (folder / "settings.json").write_text(text + "\n")


def sums(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a model, but for settings.json, in hexadecimal digits."""
    found = {}
    for name in FILES:
        with open(folder / name, "rb") as file:
            found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def load_model(folder: str | os.PathLike[str]) -> TrainedModel:
    """Read a model's folder. Raises UserError where a file is missing or does not fit."""
    folder = Path(folder)
    try:
        settings = _settings(folder)
        model = _build(settings, _weights(folder / WEIGHTS))
        source, target = (Tokenizer(folder / name) for name in (SOURCE, TARGET))
    except UserError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything while it is read
        raise UserError(f"{folder}: not a model that this version can read: {error}") from None
    sizes = settings["vocabularies"]
    if (source.vocabulary_size, target.vocabulary_size) != (sizes["source"], sizes["target"]):
        raise UserError(f"{folder}: the tokenizers are not those that the model was trained with")
    return TrainedModel(model.eval(), source, target, settings)


def _settings(folder: Path) -> dict[str, Any]:
    """settings.json, of which the other files are known to be."""
    for name in ("settings.json", *FILES):
        if not (folder / name).is_file():  # a pipe would be waited for
            raise UserError(f"{folder / name}: no such file; is {folder} a model's folder?")
    settings: dict[str, Any] = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    if (equations := settings.get("equations", 1)) != EQUATIONS:
        raise UserError(
            f"{folder / 'settings.json'}: weights for equations {equations} of the model, which "
            f"here are {EQUATIONS}: train it anew, or use the version of rnnmt that made it"
        )
    there = sums(folder)
    if strange := [name for name in FILES if settings["files"][name] != there[name]]:
        raise UserError(
            f"{folder / strange[0]}: not the file that settings.json belongs to; get the folder "
            "anew, whole"
        )
    return settings


def _build(settings: dict[str, Any], weights: dict[str, torch.Tensor]) -> Seq2Seq:
    """The model of settings.json with these weights. Raises ValueError where they do not fit."""
    parts = (
        ModelSettings.model_validate(settings["model"]),
        Vocabularies(**settings["vocabularies"]),
    )
    with _Uninitialized():
        # Without memory at first: settings may ask for any size.
        with torch.device("meta"):
            wanted = {name: weight.shape for name, weight in Seq2Seq(*parts).state_dict().items()}
        if {name: weight.shape for name, weight in weights.items()} != wanted:
            raise ValueError("weights.pt does not fit settings.json")
        model = Seq2Seq(*parts)
    model.load_state_dict(weights)
    return model


class _Uninitialized(TorchFunctionMode):
    """Within it, nn.init does nothing: without memory it would import torch's compiler, for
    longer than everything else takes here.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if kwargs else args[0]
        return func(*args, **(kwargs or {}))


def _weights(file: Path) -> dict[str, torch.Tensor]:
    try:
        with zipfile.ZipFile(file) as parts:
            inflated = sum(part.file_size for part in parts.infolist())
        if inflated > file.stat().st_size:
            raise ValueError("compressed")
        _check_pickle(file)
        weights: dict[str, torch.Tensor] = torch.load(file, weights_only=True)
        if not all(weight.is_contiguous() for weight in weights.values()):
            raise ValueError("few numbers that stand for many")
    except Exception:  # torch's own message would advise to load what may hold code
        raise UserError(f"{file}: damaged, or not plain weights") from None
    return weights


def _check_pickle(file: Path) -> None:
    """Raise ValueError where the file is not torch's zip, or its pickle calls more than weights
    need.
    """
    with open(file, "rb") as opened:
        if opened.read(4) != b"PK\x03\x04":  # torch would read a bare pickle before a zip, too
            raise ValueError("not a zip from its first byte on")
        opened.seek(0)
        # By torch's reader: a zip can be made such that another one finds another pickle in it.
        # Not by name, which torch takes for UTF-8 whatever the system's encoding is.
        pickled = torch._C.PyTorchFileReader(opened).get_record("data.pkl")
    for code, argument, _ in pickletools.genops(pickled):
        if code.name == "GLOBAL" and argument not in _CALLED:
            raise ValueError(f"calls {argument}")
