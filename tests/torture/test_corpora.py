"""Campaign: corpora as no one should have them, through download and tokenize.

Either a stage says what is wrong, or nothing is lost in silence: line n of one side stays the
translation of line n of the other, and what is dropped is counted.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from closure import ROOT
from rnnmt.corpora.clean import normalise
from rnnmt.corpora.files import Text
from rnnmt.dataset.store import open_split
from rnnmt.dataset.tokenizer import Tokenizer
from rnnmt.errors import UserError
from rnnmt.stages import download, tokenize

SIDES = ("source", "target")
# What sentences are made of, beside plain words.
ODD = (
    "", " ", "\u00a0", "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\ufeff", "\u200b",
    "\u200d", "\u202e", "\u2066", "\u2581", "\u0001", "\x7f", "\x9f", "e\u0301", "\u00e9",
    "\u1100\u1161", "\ufb01", "\u212b", "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\U0001f1eb\U0001f1f7", "\u0645\u0631\u062d\u0628\u0627", "\u4f60\u597d", "\ud55c",
    "\U0010ffff", "\ufffe", "\ufffd", '"', "'", "\\", "<s>", "</s>", "<unk>", "<EOS>", "<0x41>",
    "a" * 300, "a\u0300" * 50, "{{x}}", "%s", "$(x)",
)  # fmt: skip
TAG = re.compile(r"t(\d+)t")


def sentence(dice: random.Random, number: int, long: bool) -> str:
    """Words, plain and odd, with the number of its pair somewhere."""
    words = [dice.choice(("the", "cat", "le", "chat", "12", dice.choice(ODD))) for _ in range(6)]
    if dice.random() < 0.03:
        return ""
    if long:
        words += [dice.choice(ODD) for _ in range(20_000)]
    words.insert(dice.randrange(len(words)), f"t{number}t")
    return (
        " ".join(words).replace("\t", " ").replace("\n", " ").replace("\r", " ").replace("\0", "")
    )


def _cut(dice: random.Random, data: bytes) -> bytes:
    return data[: dice.randrange(len(data) + 1)]


def _flip(dice: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        if changed:
            changed[dice.randrange(len(changed))] = dice.randrange(256)
    return bytes(changed)


def _insert(what: bytes) -> Callable[[random.Random, bytes], bytes]:
    def mutate(dice: random.Random, data: bytes) -> bytes:
        place = dice.randrange(len(data) + 1)
        return data[:place] + what + data[place:]

    return mutate


# What becomes of the bytes of a file. After those of SCRAMBLED no number need be what it was.
MUTATIONS: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "latin-1": lambda _, data: data.decode().encode("latin-1", "replace"),
    "utf-16": lambda _, data: data.decode().encode("utf-16"),
    "utf-16 without mark": lambda _, data: data.decode().encode("utf-16-le"),
    "byte order mark": lambda _, data: b"\xef\xbb\xbf" + data,
    "crlf": lambda _, data: data.replace(b"\n", b"\r\n"),
    "carriage returns": lambda _, data: data.replace(b"\n", b"\r"),
    "no last newline": lambda _, data: data.removesuffix(b"\n"),
    "nothing": lambda *_: b"",
    "blank lines": lambda _, data: b"\n" * data.count(b"\n"),
    "one line more": lambda _, data: data + b"one more\n",
    "nul": _insert(b"\0"),
    "surrogate": _insert(b"\xed\xa0\x80"),
    "overlong": _insert(b"\xc0\x80"),
    "cut": _cut,
    "flipped": _flip,
}
SCRAMBLED = ("cut", "flipped", "nul", "surrogate", "overlong", "blank lines")


class World:
    """A folder with settings and a corpus, all as one trial's dice have it."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder, self.dice = folder, random.Random(number)
        dice = self.dice
        self.pairs = dice.choice((1, 5, 30, 60, 90))
        self.zipped, self.mutation = dice.random() < 0.3, ""
        self.scrambled = False
        settings = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text())
        settings["corpus"] = self._corpus()
        settings["cleaning"] |= {
            "max_words": dice.choice((3, 12, 100, 100)),
            "max_length_ratio": dice.choice((1.5, 4.0, 1e9)),
            "drop_identical": dice.random() < 0.5,
            "drop_duplicates": dice.random() < 0.5,
        }
        settings["tokenizer"] = {
            "algorithm": dice.choice(("bpe", "unigram")),
            "joint": dice.random() < 0.5,
            "vocabulary": dice.choice((1, 20, 150, 300, 400, 5000)),
            "byte_fallback": dice.random() < 0.6,
        }
        self.settings = settings
        with open(folder / "params.yaml", "w", encoding="utf-8") as file:
            YAML(typ="safe", pure=True).dump(settings, file)

    def _corpus(self) -> dict[str, Any]:
        dice = self.dice
        base = {"name": "odd", "source": "files", "source_language": "en", "target_language": "fr"}
        held_out = {"held_out": {"valid": dice.choice((1, 3)), "test": 1}, "seed": 1}
        kind = dice.choice(("splits", "held out", "tsv"))
        if kind == "tsv":
            lines = self._lines("train")
            self._write("all.tsv", lines)
            return base | held_out | {"tsv": "all.tsv", "columns": [1, 2]}
        names = ("train", "valid", "test") if kind == "splits" else ("train",)
        splits = {}
        for name in names:
            splits[name] = [f"{name}.en", f"{name}.fr"]
            pairs = [line.split("\t") for line in self._lines(name)]
            for side, file in enumerate(splits[name]):
                self._write(file, [pair[side] for pair in pairs])
        return base | {"splits": splits} | ({} if kind == "splits" else held_out)

    def _lines(self, split: str) -> list[str]:
        long = self.dice.random() < 0.02
        count = self.pairs if split == "train" else self.dice.choice((1, 3))
        start = {"train": 0, "valid": 1000, "test": 2000}[split]
        return [
            "\t".join(sentence(self.dice, start + n, long and not n) for _ in SIDES)
            for n in range(count)
        ]

    def _write(self, name: str, lines: list[str]) -> None:
        data = "".join(f"{line}\n" for line in lines).encode()
        if not self.mutation and self.dice.random() < 0.15:
            self.mutation = self.dice.choice(list(MUTATIONS))
            self.scrambled = self.mutation in SCRAMBLED
            data = MUTATIONS[self.mutation](self.dice, data)
        if self.zipped:
            data = gzip.compress(data)
            if not self.mutation and self.dice.random() < 0.2:
                self.mutation, self.scrambled = "gzip", True
                data = self.dice.choice((_cut, _flip, _insert(b"x")))(self.dice, data)
        (self.folder / name).write_bytes(data)

    def files(self, name: str) -> dict[str, bytes]:
        folder = self.folder / "data/odd" / name
        return {file.name: file.read_bytes() for file in folder.iterdir()}

    def lines(self, split: str, side: str) -> list[str]:
        text = (self.folder / f"data/odd/raw/{split}.{side}").read_bytes().decode()
        return text.split("\n")[:-1]


