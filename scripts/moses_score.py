"""Scores of an experiment as many papers give them: lowercased, Moses-tokenised BLEU.

    python scripts/moses_score.py CORPUS

CORPUS is a folder of reports/ whose stages have run. Such scores are some points higher than the
cased ones with sacreBLEU's own tokenizer 13a, which this project reports everywhere else; never
compare across the two.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Iterable
from pathlib import Path

from sacrebleu.metrics import BLEU

from rnnmt.errors import UserError, run_main
from rnnmt.scoring.settings import Run, references, reports


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("corpus", help="a folder of reports/")
    corpus = parser.parse_args().corpus
    if Path("recipes", f"{corpus}.yaml").exists():  # of which errors speak
        os.environ.setdefault("RNNMT_PARAMS", f"recipes/{corpus}.yaml")
    wanted = references(corpus)
    language = wanted.direction.rpartition("-")[2]
    targets = {test: lowered(wanted.splits[test], language) for test in wanted.tests}
    try:
        comparison = json.loads((reports(corpus) / "comparison.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: no such file; run: dvc repro compare") from None
    metric = BLEU(tokenize="none", force=True)
    for variant in comparison["variants"]:
        for test, lines in targets.items():
            scores = [
                metric.corpus_score(lowered(translations, language), [lines]).score
                for seed in comparison["seeds"]
                for translations in [wanted.hypotheses(Run(corpus, variant, seed), test, "beam")]
            ]
            spread = f" (sd {statistics.stdev(scores):.2f})" if len(scores) > 1 else ""
            print(f"{variant} {test}: {statistics.mean(scores):.2f}{spread}")
    print(f"{metric.get_signature()}, lowercased, tokenised by sacremoses; beam search")


def lowered(lines: Iterable[str], language: str) -> list[str]:
    """Each line lowercased and tokenised as by Moses' tokenizer.perl without escaping."""
    try:
        from sacremoses import MosesTokenizer
    except ModuleNotFoundError:
        raise UserError("no module sacremoses; pip install sacremoses, or make test") from None
    moses = MosesTokenizer(lang=language)
    return [moses.tokenize(line.lower(), return_str=True, escape=False) for line in lines]


if __name__ == "__main__":
    run_main(main)
