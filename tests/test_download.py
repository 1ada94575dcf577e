"""The download stage: every source through the public command, and every way a network fails."""

from __future__ import annotations

import contextlib
import dataclasses
import email.utils
import gzip
import hashlib
import io
import json
import lzma
import os
import random
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from rnnmt import params
from rnnmt.corpora import catalogue, fetch, files, settings
from rnnmt.corpora.split import FURTHER, fold, split
from rnnmt.errors import UserError
from rnnmt.stages import download

# ---------------------------------------------------------------- the command and its world


def configure(folder: Path, corpus: Mapping[str, Any]) -> None:
    """Write a params.yaml whose section `corpus` is this; JSON is YAML."""
    sections: dict[str, Any] = {key: {} for key in params.SECTIONS}
    (folder / "params.yaml").write_text(json.dumps(sections | {"corpus": dict(corpus)}, indent=1))


def run(
    folder: Path, corpus: Mapping[str, Any], mirror: str = ""
) -> subprocess.CompletedProcess[str]:
    configure(folder, corpus)
    return subprocess.run(
        [sys.executable, "-m", "rnnmt.stages.download"],
        cwd=folder,
        env={**os.environ, "RNNMT_MIRROR": mirror, "HOME": str(folder), "NO_PROXY": "*"},
        capture_output=True,
        text=True,
        check=False,
    )


def fails(folder: Path, corpus: Mapping[str, Any], mirror: str = "") -> str:
    """The message of a run that must end in one, without a traceback and without output."""
    result = run(folder, corpus, mirror)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert not list(folder.glob("data/*/raw"))
    return result.stderr


def read(folder: Path, split: str, side: str) -> list[str]:
    text = (folder / f"data/mine/raw/{split}.{side}").read_bytes().decode()
    assert text.endswith("\n")
    assert text.split("\n")[:-1] == text.splitlines()  # whatever reads it sees the same lines
    return text.splitlines()


def manifest(folder: Path) -> dict[str, Any]:
    value = json.loads((folder / "data/mine/raw/manifest.json").read_text(encoding="utf-8"))
    assert isinstance(value, dict)
    return value


def aligned_files(folder: Path, sizes: Mapping[str, int]) -> dict[str, Any]:
    """A corpus of two plain files for each split, line n of one translating line n of the other."""
    for name, size in sizes.items():
        (folder / f"{name}.en").write_text("".join(f"{name} {n}\n" for n in range(size)))
        (folder / f"{name}.fr").write_text("".join(f"le {name} {n}\n" for n in range(size)))
    return {
        "name": "mine",
        "source": "files",
        "source_language": "en",
        "target_language": "fr",
        "splits": {name: [f"{name}.en", f"{name}.fr"] for name in sizes},
    }


SIZES = {"train": 5, "valid": 2, "test": 3, "test_hard": 1}


# ---------------------------------------------------------------- the user's files


def test_aligned_files(tmp_path: Path) -> None:
    result = run(tmp_path, aligned_files(tmp_path, SIZES))
    assert result.returncode == 0, result.stderr
    for name, size in SIZES.items():
        assert read(tmp_path, name, "source") == [f"{name} {n}" for n in range(size)]
        assert read(tmp_path, name, "target") == [f"le {name} {n}" for n in range(size)]
    written = manifest(tmp_path)
    assert written["splits"] == SIZES
    assert (written["source_language"], written["target_language"]) == ("en", "fr")
    assert set(written["sha256"]) == {f"{n}.{side}" for n in SIZES for side in ("source", "target")}
    for name, digest in written["sha256"].items():
        data = (tmp_path / "data/mine/raw" / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == digest
    assert "licence" in result.stdout.lower()


def test_line_ends_marks_and_separators_keep_lines_aligned(tmp_path: Path) -> None:
    corpus = aligned_files(tmp_path, SIZES)
    odd = "\ufeffa\u2028b\r\nc\x85d\n\ne\x0bf\x0cg\rh\r\nlast".encode()
    (tmp_path / "train.en").write_bytes(odd)
    (tmp_path / "train.fr").write_bytes(gzip.compress(b"1\n2\n3\n4\n5\n", mtime=0))
    result = run(tmp_path, corpus)
    assert result.returncode == 0, result.stderr
    assert read(tmp_path, "train", "source") == ["a b", "c d", "", "e f g h", "last"]
    assert read(tmp_path, "train", "target") == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.fr", b"1\n2\n3\n", ["train.en has 5 lines", "train.fr has 3"]),
        ("valid.en", b"1\n2\n3\n4\n", ["valid.en has 4 lines", "valid.fr has 2"]),
        ("test.en", b"1\ncaf\xe9\n3\n", ["test.en:2", "UTF-8", "byte 4"]),
        ("test.en", "1\n2\n3\n".encode("utf-16"), ["test.en", "UTF-16"]),
        ("test.en", gzip.compress(b"1\n2\n3\n", mtime=0)[:-6], ["test.en", "cannot be read"]),
        ("test.en", "1\n2\n3\n".encode("utf-16-le"), ["test.en:1", "NUL", "UTF-16"]),
        ("test.en", b"1\r2\r3\r", ["test.en", "carriage returns alone"]),
        ("test.en", b"PK\x03\x04...", ["test.en: this is a zip archive; unpack it"]),
        ("test.en", b"x" * 1_100_000, ["test.en:1", "one sentence on a line"]),
        ("test_hard.en", b"", ["test_hard.en has 0 lines"]),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: bytes, message: list[str]) -> None:
    corpus = aligned_files(tmp_path, SIZES)
    (tmp_path / name).write_bytes(content)
    error = fails(tmp_path, corpus)
    for part in message:
        assert part in error
    assert not list((tmp_path / "data/mine").iterdir())


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    corpus = aligned_files(tmp_path, SIZES)
    (tmp_path / "test.en").unlink()
    (tmp_path / "test.en").mkdir()
    assert "test.en: a folder; expected a file of sentences" in fails(tmp_path, corpus)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    corpus = aligned_files(tmp_path, SIZES)
    (tmp_path / "test.en").unlink()
    os.mkfifo(tmp_path / "test.en")
    assert "test.en: not a file that can be read twice" in fails(tmp_path, corpus)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE])
