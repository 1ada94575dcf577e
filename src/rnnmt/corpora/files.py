"""Aligned text as it comes: plain, packed or in an archive; in lines, columns or TMX."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import re
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any, cast
from xml.etree import ElementTree

from rnnmt import params
from rnnmt.corpora import settings
from rnnmt.corpora.split import Pair, Row, split
from rnnmt.errors import UserError

LACKING = "translation_units_without_both_sides"
LONGEST_LINE = 1_000_000  # bytes; more is not a sentence
# Text seldom packs to a tenth: what inflates to 50 times its size and this many bytes is a trap.
INFLATED = 100_000_000

# Their first bytes; those of gzip and xz begin no UTF-8 text.
_PLAIN: dict[bytes, Callable[[IO[bytes]], Any]] = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ": lzma.open}
_TAR: dict[bytes, Callable[[IO[bytes]], Any]] = {**_PLAIN, b"BZh": bz2.open}

# What other programs take for the end of a line; inside a sentence each becomes a space.
_SEPARATORS = str.maketrans(dict.fromkeys("\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", " "))
# What reading a damaged file raises: ValueError for names with a NUL, the next three for numbers
# in the headers of an archive.
BROKEN = (
    OSError, EOFError, RuntimeError, ValueError, ArithmeticError, LookupError, MemoryError,
    lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


# What archives begin with that text is not read from; gzip and xz are, whatever their names.
PACKED = {
    b"PK\x03\x04": "a zip", b"BZh": "a bzip2", b"7z\xbc\xaf": "a 7z",
    b"\x28\xb5\x2f\xfd": "a zstd",
}  # fmt: skip


@dataclass(frozen=True)
class Corpus:
    """A parallel corpus on its way to disk. `dropped` is complete once `rows` are read."""

    source_language: str
    target_language: str
    licence: str
    citation: str
    origin: Mapping[str, str | None]  # where it is from -> SHA-256 of what came
    rows: Iterable[Row]
    dropped: Counter[str] = field(default_factory=Counter)  # reason -> pairs
    labels: Mapping[str, list[str]] = field(default_factory=dict)  # split -> a JSON text per pair
    links: Mapping[str, list[str]] = field(default_factory=dict)  # of the sets held out; as labels


def corpus(chosen: settings.Languages) -> Corpus:
    """The user's own files. Raises UserError where they are not those of `version`."""
    paths = settings.own_files(chosen)
    # Of another form it is the user's own.
    if re.fullmatch("[0-9a-f]{64}", chosen.version or "") and chosen.version != version(paths):
        raise UserError(
            f"{params.path()}: corpus.version is not that of {', '.join(paths)} as they are now; "
            "run: python scripts/retrain.py refresh"
        )
    dropped: Counter[str] = Counter()
    if isinstance(chosen, settings.TsvFile):
        rows = split(
            lambda: columns(Text(Path(chosen.tsv)), *chosen.columns),
            chosen.held_out, chosen.seed, dropped,
        )  # fmt: skip
    elif isinstance(chosen, settings.AlignedFilesToSplit):
        both = [Text(Path(path)) for path in paths]
        rows = split(lambda: aligned(*both), chosen.held_out, chosen.seed, dropped)
    else:
        assert isinstance(chosen, settings.AlignedFiles)
        rows = in_splits(
            {name: (Text(Path(s)), Text(Path(t))) for name, (s, t) in chosen.splits.items()}
        )
    return Corpus(
        source_language=chosen.source_language,
        target_language=chosen.target_language,
        licence="not stated: the user's own files",
        citation="",
        origin=digests(paths),
        rows=rows,
        dropped=dropped,
    )


def digests(paths: Iterable[str]) -> dict[str, str | None]:
    """The user's files -> the SHA-256 of each; None where it cannot be read.

    A path from the root is of one machine only, so that just the file's name is told, with a
    number where several have it.
    """

    def read(path: Path) -> str | None:
        with suppress(OSError):
            return digest(path) if path.is_file() else None
        return None

    found: dict[str, str | None] = {}
    seen: Counter[str] = Counter()
    for file in map(Path, paths):
        name = file.name if file.is_absolute() else str(file)
        seen[name] += 1
        found[name if seen[name] == 1 else f"{name} ({seen[name]})"] = read(file)
    return found


