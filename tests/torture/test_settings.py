"""Campaign: settings files with one or more mistakes, through `rnnmt check`'s own function.

Either the file is accepted, or a message names the file and the key or the line, at once.
"""

from __future__ import annotations

import copy
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from closure import ROOT
from rnnmt.check import check_settings
from rnnmt.errors import UserError

FILES = [ROOT / "params.yaml", *sorted((ROOT / "recipes").glob("*.yaml"))]
VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 3, 7, 10**9, 10**30, -(10**30), 0.5, -0.5, 1.0, 1e-300, 1e300,
    float("nan"), float("inf"), float("-inf"), "", " ", "no", "1e-3", "lstm", "../x", "a\0b", "é",
    "x" * 5000, "a/b", [], [1], [[1]], [None], [1, 1], [-1], ["a"], {}, {"a": 1}, {1: 2},
    {None: None}, [{}], list(range(2000)),
)  # fmt: skip
# What may stand after a key as it is, which no dump of a value would give.
TEXTS = (
    "1e-3", "no", "0o17", "0x1F", "1_000", "12:30:45", "2026-01-01", ".5", "5.", "+1", "~", "'",
    '"', "[", "{", "*x", "&x 1", "!!python/object/apply:os.getcwd []", "!!bool maybe", "!x 1",
    "|\n", "@", "`", "%", "- 1", "1 # 2", "a: b", "? 1", "[" * 2000, "9" * 6000, "\t1", "\x07",
    "0x" + "f" * 6000, "\ufeff1", "<<: 1", "!!set {a}", "!!binary =", "=", "1\n  ...",
    "1\n---\nx: 1",
)  # fmt: skip
QUICK = 20.0  # seconds for a file, on a slow machine that does other things too


def keys(values: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all keys of nested settings."""
    for key, value in values.items() if isinstance(values, dict) else ():
        yield (*at, key)
        yield from keys(value, (*at, key))


def change(dice: random.Random, settings: dict[str, Any]) -> tuple[Any, ...]:
    """Make one key missing, misspelt or another value; returns its path."""
    path = dice.choice(list(keys(settings)))
    node = settings
    for key in path[:-1]:
        node = node[key]
    kind = dice.random()
    if kind < 0.1:
        del node[path[-1]]
    elif kind < 0.2:
        node[str(path[-1]) + "s"] = node.pop(path[-1])
    elif kind < 0.3:
        other = dice.choice(list(node))
        node[path[-1]], node[other] = node[other], node[path[-1]]
    else:
        node[path[-1]] = copy.deepcopy(dice.choice(VALUES))
    return path


def damage(dice: random.Random, text: str) -> str:
    """Change the text of a file as a slip of the hand, or malice, would."""
    lines = text.split("\n")
    place = dice.choice([n for n, line in enumerate(lines) if ":" in line])
    head, _, _ = lines[place].partition(":")
    kind = dice.randrange(6)
    if kind == 0:
        lines.insert(place, lines[place])
    elif kind == 1:
        lines[place] = dice.choice((" ", "\t", "   ")) + lines[place]
    elif kind == 2:
        return text[: dice.randrange(len(text))]
    elif kind == 3:
        return "a: &a [x, x]\nb: &b [*a, *a]\n" + "".join(
            f"k{n}: &k{n} [{', '.join(['*b'] * 20)}]\n" for n in range(20)
        )
    else:
        lines[place] = f"{head}: {dice.choice(TEXTS)}"
    return "\n".join(lines)


def accepted(file: Path, expected: set[str]) -> bool:
    """Whether the settings are accepted; else the message names one of `expected`, or a line."""
    begun, message = time.perf_counter(), ""
    try:
        check_settings()
    except UserError as error:
        message = str(error)
    assert time.perf_counter() - begun < QUICK
    if message:
        assert len(message) < 5000
        named = re.search(rf"^{re.escape(str(file))}:\d+: ", message)
        assert named or any(key in message for key in expected), message
    return not message


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    written = tmp_path / "params.yaml"
    monkeypatch.setenv("RNNMT_PARAMS", str(written))
    return written


@pytest.mark.trials(12, 1500)
def test_values(trials: range, tally: Counter[str], file: Path) -> None:
    for number in trials:
        dice = random.Random(number)
        settings = YAML(typ="safe", pure=True).load(dice.choice(FILES).read_text())
        changed = [change(dice, settings) for _ in range(dice.choice((1, 1, 1, 2, 3)))]
        try:
            with open(file, "w", encoding="utf-8") as stream:
                YAML(typ="safe", pure=True).dump(settings, stream)
            fine = accepted(file, {str(key) for path in changed for key in path})
            tally["accepted" if fine else "clear error"] += 1
        except BaseException as error:
            raise AssertionError(f"trial {number}, {changed}: {error!r}") from error


@pytest.mark.trials(12, 1500)
def test_texts(trials: range, tally: Counter[str], file: Path) -> None:
    for number in trials:
        dice = random.Random(number)
        text = damage(dice, dice.choice(FILES).read_text())
        file.write_text(text, encoding="utf-8")
        try:
            fine = accepted(file, {str(file)})
            tally["accepted" if fine else "clear error"] += 1
        except BaseException as error:
            raise AssertionError(f"trial {number}: {error!r}") from error
