"""Translating a whole set of sentences, and choosing the length penalty on one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from rnnmt.dataset.batch import in_chunks
from rnnmt.search.settings import DecodeSettings
from rnnmt.search.translator import Translation, Translator, reranked

T = TypeVar("T")


def beam_set(
    translator: Translator,
    settings: DecodeSettings,
    penalties: list[float],
    sentences: list[str],
    references: list[str],
) -> tuple[list[list[Translation]], float]:
    """The n best of each sentence, with the one of `penalties` that has the highest BLEU.

    With several of them, one search finds everything that any could want.
    """
    if len(penalties) == 1:

        def search(batch: list[str]) -> list[list[Translation]]:
            return translator.beam(batch, settings.beam, settings.nbest, penalties[0])

        return in_batches(translator, search, sentences, settings.batch_sentences), penalties[0]

    def everything(batch: list[str]) -> list[list[Translation]]:
        return translator.beam(batch, settings.beam, settings.beam, 0.0)

    found = in_batches(translator, everything, sentences, settings.batch_sentences)
    return _best(found, settings.nbest, penalties, references)


def in_batches(
    translator: Translator,
    translate: Callable[[list[str]], list[T]],
    sentences: list[str],
    size: int,
) -> list[T]:
    """`translate` every sentence, at most `size` of as many pieces together; in order."""
    pieces = list(map(len, translator.trained.source.encode(sentences)))
    order = sorted(range(len(sentences)), key=lambda i: pieces[i], reverse=True)
    results: dict[int, T] = {}
    for rows in in_chunks(order, pieces.__getitem__, size):
        translated = translate([sentences[i] for i in rows])
        results.update(zip(rows, translated, strict=True))
    return [results[i] for i in range(len(sentences))]


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What `work` returns, and the seconds it took."""
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def read_lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").split("\n")[:-1]


def write_lines(file: Path, lines: list[str]) -> None:
    # A translation may hold what the model made of control bytes: a line stays a line.
    text = "".join(line.replace("\r", " ").replace("\n", " ") + "\n" for line in lines)
    file.write_text(text, encoding="utf-8", newline="\n")


def _best(
    found: list[list[Translation]], nbest: int, penalties: list[float], references: list[str]
) -> tuple[list[list[Translation]], float]:
    """The translations by the length penalty of the highest BLEU, the first of equals."""
    import sacrebleu

    scores, best = [], []
    for penalty in penalties:
        best.append([reranked(translations, nbest, penalty) for translations in found])
        texts = [translations[0].text for translations in best[-1]]
        scores.append(sacrebleu.corpus_bleu(texts, [references], force=True).score)
        print(f"length penalty {penalty:g}: BLEU {scores[-1]:.2f}", flush=True)
    chosen = scores.index(max(scores))
    return best[chosen], penalties[chosen]
