"""What a program asks of a translator, and the answer as plain values: for services and MLflow."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from rnnmt.corpora.clean import normalise
from rnnmt.dataset.batch import in_chunks
from rnnmt.params import Settings
from rnnmt.search.translator import Translation, Translator


class Search(Settings):
    """How sentences are to be translated; those that agree in it can be searched together."""

    beam: int = Field(default=5, ge=1, le=1000, description="hypotheses kept; 1 is greedy")
    nbest: int = Field(
        default=1, ge=1, le=1000, description="translations of each sentence, best first"
    )
    length_penalty: float = Field(
        default=1.0, ge=-10.0, le=10.0, description="score = log-probability / length^penalty"
    )
    alignments: bool = Field(
        default=False, description="for each target piece, its weights on the source"
    )

    @model_validator(mode="after")
    def _nbest_fits(self) -> Search:
        if self.nbest > self.beam:
            raise ValueError(f"nbest ({self.nbest}) cannot exceed beam ({self.beam})")
        return self


def translate(
    translator: Translator, sentences: list[str], search: Search, batch: int = 64
) -> list[list[Translation]]:
    """The n best translations of each sentence (N,), in order; none of one that is empty.

    At most `batch` sentences of similar length are searched together, which changes no translation.
    """
    texts = [normalise(sentence) for sentence in sentences]
    sizes = list(map(len, translator.trained.source.encode(texts)))
    order = sorted((i for i, text in enumerate(texts) if text), key=sizes.__getitem__, reverse=True)
    found: list[list[Translation]] = [[] for _ in texts]
    for rows in in_chunks(order, sizes.__getitem__, batch):
        results = translator.beam(
            [texts[i] for i in rows], search.beam, search.nbest, search.length_penalty
        )
        for i, translations in zip(rows, results, strict=True):
            found[i] = translations
    return found


def answer(translations: list[Translation], search: Search) -> list[dict[str, Any]]:
    """The translations of one sentence as JSON has them; one empty text for an empty sentence."""
    if not translations:
        return [{"text": "", "score": 0.0, "log_prob": 0.0}]
    return [_entry(translation, search.alignments) for translation in translations]


def _entry(translation: Translation, alignments: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "text": translation.text,
        "score": round(translation.hypothesis.score, 4),
        "log_prob": round(translation.hypothesis.log_prob, 4),
    }
    if alignments:
        weights = translation.alignment
        entry["source_pieces"] = translation.source_pieces
        entry["target_pieces"] = translation.target_pieces
        entry["alignment"] = weights if weights is None else weights.astype(float).round(3).tolist()
    return entry
