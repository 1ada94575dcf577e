"""Alignments between the words of a sentence and of its translation.

Shapes: S and T pieces, M and N words of source and target.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from rnnmt.corpora.words import Link, Links, spans

Floats = NDArray[np.float64]
SPACE = "\u2581"  # how SentencePiece writes one
BYTE = re.compile("<0x(..)>")  # and a byte of a letter that has no piece


def owners(text: str, pieces: Sequence[str]) -> list[int]:
    """The place of the word that each piece belongs to, by its first letter; -1 for <EOS>.

    `pieces` spell `text`, some letters as bytes or as one <unk>. What is in no word, such as a
    lone space, belongs to the next one.
    """
    words, place, found = spans(text), 0, []
    for piece in pieces:
        if piece == "<EOS>":
            found.append(-1)
            continue
        if byte := BYTE.fullmatch(piece):
            place += int(byte[1], 16) & 0xC0 != 0x80  # the first one of a letter in UTF-8
            found.append(sum(end < place for _, end in words[:-1]))
            continue
        letters = "?" if piece == "<unk>" else piece.replace(SPACE, " ")
        if place == 0:  # SentencePiece writes a space before the first word
            letters = letters.removeprefix(" ")
        first = place + len(letters) - len(letters.lstrip(" "))
        found.append(sum(end <= first for _, end in words[:-1]))
        place += len(letters)
    return found


def by_words(attention: Floats, source: Sequence[int], target: Sequence[int]) -> Floats:
    """Attention between pieces (T, S) as attention between words (N, M).

    `source` and `target` say whose word each piece is (see `owners`). A word gets what all its
    pieces get, and gives the mean of what they give; <EOS> is left out.
    """
    given = np.zeros((max(target) + 1, attention.shape[1]))
    pieces = np.array(target)
    np.add.at(given, pieces[pieces >= 0], attention[pieces >= 0])
    counts = np.bincount(pieces[pieces >= 0], minlength=len(given))
    given /= np.maximum(counts, 1)[:, None]
    words = np.zeros((len(given), max(source) + 1))
    columns = np.array(source)
    np.add.at(words.T, columns[columns >= 0], given[:, columns >= 0].T)
    return words


def strongest(attention: Floats) -> set[Link]:
    """For each target word the source word that it attends to most, of weights (N, M)."""
    return {(int(row.argmax()), place) for place, row in enumerate(attention) if row.any()}


def diagonal(links: Links) -> set[Link]:
    """What an alignment is compared with that knows nothing but the sentences' lengths."""
    source, target = len(links.source), len(links.target)
    return {(min(source - 1, (2 * j + 1) * source // (2 * target)), j) for j in range(target)}


def nearest(links: Links) -> set[Link]:
    """What comes nearest to the links, of all that give each target word one source word."""
    found = []
    for place in range(len(links.target)):
        of_word = [[link for link in some if link[1] == place] for some in links[2:]]
        found.append(min(of_word[0] or of_word[1] or [(0, place)]))
    return set(found)


def aer_counts(found: set[Link], true: Links) -> tuple[int, int]:
    """What `error_rate` sums: links found and right, and links found and wanted."""
    hits = len(found & true.sure) + len(found & true.possible)
    return hits, len(found) + len(true.sure)


def error_rate(counts: Iterable[tuple[int, int]]) -> float:
    """The alignment error rate (Och & Ney 2003), 0 to 1, over the `aer_counts` of sentences."""
    sums = np.array(list(counts)).sum(axis=0)
    return float(1 - sums[0] / sums[1]) if sums[1] else 0.0


def entropy(attention: Floats) -> float:
    """The mean entropy of the rows (T, S), in bits: log2 of how many pieces are looked at."""
    weights = attention / attention.sum(axis=1, keepdims=True)
    logs = np.log2(np.where(weights > 0, weights, 1))
    return float(-(weights * logs).sum(axis=1).mean())


def kendall_tau(links: Iterable[Link]) -> float:
    """How alike the order of linked words is: 1 the same, -1 reversed.

    Kendall's tau-a over the pairs of links whose words differ on both sides; 1 where there is
    none.
    """
    pairs = np.array(sorted(links)).reshape(-1, 2)
    left, right = (np.sign(side[:, None] - side[None, :]) for side in pairs.T)
    products = (left * right)[np.triu_indices(len(pairs), 1)]
    counted = int(np.abs(products).sum())
    return float(products.sum() / counted) if counted else 1.0
