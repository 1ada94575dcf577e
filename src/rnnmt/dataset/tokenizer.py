"""SentencePiece: text <-> ids of subword pieces.

Words are cut one by one and remembered. That gives what SentencePiece gives for the whole
sentence, since no piece reaches across a space, at several times its speed: most words of a
text were seen before.
"""

from __future__ import annotations

import io
import operator
import random
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import sentencepiece
from pydantic import Field, model_validator

from rnnmt import params
from rnnmt.corpora.clean import normalise
from rnnmt.dataset.store import TokenStore, ids_dtype
from rnnmt.errors import UserError
from rnnmt.params import Settings

PAD, UNK, BOS, EOS = 0, 1, 2, 3

# Training text that is enough for any vocabulary, in bytes; unigram takes some 25 times as much
# memory.
SAMPLE_BYTES = 20_000_000
# Words that one tokenizer remembers, at most some 100 MB; then it forgets them and starts again.
# Longer ones are sentences of a language without spaces, and do not come twice.
REMEMBERED_WORDS = 1 << 18
REMEMBERED_LENGTH = 40
SAMPLES = 64  # ways to cut a word that BPE-dropout has


class TokenizerSettings(Settings):
    """Section `tokenizer`: how text is cut into pieces."""

    algorithm: Literal["bpe", "unigram"]
    joint: bool
    # Below 8 there is no room for a letter beside the special pieces.
    vocabulary: int = Field(ge=8, le=1_000_000)
    byte_fallback: bool

    @model_validator(mode="after")
    def _bytes_leave_room(self) -> TokenizerSettings:
        if self.byte_fallback and self.vocabulary < 264:
            raise ValueError("with byte_fallback, vocabulary must be 264 at least: 256 are bytes")
        return self