def test_what_is_no_file_in_a_tar_is_passed_over(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar.xz", "w:xz") as archive:
        other = tarfile.TarInfo("one.txt")
        other.type, other.linkname = kind, "/etc/passwd"
        archive.addfile(other)
        real = tarfile.TarInfo("two.txt")
        real.size = 4
        archive.addfile(real, io.BytesIO(b"a\nb\n"))
    assert list(files.Text(tmp_path / "a.tar.xz", "*.txt").lines()) == ["a", "b"]
    with pytest.raises(UserError, match="no such file"):
        list(files.Text(tmp_path / "a.tar.xz", "one.txt").lines())


@pytest.mark.parametrize("kind", ["gz", "xz", "bz2"])
@pytest.mark.parametrize("where", ["name", "other file"])
def test_what_a_tar_only_passes_over_may_not_inflate_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, where: str
) -> None:
    monkeypatch.setattr(files, "INFLATED", 100_000)
    with tarfile.open(tmp_path / "a.tar", f"w:{kind}", format=tarfile.GNU_FORMAT) as archive:  # type: ignore[call-overload]
        for name in ("x" * 9_000_000 if where == "name" else "large", "a.txt"):
            info = tarfile.TarInfo(name)
            info.size = 9_000_000 if name == "large" else 2
            archive.addfile(info, io.BytesIO(b"a\n" * (info.size // 2)))
    with pytest.raises(UserError, match="inflates to more than 50 times its size"):
        list(files.Text(tmp_path / "a.tar", "a.txt").lines())


@pytest.mark.parametrize("kind", ["zip", "gz", "tar", "tar.gz", "tar.xz", "tar.bz2"])
def test_damaged_archives_give_their_lines_or_a_message(tmp_path: Path, kind: str) -> None:
    """Of random damage, none ends in a traceback; what is read before it is what was written."""
    text = "".join(f"sentence number {n}\n" for n in range(200))
    archive = tmp_path / f"a.{kind}"
    if kind == "zip":
        archive.write_bytes(zipped({"a.txt": text}))
    elif kind == "gz":
        archive.write_bytes(gzip.compress(text.encode(), mtime=0))
    else:
        with tarfile.open(archive, f"w:{kind.partition('.')[2]}") as made:  # type: ignore[call-overload]
            info = tarfile.TarInfo("a.txt")
            info.size = len(text)
            made.addfile(info, io.BytesIO(text.encode()))
    whole, dice = archive.read_bytes(), random.Random(kind)
    refused = 0
    for _ in range(100):
        damaged = bytearray(whole)
        for _ in range(dice.choice([1, 20])):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        archive.write_bytes(damaged[: dice.choice([len(damaged), dice.randrange(len(damaged))])])
        try:
            list(files.Text(archive, None if kind == "gz" else "a.txt").lines())
        except UserError:
            refused += 1
    assert refused > 10


def test_a_missing_file_and_an_empty_split(tmp_path: Path) -> None:
    assert "valid.en: no such file" in fails(
        tmp_path, aligned_files(tmp_path, {"train": 1, "test": 1})
        | {"splits": {s: [f"{s}.en", f"{s}.fr"] for s in ("train", "valid", "test")}},
    )  # fmt: skip
    assert "empty" in fails(tmp_path, aligned_files(tmp_path, SIZES | {"train": 0}))


def test_a_failed_run_leaves_the_last_whole_output(tmp_path: Path) -> None:
    corpus = aligned_files(tmp_path, SIZES)
    assert run(tmp_path, corpus).returncode == 0
    before = {f.name: f.read_bytes() for f in (tmp_path / "data/mine/raw").iterdir()}
    (tmp_path / "test_hard.fr").write_bytes(b"\xff\n")  # the last file, when all else is written
    assert run(tmp_path, corpus).returncode == 1
    assert {f.name: f.read_bytes() for f in (tmp_path / "data/mine/raw").iterdir()} == before


def test_leftovers_of_a_killed_run_do_not_matter(tmp_path: Path) -> None:
    corpus = aligned_files(tmp_path, SIZES)
    for leftover in "raw.part", "raw.old":
        (tmp_path / "data/mine" / leftover).mkdir(parents=True)
        (tmp_path / "data/mine" / leftover / "train.source").write_text("half")
    assert run(tmp_path, corpus).returncode == 0
    first = {f.name: f.read_bytes() for f in (tmp_path / "data/mine/raw").iterdir()}
    assert run(tmp_path, corpus).returncode == 0
    assert {f.name: f.read_bytes() for f in (tmp_path / "data/mine/raw").iterdir()} == first
    assert [f.name for f in (tmp_path / "data/mine").iterdir()] == ["raw"]


def tsv(folder: Path, lines: list[str], **changes: Any) -> dict[str, Any]:
    (folder / "pairs.tsv").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return {
        "name": "mine",
        "source": "files",
        "source_language": "fr",
        "target_language": "en",
        "tsv": "pairs.tsv",
        "columns": [3, 1],
        "held_out": {"valid": 20, "test": 10, "test_more": 5},
        "seed": 3,
    } | changes


def test_tsv_is_split_by_source_sentence(tmp_path: Path) -> None:
    # Each source thrice, in other punctuation and case, with three translations.
    lines = [f"en {n} {k}\tid\tLA phrase, {n}{'.!?'[k]}" for n in range(100) for k in range(3)]
    result = run(tmp_path, tsv(tmp_path, lines))
    assert result.returncode == 0, result.stderr
    sources = {s: read(tmp_path, s, "source") for s in ("train", "valid", "test", "test_more")}
    assert {s: len(lines) for s, lines in sources.items()} == {
        "train": 65 * 3, "valid": 20, "test": 10, "test_more": 5,
    }  # fmt: skip
    folded = {s: {fold(line) for line in lines} for s, lines in sources.items()}
    assert sum(map(len, folded.values())) == len(set.union(*folded.values())) == 100
    assert manifest(tmp_path)["dropped"] == {FURTHER: 35 * 2}
    pairs = {tuple(reversed(line.split("\tid\t"))) for line in lines}
    for name in sources:
        assert set(zip(sources[name], read(tmp_path, name, "target"), strict=True)) <= pairs
    assert sources["train"] != sorted(sources["train"], key=fold)


def test_the_split_depends_on_the_seed_and_not_on_the_order() -> None:
    pairs = [(f"sentence {n}", f"phrase {n}") for n in range(500)]

    def drawn(order: list[tuple[str, str]], seed: int) -> set[tuple[str, str, str]]:
        return set(split(lambda: order, {"valid": 50, "test": 50}, seed, Counter()))

    assert drawn(pairs, 1) == drawn(pairs[::-1], 1)
    backwards = split(lambda: pairs, {"test": 50, "valid": 50}, 1, Counter())
    assert drawn(pairs, 1) == set(backwards)
    assert drawn(pairs, 1) != drawn(pairs, 2)


def test_no_empty_side_is_held_out() -> None:
    pairs = [("", "x"), ("?!", "x"), ("a", " "), ("b", "y"), ("c", "z"), ("e", "w")]
    for seed in range(20):
        rows = list(split(lambda: pairs, {"valid": 1, "test": 1}, seed, Counter()))
        held_out = [source for name, source, _ in rows if name != "train"]
        assert len(held_out) == 2
        assert set(held_out) < {"b", "c", "e"}
        assert len(rows) == len(pairs)  # nothing is lost: the empty ones are for the cleaning


def test_near_identical_sentences_fold_to_the_same() -> None:
    for sentence, folded in [
        ("Don't  STOP - it's 5,5 €!", "don t stop it s 5 5"),
        ("ﬁn ÉTÉ e\u0301te\u0301", "fin été été"),
        ("हिन्दी", "हिन्दी"),  # whose marks are part of its words
        ("?!…", ""),
    ]:
        assert fold(sentence) == folded
    assert fold("a b") != fold("ab") == fold("AB")


@given(
    st.lists(st.tuples(st.sampled_from(["a", "A!", "b", "c", "d", "?"]), st.sampled_from("xy ")))
)
def test_what_is_split_is_what_came(pairs: list[tuple[str, str]]) -> None:
    """Whole: in train, held out once with its first translation, or counted as dropped."""
    dropped: Counter[str] = Counter()
    usable = {fold(source) for source, target in pairs if target.strip()} - {""}
    rows = split(lambda: pairs, {"valid": 1, "test": 1}, 5, dropped)
    if len(usable) <= 2:
        with pytest.raises(UserError, match=f"asks for 2 .* only {len(usable)} different"):
            list(rows)
        return
    found = list(rows)
    held_out = {name: (source, target) for name, source, target in found if name != "train"}
    assert sorted(held_out) == ["test", "valid"]
    keys = {fold(source) for source, _ in held_out.values()}
    assert len(keys) == 2
    for key in keys:
        first = next(pair for pair in pairs if fold(pair[0]) == key and pair[1].strip())
        assert first in held_out.values()
    trained = [(source, target) for name, source, target in found if name == "train"]
    assert trained == [pair for pair in pairs if fold(pair[0]) not in keys]
    further = len(pairs) - len(found)
    assert dropped == Counter(further_pairs_of_held_out_sources=further)


def test_sizes_are_those_asked_for_and_the_draw_is_fair() -> None:
    pairs = [(f"number {n}", "x") for n in range(30)]
    drawn: Counter[str] = Counter()
    for seed in range(200):
        rows = list(split(lambda: pairs, {"valid": 4, "test": 2, "test_b": 3}, seed, Counter()))
        sizes = Counter(name for name, _, _ in rows)
        assert sizes == {"valid": 4, "test": 2, "test_b": 3, "train": 21}
        drawn.update(source for name, source, _ in rows if name == "valid")
    assert len(drawn) == 30
    assert max(drawn.values()) < 50  # of 27 on average, five standard deviations


def lines_of(folder: Path, content: bytes, name: str = "a") -> list[str]:
    (folder / name).write_bytes(content)
    return list(files.Text(folder / name).lines())


def test_a_line_may_have_a_million_bytes(tmp_path: Path) -> None:
    assert lines_of(tmp_path, b"x" * 999_999 + b"\ny\n") == ["x" * 999_999, "y"]
    assert lines_of(tmp_path, b"x" * 1_000_000) == ["x" * 1_000_000]
    with pytest.raises(UserError, match=r"a:2: a line of more than 1,000,000 bytes"):
        lines_of(tmp_path, b"y\n" + b"x" * 1_000_001)


def test_text_may_inflate_to_50_times_its_size_beyond_a_first_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = gzip.compress(b"a" * 9999 + b"\n", mtime=0)
    for first, refused in (10_000 - 50 * len(packed), False), (9999 - 50 * len(packed), True):
        monkeypatch.setattr(files, "INFLATED", first)
        if refused:
            with pytest.raises(UserError, match=r"a: inflates to more than 50 times"):
                lines_of(tmp_path, packed)
        else:
            assert lines_of(tmp_path, packed) == ["a" * 9999]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfea\0", "a: this is UTF-16"),
        (b"\xfe\xff\0a", "a: this is UTF-16"),
        (b"a\rb", "a: lines end with carriage returns alone"),
        (b"a\nb\xff\n", "a:2: not UTF-8: invalid start byte at byte 2 of the line"),
        (b"a\nb\0\n", "a:2: a NUL character"),
    ],
)
def test_text_that_is_none_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=f"{tmp_path}/{message}"):
        lines_of(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a\r\n\r\nb\r", ["a", "", "b"]),
        (b"a\r", ["a"]),
        (b"a\rb\nc\rd", ["a b", "c d"]),  # a carriage return within a line is a space
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", ["a", "\ufeffb"]),
        ("a\x0bb\x0cc\x1cd\x1de\x1ef\x85g\u2028h\u2029i".encode(), ["a b c d e f g h i"]),
        (b"\x1f", ["\x1f"]),  # one byte of what gzip begins with
        (gzip.compress(b"a\n", mtime=0) + gzip.compress(b"b\n", mtime=0), ["a", "b"]),
    ],
)
def test_text_is_read_as_lines(tmp_path: Path, content: bytes, lines: list[str]) -> None:
    assert lines_of(tmp_path, content) == lines