def does(stage: Callable[[], None], world: World, tally: Counter[str]) -> bool:
    """Run a stage. True if it succeeds; else its message must say what to mend."""
    message = ""
    try:
        stage()
    except UserError as error:
        tally["clear error"] += 1
        message = str(error)
    finally:
        left = {file.name for file in (world.folder / "data/odd").iterdir()}
        assert left <= {"raw", "tokens"}, left
    if message:
        assert re.search(r"data/odd|all\.tsv|\.en\b|\.fr\b|corpus|tokenizer", message), message
        assert len(message) < 2000
    return not message


def aligned(left: list[str], right: list[str]) -> bool:
    """Whether pairs that still have their numbers on both sides have the same one."""
    numbers = [[TAG.findall(line) for line in side] for side in (left, right)]
    return all(a == b for a, b in zip(*numbers, strict=True) if a and b)


def check_raw(world: World) -> None:
    manifest = json.loads((world.folder / "data/odd/raw/manifest.json").read_text())
    for split, count in manifest["splits"].items():
        sides = [world.lines(split, side) for side in SIDES]
        assert [len(lines) for lines in sides] == [count, count]
        assert all(line.splitlines() in ([], [line]) for lines in sides for line in lines)
        assert world.scrambled or aligned(*sides)
    if not world.mutation:
        assert sum(manifest["splits"].values()) + sum(manifest["dropped"].values()) >= world.pairs


