"""Holding out sentences for validation and test, so that no source sentence is in two splits."""

from __future__ import annotations

import hashlib
import heapq
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from rnnmt.errors import UserError

Pair = tuple[str, str]
Row = tuple[str, str, str]  # split, source, target

FURTHER = "further_pairs_of_held_out_sources"


class _Folding(dict[int, str]):
    """For str.translate: letters, marks and digits stay, anything else is a space."""

    def __missing__(self, code: int) -> str:
        kept = unicodedata.category(chr(code))[0] in "LMN"
        self[code] = chr(code) if kept else " "
        return self[code]


_folding = _Folding()


def fold(sentence: str) -> str:
    """What near-identical sentences share: no case, no punctuation, single spaces."""
    text = unicodedata.normalize("NFKC", sentence).casefold()
    return " ".join(text.translate(_folding).split())


def split(
    pairs: Callable[[], Iterable[Pair]],
    held_out: Mapping[str, int],
    seed: int,
    dropped: Counter[str],
) -> Iterator[Row]:
    """The pairs, each with its split; `pairs` is called twice, since a corpus may be large.

    Source sentences are drawn, by a hash of seed and folded sentence, so that the order of the
    corpus does not matter. A held-out sentence keeps its first translation; its further pairs
    go nowhere and are counted in `dropped`. Raises UserError where nothing would be left to
    train on.
    """
    split_of = _choose(pairs(), held_out, seed)
    done: set[int] = set()
    for source, target in pairs():
        key = _key(source, seed)
        if key is None or key not in split_of:
            yield "train", source, target
        elif key in done or not target.strip():
            dropped[FURTHER] += 1
        else:
            done.add(key)
            yield split_of[key], source, target


def _choose(pairs: Iterable[Pair], held_out: Mapping[str, int], seed: int) -> dict[int, str]:
    """Hash -> split, for the sources with the smallest hashes."""
    wanted = sum(held_out.values())
    chosen: set[int] = set()
    largest_first: list[int] = []  # the same, negated: a heap of `wanted` needs no sorting of all
    left = False
    for source, target in pairs:
        key = _key(source, seed)
        if key is None or key in chosen or not target.strip():
            continue
        if len(chosen) < wanted:
            heapq.heappush(largest_first, -key)
            chosen.add(key)
            continue
        left = True
        out = -heapq.heappushpop(largest_first, -key)
        chosen.add(key)
        chosen.remove(out)
    if not left:
        raise UserError(
            f"corpus.held_out asks for {wanted:,} source sentences, but the corpus has only "
            f"{len(chosen):,} different ones (case and punctuation aside), and some must be "
            "left to train on; ask for fewer"
        )
    names = (name for name in sorted(held_out) for _ in range(held_out[name]))
    return dict(zip(sorted(chosen), names, strict=True))


def _key(source: str, seed: int) -> int | None:
    """The sentence's place in the draw; None where it has no letter and no digit."""
    folded = fold(source)
    if not folded:
        return None
    return int.from_bytes(hashlib.sha256(f"{seed}\n{folded}".encode()).digest()[:16])
