"""Words, and the links between those of a sentence and of its translation.

A link file, `SPLIT.links.jsonl`, has one JSON object for each pair: the words of both sides, and
the `sure` and `possible` links between them (Och & Ney 2003), each a pair of places, from 0.
"""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

from rnnmt import params
from rnnmt.errors import UserError

# Vowel signs, points and joiners are parts of words, and to Python no letters.
_MARKS = "".join(c for c in map(chr, range(0x300, 0x1F000)) if unicodedata.category(c)[0] == "M")
_MARKS += "\u200c\u200d"
_LETTERS = rf"\w[\w{_MARKS}]*"
# An elided word ends with its apostrophe: "l'" "eau"; the English genitive begins with its own.
_WORD = re.compile(rf"{_LETTERS}(?:-{_LETTERS})*(?:['’](?!s\b))?|['’]s\b|[^\w\s]")

Link = tuple[int, int]  # the place of a source word, and of a target word


class Links(NamedTuple):
    """The words of one sentence pair and which translates which; `possible` holds `sure`."""

    source: list[str]
    target: list[str]
    sure: set[Link]
    possible: set[Link]


def words(text: str) -> list[str]:
    """The words and punctuation marks of a text."""
    return _WORD.findall(text)


def spans(text: str) -> list[tuple[int, int]]:
    """Where each of the `words` begins and ends."""
    return [match.span() for match in _WORD.finditer(text)]


def ends_in_letter(word: str) -> bool:
    """Neither a punctuation mark nor what an apostrophe cuts off."""
    return word[-1].isalnum() or (len(word) > 1 and word[-1] in _MARKS)


def to_json(links: Links) -> str:
    """One line of a link file."""
    values = {
        "source": links.source,
        "target": links.target,
        "sure": sorted(links.sure),
        "possible": sorted(links.possible - links.sure),
    }
    return json.dumps(values, ensure_ascii=False)


def read_links(path: Path) -> list[Links]:
    """A link file. Raises UserError where it is missing or damaged."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [_links(row) for row in rows]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run: {params.remake('align')}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); run: {params.remake('-f align')}") from None


def _links(row: dict[str, list[list[int]]]) -> Links:
    sure = {(i, j) for i, j in row["sure"]}
    possible = {(i, j) for i, j in row["possible"]}
    return Links([*map(str, row["source"])], [*map(str, row["target"])], sure, sure | possible)