def version(paths: Iterable[str]) -> str:
    """SHA-256 of what is in the files. Raises UserError where one cannot be read."""
    whole = hashlib.sha256()
    for path in paths:
        try:
            with open(path, "rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise UserError(f"{path}: {error.strerror or error}") from None
    return whole.hexdigest()


class _TooMuchError(Exception):
    """More comes out than can have been packed in good faith."""


class _Limited(io.RawIOBase):
    """An unpacked stream of at most `limit` bytes, those included that are only passed over."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self._stream, self._left = stream, limit
        self._asked_in_vain = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self._stream.read(len(buffer))
        self._asked_in_vain += not part
        if self._asked_in_vain > 9:  # a tar whose member is longer than all would ask for ever
            raise EOFError("it ends within a file")
        self._left -= len(part)
        if self._left < 0:
            raise _TooMuchError
        buffer[: len(part)] = part
        return len(part)


@dataclass(frozen=True)
class Text:
    """A plain, gzip or xz file, or one member of a zip or tar archive (by name or pattern)."""

    path: Path
    member: str | None = None

    def __str__(self) -> str:
        return f"{self.path} ({self.member})" if self.member else str(self.path)

    def lines(self) -> Iterator[str]:
        r"""Its lines, each without end of line; whatever else breaks lines becomes a space.

        Lines end with \n or \r\n only, and a byte order mark is left out. Raises UserError
        where the file is missing, broken, not UTF-8, or inflates beyond measure.
        """
        with self.opened() as stream:
            number = 0
            while line := stream.readline(LONGEST_LINE + 1):
                number += 1
                yield self._decode(line, number)

    @contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """Its bytes. Raises UserError, also while they are read, as `lines` does."""
        try:
            if self.path.exists() and not self.path.is_file():
                what = "a folder" if self.path.is_dir() else "not a file that can be read twice"
                raise UserError(f"{self}: {what}; expected a file of sentences")
            with self._open() as stream:
                yield stream
        except _TooMuchError:
            raise UserError(
                f"{self}: inflates to more than 50 times its size; this is no text"
            ) from None
        except FileNotFoundError:
            raise UserError(f"{self}: no such file") from None
        except BROKEN as error:
            raise UserError(
                f"{self}: cannot be read: {error}; "
                "if it was downloaded, delete it and run again to fetch it anew"
            ) from None

    def _decode(self, line: bytes, number: int) -> str:
        if len(line) > LONGEST_LINE:
            raise UserError(
                f"{self}:{number}: a line of more than {LONGEST_LINE:,} bytes; "
                "expected text with one sentence on a line"
            )
        if number == 1:
            for mark, kind in PACKED.items():
                if line.startswith(mark):
                    raise UserError(
                        f"{self}: this is {kind} archive; unpack it: text is read as it is, or "
                        "of gzip and xz"
                    )
            if line.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise UserError(f"{self}: this is UTF-16; convert it to UTF-8")
            line = line.removeprefix(b"\xef\xbb\xbf")
            if b"\r" in line.removesuffix(b"\r") and not line.endswith(b"\n"):
                raise UserError(
                    f"{self}: lines end with carriage returns alone; convert them: tr '\\r' '\\n'"
                )
        try:
            text = line.removesuffix(b"\n").removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            raise UserError(
                f"{self}:{number}: not UTF-8: {error.reason} at byte {error.start + 1} "
                "of the line; mend the line or convert the file to UTF-8"
            ) from None
        if "\0" in text:
            raise UserError(
                f"{self}:{number}: a NUL character; this is no text, or UTF-16: convert it to UTF-8"
            )
        return text.translate(_SEPARATORS)

    @contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        if self.member and zipfile.is_zipfile(self.path):
            with zipfile.ZipFile(self.path) as files, files.open(self._find(files)) as stream:
                yield self._limited(stream)
        elif self.member:
            with (
                self._unpacked(_TAR) as plain,
                tarfile.open(fileobj=plain, mode="r|", bufsize=1 << 20) as archive,
                self._find_in_tar(archive) as stream,
            ):
                yield stream
        else:
            with self._unpacked(_PLAIN) as stream:
                yield stream

    @contextmanager
    def _unpacked(self, kinds: Mapping[bytes, Callable[[IO[bytes]], Any]]) -> Iterator[IO[bytes]]:
        with self.path.open("rb") as plain:
            start = plain.peek(8)
            opened = [of for magic, of in kinds.items() if start.startswith(magic)]
            if not opened:
                yield self._limited(plain) if self.member else plain
                return
            with opened[0](plain) as unpacked:
                yield self._limited(unpacked)

    def _limited(self, stream: IO[bytes]) -> IO[bytes]:
        return io.BufferedReader(_Limited(stream, INFLATED + 50 * self.path.stat().st_size))

    def _find(self, archive: zipfile.ZipFile) -> str:
        assert self.member
        found = [name for name in archive.namelist() if fnmatchcase(name, self.member)]
        if len(found) != 1:
            raise UserError(
                f"{self}: {len(found)} files of the archive have this name, expected one; "
                f"it has: {', '.join(archive.namelist()[:20])}"
            )
        return found[0]

    def _find_in_tar(self, archive: tarfile.TarFile) -> IO[bytes]:
        assert self.member
        # The first will do: looking for a second would read the whole of a large archive.
        for info in archive:
            if info.isfile() and fnmatchcase(info.name, self.member):
                return cast(IO[bytes], archive.extractfile(info))
        raise UserError(f"{self}: the archive has no such file")


def aligned(source: Text, target: Text) -> Iterator[Pair]:
    """Line by line from two files. Raises UserError with both counts where they differ."""
    sources, targets = source.lines(), target.lines()
    for number, (one, other) in enumerate(zip_longest(sources, targets), 1):
        if one is None or other is None:
            longer = number + sum(1 for _ in (targets if one is None else sources))
            counts = (number - 1, longer) if one is None else (longer, number - 1)
            raise UserError(
                f"{source} has {counts[0]} lines but {target} has {counts[1]}; "
                "line n of one must be the translation of line n of the other"
            )
        yield one, other


def columns(text: Text, source: int, target: int) -> Iterator[Pair]:
    """Two columns, counted from 1, of tab-separated text.

    Raises UserError where one lacks, or where a line has more or fewer than the first one: a tab
    within a sentence would put other columns in their places.
    """
    width = 0
    for number, line in enumerate(text.lines(), 1):
        if not line:  # as an empty line of each of two files
            yield "", ""
            continue
        cells = line.split("\t")
        width = width or len(cells)
        if len(cells) < max(source, target):
            raise UserError(
                f"{text}:{number}: {len(cells)} tab-separated column(s), "
                f"but columns {source} and {target} are asked for"
                + "; expected text with tabs between the columns, not TMX or commas"
                * (number == 1)
            )
        if len(cells) != width:
            raise UserError(
                f"{text}:{number}: {len(cells)} tab-separated columns, but line 1 has {width}; "
                "mend the line: a tab within a sentence shifts what comes after it"
            )
        yield cells[source - 1], cells[target - 1]


def translation_units(
    text: Text, source: Collection[str], target: Collection[str], dropped: Counter[str]
) -> Iterator[Pair]:
    """The pairs of a translation memory (TMX 1.4b); units that lack a side count as `dropped`.

    `source` and `target` are what the languages may be called there, regions left out. Raises
    UserError where it is no XML.
    """
    try:
        with text.opened() as stream:
            body: ElementTree.Element | None = None
            for event, element in ElementTree.iterparse(stream, ("start", "end")):
                if element.tag == "body":
                    body = element
                if event == "start" or element.tag != "tu":
                    continue
                segments = _segments(element)
                one, other = (
                    next((segments[code] for code in codes if code in segments), "")
                    for codes in (source, target)
                )
                if one and other:
                    yield one, other
                else:
                    dropped[LACKING] += 1
                if body is not None:
                    body.clear()  # or else the whole file stays in memory
    except ElementTree.ParseError as error:
        raise UserError(f"{text}: no TMX: {error}") from None


def _segments(unit: ElementTree.Element) -> dict[str, str]:
    """The text of each language, named by its first subtag, as in en of en-GB."""
    segments: dict[str, str] = {}
    for variant in unit.iter("tuv"):
        tag = variant.get("{http://www.w3.org/XML/1998/namespace}lang") or variant.get("lang") or ""
        text = "".join(piece for segment in variant.iter("seg") for piece in segment.itertext())
        code = re.split("[-_]", tag)[0].lower()
        segments.setdefault(code, " ".join(text.split()))
    return segments


def in_splits(splits: Mapping[str, tuple[Text, Text]]) -> Iterator[Row]:
    """The pairs of files that are split already. Raises UserError where a file has no line."""
    for name, (source, target) in splits.items():
        pair = None
        for pair in aligned(source, target):
            yield name, *pair
        if pair is None:
            raise UserError(f"{source}: no line; the split '{name}' would be empty")


def digest(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