def test_one_file_of_an_archive_is_read_and_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(zipped({"x/one.en": "1\n", "x/one.fr": "un\n", "two.fr": "deux\n"}))
    assert list(files.Text(path, "x/*.fr").lines()) == ["un"]
    assert list(files.Text(path, "two.fr").lines()) == ["deux"]
    for member, count in ("*.fr", 2), ("*.de", 0):
        message = rf"a\.zip \({re.escape(member)}\): {count} files .* x/one\.en, x/one\.fr, two\.fr"
        with pytest.raises(UserError, match=message):
            list(files.Text(path, member).lines())
    path.write_bytes(zipped({f"n{i}": "" for i in range(30)}))
    with pytest.raises(UserError, match=r"it has: n0, .*, n19$"):
        list(files.Text(path, "none").lines())
    with pytest.raises(UserError, match=r"/missing \(x\): no such file$"):
        list(files.Text(tmp_path / "missing", "x").lines())
    with pytest.raises(UserError, match=r"cannot be read: .*; if it was downloaded, delete it"):
        list(files.Text(Path("a\0b")).lines())


@given(st.integers(0, 4), st.integers(0, 4))
def test_files_of_different_lengths_are_refused_with_both(
    tmp_path_factory: pytest.TempPathFactory, one: int, other: int
) -> None:
    folder = tmp_path_factory.mktemp("aligned")
    (folder / "a").write_text("a\n" * one)
    (folder / "b").write_text("b\n" * other)
    pairs = files.aligned(files.Text(folder / "a"), files.Text(folder / "b"))
    if one == other:
        assert list(pairs) == [("a", "b")] * one
    else:
        with pytest.raises(UserError, match=rf"/a has {one} lines but .*/b has {other};"):
            list(pairs)


def test_columns_are_counted_from_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1\t2\t3\n4\t\t6\n")
    text = files.Text(tmp_path / "a")
    assert list(files.columns(text, 1, 3)) == [("1", "3"), ("4", "6")]
    assert list(files.columns(text, 2, 1)) == [("2", "1"), ("", "4")]
    for asked in (1, 4), (4, 1):
        message = r"a:1: 3 tab-separated column\(s\), but columns {} and {} are asked for"
        with pytest.raises(UserError, match=message.format(*asked)):
            list(files.columns(text, *asked))
    (tmp_path / "a").write_text("1\t2\n\n3\t4\n")
    assert list(files.columns(text, 1, 2)) == [("1", "2"), ("", ""), ("3", "4")]
    (tmp_path / "a").write_text('<?xml version="1.0"?>\n')
    with pytest.raises(UserError, match=r"a:1: 1 tab-separated column\(s\), .* not TMX"):
        list(files.columns(text, 1, 2))
    for second in "4\t5", "4\t5\t6\t7":
        (tmp_path / "a").write_text(f"1\t2\t3\n{second}\n")
        with pytest.raises(UserError, match=rf"a:2: {second.count(chr(9)) + 1} .* line 1 has 3;"):
            list(files.columns(text, 1, 2))


def test_splits_come_in_order_and_none_is_empty(tmp_path: Path) -> None:
    for name, lines in {"a": "1\n2\n", "b": "3\n4\n", "empty": ""}.items():
        (tmp_path / name).write_text(lines)
    one, other, empty = (files.Text(tmp_path / name) for name in ("a", "b", "empty"))
    found = list(files.in_splits({"train": (one, other), "test": (other, one)}))
    assert found == [
        ("train", "1", "3"), ("train", "2", "4"), ("test", "3", "1"), ("test", "4", "2"),
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"/empty: no line; the split 'test' would be empty"):
        list(files.in_splits({"train": (one, other), "test": (empty, empty)}))


