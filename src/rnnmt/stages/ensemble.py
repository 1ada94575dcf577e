"""Stage `ensemble`: for each variant, all its seeds' models translate together.

Writes `reports/<corpus>/ensembles/<variant>/`, for each set S the detokenised lines `S.beam.txt`,
and `reports/<corpus>/ensembles.json`: BLEU beside the mean of the members' own, with the paired
test of the difference. With one seed there is nothing to do, and that is what the files say.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnmt import params
from rnnmt.errors import run_stage
from rnnmt.scoring.settings import (
    EvaluateSettings,
    References,
    Run,
    references,
    reports,
    write_json,
)
from rnnmt.search.settings import DecodeSettings

if TYPE_CHECKING:
    from rnnmt.search.translator import Translator


def main() -> None:
    decode = params.load("decode", DecodeSettings)
    evaluate = params.load("evaluate", EvaluateSettings)
    wanted, seeds = references(params.corpus_name()), params.seeds()
    final = reports(wanted.corpus) / "ensembles"
    shutil.rmtree(final, ignore_errors=True)
    final.mkdir(parents=True)
    found: dict[str, Any] = {}
    if len(seeds) > 1:
        params.use_threads(shapes=params.SEARCH_SHAPES)
        for variant in params.variants():
            runs = [Run(wanted.corpus, variant, seed) for seed in seeds]
            penalty = _translate(runs, decode, wanted, final / variant)
            scores = {
                split: _score(final / variant, runs, wanted, split, evaluate)
                for split in wanted.splits
            }
            found[variant] = {"length_penalty": penalty, "scores": scores}
        _adjust([score for one in found.values() for score in one["scores"].values()])
    write_json(final / "summary.json", {"seeds": seeds, "variants": sorted(found)})
    write_json(final.with_suffix(".json"), {"seeds": seeds, "variants": found})


def _adjust(scores: list[dict[str, float]]) -> None:
    """Add the p-values that Holm's method makes of those of all variants and sets."""
    from rnnmt.scoring.significance import holm

    for score, adjusted in zip(scores, holm([score["p"] for score in scores]), strict=True):
        score["p"], score["p_holm"] = round(score["p"], 6), round(adjusted, 6)


def _translate(
    runs: list[Run], settings: DecodeSettings, wanted: References, folder: Path
) -> float:
    """Write the translations of all sets. Returns the length penalty chosen on `valid`."""
    from rnnmt.search.sets import beam_set, read_lines, write_lines

    translator = _load(runs, settings)
    folder.mkdir()
    penalties = settings.length_penalty
    for split, lines in wanted.splits.items():  # of which `valid` is the first
        source = Path("data", wanted.corpus, "tokens", f"{split}.source.txt")
        best, penalty = beam_set(translator, settings, penalties, read_lines(source), lines)
        write_lines(folder / f"{split}.beam.txt", [nbest[0].text for nbest in best])
        penalties = [penalty]
    return penalties[0]


def _load(runs: list[Run], settings: DecodeSettings) -> Translator:
    from rnnmt.model.folder import load_model
    from rnnmt.search.translator import Translator

    params.use_determinism()
    first, *others = (load_model(Path("models", run.corpus, str(run))) for run in runs)
    return Translator(first, settings.max_length_ratio, others)


def _score(
    folder: Path, runs: list[Run], wanted: References, split: str, settings: EvaluateSettings
) -> dict[str, float]:
    """BLEU of the ensemble and of its members in points, and the p-value of the difference."""
    import numpy as np

    from rnnmt.scoring import metrics
    from rnnmt.scoring.significance import paired_test, trials
    from rnnmt.search.sets import read_lines

    bleu = partial(metrics.score, "bleu")
    texts = [read_lines(folder / f"{split}.beam.txt")]
    texts += [wanted.hypotheses(run, split, "beam") for run in runs]
    together, *alone = (metrics.statistics("bleu", t, wanted.splits[split]) for t in texts)
    members = [bleu(statistics.sum(axis=0)) for statistics in alone]
    pair = np.stack([together] * len(alone)), np.stack(alone)
    tests = len(params.variants()) * len(wanted.splits)
    samples = trials(tests, settings.bootstrap_samples, settings.confidence)
    p_value = paired_test(*pair, bleu, samples, settings.seed)
    return {
        "bleu": round(bleu(together.sum(axis=0)), 2),
        "members": round(float(np.mean(members)), 2),
        "best_member": round(max(members), 2),
        "p": p_value,  # to be rounded when it has been adjusted
    }


if __name__ == "__main__":
    run_stage(main)