class Tokenizer:
    """A trained SentencePiece model. `model` is its path or its bytes.

    Raises UserError where the file is missing or is no SentencePiece model.
    """

    def __init__(self, model: Path | str | bytes) -> None:
        self._model = _load(model)
        self.vocabulary_size: int = self._model.vocab_size()
        self.dtype = ids_dtype(self.vocabulary_size)
        self._words = _Words(self._model, self.dtype)

    def same_pieces(self, other: Tokenizer) -> bool:
        """Whether both cut every text into the same ids."""
        mine, others = (t._model.serialized_model_proto() for t in (self, other))
        return bool(mine == others)

    def encode(self, sentences: list[str]) -> list[list[int]]:
        """The ids of each sentence, without begin and end marks.

        Expects normalised sentences (`rnnmt.corpora.clean.normalise`).
        """
        return [np.frombuffer(row, self.dtype).tolist() for row in self._rows(sentences)]

    def encode_flat(
        self, sentences: Iterable[str]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """As `encode`, for a token store: all ids (tokens,) and the lengths (sentences,)."""
        rows = self._rows(sentences)
        sizes = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        return np.frombuffer(b"".join(rows), self.dtype), sizes // self.dtype.itemsize

    def _rows(self, sentences: Iterable[str]) -> list[bytes]:
        remembered = self._words.__getitem__
        return [b"".join(map(remembered, sentence.split(" "))) for sentence in sentences]

    def decode(self, sentences: list[list[int]]) -> list[str]:
        """The normalised text of each sentence; padding, begin and end marks have none.

        Never a line break, not even where a model spelled one in bytes.
        """
        return [normalise(self._model.decode(ids)) for ids in sentences]

    def pieces(self, ids: list[int]) -> list[str]:
        """The piece of each id; U+2581 in a piece is a space."""
        return [self._model.id_to_piece(i) for i in ids]


class BpeDropout:
    """Cuts sentences anew, each merge of a pair left out at random (Provilkov et al. 2020).

    Words are cut one by one, and each is remembered in SAMPLES ways, of which chance takes one.
    It stands here because SentencePiece's own sampling cannot be repeated: its seed gives other
    cuts in another process. Raises UserError where the tokenizer is not of the algorithm bpe.
    """

    def __init__(self, tokenizer: Tokenizer, rate: float) -> None:
        model = tokenizer._model
        self._dtype, self._rate = tokenizer.dtype, rate
        self._pieces = tokenizer.pieces(list(range(tokenizer.vocabulary_size)))
        self._ids = {
            piece: i
            for i, piece in enumerate(self._pieces)
            if not (model.is_control(i) or model.is_unknown(i) or model.is_byte(i))
        }
        # The later a merge was learnt, the lower is its score: bpe's are 0, -1, -2, ...
        self._scores = {piece: model.get_score(i) for piece, i in self._ids.items()}
        if not all(score.is_integer() for score in self._scores.values()):
            raise UserError(
                f"{params.path()}: train.bpe_dropout: the tokenizer is not of the algorithm bpe; "
                "set it to 0.0, or tokenizer.algorithm to bpe"
            )
        self._begins = np.array([piece.startswith("\u2581") for piece in self._pieces])
        self._remembered: dict[tuple[bytes, int], bytes] = {}

    def sample(
        self, sentences: TokenStore, seed: tuple[int, ...]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """The same texts in other pieces, which `seed` determines.

        Returns, as `encode_flat`, all ids (tokens,) and the lengths (sentences,).
        """
        begins = self._begins[sentences.ids]
        begins[sentences.offsets[:-1][sentences.lengths > 0]] = True
        places = np.flatnonzero(begins)  # (words,) where each begins
        picks = np.random.default_rng(seed).integers(SAMPLES, size=len(places)).tolist()
        size = self._dtype.itemsize
        ends = (np.append(places, len(sentences.ids)) * size).tolist()
        content = np.ascontiguousarray(sentences.ids, self._dtype).tobytes()
        words = [
            self._sampled(content[start:end], pick)
            for start, end, pick in zip(ends, ends[1:], picks, strict=False)
        ]
        owners = np.searchsorted(sentences.offsets, places, side="right") - 1
        tokens = np.fromiter(map(len, words), dtype=np.int64, count=len(words)) // size
        lengths = np.bincount(owners, weights=tokens, minlength=len(sentences)).astype(np.int64)
        return np.frombuffer(b"".join(words), self._dtype), lengths

    def _sampled(self, word: bytes, pick: int) -> bytes:
        found = self._remembered.get((word, pick))
        if found is None:
            if len(self._remembered) >= REMEMBERED_WORDS:
                self._remembered.clear()
            found = self._remembered[word, pick] = self._cut(word, pick)
        return found

    def _cut(self, word: bytes, pick: int) -> bytes:
        pieces = [self._pieces[i] for i in np.frombuffer(word, self._dtype)]
        symbols = list("".join(pieces))
        # What has been spelled in bytes, or is unknown, stays as it is.
        if not all(symbol in self._ids for symbol in (*pieces, *symbols)):
            return word
        chance = random.Random(word + pick.to_bytes())
        merged = merge(symbols, self._scores, lambda: chance.random() < self._rate)
        return np.array([self._ids[symbol] for symbol in merged], self._dtype).tobytes()


def merge(symbols: list[str], scores: Mapping[str, float], drop: Callable[[], bool]) -> list[str]:
    """Byte-pair encoding of a word's letters; `drop` leaves out a merge for the time being."""
    while True:
        pairs = enumerate(map(operator.add, symbols, symbols[1:]))
        merges = [(scores[pair], -i) for i, pair in pairs if pair in scores and not drop()]
        if not merges:
            return symbols
        i = -max(merges)[1]  # of equals the first
        symbols = [*symbols[:i], symbols[i] + symbols[i + 1], *symbols[i + 2 :]]


class _Words(dict[str, bytes]):
    """word -> its ids as bytes, cut when first asked for."""

    def __init__(self, model: sentencepiece.SentencePieceProcessor, dtype: np.dtype[Any]) -> None:
        super().__init__()
        self._model = model
        self._dtype = dtype

    def __missing__(self, word: str) -> bytes:
        ids = np.array(self._model.encode(word), self._dtype).tobytes()
        if len(self) >= REMEMBERED_WORDS:
            self.clear()
        if len(word) <= REMEMBERED_LENGTH:
            self[word] = ids
        return ids


def train(sentences: Iterable[str], settings: TokenizerSettings, sides: str) -> bytes:
    """A SentencePiece model of normalised sentences, the same bytes for the same sentences.

    Where the text is too small for `settings.vocabulary` pieces the model has fewer. `sides`
    names the text in messages. Raises UserError where it needs more pieces.
    """
    model = io.BytesIO()
    try:
        # From an iterator: a model made from files would have their paths in it.
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            model_type=settings.algorithm,
            vocab_size=settings.vocabulary,
            hard_vocab_limit=False,
            byte_fallback=settings.byte_fallback,
            # The rarest character in 20,000 is spelled in bytes, or unknown: a corpus from the
            # web has thousands of stray ones, each of which would cost a piece.
            character_coverage=0.99995,
            split_digits=True,
            normalization_rule_name="identity",
            max_sentence_length=1 << 30,
            # Fixed: unigram's sums, and so its pieces, depend on the number of threads.
            num_threads=2,
            pad_id=PAD,
            unk_id=UNK,
            bos_id=BOS,
            eos_id=EOS,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _explain(error, settings, sides) from None
    return model.getvalue()


def _explain(error: RuntimeError, settings: TokenizerSettings, sides: str) -> UserError:
    needed = re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(error))
    if needed:
        return UserError(
            f"{params.path()}: tokenizer.vocabulary: {settings.vocabulary} pieces are too few for "
            f"the {sides} text: its characters"
            f"{' and the 256 bytes' if settings.byte_fallback else ''} alone take {needed[1]}; "
            "a good value is several times that"
        )
    return UserError(f"SentencePiece cannot learn from the {sides} text: {error}")


def _load(model: Path | str | bytes) -> sentencepiece.SentencePieceProcessor:
    try:
        content = model if isinstance(model, bytes) else Path(model).read_bytes()
        return sentencepiece.SentencePieceProcessor(model_proto=content)
    except FileNotFoundError:
        raise UserError(f"{model!s}: no such file; run the stage 'tokenize' first") from None
    except (OSError, RuntimeError) as error:
        name = "the model" if isinstance(model, bytes) else model
        raise UserError(f"{name}: not a SentencePiece model: {error}") from None