def test_the_users_files_make_a_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def made(corpus: dict[str, Any]) -> files.Corpus:
        configure(tmp_path, corpus)
        chosen = settings.load()
        assert isinstance(chosen, settings.Languages)
        return files.corpus(chosen)

    found = made(aligned_files(tmp_path, SIZES))
    assert (found.source_language, found.target_language) == ("en", "fr")
    assert (found.licence, found.citation) == ("not stated: the user's own files", "")
    names = [f"{s}.{x}" for s in SIZES for x in ("en", "fr")]
    assert found.origin == {name: files.digest(tmp_path / name) for name in names}
    assert Counter(name for name, _, _ in found.rows) == SIZES
    assert found.dropped == {}

    both = aligned_files(tmp_path, {"train": 30}) | {"held_out": {"valid": 4, "test": 5}, "seed": 0}
    both["splits"]["train"][0] = str(tmp_path / "train.en")
    found = made(both)
    assert list(found.origin) == ["train.en", "train.fr"]
    assert all(target == f"le {source}" for _, source, target in found.rows)

    found = made(tsv(tmp_path, [f"en {n}\tid\tfr {n // 2}" for n in range(100)]))
    assert found.origin == {"pairs.tsv": files.digest(tmp_path / "pairs.tsv")}
    assert {(source[:2], target[:2]) for _, source, target in found.rows} == {("fr", "en")}
    assert found.dropped == {FURTHER: 35}
    assert (
        files.digest(tmp_path / "pairs.tsv")
        == hashlib.sha256((tmp_path / "pairs.tsv").read_bytes()).hexdigest()
    )


def test_tsv_errors(tmp_path: Path) -> None:
    assert "pairs.tsv:2: 2 tab" in fails(tmp_path, tsv(tmp_path, ["a\tb\tc", "a\tb"]))
    shifted = ["a\tb\tc", "a\tb\tc\td"]
    assert "pairs.tsv:2: 4 tab-separated columns, but line 1 has 3" in fails(
        tmp_path, tsv(tmp_path, shifted)
    )
    assert "asks for 35" in fails(tmp_path, tsv(tmp_path, [f"a\tb\tc{n}" for n in range(35)]))


def test_two_files_are_split_too(tmp_path: Path) -> None:
    corpus = aligned_files(tmp_path, {"train": 30}) | {
        "held_out": {"valid": 4, "test": 5}, "seed": 0,
    }  # fmt: skip
    result = run(tmp_path, corpus)
    assert result.returncode == 0, result.stderr
    for name, size in {"train": 21, "valid": 4, "test": 5}.items():
        sources = read(tmp_path, name, "source")
        assert len(sources) == size
        assert read(tmp_path, name, "target") == [f"le {source}" for source in sources]


def test_an_absolute_path_is_not_in_the_manifest(tmp_path: Path) -> None:
    corpus = aligned_files(tmp_path, SIZES)
    corpus["splits"]["train"] = [str(tmp_path / "train.en"), str(tmp_path / "train.fr")]
    assert run(tmp_path, corpus).returncode == 0
    assert str(tmp_path) not in (tmp_path / "data/mine/raw/manifest.json").read_text()


def test_text_that_inflates_beyond_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "INFLATED", 1000)
    bomb = tmp_path / "bomb.gz"
    bomb.write_bytes(gzip.compress(b"a\n" * 5_000_000, mtime=0))
    lines = files.Text(bomb).lines()
    with pytest.raises(UserError, match="inflates"):
        list(islice(lines, 500_000))


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../up"}, "corpus.name"),
        ({"name": "Mine"}, "corpus.name"),
        ({"source": "fils"}, "corpus.source"),
        ({"columns": [1, 2]}, "corpus.columns: unknown key"),
        ({"target_language": "../fr"}, "corpus.target_language"),
        ({"splits": {"train": ["a", "b"], "test": ["a", "b"]}}, "'valid' is missing"),
        ({"splits": {"train": ["a", "b"], "valid": ["a", "b"]}}, "test set is missing"),
        ({"splits": {"train": ["a", "b"], "dev": ["a", "b"]}}, "'dev'"),
        ({"splits": {"train": ["a"], "valid": ["a", "b"], "test": ["a", "b"]}}, "splits.train"),
        ({"held_out": {"valid": 1, "test": 1}, "seed": 1}, "only split with files"),
        ({"source": "bundled"}, "corpus.source_language: unknown key"),
        ({"source": "multi30k-en-fr"}, "unknown key"),
        ({"source": "opus"}, "corpus.splits: unknown key"),
        ({"name": "n" * 101}, "corpus.name"),
        ({"name": ""}, "corpus.name"),
        ({"source_language": "e"}, "corpus.source_language"),
        ({"source_language": "engl"}, "corpus.source_language"),
        ({"source_language": "en-"}, "corpus.source_language"),
        ({"splits": {"train": ["a", "b", "c"]}}, "splits.train"),
        ({"splits": {"train": ["a", "b"], "test.a": ["a", "b"]}}, "'test.a'"),
        ({"splits": {"valid": ["a", "b"], "test": ["a", "b"]}}, "'train' is missing"),
        ({"splits": {}, "held_out": {"valid": 1, "test": 1}, "seed": 1}, "only split with files"),
        ({"splits": {"train": ["a", "b"]}, "held_out": {"test": 1}, "seed": 1}, "'valid' is miss"),
        ({"splits": {"train": ["a", "b"]}, "held_out": {"test": 1}, "seed": -1}, "corpus.seed"),
    ],
)
def test_bad_settings_name_their_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    configure(tmp_path, aligned_files(tmp_path, SIZES) | changes)
    with pytest.raises(UserError) as error:
        settings.load()
    assert "params.yaml:" in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("corpus", "kind"),
    [
        ({"source": "files", "splits": {"train": 2, "valid": 2, "test": 2}}, settings.AlignedFiles),
        ({"source": "files", "splits": {"train": 2}, "held_out": 1}, settings.AlignedFilesToSplit),
        ({"source": "files", "tsv": "a", "columns": [1, 2], "held_out": 1}, settings.TsvFile),
        ({"source": "opus", "ids": ["a"], "held_out": 1}, settings.Opus),
        ({"source": "multi30k-en-de"}, settings.Catalogued),
        ({"source": "bundled", "seed": 0, "sizes": 1, "lexicon": 1.0}, settings.Bundled),
    ],
)
def test_every_kind_of_corpus_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpus: dict[str, Any], kind: type
) -> None:
    """With names, languages and numbers that are just allowed."""
    monkeypatch.chdir(tmp_path)
    for name, language in ("n" * 100, "fra"), ("a-0", "pt_BR"), ("7", "zh-Hant-TW"):
        values = {"name": name, "version": "1"} | corpus
        if "splits" in corpus:
            values["splits"] = {split: ["a"] * n for split, n in corpus["splits"].items()}
        if "held_out" in corpus:
            values |= {"held_out": {"valid": 1, "test_a-B_1": 1}, "seed": 0}
        if "sizes" in corpus:
            values["sizes"] = {"train": 1, "valid": 1, "test": 1}
        if corpus["source"] in ("files", "opus"):
            values |= {"source_language": language, "target_language": language}
        configure(tmp_path, values)
        read = settings.load()
        assert type(read) is kind
        assert read.model_dump() == values


