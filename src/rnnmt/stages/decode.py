"""Stage `decode`: greedy and beam search of every validation and test set by one model.

    python -m rnnmt.stages.decode VARIANT SEED

Writes to `reports/<corpus>/translations/<variant>-<seed>/`, for each set S:
`S.greedy.txt` and `S.beam.txt`, one detokenised line for each sentence; `S.jsonl`, its n best with
log-probabilities, scores and alignment; and `summary.json` with what it took and which of
`decode.length_penalty` was best on the validation set.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rnnmt import params
from rnnmt.errors import run_stage
from rnnmt.search.settings import DecodeSettings

if TYPE_CHECKING:
    from rnnmt.search.translator import Translation, Translator

T = TypeVar("T")


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
    params.use_threads()
    import torch

    from rnnmt.model.folder import load_model
    from rnnmt.search.translator import Translator

    torch.use_deterministic_algorithms(True)
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
    sentences = _read_lines(tokens / f"{split}.source.txt")
    size = settings.batch_sentences
    pieces = list(map(len, translator.trained.source.encode(sentences)))
    greedy, greedy_seconds = _in_batches(translator.greedy, sentences, pieces, size)

    def search(batch: list[str]) -> list[list[Translation]]:
        if len(penalties) > 1:  # everything that any of them could want
            return translator.beam(batch, settings.beam, settings.beam, 0.0)
        return translator.beam(batch, settings.beam, settings.nbest, penalties[0])

    beam, beam_seconds = _in_batches(search, sentences, pieces, size)
    if len(penalties) > 1:
        references = _read_lines(tokens / f"{split}.target.txt")
        penalty, beam = _best(beam, settings.nbest, penalties, references)
        penalties = [penalty]
    best = [translations[0].text for translations in beam]
    _write_lines(folder / f"{split}.greedy.txt", greedy)
    _write_lines(folder / f"{split}.beam.txt", best)
    records = [_record(*pair) for pair in zip(sentences, beam, strict=True)]
    _write_lines(folder / f"{split}.jsonl", records)
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
    return times, penalties


def _best(
    found: list[list[Translation]], nbest: int, penalties: list[float], references: list[str]
) -> tuple[float, list[list[Translation]]]:
    """The length penalty of the highest BLEU, the first of equals, and its translations."""
    import sacrebleu

    from rnnmt.search.translator import reranked

    scores, best = [], []
    for penalty in penalties:
        best.append([reranked(translations, nbest, penalty) for translations in found])
        texts = [translations[0].text for translations in best[-1]]
        scores.append(sacrebleu.corpus_bleu(texts, [references], force=True).score)
        print(f"length penalty {penalty:g}: BLEU {scores[-1]:.2f}", flush=True)
    chosen = scores.index(max(scores))
    return penalties[chosen], best[chosen]


def _in_batches(
    translate: Callable[[list[str]], list[T]], sentences: list[str], pieces: list[int], size: int
) -> tuple[list[T], float]:
    """`translate` every sentence, those of as many pieces together; in order, with the seconds."""
    started = time.perf_counter()
    order = sorted(range(len(sentences)), key=lambda i: pieces[i], reverse=True)
    results: dict[int, T] = {}
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        translated = translate([sentences[i] for i in rows])
        results.update(zip(rows, translated, strict=True))
    return [results[i] for i in range(len(sentences))], time.perf_counter() - started


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


def _read_lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").split("\n")[:-1]


def _write_lines(file: Path, lines: list[str]) -> None:
    # A translation may hold what the model made of control bytes: a line stays a line.
    text = "".join(line.replace("\r", " ").replace("\n", " ") + "\n" for line in lines)
    file.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    run_stage(main)
