"""Stage `analyze`: what is inside one model, and where it is good or bad.

    python -m rnnmt.stages.analyze VARIANT SEED

Writes `reports/NAME/analysis/VARIANT-SEED.json`: scores by length, phenomenon and word order;
attention against word links; gates; gradient flow; search. Nothing in it is chosen by hand. All but
the scores leave out sentences that are very long (`slices.short`).
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnmt import params
from rnnmt.corpora.words import read_links
from rnnmt.errors import UserError, run_stage
from rnnmt.insight.settings import OUTCOMES, AnalyzeSettings
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
    from rnnmt.model.folder import TrainedModel


def main() -> None:
    """Analyze the run that the command line names. Raises UserError where input is missing."""
    parser = argparse.ArgumentParser(prog="python -m rnnmt.stages.analyze")
    parser.add_argument("variant")
    parser.add_argument("seed", type=int)
    arguments = parser.parse_args()
    settings = params.load("analyze", AnalyzeSettings)
    scoring = params.load("evaluate", EvaluateSettings)
    decoding = params.load("decode", DecodeSettings)
    params.use_threads(shapes=params.SEARCH_SHAPES)
    from rnnmt.model.folder import load_model

    run = Run(params.corpus_name(), arguments.variant, arguments.seed)
    wanted = references(run.corpus)
    trained = load_model(Path("models", run.corpus, str(run)))
    found = {
        "variant": run.variant,
        "seed": run.seed,
        "cell": trained.settings["model"]["cell"],
        "attention": trained.settings["model"]["attention"],
        "slices": {split: slices(run, wanted, split, scoring) for split in wanted.tests},
        "alignment": {
            split: alignment(run, wanted, split, trained, scoring) for split in wanted.tests
        },
        **memory(trained, wanted, settings),
        "search": search(run, trained, wanted, settings, decoding),
    }
    write_json(reports(run.corpus) / "analysis" / f"{run}.json", found)


def slices(run: Run, wanted: References, split: str, settings: EvaluateSettings) -> dict[str, Any]:
    """Scores of beam search on parts of one test set."""
    import numpy as np

    from rnnmt.insight.slices import by_length, by_order, by_phenomenon, statistics

    labels = Path("data", run.corpus, "tokens", f"{split}.labels.jsonl")
    lines, targets = wanted.hypotheses(run, split, "beam"), wanted.splits[split]
    exact = np.array([a == b for a, b in zip(lines, targets, strict=True)], dtype=np.float64)
    stats = statistics(lines, targets)
    return {
        "length": by_length(_sources(run.corpus, split), stats, settings),
        "phenomenon": by_phenomenon(labels, stats, exact, settings),
        "order": by_order(read_links(_links(run.corpus, split)), stats, settings),
    }


def alignment(
    run: Run, wanted: References, split: str, trained: TrainedModel, settings: EvaluateSettings
) -> dict[str, Any]:
    """Attention over one test set, against its word links; {} without attention."""
    if trained.settings["model"]["attention"] == "none":
        return {}
    from rnnmt.dataset.store import open_split
    from rnnmt.insight.attending import forced, judged
    from rnnmt.insight.slices import short

    store = open_split(Path("data", run.corpus, "tokens"), split)
    texts = _sources(run.corpus, split), wanted.splits[split]
    attended = list(forced(trained, store, texts))
    links = read_links(_links(run.corpus, split))
    found = judged(attended, [links[i] for i in short(*texts)], settings)
    # For each target word the source word attended to most, -1 where it is <EOS> alone: variants
    # are compared by it.
    chosen = [
        " ".join(str(row.argmax() if row.any() else -1) for row in one.words) for one in attended
    ]
    left_out = len(links) - len(attended)
    return found | {"too_long": left_out, "strongest": chosen}


def memory(trained: TrainedModel, wanted: References, settings: AnalyzeSettings) -> dict[str, Any]:
    """Gates and gradient flow of the encoder over sentences of the first test set."""
    from rnnmt.insight import remembering
    from rnnmt.insight.slices import examples, lengths, short, spread

    sources = _sources(wanted.corpus, wanted.tests[0])
    some = spread([s for i in short(sources) if (s := sources[i]).strip()], settings.sentences)
    if not some:
        raise UserError(f"{wanted.tests[0]}.source: no sentence has a word; mend the test set")
    ids = trained.source.encode(some)
    shown = trained.source.encode([sources[i] for i in examples(sources, settings.examples)])
    return {
        "flow": remembering.flow(trained, ids),
        "gates": remembering.kept(trained, ids, int(lengths(some).sum())),
        "examples": [remembering.example(trained, one) for one in shown],
    }


def search(
    run: Run,
    trained: TrainedModel,
    wanted: References,
    settings: AnalyzeSettings,
    decoding: DecodeSettings,
) -> dict[str, Any]:
    """Beam sizes, and greedy search's first error, on sentences of the first test set."""
    from rnnmt.insight.searching import by_beam, outcomes
    from rnnmt.insight.slices import short, spread
    from rnnmt.search.translator import Translator

    split, ratio = wanted.tests[0], decoding.max_length_ratio
    pairs = list(zip(_sources(wanted.corpus, split), wanted.splits[split], strict=True))
    some = spread([pairs[i] for i in short(*zip(*pairs, strict=True))], settings.sentences)
    sources, targets = map(list, zip(*some, strict=True))
    ids = trained.source.encode(sources), trained.target.encode(targets)
    came_of = Counter(outcomes(trained, *ids, ratio))
    translator = Translator(trained, ratio)
    penalty = run.decoding()["length_penalty"]  # which the stage decode has chosen
    return {
        "split": split,
        "sentences": len(sources),
        "beams": by_beam(translator, sources, targets, settings.beams, penalty),
        "first_error": {name: came_of[name] for name in OUTCOMES},
    }


def _sources(corpus: str, split: str) -> list[str]:
    path = Path("data", corpus, "tokens", f"{split}.source.txt")
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def _links(corpus: str, split: str) -> Path:
    return Path("data", corpus, "links", f"{split}.links.jsonl")


if __name__ == "__main__":
    run_stage(main)
