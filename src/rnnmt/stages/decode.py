"""Stage `decode`: greedy and beam search of every validation and test set by one model.

    python -m rnnmt.stages.decode VARIANT SEED

Writes to `reports/<corpus>/translations/<variant>-<seed>/`, for each set S:
`S.greedy.txt` and `S.beam.txt`, one detokenised line for each sentence; `S.jsonl`, its n best with
log-probabilities, scores and, of sources of at most `translator.ATTENDED` pieces, alignment; and
`summary.json` with what it took and which of `decode.length_penalty` was best on the validation
set.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnmt import params
from rnnmt.errors import peak_memory_mb, run_stage
from rnnmt.search.settings import DecodeSettings

if TYPE_CHECKING:
    from rnnmt.search.translator import Translation, Translator


def main() -> None:
    arguments = _parse()
    settings = params.load("decode", DecodeSettings)
    corpus = params.corpus_name()
    label = f"{arguments.variant}-{arguments.seed}"
    translator = _load(Path("models", corpus, label), settings)
    tokens = Path("data", corpus, "tokens")
    splits = sorted(f.name.removesuffix(".source.txt") for f in tokens.glob("*.source.txt"))
    final = Path("reports", corpus, "translations", label)
    partial = final.with_name(f".{label}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    splits.sort(key=lambda split: split != "valid")  # which chooses the length penalty
    penalties, times = settings.length_penalty, {}
    for split in splits:
        times[split], penalties = _decode(translator, settings, penalties, tokens, split, partial)
    summary = {
        "beam": settings.beam,
        "length_penalty": penalties[0],
        "threads": params.threads(),
        "splits": times,
        "memory_mb": peak_memory_mb(),
    }
    (partial / "summary.json").write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n")
    shutil.rmtree(final, ignore_errors=True)
    partial.replace(final)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m rnnmt.stages.decode", description=__doc__)
    parser.add_argument("variant", help="an entry of `variants` in params.yaml")
    parser.add_argument("seed", type=int, help="one of `seeds`")
    return parser.parse_args()


def _load(folder: Path, settings: DecodeSettings) -> Translator:
    params.use_threads(shapes=params.SEARCH_SHAPES)
    from rnnmt.model.folder import load_model
    from rnnmt.search.translator import Translator

    params.use_determinism()
    return Translator(load_model(folder), settings.max_length_ratio)


def _decode(
    translator: Translator,
    settings: DecodeSettings,
    penalties: list[float],
    tokens: Path,
    split: str,
    folder: Path,
) -> tuple[dict[str, Any], list[float]]:
    """Translate one set both ways and write its files.

    Returns seconds, sentences and tokens, and the one of `penalties` that is best for this set.
    """
    from rnnmt.search.sets import beam_set, in_batches, read_lines, timed, write_lines

    sentences = read_lines(tokens / f"{split}.source.txt")
    references = read_lines(tokens / f"{split}.target.txt")
    greedy, greedy_seconds = timed(
        lambda: in_batches(translator, translator.greedy, sentences, settings.batch_sentences)
    )
    (beam, penalty), beam_seconds = timed(
        lambda: beam_set(translator, settings, penalties, sentences, references)
    )
    best = [translations[0].text for translations in beam]
    write_lines(folder / f"{split}.greedy.txt", greedy)
    write_lines(folder / f"{split}.beam.txt", best)
    records = [_record(*pair) for pair in zip(sentences, beam, strict=True)]
    write_lines(folder / f"{split}.jsonl", records)
    print(
        f"{split}: {len(sentences)} sentences, greedy {greedy_seconds:.1f} s, "
        f"beam {settings.beam} {beam_seconds:.1f} s",
        flush=True,
    )
    times = {
        name: {
            "seconds": round(seconds, 3),
            "sentences": len(sentences),
            "tokens": sum(map(len, translator.trained.target.encode(texts))),
        }
        for name, texts, seconds in (
            ("greedy", greedy, greedy_seconds),
            ("beam", best, beam_seconds),
        )
    }
    return times, [penalty]


def _record(source: str, translations: list[Translation]) -> str:
    nbest = [
        {
            "text": t.text,
            "log_prob": round(t.hypothesis.log_prob, 4),
            "score": round(t.hypothesis.score, 4),
        }
        for t in translations
    ]
    first = translations[0]
    record: dict[str, Any] = {"source": source, "nbest": nbest}
    if first.alignment is not None:
        record["source_pieces"] = first.source_pieces
        record["target_pieces"] = first.target_pieces
        record["alignment"] = [[round(float(w), 3) for w in row] for row in first.alignment]
    return json.dumps(record, ensure_ascii=False)


if __name__ == "__main__":
    run_stage(main)
