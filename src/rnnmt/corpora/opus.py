"""Corpora of OPUS and of the other collections in the index that the package mtdata carries.

Only the index is mtdata's: where a corpus is and what to read in it. Fetching and reading are
this project's. On import, mtdata builds its index in half a minute's work, keeps it as a pickle
in the home folder and loads that; so it is asked in a process of its own, with a folder that is
thrown away, and builds the index without a pickle.
"""

from __future__ import annotations

import contextlib
import difflib
import itertools
import json
import os
import pickle
import string
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from rnnmt.corpora.fetch import Remote, fetch
from rnnmt.corpora.files import (
    BROKEN,
    LACKING,
    Corpus,
    Text,
    aligned,
    columns,
    digest,
    translation_units,
)
from rnnmt.corpora.settings import Opus
from rnnmt.corpora.split import Pair, split
from rnnmt.errors import UserError, end_with

_ARCHIVES = ("zip", "tar.gz", "tgz")


@dataclass(frozen=True)
class Entry:
    """What the index says of a corpus; source and target are in the asked-for order."""

    id: str
    url: str
    ext: str  # of the file: zip, tar.gz, tsv, ...
    members: list[str]  # names or patterns in the archive: source and target, or one of columns
    kind: str  # txt, tsv or tmx
    columns: list[int]  # from 1
    codes: list[list[str]]  # of a tmx: what source and target language may be called in it
    citation: str

    def pairs(self, path: Path, dropped: Counter[str]) -> Iterator[Pair]:
        """The pairs of the downloaded file."""
        if self.kind == "txt":
            source, target = self.members
            return aligned(Text(path, source), Text(path, target))
        text = Text(path, self.members[0] if self.members else None)
        if self.kind == "tmx":
            source_codes, target_codes = self.codes
            return translation_units(text, source_codes, target_codes, dropped)
        return columns(text, *self.columns)


def corpus(chosen: Opus) -> Corpus:
    """The corpora of `ids`, one after the other, fetched.

    Raises UserError where an id is not known, is of other languages or of a format that is not
    aligned text, or where fetching it fails.
    """
    entries = _look_up(chosen)
    paths = [fetch(_remote(entry)) for entry in entries]
    dropped: Counter[str] = Counter()

    def pairs() -> Iterator[Pair]:
        dropped.pop(LACKING, None)  # all are read twice
        for entry, path in zip(entries, paths, strict=True):
            yield from entry.pairs(path, dropped)

    return Corpus(
        source_language=chosen.source_language,
        target_language=chosen.target_language,
        licence="\n".join(map(_licence, entries, paths)),
        citation="\n".join(dict.fromkeys(entry.citation for entry in entries)),
        origin={entry.url: digest(path) for entry, path in zip(entries, paths, strict=True)},
        rows=split(pairs, chosen.held_out, chosen.seed, dropped),
        dropped=dropped,
    )


def _remote(entry: Entry) -> Remote:
    # By id: the last part of OPUS's URLs, such as en-fr.txt.zip, is the same for all corpora.
    return Remote("opus", entry.url, filename=f"{entry.id}.{entry.ext}")


def _licence(entry: Entry, path: Path) -> str:
    """What the archive's LICENSE says, in one line: the index knows no licences."""
    text = ""
    # Of a damaged archive, reading the sentences will speak.
    with contextlib.suppress(*BROKEN), zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if Path(name).stem.upper() in ("LICENSE", "LICENCE"):
                with archive.open(name) as stream:
                    text = " ".join(stream.read(2000).decode(errors="replace").split())
    return f"{entry.id}: {text or 'not stated in the download; see https://opus.nlpl.eu'}"