def test_what_no_corpus_may_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plain = tsv(tmp_path, [], columns=[1, 2])
    for key, value in [
        ("columns", [0, 1]), ("columns", [1]), ("columns", [1, 2, 3]), ("seed", -1),
        ("held_out", {"valid": 0, "test": 1}), ("ids", []), ("sizes", {"train": 0}),
    ]:  # fmt: skip
        corpus = plain | {key: value}
        if key in ("ids", "sizes"):
            source = {"ids": "opus", "sizes": "bundled"}[key]
            corpus = {"name": "mine", "source": source, "seed": 1, key: value}
        configure(tmp_path, corpus)
        with pytest.raises(UserError, match=rf"corpus\.{key}"):
            settings.load()
    configure(tmp_path, plain)
    assert settings.load().version is None


@pytest.mark.parametrize("output", ["raw", "tokens", "links"])
def test_own_files_are_not_where_the_pipeline_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.chdir(tmp_path)
    corpus = tsv(tmp_path, [])
    for file, allowed in ((f"data/{corpus['name']}/{output}/a.tsv", False), ("data/a.tsv", True)):
        configure(tmp_path, corpus | {"tsv": file})
        if allowed:
            assert settings.load()
            continue
        with pytest.raises(UserError, match=rf"{file}: the pipeline removes data/.*/{output} "):
            settings.load()


def test_a_version_is_of_the_files_that_it_was_taken_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    corpus = tsv(tmp_path, [f"source {n}\ttarget {n}" for n in range(99)], columns=[1, 2])
    version = files.version([corpus["tsv"]])
    assert run(tmp_path, corpus | {"version": version}).returncode == 0
    with Path(corpus["tsv"]).open("a", encoding="utf-8") as file:
        file.write("another\tone\n")
    result = run(tmp_path, corpus | {"version": version})
    assert result.returncode == 1
    assert f"corpus.version is not that of {corpus['tsv']} as they are now" in result.stderr
    assert run(tmp_path, corpus | {"version": "mine"}).returncode == 0


def test_tsv_settings_need_sizes_of_what_is_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for held_out in {"valid": 0, "test": 1}, {"valid": 1}, {"train": 9, "valid": 1, "test": 1}:
        configure(tmp_path, tsv(tmp_path, [], held_out=held_out))
        with pytest.raises(UserError, match=r"corpus\.held_out"):
            settings.load()


def test_name_is_known_without_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    configure(tmp_path, {"name": "mine", "source": "bundled", "sizes": "whatever"})
    assert params.corpus_name() == "mine"


def test_the_stage_is_cheap_to_import() -> None:
    program = "import sys, rnnmt.stages.download; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout
    assert not {"torch", "mtdata", "requests", "pyrealb", "numpy"} & set(loaded.split())


# ---------------------------------------------------------------- bundled


def test_bundled(tmp_path: Path) -> None:
    sizes = {"train": 60, "valid": 10, "test": 10, "test_long": 5}
    result = run(tmp_path, {"name": "mine", "source": "bundled", "seed": 1, "sizes": sizes})
    assert result.returncode == 0, result.stderr
    assert manifest(tmp_path)["splits"] == sizes
    for name, size in sizes.items():
        labels = (tmp_path / f"data/mine/raw/{name}.labels.jsonl").read_text().splitlines()
        assert len(read(tmp_path, name, "source")) == len(labels) == size
        assert len(read(tmp_path, name, "target")) == size
        assert all(set(json.loads(label)) == {"length", "phenomena"} for label in labels)
    assert f"{name}.labels.jsonl" in manifest(tmp_path)["sha256"]


# ---------------------------------------------------------------- fetching

Answer = Callable[[BaseHTTPRequestHandler], None]
BODY = bytes(range(256)) * 4000  # 1 MB
DIGEST = hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Gives its answers one after the other, the last one for ever."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[Answer] = []
        self.requests: list[tuple[str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers.items())))
        answers = self.server.answers
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    def log_message(self, *_: object) -> None:
        pass


