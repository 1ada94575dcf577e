"""Text as everything after the download sees it, and which training pairs are worth keeping.

`normalise` is used on training text, on references and on what a user asks to be translated.
It must not distort a published score, so it changes no more than a metric ignores anyway:
every metric of sacreBLEU splits text with `str.split()`, for which a no-break space is a space,
so that writing all of these as one plain space leaves the scores of a reference as they are.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from hashlib import blake2b
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field

from rnnmt.errors import UserError
from rnnmt.params import Settings

KEPT = "kept"
REASONS = (
    "empty", "too_long", "length_ratio", "identical", "source_in_held_out_set", "duplicate",
)  # fmt: skip

# Text without spaces (Chinese, or rubbish) counts as words of this many characters.
LONGEST_WORD = 20
# Bytes of a file that are decoded and normalised at once.
BLOCK = 1 << 20
# Pairs that are looked up among the earlier ones at once.
CHUNK = 1 << 16

# Control characters that are no white space, and SentencePiece's own mark for a space, which it
# cannot tell from one. Joiners and other invisible characters stay: Persian, Hindi and emoji
# are spelled with them.
_BLANK = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u2581]")
_BYTE_ORDER_MARK = "\ufeff"


class CleaningSettings(Settings):
    """Section `cleaning`: which training pairs are dropped. Held-out sets keep every pair."""

    max_words: int = Field(ge=1)
    max_length_ratio: float = Field(ge=1.0)
    drop_identical: bool
    drop_duplicates: bool


def normalise(text: str) -> str:
    """One sentence in NFC, without control characters, with single plain spaces between words.

    Any white space, a line break included, becomes one space, and none is left at the ends;
    byte order marks disappear. Case, punctuation and all other characters stay. Normalising
    twice is normalising once.
    """
    return " ".join(_plain(text)[0].split())


def _plain(text: str) -> tuple[str, int]:
    """NFC without control characters, and how many characters were blanked.

    White space, and so the lines of a block, stays as it was.
    """
    text, blanked = _BLANK.subn(" ", text.replace(_BYTE_ORDER_MARK, ""))
    return unicodedata.normalize("NFC", text), blanked


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file as they stand, without their "\\n", which alone ends a line.

    Raises UserError naming file and line where the text is not UTF-8.
    """
    for block in _blocks(path):
        yield from block.removesuffix("\n").split("\n")


def read_normalised(path: Path, counts: Counter[str]) -> Iterator[str]:
    """`normalise` of every line of a UTF-8 file. Raises as `read_lines` does.

    Adds to `counts["control_characters"]` how many were replaced.
    """
    for block in _blocks(path):
        # A whole block in one call: nothing that `_plain` does reaches across a line break.
        text, blanked = _plain(block.removesuffix("\n"))
        counts["control_characters"] += blanked
        for line in text.split("\n"):
            yield " ".join(line.split())


def count_lines(path: Path) -> int:
    """The number of lines of a file; a last one without "\\n" counts too."""
    lines, last = 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            lines, last = lines + block.count(b"\n"), block[-1:]
    return lines + (last != b"\n")


def judge(
    pairs: Iterable[tuple[str, str]], settings: CleaningSettings, held_out: Set[str]
) -> Iterator[tuple[str, tuple[str, str]]]:
    """Every normalised training pair, in order, after KEPT or the one of REASONS to drop it.

    `held_out` has the normalised source sentences of the validation and test sets. Of equal
    pairs the first is kept. Memory: 8 bytes for each kept pair (16 for moments).
    """
    pairs = iter(pairs)
    seen = _Seen()
    while chunk := list(islice(pairs, CHUNK)):
        verdicts = [_verdict(source, target, settings, held_out) for source, target in chunk]
        if settings.drop_duplicates:
            kept = [i for i, verdict in enumerate(verdicts) if verdict == KEPT]
            for i, repeated in zip(kept, seen.add([chunk[i] for i in kept]), strict=True):
                if repeated:
                    verdicts[i] = "duplicate"
        yield from zip(verdicts, chunk, strict=True)


def _verdict(source: str, target: str, settings: CleaningSettings, held_out: Set[str]) -> str:
    if not source or not target:
        return "empty"
    if _too_long(source, settings.max_words) or _too_long(target, settings.max_words):
        return "too_long"
    short, long = sorted((len(source), len(target)))
    if long > settings.max_length_ratio * short:
        return "length_ratio"
    if settings.drop_identical and source == target:
        return "identical"
    if source in held_out:
        return "source_in_held_out_set"
    return KEPT


def _too_long(sentence: str, max_words: int) -> bool:
    return sentence.count(" ") >= max_words or len(sentence) > max_words * LONGEST_WORD


class _Seen:
    """A growing set of pairs, as sorted arrays of 8-byte hashes.

    A Python set of ten million numbers takes a gigabyte and more; this takes 80 MB. That two of
    ten million different pairs share a hash has a probability of three in a million.
    """

    def __init__(self) -> None:
        # Each array is at least twice as long as the next, so that there are few.
        self._sorted: list[npt.NDArray[np.uint64]] = []

    def add(self, pairs: list[tuple[str, str]]) -> npt.NDArray[np.bool_]:
        """Which of the pairs (n,) were here already or stand earlier in the list; adds all."""
        hashes = np.frombuffer(b"".join(map(_hash, pairs)), dtype="<u8")
        unique, first = np.unique(hashes, return_index=True)
        known = np.zeros(len(unique), dtype=bool)
        for run in self._sorted:
            at = np.minimum(np.searchsorted(run, unique), len(run) - 1)
            known |= run[at] == unique
        repeated = np.ones(len(hashes), dtype=bool)
        repeated[first[~known]] = False
        if not known.all():
            self._insert(unique[~known])
        return repeated

    def _insert(self, run: npt.NDArray[np.uint64]) -> None:
        while self._sorted and len(self._sorted[-1]) < 2 * len(run):
            run = np.concatenate([self._sorted.pop(), run])
            run.sort(kind="stable")  # merges what is sorted in parts already
        self._sorted.append(run)


def _hash(pair: tuple[str, str]) -> bytes:
    # A normalised sentence has no line break: "\n" makes the two unambiguous.
    return blake2b("\n".join(pair).encode(), digest_size=8).digest()


def _blocks(path: Path) -> Iterator[str]:
    """The text of a file in pieces of whole lines."""
    lines = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK) + file.readline():
            try:
                yield block.decode()
            except UnicodeDecodeError as error:
                line = lines + block.count(b"\n", 0, error.start) + 1
                raise UserError(
                    f"{path}:{line}: not UTF-8 ({error.reason}); convert the file, or remove this "
                    "line from both sides"
                ) from None
            lines += block.count(b"\n")
