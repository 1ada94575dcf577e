"""`python -m rnnmt.stages.evaluate VARIANT SEED`: score the translations of one run.

Writes `reports/NAME/scores/VARIANT-SEED.json`, the few numbers of `dvc metrics show`, and
`VARIANT-SEED.detail.json` beside it, with all metrics, intervals and signatures. Both hold
nothing that changes from run to run.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from rnnmt import params
from rnnmt.errors import run_stage
from rnnmt.scoring import metrics
from rnnmt.scoring.settings import (
    SEARCHES,
    EvaluateSettings,
    References,
    Run,
    references,
    write_json,
)
from rnnmt.scoring.significance import interval


def main() -> None:
    """Evaluate the run that the command line names. Raises UserError where input is missing."""
    parser = argparse.ArgumentParser(prog="python -m rnnmt.stages.evaluate")
    parser.add_argument("variant")
    parser.add_argument("seed", type=int)
    arguments = parser.parse_args()
    settings = params.load("evaluate", EvaluateSettings)
    run = Run(params.corpus_name(), arguments.variant, arguments.seed)
    wanted = references(run.corpus)
    scores = {split: evaluate(run, wanted, split, settings) for split in wanted.splits}
    write_json(run.detail_path, detail(run, wanted, scores, settings))
    write_json(run.scores_path, summary(scores))


def evaluate(
    run: Run, wanted: References, split: str, settings: EvaluateSettings
) -> dict[str, dict[str, dict[str, float]]]:
    """search -> metric -> score with its interval, in points."""
    texts = {search: wanted.hypotheses(run, split, search) for search in SEARCHES}
    # TER is slow, and nothing is chosen by it: on the test sets only.
    names = [name for name in metrics.METRICS if name != "ter" or split in wanted.tests]
    return {
        search: {name: measure(name, lines, wanted.splits[split], settings) for name in names}
        for search, lines in texts.items()
    }


def measure(
    metric: str, lines: list[str], wanted: list[str], settings: EvaluateSettings
) -> dict[str, float]:
    """A score with the ends of its interval, in points.

    To six decimals: who shows fewer rounds once, and not what was rounded before.
    """
    statistics, score = metrics.statistics(metric, lines, wanted), partial(metrics.score, metric)
    low, high = interval(
        statistics, score, settings.bootstrap_samples, settings.confidence, settings.seed
    )
    point = score(statistics.sum(axis=0))
    return {"score": round(point, 6), "low": round(low, 6), "high": round(high, 6)}


def detail(
    run: Run, wanted: References, scores: dict[str, Any], settings: EvaluateSettings
) -> dict[str, Any]:
    """Everything, with what is needed to compute it again."""
    return {
        "corpus": run.corpus,
        "direction": wanted.direction,
        "variant": run.variant,
        "seed": run.seed,
        "intervals": settings.model_dump(),
        "signatures": {name: metrics.signature(name) for name in metrics.METRICS},
        "sentences": {split: len(lines) for split, lines in wanted.splits.items()},
        "scores": scores,
    }


def summary(scores: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The columns of `dvc metrics show`: beam search, with greedy BLEU beside it."""
    columns = {
        split: {name: round(found["score"], 2) for name, found in by_search["beam"].items()}
        | {"bleu_greedy": round(by_search["greedy"]["bleu"]["score"], 2)}
        for split, by_search in scores.items()
    }
    # Of validation, what the best variant is chosen by: the table has to stay readable.
    columns["valid"] = {"bleu": columns["valid"]["bleu"]}
    return columns


if __name__ == "__main__":
    run_stage(main)