def status(code: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for key, value in ({"Content-Length": str(len(body))} | dict(headers or {})).items():
            handler.send_header(key, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def serve(
    body: bytes = BODY, *, stop: int | None = None, ranges: bool = True, etag: str = '"1"'
) -> Answer:
    """The body, or what Range asks of it, broken off after `stop` bytes."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range") if ranges else None
        start = 0
        if asked and handler.headers.get("If-Range", etag) == etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            handler.send_response(200)
        handler.send_header("Content-Length", str(len(body) - start))
        if etag:
            handler.send_header("ETag", etag)
        handler.end_headers()
        handler.wfile.write(body[start:] if stop is None else body[start : start + stop])

    return answer


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RNNMT_MIRROR", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(fetch, "BACKOFF", 0.001)
    with Server() as made:
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        yield made
        made.shutdown()


def remote(server: Server, *, pinned: bool = True, **changes: Any) -> fetch.Remote:
    pins = {"size": len(BODY), "sha256": DIGEST} if pinned else {}
    return fetch.Remote("folder", f"{server.url}/path/file.bin", **{**pins, **changes})


def ranges(server: Server) -> list[str | None]:
    return [headers.get("Range") for _, headers in server.requests]


def test_a_file_is_fetched_once(server: Server) -> None:
    server.answers = [serve()]
    first = fetch.fetch(remote(server))
    assert first.read_bytes() == BODY
    assert first == Path("work/downloads/folder/file.bin")
    assert fetch.fetch(remote(server)) == first
    assert [path for path, _ in server.requests] == ["/path/file.bin"]
    assert [f.name for f in first.parent.iterdir()] == ["file.bin"]


def test_a_damaged_file_of_the_cache_is_fetched_again(server: Server) -> None:
    server.answers = [serve()]
    file = fetch.fetch(remote(server))
    file.write_bytes(BODY[:-1])
    assert fetch.fetch(remote(server)).read_bytes() == BODY


@pytest.mark.parametrize("pinned", [True, False])
def test_a_download_that_breaks_off_is_continued(server: Server, pinned: bool) -> None:
    server.answers = [serve(stop=300_000)]
    assert fetch.fetch(remote(server, pinned=pinned)).read_bytes() == BODY
    assert ranges(server) == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]
    assert server.requests[1][1]["If-Range"] == '"1"'


def leave_source(folder: Path, url: str) -> None:
    """What says of which address a part is: by a sum, since an address may hold a password."""
    mark = hashlib.sha256(url.encode()).hexdigest()
    (folder / "file.bin.part.from").write_text(f'{mark}\n"1"')


def test_what_a_killed_run_left_is_continued(server: Server) -> None:
    folder = Path("work/downloads/folder")
    folder.mkdir(parents=True)
    (folder / "file.bin.part").write_bytes(BODY[:1000])
    leave_source(folder, f"{server.url}/path/file.bin")
    server.answers = [serve()]
    assert fetch.fetch(remote(server)).read_bytes() == BODY
    assert ranges(server) == ["bytes=1000-"]


def test_part_of_another_file_is_not_continued(server: Server) -> None:
    """The wrong beginning shows in the hash only; then the whole file is fetched."""
    folder = Path("work/downloads/folder")
    folder.mkdir(parents=True)
    (folder / "file.bin.part").write_bytes(b"x" * 1000)
    leave_source(folder, f"{server.url}/path/file.bin")
    server.answers = [serve()]
    assert fetch.fetch(remote(server)).read_bytes() == BODY
    assert ranges(server) == ["bytes=1000-", None]


def test_two_at_once_fetch_it_once(server: Server) -> None:
    """Of unknown size and sum: what one has written of it is never whole for the other."""

    def slowly(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for start in range(0, len(BODY), 100_000):
            handler.wfile.write(BODY[start : start + 100_000])
            time.sleep(0.05)

    server.answers = [slowly]
    with ThreadPoolExecutor(2) as pool:
        jobs = []
        for _ in range(2):
            jobs.append(pool.submit(fetch.fetch, remote(server, pinned=False)))
            time.sleep(0.2)
        assert [job.result().read_bytes() for job in jobs] == [BODY, BODY]
    assert len(server.requests) == 1


def test_an_address_is_not_kept_on_disk(server: Server) -> None:
    server.answers = [serve(stop=300_000), serve(stop=0)]
    with pytest.raises(UserError):
        fetch.fetch(fetch.Remote("folder", f"{server.url}/path/file.bin?token=secret"))
    kept = [file for file in Path("work").rglob("*") if file.is_file()]
    assert any(file.name.endswith(".from") for file in kept)
    assert not [file for file in kept if b"secret" in file.read_bytes()]


def test_a_file_that_changes_in_between_is_begun_anew(server: Server) -> None:
    other = BODY[::-1]
    server.answers = [serve(other, stop=1000, etag='"old"'), serve()]
    assert fetch.fetch(remote(server, pinned=False)).read_bytes() == BODY


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Range": f"bytes 1000-1999/{len(BODY)}"}, BODY[1000:2000]),
        ({"Content-Range": "bytes 1000-1999/*"}, BODY[1000:2000]),  # is that all?
        ({"Content-Range": f"bytes 1000-{len(BODY) - 1}/{len(BODY)}"}, BODY[1000:] + b"more"),
        ({"Content-Range": f"bytes 999-{len(BODY) - 1}/{len(BODY)}"}, BODY[999:]),
    ],
    ids=["less", "of unknown size", "more", "elsewhere"],
)
def test_a_continuation_that_is_not_what_was_asked_for(
    server: Server, headers: dict[str, str], body: bytes
) -> None:
    """Of a file of which neither size nor sum is known."""
    server.answers = [serve(stop=1000), status(206, {"ETag": '"1"', **headers}, body), serve()]
    assert fetch.fetch(remote(server, pinned=False)).read_bytes() == BODY


def test_redirections_are_followed_and_their_texts_not_read(server: Server) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", "../elsewhere")
        handler.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(1000):
                handler.wfile.write(BODY)

    server.answers = [endless, status(301, {"Location": "/again?a=b"}), serve()]
    assert fetch.fetch(remote(server)).read_bytes() == BODY
    assert [path for path, _ in server.requests] == ["/path/file.bin", "/elsewhere", "/again?a=b"]
    server.answers = [status(302, {"Location": "/round"})]
    with pytest.raises(UserError, match="redirections"):
        fetch.fetch(remote(server, filename="other.bin"))


def test_a_server_without_ranges_is_asked_for_the_whole_again(server: Server) -> None:
    server.answers = [serve(stop=1000), serve(ranges=False)]
    assert fetch.fetch(remote(server)).read_bytes() == BODY


def test_a_server_that_always_breaks_off_at_the_same_place(server: Server) -> None:
    server.answers = [serve(stop=1000, ranges=False)]
    with pytest.raises(UserError, match="RNNMT_MIRROR"):
        fetch.fetch(remote(server))
    assert len(server.requests) == fetch.ATTEMPTS


def test_trouble_that_passes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    date = email.utils.formatdate(time.time() + 9, usegmt=True)
    server.answers = [
        status(500),
        status(429, {"Retry-After": "7"}),
        status(503, {"Retry-After": date}),
        status(503, {"Retry-After": "86400"}),
        serve(),
    ]
    assert fetch.fetch(remote(server)).read_bytes() == BODY
    assert waits[:2] == [fetch.BACKOFF, 7]
    assert 5 < waits[2] <= 9
    assert waits[3] == fetch.LONGEST_WAIT


@pytest.mark.usefixtures("server")
def test_nobody_listens() -> None:
    dead = fetch.Remote("folder", "http://127.0.0.1:9/file.bin", len(BODY), DIGEST)
    with pytest.raises(UserError) as error:
        fetch.fetch(dead)
    assert "http://127.0.0.1:9/file.bin" in str(error.value)
    assert "refused" in str(error.value)
    assert "folder/file.bin" in str(error.value)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (status(404), "HTTP status 404"),
        (status(403), "HTTP status 403"),
        (status(200, {"Content-Type": "text/html; charset=utf-8"}, b"Sign in"), "web page"),
        (status(200, {"Content-Type": "Text/HTML"}, b"Sign in"), "web page"),
        (serve(b"<!DOCTYPE html><p>Sign in"), "web page"),
        (serve(b"\xef\xbb\xbf<!DOCTYPE html><p>Sign in"), "web page"),
        (serve(BODY + b"x"), "1,024,001 bytes, expected 1,024,000"),
        (serve(BODY[:-1]), "1,023,999 bytes, expected 1,024,000"),
        (serve(b"x" + BODY[1:]), "SHA-256"),
        (status(200, {"Content-Length": "many"}, BODY + b"x"), "expected 1,024,000"),
    ],
)
def test_answers_that_will_not_get_better(server: Server, answer: Answer, message: str) -> None:
    server.answers = [answer]
    pins: dict[str, Any] = {"size": None, "sha256": None} if message == "web page" else {}
    with pytest.raises(UserError) as error:
        fetch.fetch(remote(server, **pins))
    assert message in str(error.value)
    assert f"{server.url}/path/file.bin" in str(error.value)
    assert len(server.requests) == 1
    assert not list(Path("work/downloads/folder").iterdir())


def test_a_server_that_only_drips_is_given_up(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "TIMEOUT", (5, 0.05))

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BODY)))
        handler.end_headers()
        with contextlib.suppress(OSError):
            for byte in BODY:
                handler.wfile.write(bytes([byte]))
                time.sleep(0.02)

    server.answers = [drip]
    with pytest.raises(UserError, match="fewer than 60,000 bytes"):
        fetch.fetch(remote(server))
    assert len(server.requests) == fetch.ATTEMPTS


def test_no_redirection_leaves_https_without_a_pinned_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the last one leads back to it."""
    hops = {"https://here/a": "http://elsewhere/b", "http://elsewhere/b": "https://here/c"}

    def get(_: object, url: str, **__: Any) -> requests.Response:
        answer = requests.Response()
        answer.url, answer.status_code = url, 302 if url in hops else 200
        answer.headers["Location"] = hops.get(url, "")
        answer.raw = io.BytesIO()
        return answer

    monkeypatch.setattr(requests.Session, "get", get)
    remote = fetch.Remote("folder", "https://here/a")
    with pytest.raises(fetch._UnavailableError, match=r"^https://here/a: redirected to http://els"):
        fetch._get(remote.url, {}, remote)
    pinned = dataclasses.replace(remote, sha256=DIGEST)
    assert fetch._get(remote.url, {}, pinned).url == "https://here/c"
    assert fetch._get("https://here/c", {}, remote).url == "https://here/c"


@pytest.mark.parametrize("pinned", [True, False])
def test_a_body_whose_end_nothing_tells_is_reported(
    server: Server, pinned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    def unbounded(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(BODY)

    server.answers = [unbounded]
    assert fetch.fetch(remote(server, pinned=pinned)).read_bytes() == BODY
    assert ("does not say how large the file is" in capsys.readouterr().err) is not pinned


def test_chunks_that_end_early_are_no_file(server: Server) -> None:
    def broken(handler: BaseHTTPRequestHandler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(BODY), BODY) + b"5\r\nab")
        handler.close_connection = True

    server.answers = [broken]
    with pytest.raises(UserError, match=r"file\.bin"):
        fetch.fetch(remote(server, pinned=False))
    assert len(server.requests) == fetch.ATTEMPTS


def test_a_date_beyond_all_dates_is_no_wait(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    for value in ("Fri, 31 Dec 9999 23:59:59 -9999", "9" * 400, "soon", "-1"):
        server.answers = [status(503, {"Retry-After": value}), serve()]
        assert fetch.fetch(remote(server)).read_bytes() == BODY
        Path("work/downloads/folder/file.bin").unlink()


def test_bytes_are_kept_as_they_are(server: Server) -> None:
    """Some servers call a .gz file gzip-encoded text; unpacking it would break its hash."""
    packed = gzip.compress(BODY, mtime=0)
    server.answers = [status(200, {"Content-Encoding": "gzip"}, packed)]
    pins: dict[str, Any] = {"size": len(packed), "sha256": hashlib.sha256(packed).hexdigest()}
    assert fetch.fetch(remote(server, **pins)).read_bytes() == packed


def test_a_mirror_folder_is_asked_first(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mirror/folder").mkdir(parents=True)
    (tmp_path / "mirror/folder/file.bin").write_bytes(BODY)
    monkeypatch.setenv("RNNMT_MIRROR", "mirror")
    assert fetch.fetch(remote(server)).read_bytes() == BODY
    assert not server.requests


@pytest.mark.parametrize("content", [None, b"x" * len(BODY)])
def test_a_mirror_without_the_file_or_with_another_is_passed_over(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: bytes | None,
) -> None:
    if content:
        (tmp_path / "mirror/folder").mkdir(parents=True)
        (tmp_path / "mirror/folder/file.bin").write_bytes(content)
    monkeypatch.setenv("RNNMT_MIRROR", str(tmp_path / "mirror"))
    server.answers = [serve()]
    assert fetch.fetch(remote(server)).read_bytes() == BODY
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "mirror/folder/file.bin" in said[0]


def test_a_mirror_that_cannot_be_read_is_passed_over(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers = [serve()]
    monkeypatch.setenv("RNNMT_MIRROR", "~nobody-has-this-name")
    assert fetch.fetch(remote(server)).read_bytes() == BODY
    Path("work/downloads/folder/file.bin").unlink()
    (tmp_path / "mirror/folder").mkdir(parents=True)
    mirrored = tmp_path / "mirror/folder/file.bin"
    mirrored.write_bytes(BODY)
    monkeypatch.setenv("RNNMT_MIRROR", str(tmp_path / "mirror"))
    opened = Path.open

    def refused(path: Path, *arguments: Any, **named: Any) -> Any:
        if path == mirrored:  # root may read everything
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", refused)
    assert fetch.fetch(remote(server)).read_bytes() == BODY


def test_half_a_copy_of_a_mirror_is_not_continued_from_the_network(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two versions of a file, whose sum is not known."""
    (folder := Path("work/downloads/folder")).mkdir(parents=True)
    (folder / "file.bin.part").write_bytes(BODY[:1000])
    leave_source(folder, f"{server.url}/path/file.bin")
    Path("mirror/folder").mkdir(parents=True)
    Path("mirror/folder/file.bin").write_bytes(b"x" * 2000)

    def full(_: Path, part: Path) -> None:
        part.write_bytes(b"x" * 500)
        raise OSError(28, "No space left on device", str(part))

    with monkeypatch.context() as patch:
        patch.setenv("RNNMT_MIRROR", "mirror")
        patch.setattr("shutil.copyfile", full)
        with pytest.raises(OSError, match="No space"):
            fetch.fetch(remote(server, pinned=False))
    server.answers = [serve()]
    assert fetch.fetch(remote(server, pinned=False)).read_bytes() == BODY


def test_a_mirror_url_is_asked_first(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNNMT_MIRROR", f"{server.url}/mirror/")
    server.answers = [status(404), serve()]
    assert fetch.fetch(remote(server)).read_bytes() == BODY
    assert [path for path, _ in server.requests] == ["/mirror/folder/file.bin", "/path/file.bin"]


def test_a_mirrors_password_is_never_printed(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fetch, "BACKOFF", 0.0)
    monkeypatch.setenv("RNNMT_MIRROR", server.url.replace("//", "//me:secret@") + "/mirror")
    server.answers = [status(503), serve()]
    fetch.fetch(remote(server)).unlink()
    server.answers = [status(404), status(404)]
    with pytest.raises(UserError, match=r"mirror/folder/file\.bin: HTTP status 404") as caught:
        fetch.fetch(remote(server))
    said = capsys.readouterr()
    assert "HTTP status 503" in said.err
    assert "fetched" in said.out
    assert "secret" not in said.out + said.err + str(caught.value)


# ---------------------------------------------------------------- the catalogue


def zipped(members: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def tatoeba(server: Server, data: bytes) -> catalogue.Tsv:
    real = catalogue.CATALOGUE["tatoeba-en-fr"]
    assert isinstance(real, catalogue.Tsv)
    archive = fetch.Remote(
        "tatoeba", f"{server.url}/fra-eng.zip", len(data), hashlib.sha256(data).hexdigest(),
        advice=real.archive.advice,
    )  # fmt: skip
    return catalogue.Tsv(
        "en", "fr", real.licence, real.citation, archive, real.member, {"valid": 3, "test": 4}
    )


PAIRS = "".join(f"Number {n}.\tNuméro {n}.\n" for n in range(20))


def test_a_catalogue_corpus_out_of_an_archive(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = zipped(
        {"../evil.txt": "evil", "__MACOSX/fra-eng/._fra.txt": "x", "fra-eng/fra.txt": PAIRS}
    )
    monkeypatch.setitem(catalogue.CATALOGUE, "tatoeba-en-fr", tatoeba(server, data))
    server.answers = [serve(data)]
    configure(tmp_path, {"name": "mine", "source": "tatoeba-en-fr"})
    download.main()
    assert manifest(tmp_path)["splits"] == {"train": 13, "valid": 3, "test": 4}
    assert manifest(tmp_path)["origin"] == [f"{server.url}/fra-eng.zip"]
    assert "CC BY" in manifest(tmp_path)["licence"]
    assert not list(tmp_path.rglob("*evil*"))
    assert not (tmp_path.parent / "evil.txt").exists()


def test_a_file_that_its_publisher_has_replaced(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = tatoeba(server, zipped({"fra-eng/fra.txt": PAIRS}))
    monkeypatch.setitem(catalogue.CATALOGUE, "tatoeba-en-fr", entry)
    server.answers = [serve(zipped({"fra.txt": PAIRS * 2}))]
    configure(tmp_path, {"name": "mine", "source": "tatoeba-en-fr"})
    with pytest.raises(UserError) as error:
        download.main()
    for hint in "replaces this file", "source: files", "RNNMT_MIRROR", "tatoeba/fra-eng.zip":
        assert hint in str(error.value)


def test_a_broken_archive(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(zipped({"fra-eng/fra.txt": PAIRS}))
    data[60:80] = b"\0" * 20
    monkeypatch.setitem(catalogue.CATALOGUE, "tatoeba-en-fr", tatoeba(server, bytes(data)))
    server.answers = [serve(bytes(data))]
    configure(tmp_path, {"name": "mine", "source": "tatoeba-en-fr"})
    with pytest.raises(UserError, match="cannot be read"):
        download.main()


@pytest.mark.parametrize("name", sorted(catalogue.CATALOGUE))
def test_the_catalogue_is_complete(name: str) -> None:
    entry = catalogue.CATALOGUE[name]
    assert name.endswith(f"-{entry.source_language}-{entry.target_language}")
    assert entry.licence
    assert entry.citation
    if isinstance(entry, catalogue.Tsv):
        splits, remotes = {"train", *entry.held_out}, [entry.archive]
    else:
        splits, remotes = set(entry.splits), [r for both in entry.splits.values() for r in both]
        for source, target in entry.splits.values():
            assert source.name.replace(".en.", f".{entry.target_language}.") == target.name
    assert {"train", "valid"} < splits
    for one in remotes:
        assert one.size
        assert one.sha256
        assert len(one.sha256) == 64
    assert len({one.sha256 for one in remotes}) == len(remotes)


# ---------------------------------------------------------------- OPUS


def opus(*ids: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": "mine",
        "source": "opus",
        "ids": list(ids),
        "source_language": "fr",
        "target_language": "en",
        "held_out": {"valid": 3, "test": 4},
        "seed": 1,
    } | changes


def test_opus_from_a_mirror(server: Server, tmp_path: Path) -> None:
    """Two corpora, in the wrong direction, one a Moses zip and one in a large tar."""
    first, second = "OPUS-tatoeba-v20230412-eng-fra", "OPUS-opus100_train-1-eng-fra"
    moses = {
        "README": "read me",
        "LICENSE": "CC-BY 2.0 FR\n",
        "Tatoeba.en-fr.en": "".join(f"en {n}\n" for n in range(20)),
        "Tatoeba.en-fr.fr": "".join(f"fr {n}\n" for n in range(20)),
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for language in "en", "fr":
            text = "".join(f"{language} more {n}\n" for n in range(10)).encode()
            folder = "opus-100-corpus/v1.0/supervised/en-fr"
            info = tarfile.TarInfo(f"{folder}/opus.en-fr-train.{language}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
    bodies = {f"/opus/{first}.zip": zipped(moses), f"/opus/{second}.tar.gz": buffer.getvalue()}
    server.answers = [lambda handler: serve(bodies[handler.path])(handler)]

    result = run(tmp_path, opus(first, second), server.url)
    assert result.returncode == 0, result.stderr
    assert [path for path, _ in server.requests] == list(bodies)
    written = manifest(tmp_path)
    assert written["splits"] == {"train": 23, "valid": 3, "test": 4}
    assert f"{first}: CC-BY 2.0 FR" in written["licence"]
    assert "Tiedemann" in written["citation"]
    assert written["origin_sha256"] == {
        url: hashlib.sha256(body).hexdigest()
        for url, body in zip(written["origin"], bodies.values(), strict=True)
    }
    train = read(tmp_path, "train", "source")
    assert [f"en{line[2:]}" for line in train] == read(tmp_path, "train", "target")
    assert train.index(next(line for line in train if "more" in line)) > 10  # in the ids' order
    assert not (tmp_path / ".mtdata").exists()


def test_opus_ids_that_do_not_work(tmp_path: Path) -> None:
    error = fails(tmp_path, opus("OPUS-tatoeba-v2023-eng-fra"))
    assert "OPUS-tatoeba-v20230412-eng-fra" in error
    assert "mtdata list -l fra-eng" in error
    assert "deu-eng" in fails(tmp_path, opus("OPUS-tatoeba-v20230412-deu-eng"))


@pytest.mark.skipif(sys.platform != "linux", reason="processes end with another on Linux only")
def test_the_index_is_built_for_no_download_that_was_killed(tmp_path: Path) -> None:
    def ask() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "rnnmt.corpora.opus", '["none", "fr", "en"]']
        environment = os.environ | {"MTDATA": str(tmp_path)}
        return subprocess.Popen([*command, str(download.pid)], cwd=tmp_path, env=environment)

    download = subprocess.Popen(["sleep", "60"])
    index = ask()
    with pytest.raises(subprocess.TimeoutExpired):  # it is at work
        index.wait(2)
    download.kill()
    assert index.wait(10) == -signal.SIGTERM
    download.wait()
    assert ask().wait(10) == -signal.SIGTERM


def test_opus_of_translation_memories_and_xz(server: Server, tmp_path: Path) -> None:
    memory, table = "Tilde-ecb-2017-eng-fra", "Statmt-ccaligned-1-eng-fra"
    units = "".join(
        f"""<tu><tuv xml:lang="EN-GB"><prop>no text</prop><seg>the <b>bank</b>
        &amp; {n}</seg></tuv><tuv xml:lang="de"><seg>die Bank</seg></tuv>
        <tuv lang="fr"><seg>la banque &amp; {n}</seg></tuv></tu>"""
        for n in range(20)
    )
    alone = '<tu><tuv xml:lang="en"><seg>alone</seg></tuv></tu>'
    tmx = f'<?xml version="1.0"?><tmx version="1.4"><body>{alone}{units}</body></tmx>'
    rows = "".join(f"page {n}\tla page {n}\n" for n in range(10))
    bodies = {
        f"/opus/{memory}.zip": zipped({"ecb2017.UNIQUE.en-fr.tmx": tmx}),
        f"/opus/{table}.tsv.xz": lzma.compress(rows.encode()),
    }
    server.answers = [lambda handler: serve(bodies[handler.path])(handler)]

    result = run(tmp_path, opus(memory, table), server.url)
    assert result.returncode == 0, result.stderr
    assert manifest(tmp_path)["splits"] == {"train": 23, "valid": 3, "test": 4}
    assert manifest(tmp_path)["dropped"] == {"translation_units_without_both_sides": 1}
    assert "dropped: 1 translation units without both sides" in result.stdout
    sides = (read(tmp_path, "train", side) for side in ("source", "target"))
    banks = {(f"la banque & {n}", f"the bank & {n}") for n in range(20)}
    pages = {(f"la page {n}", f"page {n}") for n in range(10)}
    assert set(zip(*sides, strict=True)) < banks | pages


def test_a_translation_memory_that_is_damaged_or_a_bomb(tmp_path: Path) -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<!DOCTYPE tmx [<!ENTITY e0 "ha">{entities}]><tmx><body>&e11;</body></tmx>'
    for text in "<tmx><body><tu>", "no XML", bomb:
        (tmp_path / "a.zip").write_bytes(zipped({"a.tmx": text}))
        units = files.translation_units(
            files.Text(tmp_path / "a.zip", "*.tmx"), ["en"], ["fr"], Counter()
        )
        with pytest.raises(UserError, match=r"a\.zip \(\*\.tmx\): no TMX: "):
            list(units)


def test_a_corpus_of_another_format_is_refused_with_what_to_do(tmp_path: Path) -> None:
    error = fails(tmp_path, opus("Statmt-newstest_fren-2014-fra-eng"))
    assert "comes as tgz with sgm" in error
    assert "mtdata get" in error