def check_tokens(world: World) -> None:
    folder = world.folder / "data/odd/tokens"
    manifest = json.loads((folder / "manifest.json").read_text())
    for split, counts in manifest["splits"].items():
        assert counts["read"] == counts["kept"] + sum(counts["dropped"].values())
        assert counts["read"] == len(world.lines(split, "source"))
        store = open_split(folder, split)
        texts = [
            Tokenizer(folder / f"{side}.model").decode([ids.tolist() for ids in of_side])
            for side, of_side in zip(SIDES, (store.source, store.target), strict=True)
        ]
        assert [len(lines) for lines in texts] == [counts["kept"]] * 2
        assert world.scrambled or aligned(*texts)
        for side in SIDES if split != "train" else ():
            written = (folder / f"{split}.{side}.txt").read_text(encoding="utf-8")
            wanted = [normalise(line) for line in world.lines(split, side)]
            assert written.split("\n")[:-1] == wanted


@pytest.mark.trials(25, 3000)
def test_corpora(
    trials: range, tally: Counter[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in trials:
        folder = tmp_path / str(number)
        (folder / "data/odd").mkdir(parents=True)
        monkeypatch.chdir(folder)
        world = World(folder, number)
        try:
            if does(download.main, world, tally):
                check_raw(world)
                if does(tokenize.main, world, tally):
                    check_tokens(world)
                    before = world.files("raw"), world.files("tokens")
                    download.main()
                    tokenize.main()
                    assert (world.files("raw"), world.files("tokens")) == before
                    tally["survived whole"] += 1
        except BaseException as error:
            raise AssertionError(f"trial {number}, {world.mutation}: {error!r}") from error


# --- archives -------------------------------------------------------------------------------------


def make_zip(dice: random.Random, lines: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", dice.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as file:
        for name in dice.choice((["a.txt"], ["../a.txt"], ["/etc/a.txt"], ["a.txt", "b.txt"], [])):
            file.writestr(name, lines)
        if dice.random() < 0.2:
            link = zipfile.ZipInfo("link.txt")
            link.external_attr = 0o120777 << 16
            file.writestr(link, "/etc/passwd")
    return out.getvalue()


def make_tar(dice: random.Random, lines: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=dice.choice(("w", "w:gz", "w:xz", "w:bz2"))) as file:
        if dice.random() < 0.3:
            link = tarfile.TarInfo("a.txt")
            link.type, link.linkname = (
                dice.choice((tarfile.SYMTYPE, tarfile.LNKTYPE)),
                "/etc/passwd",
            )
            file.addfile(link)
        for name in dice.choice((["a.txt"], ["../../a.txt"], ["x/../a.txt"], [])):
            info = tarfile.TarInfo(name)
            info.size = len(lines)
            file.addfile(info, io.BytesIO(lines))
    return out.getvalue()


@pytest.mark.trials(150, 20_000)
def test_archives(trials: range, tally: Counter[str], tmp_path: Path) -> None:
    """Damaged ones, bombs and those that point elsewhere are read as text or refused."""
    file = tmp_path / "archive"
    for number in trials:
        dice, message = random.Random(number), str(file)
        lines = dice.choice((b"one\ntwo\n", b"", b"\n" * 50, b"0" * 2_000_000 + b"\n"))
        data = dice.choice((make_zip, make_tar))(dice, lines)
        if dice.random() < 0.7:
            data = dice.choice((_cut, _flip, _insert(os.urandom(3))))(dice, data)
        file.write_bytes(data)
        try:
            found = list(Text(file, dice.choice(("a.txt", "*a.txt", "*.txt"))).lines())
            assert not any("root:" in line for line in found)
            tally["read"] += 1
        except UserError as error:
            message = str(error)
            tally["clear error"] += 1
        except BaseException as error:
            raise AssertionError(f"trial {number}: {error!r}") from error
        assert str(file) in message
    assert {path.name for path in tmp_path.iterdir()} == {"archive"}


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.gz"
    with gzip.open(bomb, "wb", compresslevel=9) as file:
        for _ in range(250):
            file.write((b"0" * 999 + b"\n") * 1000)
    with pytest.raises(UserError, match="inflates"):
        sum(1 for _ in Text(bomb).lines())
