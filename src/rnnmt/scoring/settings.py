"""What scoring is given: its settings, and the texts and summaries of one experiment."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from rnnmt import params
from rnnmt.errors import UserError
from rnnmt.params import Settings

SEARCHES = ("greedy", "beam")


class EvaluateSettings(Settings):
    """Section `evaluate`."""

    bootstrap_samples: int = Field(ge=100, le=1_000_000)
    confidence: float = Field(gt=0.5, le=0.9999)  # more would take resamplings without end
    seed: int = Field(ge=0)


class PromoteSettings(Settings):
    """Section `promote`."""

    level: float = Field(ge=0.0001, lt=1.0)  # less would take resamplings without end
    margin: float = Field(ge=0.0)
    max_slowdown: float = Field(ge=1.0)


@dataclass(frozen=True)
class Run:
    """One training of one variant; every file of it is found through this name."""

    corpus: str
    variant: str
    seed: int

    def __str__(self) -> str:
        return f"{self.variant}-{self.seed}"

    def hypotheses(self, split: str, search: str) -> list[str]:
        """The detokenised translations of `split` by `search` (greedy or beam), one a line.

        Raises UserError where the file is missing or is not UTF-8.
        """
        return _lines(self._translations / f"{split}.{search}.txt", f"decode@{self}")

    def decoding(self) -> dict[str, Any]:
        """What decode noted of its speed. Raises UserError where the file is missing."""
        return _mapping(self._translations / "summary.json", f"decode@{self}")

    def training(self) -> dict[str, Any]:
        """What train noted of its result and speed. Raises UserError where it is missing."""
        return _mapping(self._model / "summary.json", f"train@{self}")

    def settings(self) -> dict[str, Any]:
        """The settings that the model was trained with. Raises UserError where missing."""
        return _mapping(self._model / "settings.json", f"train@{self}")

    def detail(self) -> dict[str, Any]:
        """What evaluate found. Raises UserError where the file is missing."""
        return _mapping(self.detail_path, f"evaluate@{self}")

    @property
    def scores_path(self) -> Path:
        """The few numbers that `dvc metrics show` prints."""
        return reports(self.corpus) / "scores" / f"{self}.json"

    @property
    def detail_path(self) -> Path:
        """All scores, with their intervals and signatures."""
        return reports(self.corpus) / "scores" / f"{self}.detail.json"

    @property
    def _translations(self) -> Path:
        return reports(self.corpus) / "translations" / str(self)

    @property
    def _model(self) -> Path:
        return Path("models") / self.corpus / str(self)


@dataclass(frozen=True)
class References:
    """The validation set and the test sets of a corpus: name -> the sentences to be reached."""

    corpus: str
    direction: str
    splits: dict[str, list[str]]

    @property
    def tests(self) -> list[str]:
        """The names of the test sets."""
        return [split for split in self.splits if split != "valid"]

    def hypotheses(self, run: Run, split: str, search: str) -> list[str]:
        """The translations of a run, one for each reference.

        Raises UserError where the file is missing or has another number of lines.
        """
        lines, wanted = run.hypotheses(split, search), len(self.splits[split])
        if len(lines) != wanted:
            raise UserError(
                f"{run}: {split}.{search}.txt has {len(lines)} lines, its references have "
                f"{wanted}; run: {params.remake(f'decode@{run}')}"
            )
        return lines


def reports(corpus: str) -> Path:
    """The folder of a corpus's reports."""
    return Path("reports") / corpus


def references(corpus: str) -> References:
    """The references of the validation set and of every test set, in the manifest's order.

    Raises UserError where a file is missing or empty, or where there is no test set.
    """
    folder = Path("data") / corpus / "tokens"
    manifest = _mapping(folder / "manifest.json", "tokenize")
    names = ["valid", *(name for name in manifest["splits"] if name.startswith("test"))]
    if len(names) == 1:
        raise UserError(f"{folder / 'manifest.json'}: no split's name starts with 'test'")
    splits = {name: _lines(folder / f"{name}.target.txt", "tokenize") for name in names}
    for name, lines in splits.items():
        if not lines:
            raise UserError(f"{folder / f'{name}.target.txt'}: empty; nothing can be scored")
    direction = f"{manifest['source_language']}-{manifest['target_language']}"
    return References(corpus, direction, splits)


def write_json(path: Path, values: object) -> None:
    """Write `values` the same way each time: two runs that agree give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")


def _lines(path: Path, stage: str) -> list[str]:
    # Not splitlines(): a sentence may hold U+2028 or another of its line ends.
    text = _text(path, stage)
    return text.removesuffix("\n").split("\n") if text else []


def _mapping(path: Path, stage: str) -> dict[str, Any]:
    try:
        values = json.loads(_text(path, stage))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}:{error.lineno}: {error.msg}; run: {params.remake(stage)}"
        ) from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a JSON object; run: {params.remake(stage)}")
    return values


def _text(path: Path, stage: str) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run: {params.remake(stage)}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8: {error}") from None
