"""Everything that is known of one experiment, read from the files of the stages before."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rnnmt import params
from rnnmt.corpora.words import Links, read_links
from rnnmt.errors import UserError
from rnnmt.scoring import metrics
from rnnmt.scoring.metrics import Array
from rnnmt.scoring.settings import (
    EvaluateSettings,
    References,
    Run,
    references,
    reports,
)


@dataclass(frozen=True)
class Evidence:
    """One experiment; every run is named VARIANT-SEED."""

    wanted: References
    runs: dict[str, Run]
    comparison: dict[str, Any]  # comparison.json
    ensembles: dict[str, Any]  # of ensembles.json, by variant; empty with one seed
    analyses: dict[str, dict[str, Any]]  # analysis/RUN.json
    memory: list[dict[str, Any]]  # analysis/memory.json
    links_are_true: bool
    scoring: EvaluateSettings
    _statistics: dict[tuple[str, str, str], Array] = field(default_factory=dict, repr=False)

    @property
    def corpus(self) -> str:
        return self.wanted.corpus

    @property
    def tests(self) -> list[str]:
        return self.wanted.tests

    @property
    def variants(self) -> list[str]:
        return list(dict.fromkeys(run.variant for run in self.runs.values()))

    def runs_of(self, variant: str) -> list[str]:
        """The runs of a variant, one for each seed."""
        return [name for name, run in self.runs.items() if run.variant == variant]

    def settings(self, variant: str, part: str) -> dict[str, Any]:
        """What a variant was trained with: its `model` or its `train`."""
        found: dict[str, Any] = self.comparison["variants"][variant]["settings"].get(part) or {}
        return found

    def cell(self, run: str) -> str:
        return str(self.analyses[run]["cell"])

    def attention(self, run: str) -> str:
        return str(self.analyses[run]["attention"])

    def of(self, *cells: str) -> list[str]:
        """The runs of these cells."""
        return [run for run in self.runs if self.cell(run) in cells]

    @property
    def attending(self) -> list[str]:
        """The runs with attention."""
        return [run for run in self.runs if self.attention(run) != "none"]

    @property
    def twins(self) -> list[tuple[str, str]]:
        """Each run with attention and that of the same seed without, as the comparison has it."""
        tests = self.comparison["tests"]["attention"]
        pairs = dict.fromkeys((t["variant"], t["baseline"]) for t in tests)
        return [
            (f"{variant}-{seed}", f"{twin}-{seed}")
            for variant, twin in sorted(pairs, key=lambda pair: self.variants.index(pair[0]))
            for seed in self.comparison["seeds"]
        ]

    @cached_property
    def sources(self) -> dict[str, list[str]]:
        """The sentences of each test set."""
        folder = Path("data", self.corpus, "tokens")
        return {s: _lines(folder / f"{s}.source.txt", "tokenize") for s in self.tests}

    @cached_property
    def links(self) -> dict[str, list[Links]]:
        """The word links of each test set."""
        folder = Path("data", self.corpus, "links")
        return {split: read_links(folder / f"{split}.links.jsonl") for split in self.tests}

    def hypotheses(self, run: str, split: str, search: str = "beam") -> list[str]:
        return self.wanted.hypotheses(self.runs[run], split, search)

    def statistics(self, metric: str, run: str, split: str) -> Array:
        """A metric's statistics of beam search (sentences, k), which are taken once."""
        key = metric, run, split
        if key not in self._statistics:
            lines, wanted = self.hypotheses(run, split), self.wanted.splits[split]
            self._statistics[key] = metrics.statistics(metric, lines, wanted)
        return self._statistics[key]

    def attended(self, run: str, split: str) -> list[dict[str, Any]]:
        """What decode wrote of each sentence: pieces and attention where the model has one."""
        path = reports(self.corpus) / "translations" / run / f"{split}.jsonl"
        return [json.loads(line) for line in _lines(path, f"decode@{run}")]

    def history(self, run: str) -> list[dict[str, float]]:
        """The epochs of a training."""
        lines = _lines(Path("models", self.corpus, run, "history.csv"), f"train@{run}")
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(lines)]

    def training(self, run: str) -> dict[str, Any]:
        return self.runs[run].training()


def gather(
    corpus: str, variants: list[str], seeds: list[int], scoring: EvaluateSettings
) -> Evidence:
    """Raises UserError where a file is missing or damaged."""
    folder = reports(corpus)
    runs = {f"{v}-{seed}": Run(corpus, v, seed) for v in variants for seed in seeds}
    links = _json(Path("data", corpus, "links", "source.json"), "align")
    return Evidence(
        references(corpus),
        runs,
        _json(folder / "comparison.json", "compare"),
        _json(folder / "ensembles.json", "ensemble")["variants"],
        {run: _json(folder / "analysis" / f"{run}.json", f"analyze@{run}") for run in runs},
        _json(folder / "analysis" / "memory.json", "memory")["results"],
        links["links"] == "true",
        scoring,
    )


def _json(path: Path, stage: str) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return values
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run: {params.remake(stage)}") from None
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}); run: {params.remake(stage)}") from None


def _lines(path: Path, stage: str) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run: {params.remake(stage)}") from None
