"""Stage `report`: the experiment as evidence, in pictures.

    python -m rnnmt.stages.report

Writes to `reports/NAME/`: `index.html`, one page that needs nothing beside it; `claims.md` and
`claims.json`, what the data say to the lecture notes; `figures/`, every picture as SVG; `tables/`,
the numbers behind them as CSV. All being known now, MLflow's runs are completed.
"""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnmt import params
from rnnmt.errors import end_with, run_stage
from rnnmt.insight.settings import AnalyzeSettings
from rnnmt.scoring import metrics
from rnnmt.scoring.settings import EvaluateSettings, reports, write_json
from rnnmt.scoring.significance import holm, paired_difference, paired_test, trials

if TYPE_CHECKING:
    from rnnmt.insight.evidence import Evidence
    from rnnmt.insight.pictures import Picture

Row = dict[str, Any]
PROCESSES = min(8, max(1, (os.cpu_count() or 1) - 1))  # that draw, beside the one that judges


def main() -> None:
    """Report on the variants of the settings file. Raises UserError where input is missing."""
    settings = params.load("analyze", AnalyzeSettings)
    scoring = params.load("evaluate", EvaluateSettings)
    corpus = params.corpus_name()

    from rnnmt.insight import claims, page, pictures
    from rnnmt.insight.evidence import gather

    evidence = gather(corpus, params.variants(), params.seeds(), scoring)
    with ProcessPoolExecutor(PROCESSES, initializer=end_with, initargs=(os.getpid(),)) as pool:
        # Half of the time goes into these, so they are drawn beside all else.
        drawing = pool.map(page.pictures_of, page.looked(evidence, settings.examples))
        pairs = every_pair(evidence)
        judged = claims.judge(evidence)
        drawn = pictures.draw(evidence, pairs)
        sentences = page.chosen(evidence, settings.examples, drawing)
    folder = reports(corpus)
    write_pictures(folder / "figures", [*drawn, *(p for s in sentences for p in s.pictures)])
    write_tables(folder / "tables", evidence, pairs)
    write_json(folder / "claims.json", {claim.name: asdict(claim) for claim in judged})
    texts = {
        "claims.md": claims.markdown(judged, corpus, scoring),
        "index.html": page.render(evidence, judged, drawn, sentences),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    for claim in judged:
        print(f"{claim.verdict}: {claim.says}")
    _show_in_mlflow()


def _show_in_mlflow() -> None:
    from rnnmt.tracking.sync import sync_or_warn

    sync_or_warn()


def every_pair(evidence: Evidence) -> list[Row]:
    """The paired test of each two variants, on the first test set with beam search."""
    split, score = evidence.tests[0], partial(metrics.score, "bleu")
    settings = evidence.scoring
    rows = {
        variant: np.stack(
            [
                evidence.statistics("bleu", name, split)
                for name, run in evidence.runs.items()
                if run.variant == variant
            ]
        )
        for variant in evidence.variants
    }
    pairs = list(combinations(evidence.variants, 2))
    samples = trials(len(pairs), settings.bootstrap_samples, settings.confidence)
    p_values = [paired_test(rows[a], rows[b], score, samples, settings.seed) for a, b in pairs]
    return [
        {
            "variant": a,
            "baseline": b,
            "split": split,
            "difference": round(paired_difference(rows[a], rows[b], score), 6),
            "p": round(p, 6),
            "p_holm": round(adjusted, 6),
        }
        for (a, b), p, adjusted in zip(pairs, p_values, holm(p_values), strict=True)
    ]


def radii(evidence: Evidence) -> Iterator[Row]:
    """The spectral radius of each run's mean one-step Jacobian; for the rnn that of U too."""
    for run in evidence.runs:
        for when in ("fresh", "trained"):
            flow = evidence.analyses[run]["flow"][when]
            yield {
                "run": run, "when": when, "radius": flow["radius"],
                "recurrent_radius": flow.get("recurrent_radius"),
            }  # fmt: skip


def agreements(evidence: Evidence) -> Iterator[Row]:
    """For how many percent of the target words two runs attend most to the same source word."""
    from rnnmt.insight.pictures import agreement

    split = evidence.tests[0]
    for a, b in combinations(evidence.attending, 2):
        chosen = (evidence.analyses[run]["alignment"][split]["strongest"] for run in (a, b))
        yield {"run": a, "other": b, "split": split, "same": round(agreement(*chosen), 2)}


def write_pictures(folder: Path, drawn: Sequence[Picture]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for picture in drawn:
        (folder / picture.file).write_text(picture.svg, encoding="utf-8", newline="\n")


def write_tables(folder: Path, evidence: Evidence, pairs: Sequence[Row]) -> None:
    """One CSV file for each kind of number, a line for each run and slice."""
    from rnnmt.insight.cost import costs
    from rnnmt.insight.keeping import half_lives, keeping

    tables: dict[str, list[Row]] = {
        name: [{"run": run} | row for run in evidence.runs for row in rows(evidence.analyses[run])]
        for name, rows in _TABLES.items()
    }
    tables["significance"] = list(pairs)
    tables["cost"] = costs(evidence)
    tables["keeping"], tables["half-life"] = keeping(evidence), half_lives(evidence)
    tables["radius"], tables["agreement"] = list(radii(evidence)), list(agreements(evidence))
    tables["memory"] = [
        {key: value for key, value in one.items() if key != "curve"} for one in evidence.memory
    ]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, lines in tables.items():
        columns = list(dict.fromkeys(key for line in lines for key in line))
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)


def _slices(kind: str, analysis: Row) -> Iterator[Row]:
    for split, parts in analysis["slices"].items():
        found = parts[kind]
        named = [{kind: k} | v for k, v in found.items()] if isinstance(found, dict) else found
        for row in named:
            yield {"split": split} | _flat(row)


def _flow(analysis: Row) -> Iterator[Row]:
    flow = analysis["flow"]
    for when in ("fresh", "trained"):
        parts = (flow["lags"], *(flow[when][key] for key in ("norm", "low", "high")))
        for lag, norm, low, high in zip(*parts, strict=True):
            predicted = float(f"{flow[when]['radius'] ** lag:.4g}")
            yield {
                "when": when, "lag": lag, "norm": norm, "low": low, "high": high,
                "predicted": predicted,
            }  # fmt: skip


def _search(analysis: Row) -> Iterator[Row]:
    found = analysis["search"]
    for row in found["beams"]:
        yield {"split": found["split"], "sentences": found["sentences"]} | row


def _first_error(analysis: Row) -> Iterator[Row]:
    found = analysis["search"]
    yield {"split": found["split"], "sentences": found["sentences"]} | found["first_error"]


def _alignment(analysis: Row) -> Iterator[Row]:
    for split, found in analysis["alignment"].items():
        if found:
            yield {"split": split} | _flat({k: v for k, v in found.items() if k != "strongest"})


def _gates(analysis: Row) -> Iterator[Row]:
    for name, values in analysis["gates"].get("gates", {}).items():
        yield {"gate": name} | values


def _flat(row: Row) -> Row:
    """A score with its interval as three columns: bleu, bleu_low, bleu_high."""
    flat: Row = {}
    for key, value in row.items():
        if isinstance(value, dict):
            flat |= {key if end == "score" else f"{key}_{end}": value[end] for end in value}
        else:
            flat[key] = value
    return flat


_TABLES: dict[str, Callable[[Row], Iterator[Row]]] = {
    "length": partial(_slices, "length"),
    "phenomenon": partial(_slices, "phenomenon"),
    "word-order": partial(_slices, "order"),
    "gradient-flow": _flow,
    "search": _search,
    "first-error": _first_error,
    "alignment": _alignment,
    "gates": _gates,
}


if __name__ == "__main__":
    run_stage(main)