def _look_up(chosen: Opus) -> list[Entry]:
    """Ask the index, in another process."""
    question = json.dumps([chosen.ids, chosen.source_language, chosen.target_language])
    with tempfile.TemporaryDirectory() as folder:
        # Run in that folder, too: mtdata imports whatever mtdata*.py it finds where it runs.
        answer = subprocess.run(
            [sys.executable, "-m", "rnnmt.corpora.opus", question, str(os.getpid())],
            cwd=folder,
            env={**os.environ, "MTDATA": folder, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
    if answer.returncode:
        raise UserError(f"mtdata's index cannot be read:\n{answer.stderr.strip()[-2000:]}")
    found = json.loads(answer.stdout)
    if isinstance(found, str):
        raise UserError(found)
    return [Entry(**entry) for entry in found]


def _answer(ids: list[str], source: str, target: str) -> list[dict[str, Any]] | str:
    """In that other process: the entries, or what is wrong with the question."""
    index = _index()
    from mtdata.iso.bcp47 import bcp47

    languages = []
    for key, code in ("source_language", source), ("target_language", target):
        try:
            languages.append(bcp47(code))
        except Exception as error:  # it raises several kinds, for a code that it does not know
            return f"corpus.{key}: mtdata does not know the language '{code}': {error}"
    entries = []
    for name in ids:
        try:
            entries.append(asdict(_entry(index, name, *languages)))
        except UserError as error:
            return str(error)
    return entries


def _index() -> Any:
    """mtdata's index, built anew: a `pickle.load` that builds it takes the place of its cache."""
    import mtdata

    def build(_: object) -> Any:
        index = sys.modules["mtdata.index"].Index()
        index.load_all()
        return index

    mtdata.cached_index_file.touch()
    with mock.patch.object(pickle, "load", build):
        from mtdata.index import INDEX
    return INDEX


def _entry(index: Any, name: str, source: Any, target: Any) -> Entry:
    from mtdata.entry import DatasetId
    from mtdata.iso.bcp47 import BCP47Tag

    try:
        entry = index[DatasetId.parse(name)]
    except Exception:  # assertions and bare exceptions, for whatever is no id
        raise UserError(_unknown(index, name, source, target)) from None
    languages = entry.did.langs
    fits, swapped = False, False
    if len(languages) == 2:
        fits, swapped = BCP47Tag.check_compat_swap((source, target), languages)
    if not fits:
        raise UserError(
            f"corpus.ids: '{name}' has the languages {entry.did.lang_str}, but source_language "
            f"and target_language are {source} and {target}"
        )
    members = list(entry.in_paths or [])
    packed = entry.ext.removesuffix(".gz").removesuffix(".xz")
    kind = entry.in_ext if entry.ext in _ARCHIVES else packed
    if not isinstance(entry.url, str) or (kind, len(members)) not in {
        ("txt", 2), ("tsv", 1), ("tsv", 0), ("tmx", 1), ("tmx", 0),
    }:  # fmt: skip
        raise UserError(
            f"corpus.ids: '{name}' comes as {entry.ext} with {entry.in_ext or entry.ext}, which "
            "is not read here; get it with 'mtdata get' and use 'source: files'"
        )
    places = [column + 1 for column in entry.cols or (0, 1)]
    if swapped:
        members.reverse()
        places.reverse()
    cited = [index.ref_db.get_bibtex(key).strip() for key in entry.cite or ()]
    codes = [_codes(language) for language in (source, target)]
    return Entry(
        str(entry.did), entry.url, entry.ext, members, kind, places, codes, "\n".join(cited)
    )


def _codes(language: Any) -> list[str]:
    """Its codes of three and of two letters."""
    from mtdata.iso.bcp47 import bcp47

    two_letters = ("".join(pair) for pair in itertools.product(string.ascii_lowercase, repeat=2))
    parsed = ((code, bcp47.try_parse(code)) for code in two_letters)
    return [language.lang, *(code for code, tag in parsed if tag and tag.lang == language.lang)]


def _unknown(index: Any, name: str, source: Any, target: Any) -> str:
    known = [
        str(did)
        for did in index.entries
        if len(did.langs) == 2 and {*did.langs} == {source, target}
    ]
    close = difflib.get_close_matches(name, known, 5, 0.3)
    hint = f"; near it are {', '.join(close)}" if close else ""
    return (
        f"corpus.ids: mtdata knows no '{name}'{hint}; "
        f"'mtdata list -l {source}-{target}' lists what there is"
    )


if __name__ == "__main__":
    end_with(int(sys.argv[2]))
    json.dump(_answer(*json.loads(sys.argv[1])), sys.stdout)
