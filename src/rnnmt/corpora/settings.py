"""The section `corpus` of params.yaml: one settings class for each kind of source."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from rnnmt import params
from rnnmt.errors import UserError
from rnnmt.params import Settings

Name = Annotated[str, Field(pattern=f"^{params.NAME}$")]
Language = Annotated[str, Field(pattern="^[A-Za-z]{2,3}([-_][A-Za-z0-9]+)*$")]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Column = Annotated[int, Field(ge=1)]
Two = Field(min_length=2, max_length=2)


def _complete(sizes: dict[str, Any]) -> dict[str, Any]:
    """Check names of splits: train, valid and one or more that start with 'test'."""
    _require(sizes, ("train", "valid"))
    return sizes


def _without_train(sizes: dict[str, Any]) -> dict[str, Any]:
    """Check names of held-out splits: train is what is left."""
    if "train" in sizes:
        raise ValueError("'train' is whatever is not held out, so it has no size")
    _require(sizes, ("valid",))
    return sizes


def _only_train(splits: dict[str, Any]) -> dict[str, Any]:
    if list(splits) != ["train"]:
        raise ValueError("with held_out, 'train' is the only split with files")
    return splits


def _distinct(columns: list[int]) -> list[int]:
    if len(set(columns)) < len(columns):
        raise ValueError("source and target cannot be the same column")
    return columns


def _require(names: Iterable[str], required: tuple[str, ...]) -> None:
    for name in names:
        if not re.fullmatch(r"train|valid|test[A-Za-z0-9_-]{0,96}", name):
            raise ValueError(
                f"'{name}' is not train, valid or a name of at most 100 letters, digits, '_' and "
                "'-' that starts with 'test'"
            )
    for name in required:
        if name not in names:
            raise ValueError(
                f"split '{name}' is missing; of files, held_out can take it from train"
            )
    if not any(name.startswith("test") for name in names):
        raise ValueError("a test set is missing: a split whose name starts with 'test'")


class Corpus(Settings):
    """What every source has."""

    name: Name  # folder of this experiment under data/, models/ and reports/
    source: str
    # Another one reads the data again, when they have changed. What is in work/downloads stays.
    version: str | None = None


class Bundled(Corpus):
    """The bundled generator."""

    source: Literal["bundled"]
    seed: Seed
    sizes: Annotated[dict[str, Count], AfterValidator(_complete)]  # pairs of each split
    lexicon: Annotated[float, Field(gt=0, le=1)] = 1.0  # part of the words that is used


class Catalogued(Corpus):
    """A corpus of the catalogue, which knows everything about it."""

    source: Literal["multi30k-en-fr", "multi30k-en-de", "tatoeba-en-fr"]


class Languages(Corpus):
    """A corpus whose languages only the user knows, as codes such as en or fra."""

    source_language: Language
    target_language: Language


class HeldOut(Languages):
    """A corpus that this stage splits, by source sentence."""

    held_out: Annotated[dict[str, Count], AfterValidator(_without_train)]  # source sentences
    seed: Seed


class AlignedFiles(Languages):
    """Two aligned files, plain, gzip or xz, for each split."""

    source: Literal["files"]
    splits: Annotated[dict[str, Annotated[list[str], Two]], AfterValidator(_complete)]


class AlignedFilesToSplit(HeldOut):
    """Two aligned files, given as train, from which valid and tests are held out."""

    source: Literal["files"]
    splits: Annotated[dict[str, Annotated[list[str], Two]], AfterValidator(_only_train)]


class TsvFile(HeldOut):
    """One file of tab-separated columns."""

    source: Literal["files"]
    tsv: str
    columns: Annotated[list[Column], Two, AfterValidator(_distinct)]  # of source and target, from 1


class Opus(HeldOut):
    """Corpora of OPUS, by mtdata's ids, one after the other."""

    source: Literal["opus"]
    ids: Annotated[list[str], Field(min_length=1)]


class _Head(Settings):
    """The keys that tell which class the section belongs to."""

    name: Name
    source: Literal[
        "bundled", "multi30k-en-fr", "multi30k-en-de", "tatoeba-en-fr", "files", "opus"
    ]  # fmt: skip


def load() -> Corpus:
    """The section `corpus` as its source's class. Raises UserError naming file, line and key."""
    values = params.read()["corpus"]
    chosen = params.validate(values, _schema(_head(values).source, values), ("corpus",))
    for file in own_files(chosen):
        for output in ("raw", "tokens", "links"):
            if _is_in(file, folder := os.path.join("data", chosen.name, output)):
                raise UserError(
                    f"{params.path()}: corpus: {file}: the pipeline removes {folder} before it "
                    "writes there: keep your files in another folder"
                )
    return chosen


def _is_in(file: str, folder: str) -> bool:
    """Whether it, or what it is a link to, stands there."""
    with contextlib.suppress(ValueError):  # a path with a NUL, which is nowhere
        return any(
            Path(at(file)).is_relative_to(at(folder)) for at in (os.path.abspath, os.path.realpath)
        )
    return False


def own_files(corpus: Corpus) -> list[str]:
    """The user's files that it is read from; none of a corpus that comes from elsewhere."""
    if isinstance(corpus, TsvFile):
        return [corpus.tsv]
    if isinstance(corpus, AlignedFiles | AlignedFilesToSplit):
        return [path for both in corpus.splits.values() for path in both]
    return []


def _head(values: Any) -> _Head:
    if isinstance(values, Mapping):
        values = {key: values[key] for key in _Head.model_fields if key in values}
    return params.validate(values, _Head, ("corpus",))


def _schema(source: str, values: Mapping[str, Any]) -> type[Corpus]:
    if source == "bundled":
        return Bundled
    if source == "opus":
        return Opus
    if source != "files":
        return Catalogued
    if "tsv" in values:
        return TsvFile
    return AlignedFilesToSplit if "held_out" in values else AlignedFiles
