"""Bad corpora: whatever a file may hold, download and tokenize name it or lose no alignment.

Each pair carries its number on both sides, so that a line that slips is seen whatever is around it.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import re
import shutil
import signal
import struct
import tarfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from rnnmt.corpora import files, opus
from rnnmt.corpora.clean import KEPT, CleaningSettings, judge, normalise
from rnnmt.corpora.split import FURTHER
from rnnmt.dataset.store import open_split
from rnnmt.dataset.tokenizer import UNK, Tokenizer
from rnnmt.errors import UserError
from rnnmt.stages import download, tokenize

DEFAULTS = YAML(typ="safe", pure=True).load(
    (Path(__file__).parents[2] / "params.yaml").read_text(encoding="utf-8")
)
SIDES = ("source", "target")
# What other programs take for the end of a line, as the download stage's documentation says.
BREAKS = "\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
InFolder = Callable[[int], AbstractContextManager[random.Random]]
INFLATED = 1_500_000  # for rnnmt.corpora.files.INFLATED: bombs of a few MB are traps then

WORDS = [
    "the", "cat", "eats", "été", "L\u2019e\u0301te\u0301", "Straße", "ﬁ", "İstanbul", "ΑΒΓ",
    "漢字かな交じり文", "한국어", "\u1112\u1161\u11ab", "नमस्ते", "می\u200cخواهم", "שלום",
    "\u202eabc\u202c", "👩\u200d🚀", "👨\u200d👩\u200d👧\u200d👦", "🏳\ufe0f\u200d🌈",
    "e" + "\u0301" * 50,     "a\u200bb", "a\u2060b",
    "a\u00adb", "\u00a0", "\u3000", "\u1680", "\t", "  ", "\u2581", "▅", "<s>", "</s>", "<unk>",
    "<pad>", "<0x0A>", '"', '"quoted"', "'", "\\n", "\\", "&amp;", "\ufeff", "\ufffe", "\uffff",
    "\U0010ffff", "\ue000", "\x01", "\x1b[31m", "\x7f", "\x9f", "a" * 500, "...",
    "1e999", "NULL",
]  # fmt: skip


# ---------------------------------------------------------------- making files


@dataclass
class Made:
    """The bytes of a file, and what is in them: its lines, or None where it must be refused."""

    content: bytes
    lines: list[str] | None
    bad_line: int | None = None  # the number of the line that the message must name
    either: bool = False  # whether both a message and success are right
    what: list[str] = field(default_factory=list)

    def refuse(self) -> None:
        self.lines = self.bad_line = None


def sentence(dice: random.Random, number: int | None, breaks: bool) -> str:
    words = dice.choices(WORDS, k=dice.choice([0, 1, 3, 8]))
    if breaks:
        words += dice.choices(BREAKS, k=2)
    dice.shuffle(words)
    if number is not None:
        words.insert(dice.randrange(len(words) + 1), f"#{number}#")
    return dice.choice([" ", " ", "  "]).join(words)


def sentences(dice: random.Random) -> tuple[str, list[tuple[str, str]]]:
    """A kind of corpus, and its pairs."""
    kinds = {
        "usual": 12, "long": 2, "one character": 2, "identical sides": 1, "same pair": 1, "one": 1,
        "two": 1, "no letters": 1, "blank side": 1, "blank": 1, "none": 1,
    }  # fmt: skip
    kind = dice.choices(list(kinds), list(kinds.values()))[0]
    size = {"one": 1, "two": 2, "none": 0}.get(kind, dice.choice([5, 20, 60]))
    breaks = dice.random() < 0.3
    numbers = range(size)
    pairs = [(sentence(dice, n, breaks), sentence(dice, n, breaks)) for n in numbers]
    match kind:
        case "blank":
            pairs = [(dice.choice(["", " ", "\t", "\u00a0"]), "") for _ in numbers]
        case "blank side":
            pairs = [(source, "") for source, _ in pairs]
        case "identical sides":
            pairs = [(source, source) for source, _ in pairs]
        case "one character":
            letter = dice.choice(["a", "é", "漢", "👩", "0", "▅", "\u0301"])
            pairs = [(letter, letter) for _ in numbers]
        case "same pair":
            pairs = [pairs[0]] * size
        case "no letters":
            pairs = [("?!", "...") for _ in numbers]
        case "long":
            long = dice.choice(["a", "ab ", "漢", "👩\u200d🚀", "e\u0301", "\u0301"])
            at = dice.randrange(size)
            repeated = (long * 100_000)[:100_000]
            pairs[at] = tuple(f"#{at}# {repeated}" if dice.random() < 0.7 else s for s in pairs[at])  # type: ignore[assignment]
    return kind, pairs


def render(dice: random.Random, lines: list[str], bad: bool) -> Made:
    """The file of these lines: line ends, byte order mark, encoding."""
    ends = dice.choices([["\n"], ["\r\n"], ["\n", "\r\n"], ["\r"]], [6, 3, 2, bad])[0]
    text = "".join(line + dice.choice(ends) for line in lines)
    if text and dice.random() < 0.3:
        text = text.removesuffix("\n").removesuffix("\r")
    if dice.random() < 0.15:
        text = "\ufeff" + text
    encodings = ["latin-1", "cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
    encoding = dice.choice(encodings) if bad and dice.random() < 0.2 else "utf-8"
    return read_back(text.encode(encoding, errors="ignore"), [repr(ends), encoding])


def read_back(content: bytes, what: list[str]) -> Made:
    """What is in these bytes, found in another way than the program's."""
    made = Made(content, [], what=what)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        made.refuse()
        return made
    lines = content.split(b"\n")
    if not lines[-1]:
        lines.pop()
    lines[:1] = [line.removeprefix(b"\xef\xbb\xbf") for line in lines[:1]]
    # A file of the old Macintosh is told from one with an odd character.
    made.either = len(lines) == 1 and b"\r" in lines[0]
    texts = [line.decode("utf-8", errors="surrogateescape") for line in lines]
    bad = [n for n, text in enumerate(texts, 1) if re.search("[\0\udc80-\udcff]", text)]
    if bad:
        made.refuse()
        made.bad_line = bad[0]
    else:
        made.lines = [re.sub(f"[{BREAKS}]", " ", text.removesuffix("\r")) for text in texts]
    return made


def damage(dice: random.Random, made: Made) -> Made:
    """The same with its bytes, or its lines, in disorder."""
    content, kind = made.content, dice.choice(["cut", "flip", "line", "NUL", "surrogate", "join"])
    at = dice.randrange(len(content) + 1)
    before, after = content[:at], content[at:]
    match kind:
        case "cut":
            content = before
        case "flip":
            content = before + dice.choice([b"\n", b"\r", b"\x80", b"\xc3", b"\xff"]) + after[1:]
        case "line":
            content += b"one more\n"
        case "NUL":
            content = before + b"\0" + after
        case "surrogate":
            content = before + b"\xed\xa0\x80" + after
        case "join":  # a line less
            content = content.replace(b"\n", b" ", 1)
    return read_back(content, [*made.what, kind])


def pack(dice: random.Random, made: Made, bad: bool) -> Made:
    """As it is, or in gzip, whole or broken."""
    kind = dice.choices(
        ["plain", "gzip", "parts", "zeros", "flip", "cut", "rest", "twice", "zip", "bz2"],
        [20, 6, 3, 1] + [bad] * 6,
    )[0]
    made.what.append(kind)
    whole, half = gzip.compress(made.content, mtime=0), len(made.content) // 2
    match kind:
        case "plain":
            return made
        case "gzip":
            made.content = whole
        case "parts":
            parts = made.content[:half], b"", made.content[half:]
            made.content = b"".join(gzip.compress(part, mtime=0) for part in parts)
        case "zeros":  # what a tape leaves is allowed
            made.content = whole + bytes(99)
        case "flip":
            at = dice.randrange(10, len(whole))
            bit = 1 << dice.randrange(8)
            made.content = whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :]
            made.either, made.bad_line = True, None  # some bits mean nothing
        case "cut":
            # Also just before the sum at the end, which alone tells that all is there.
            made.content = whole[: dice.randrange(2, len(whole))]
        case "rest":
            made.content = whole + b"rubbish"
        case "twice":
            made.content = gzip.compress(whole, mtime=0)
        case "zip":
            made.content = zipped([("a.txt", made.content)])
        case "bz2":
            made.content = bz2.compress(made.content)
    if kind in ("cut", "rest", "twice", "zip", "bz2"):
        made.refuse()
    return made


def zipped(members: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the same name twice
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def bomb(dice: random.Random) -> Made:
    line = dice.choice([b"\n", b"a" * 5_000_000, b"a bomb\n", b"\0"])
    content = gzip.compress(line * (6_000_000 // len(line)), mtime=0)
    return Made(content, None, what=[f"bomb of {line[:3]!r}"])


# ---------------------------------------------------------------- a corpus of them


@dataclass
class Trial:
    settings: dict[str, Any]
    expected: dict[str, list[tuple[str, str]]] | None  # or None where it must be refused
    what: str
    either: bool = False  # whether both a message and success are right
    bad_place: str = ""  # what the message must have: file and line
    tagged: bool = True  # whether the numbers of a pair are the same on both sides


def make_file(dice: random.Random, name: str, lines: list[str], bad: bool) -> Made:
    """A file of these lines in the current folder; a bad one is likely to be broken."""
    if bad and dice.random() < 0.1:
        made = bomb(dice)
    else:
        made = render(dice, lines, bad)
        made = pack(dice, damage(dice, made) if bad and dice.random() < 0.4 else made, bad)
    path = Path(name)
    path.write_bytes(made.content)
    kinds = ["file", "link", "nowhere", "loop", "folder", "gone"]
    kind = dice.choices(kinds, [40, 3] + [bad] * 4)[0]
    made.what.append(kind)
    if kind == "file":
        return made
    path.rename(f"once.{name}")
    if kind == "link":
        path.symlink_to(f"once.{name}")
        return made
    made.refuse()
    if kind == "folder":
        path.mkdir()
    elif kind != "gone":
        path.symlink_to("not-there" if kind == "nowhere" else name)
    return made


def make_trial(dice: random.Random) -> Trial:
    """Files in the current folder, and the section `corpus` that names them."""
    settings: dict[str, Any] = {
        "name": "mine", "source": "files", "source_language": "en", "target_language": "fr",
    }  # fmt: skip
    held_out = {"valid": dice.choice([1, 3]), "test": dice.choice([1, 2]), "test_more": 1}
    match dice.choice(["splits", "splits", "held_out", "tsv"]):
        case "splits":
            return make_splits(dice, settings, ["train", "valid", "test", "test_more"])
        case "held_out":
            settings |= {"held_out": held_out, "seed": dice.randrange(9)}
            return make_splits(dice, settings, ["train"])
        case _:
            return make_tsv(dice, settings | {"held_out": held_out, "seed": dice.randrange(9)})


def make_splits(dice: random.Random, settings: dict[str, Any], splits: list[str]) -> Trial:
    made: dict[str, tuple[Made, Made]] = {}
    kinds = {}
    # Never both sides: what is wrong with one may hide what is wrong with the other.
    bad = dice.choices(["en", "fr", ""], [1, 1, 3])[0]
    for split in splits:
        kinds[split], pairs = sentences(dice)
        if split != "train" and dice.random() < 0.8:
            kinds[split], pairs = "few", [(f"{split} #{n}#", f"le #{n}#") for n in range(3)]
        made[split] = tuple(  # type: ignore[assignment]
            make_file(dice, f"{split}.{language}", [pair[i] for pair in pairs], bad == language)
            for i, language in enumerate(("en", "fr"))
        )
    pairs_of = {split: paired(*both) for split, both in made.items()}
    return Trial(
        settings | {"splits": {split: [f"{split}.en", f"{split}.fr"] for split in splits}},
        {split: pairs or [] for split, pairs in pairs_of.items()}
        if all(pairs_of.values())
        else None,
        "\n  ".join(
            f"{split}: {kinds[split]}, {source.what} {target.what}"
            for split, (source, target) in made.items()
        ),
        either=any(one.either for both in made.values() for one in both),
        bad_place=first_bad_place(made),
    )


def paired(source: Made, target: Made) -> list[tuple[str, str]] | None:
    if source.lines is None or target.lines is None or len(source.lines) != len(target.lines):
        return None
    return list(zip(source.lines, target.lines, strict=True))


def first_bad_place(made: dict[str, tuple[Made, Made]]) -> str:
    """File and line of what is met first, where that is a line that is no text."""
    for split, (source, target) in made.items():
        for language, one, other in ("en", source, target), ("fr", target, source):
            if one.bad_line and len(other.lines or []) >= one.bad_line:
                return f"{split}.{language}:{one.bad_line}: "
        if not paired(source, target):
            break
    return ""


def make_tsv(dice: random.Random, settings: dict[str, Any]) -> Trial:
    kind, pairs = sentences(dice)
    source, target = columns = dice.choice([[1, 2], [3, 1], [2, 3], [1, 9]])
    shifted = dice.random() < 0.2  # whether tabs stay in sentences, which shift the columns
    rows = []
    for pair in pairs:
        cells = dict.fromkeys((1, 2, 3), "id") | dict(zip(columns, pair, strict=True))
        texts = [cells[column] for column in (1, 2, 3)]
        rows.append("\t".join(texts if shifted else [text.replace("\t", " ") for text in texts]))
    made = make_file(dice, "pairs.tsv", rows, dice.random() < 0.4)
    table = [line.split("\t") for line in made.lines or []]
    good = len({len(cells) for cells in table}) == 1 and len(table[0]) >= max(columns)
    return Trial(
        settings | {"tsv": "pairs.tsv", "columns": columns},
        {"train": [(cells[source - 1], cells[target - 1]) for cells in table]} if good else None,
        f"tsv {columns} {shifted=}: {kind}, {made.what}",
        either=made.either,
        tagged=not shifted,
    )


def write_params(corpus: dict[str, Any], **sections: dict[str, Any]) -> None:
    """A params.yaml; JSON is YAML."""
    changed = {name: DEFAULTS[name] | changes for name, changes in sections.items()}
    values = DEFAULTS | {"corpus": corpus} | changed
    Path("params.yaml").write_text(json.dumps(values, indent=1), encoding="utf-8")


@pytest.fixture
def trial_in_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], AbstractContextManager[random.Random]]:
    """The dice of a trial, in a folder of its own; what fails says which trial it was."""
    monkeypatch.setattr(files, "INFLATED", INFLATED)

    @contextmanager
    def begin(number: int) -> Iterator[random.Random]:
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        with limited(20):
            yield random.Random(number)
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(folder)

    return begin


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Fails what takes longer, in time of the processor, which other programs do not change."""

    def over(*_: object) -> None:
        raise AssertionError(f"not done in {seconds} s")

    signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def whole(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def read_raw(split: str) -> list[tuple[str, str]]:
    """The pairs of a split as the download stage wrote them."""
    sides = []
    for side in SIDES:
        content = Path(f"data/mine/raw/{split}.{side}").read_bytes().decode()
        assert content.endswith("\n")
        sides.append(content.splitlines())
        assert content.split("\n")[:-1] == sides[-1]  # whatever reads it sees these lines
    return list(zip(*sides, strict=True))


# ---------------------------------------------------------------- download


def check_download(trial: Trial) -> str:
    """Run the stage; returns what came of it, or fails where a promise was broken."""
    if message := message_of(download.main):
        assert trial.expected is None or trial.either or "corpus.held_out" in message, message
        assert re.search(r"\.(en|fr|tsv|zip|gz|xz|tar)\b|corpus\.", message), message
        assert trial.either or trial.bad_place in message, (trial.bad_place, message)
        assert not list(Path("data/mine").glob("*")), "half an output"
        return "clear errors of download"
    assert trial.expected is not None, "what cannot be read was taken"
    manifest = json.loads(Path("data/mine/raw/manifest.json").read_text(encoding="utf-8"))
    written = {split: read_raw(split) for split in manifest["splits"]}
    everything = list(chain.from_iterable(written.values()))
    sizes = {split: len(pairs) for split, pairs in written.items()}
    assert sizes == manifest["splits"]
    if held_out := trial.settings.get("held_out"):
        assert Counter(everything) <= Counter(trial.expected["train"])
        further = manifest["dropped"].get(FURTHER, 0)
        assert len(everything) + further == len(trial.expected["train"])
        assert sizes == held_out | {"train": sizes["train"]}
    else:
        assert written == trial.expected
    for source, target in everything if trial.tagged else []:
        one, other = (re.findall(r"#\d+#", text) for text in (source, target))
        assert not one or not other or one == other, (source, target)
    first = whole(Path("data"))
    download.main()
    assert whole(Path("data")) == first, "another run, other bytes"
    return "downloads"


def message_of(stage: Callable[[], object]) -> str:
    """What a stage says to the user, or nothing where it went well; any other error fails."""
    try:
        stage()
    except UserError as error:
        return str(error)
    return ""


# ---------------------------------------------------------------- tokenize


def check_tokenize(dice: random.Random, corpus: dict[str, Any]) -> str:
    """Run the stage after a download; as `check_download`."""
    longest = max(len(text) for pair in read_raw("train") for text in pair)
    tokenizer = {
        # Of one sentence of 100,000 characters, unigram takes minutes.
        "algorithm": dice.choice(["bpe", "unigram"]) if longest < 20_000 else "bpe",
        "joint": dice.random() < 0.5,
        "vocabulary": dice.choice([8, 60, 300, 500, 500, 2000, 100_000]),
        "byte_fallback": dice.random() < 0.7,
    }
    cleaning = {
        "max_words": dice.choice([1, 20, 100, 100, 10**30]),
        "max_length_ratio": dice.choice([1.0, 4.0, 4.0, 1e300]),
        "drop_identical": dice.random() < 0.5,
        "drop_duplicates": dice.random() < 0.5,
    }
    write_params(corpus, tokenizer=tokenizer, cleaning=cleaning)
    if message := message_of(tokenize.main):
        assert re.search(r"params\.yaml|/raw|the (source|target)", message), message
        assert [path.name for path in Path("data/mine").iterdir()] == ["raw"], "half an output"
        return "clear errors of tokenize"
    check_tokens(Path("data/mine/tokens"), CleaningSettings(**cleaning), tokenizer["byte_fallback"])
    first = whole(Path("data"))
    tokenize.main()
    assert whole(Path("data")) == first, "another run, other bytes"
    return "tokenized"


def check_tokens(out: Path, cleaning: CleaningSettings, spelled: bool) -> None:
    """The ids spell what there is to spell, and each pair is where it belongs."""
    splits = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["splits"]
    pairs_of = {
        split: [(normalise(source), normalise(target)) for source, target in read_raw(split)]
        for split in splits
    }
    held_out = {source for split in splits if split != "train" for source, _ in pairs_of[split]}
    judged = list(judge(pairs_of["train"], cleaning, held_out))
    assert [pair for _, pair in judged] == pairs_of["train"]
    verdicts = {"kept": splits["train"]["kept"]} | splits["train"]["dropped"]
    assert Counter(verdict for verdict, _ in judged) == Counter(verdicts)
    pairs_of["train"] = [pair for verdict, pair in judged if verdict == KEPT]
    models = [Tokenizer(out / f"{side}.model") for side in SIDES]
    for split, pairs in pairs_of.items():
        counts = splits[split]
        assert counts["read"] == counts["kept"] + sum(counts["dropped"].values())
        assert counts["read"] == len(read_raw(split))
        assert counts["kept"] == len(pairs)
        for side, store, model, texts in zip(
            SIDES, open_split(out, split), models, zip(*pairs, strict=True), strict=True
        ):
            ids = [store[i].tolist() for i in range(len(store))]
            assert len(ids) == len(texts)
            for row, decoded, text in zip(ids, model.decode(ids), texts, strict=True):
                assert decoded == text or (UNK in row and not spelled), (split, side)
            if split != "train":
                written = (out / f"{split}.{side}.txt").read_bytes().decode()
                assert written == "".join(f"{text}\n" for text in texts)


@pytest.mark.trials(20, 1500)
def test_files_of_any_content(
    trials: range, tally: Counter[str], trial_in_folder: InFolder
) -> None:
    for number in trials:
        with trial_in_folder(number) as dice:
            trial = make_trial(dice)
            write_params(trial.settings)
            try:
                outcome = check_download(trial)
                tally[outcome] += 1
                if outcome == "downloads":
                    tally[check_tokenize(dice, trial.settings)] += 1
            except Exception as error:
                raise AssertionError(f"trial {number}\n  {trial.what}") from error


# ---------------------------------------------------------------- archives

ARCHIVES = ["zip", "tar", "tar.gz", "tar.xz", "tar.bz2"]
TAR_KINDS = b"0125LKxgSX"
PAX_KEYS = ["size", "GNU.sparse.map", "GNU.sparse.major", "hdrcharset", "path", ""]
SIZES = [-512, -1024, -1, 0, 9, 30, 1 << 40, 1 << 62, 1 << 63, 1 << 80]
DAMAGES = ["cut", "bytes", "fields", "numbers", "twice", "before", "after", "empty"]


def make_archive(
    dice: random.Random, kind: str, members: list[tuple[str, bytes]], odd: bool
) -> bytes:
    """The members among others that try to get out of the folder, or to lead there."""
    hostile = ["../evil", "/tmp/rnnmt-evil", "a/../../evil", "\x1b[31m", "é" * 40, "README", "a/"]
    all_members = members + [(name, b"evil\n") for name in dice.sample(hostile, 3)]
    dice.shuffle(all_members)
    if kind == "zip":
        return zipped(all_members)
    buffer = io.BytesIO()
    form = dice.choice([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    with tarfile.open(fileobj=buffer, mode="w:", format=form) as archive:
        for name, content in all_members:
            if dice.random() < 0.3:
                other = tarfile.TarInfo(dice.choice([name, "other"]))
                other.type = dice.choice([tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
                other.linkname = dice.choice(["/etc/passwd", "../../evil", name])
                archive.addfile(other)
            if odd and dice.random() < 0.4:
                archive.offset += buffer.write(
                    odd_header(
                        dice.choice(TAR_KINDS),
                        dice.choice(SIZES),
                        dice.choice(PAX_KEYS),
                        dice.choice(SIZES),
                    )
                )
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    packers = {"tar.gz": gzip.compress, "tar.xz": lzma.compress, "tar.bz2": bz2.compress}
    return packers.get(kind, bytes)(buffer.getvalue())


def odd_header(kind: int, size: int, key: str = "size", value: object = 0) -> bytes:
    """What tells tar of a member, with a right sum and wrong numbers."""
    header = bytearray(tarfile.TarInfo("odd").tobuf())
    header[124:136] = (size % (1 << 96) | (1 << 95)).to_bytes(12, "big")
    record = b""
    if kind in b"xg":
        record = f"{size} {key}={value}\n".encode()
        header[124:136] = b"%011o\0" % len(record)
    header[156:157] = bytes([kind])
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + record + bytes(-len(record) % 512)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", TAR_KINDS, ids=chr)
def test_a_tar_with_a_wrong_number_comes_to_an_end(tmp_path: Path, kind: int, size: int) -> None:
    member = make_archive(random.Random(0), "tar", [("a.txt", b"a\n")], False)
    (tmp_path / "a.tar").write_bytes(odd_header(ord("0"), 0) + odd_header(kind, size) + member)
    with limited(20):
        found = message_of(lambda: list(files.Text(tmp_path / "a.tar", "a.txt").lines()))
    assert "a.tar" in found or not found


def damage_archive(dice: random.Random, kind: str, how: str, content: bytes) -> bytes:
    damaged = bytearray(content)
    match how:
        case "cut":
            del damaged[dice.randrange(len(damaged)) :]
        case "bytes":
            for _ in range(dice.choice([1, 5, 50])):
                damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        case "fields":  # of the headers: sizes, offsets, methods, flags
            marks = [b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"ustar"]
            places = [m.start() for mark in marks for m in re.finditer(re.escape(mark), content)]
            for place in dice.sample(places, min(len(places), 3)):
                start = max(0, place + dice.randrange(-160, 50))
                value = dice.choice([b"\xff" * 8, b"\0" * 8, b"\x80" + b"\xff" * 7, b"77777777"])
                damaged[start : start + len(value)] = value
        case "numbers" if kind == "zip":  # of 64 bits, far outside
            return zip_with_far_member(content, dice.choice([1 << 63, (1 << 64) - 1, 1 << 62]))
        case "twice":
            damaged += content
        case "before":
            damaged[:0] = bytes(dice.randrange(1, 999))
        case "after":
            damaged += bytes(dice.randrange(1, 999))
        case "empty":
            damaged.clear()
    return bytes(damaged)


def zip_with_far_member(content: bytes, offset: int) -> bytes:
    """The archive whose first member is said to begin at an offset that 32 bits cannot hold."""
    at = content.index(b"PK\x01\x02")
    name, extra = struct.unpack("<HH", content[at + 28 : at + 32])
    far = struct.pack("<HHQ", 1, 8, offset)
    header = bytearray(content[at : at + 46 + name])
    header[30:32] = struct.pack("<H", extra + len(far))
    header[42:46] = b"\xff" * 4
    end = content.index(b"PK\x05\x06")
    directory = bytes(header) + far + content[at + 46 + name : end]
    tail = bytearray(content[end:])
    tail[12:16] = struct.pack("<I", len(directory))
    return content[:at] + directory + tail


@pytest.mark.trials(20, 6000)
def test_archives_of_any_content(
    trials: range,
    tally: Counter[str],
    trial_in_folder: InFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in trials:
        with trial_in_folder(number) as dice:
            trial, exact = make_archived_trial(dice, monkeypatch)
            write_params(trial.settings)
            try:
                if exact:
                    tally[check_download(trial)] += 1
                else:
                    tally["clear errors" if message_of(download.main) else "read"] += 1
            except Exception as error:
                raise AssertionError(f"trial {number}: {trial.what}") from error
            assert not Path("/tmp/rnnmt-evil").exists()
            assert not list(Path("..").rglob("evil"))


def make_archived_trial(dice: random.Random, monkeypatch: pytest.MonkeyPatch) -> tuple[Trial, bool]:
    """An archive in the cache, and whether what is read must be what was written."""
    kind, (content, pairs) = dice.choice(ARCHIVES), sentences(dice)
    pairs = [(one.replace("\t", " "), other.replace("\t", " ")) for one, other in pairs]
    tsv = dice.random() < 0.5
    sides = [map("\t".join, pairs)] if tsv else list(zip(*pairs, strict=True)) or [[], []]
    made = [read_back("".join(f"{line}\n" for line in side).encode(), []) for side in sides]
    names = ["corpus/c.tsv"] if tsv else ["corpus/c.en", "corpus/c.fr"]
    members = [(name, one.content) for name, one in zip(names, made, strict=True)]
    how = dice.choice([*DAMAGES, *[""] * len(DAMAGES)])
    packed = make_archive(dice, kind, members, how == "numbers")
    if how:
        packed = damage_archive(dice, kind, how, packed)
    entry = opus.Entry("ID", "http://nowhere", kind, names, "tsv" if tsv else "txt", [1, 2], [], "")
    monkeypatch.setattr(opus, "_look_up", lambda _: [entry])
    Path("work/downloads/opus").mkdir(parents=True)
    Path(f"work/downloads/opus/ID.{kind}").write_bytes(packed)
    settings = {
        "name": "mine", "source": "opus", "source_language": "en", "target_language": "fr",
        "ids": ["ID"], "held_out": {"valid": 2, "test": 1}, "seed": 1,
    }  # fmt: skip
    if tsv:
        expected = [tuple(line.split("\t")) for line in made[0].lines or []]
    else:
        expected = paired(*made) or []
    trial = Trial(
        settings,
        {"train": expected} if expected else None,  # type: ignore[dict-item]
        f"{kind}, {how or 'whole'}: {content}",
        either=bool(how) or any(one.either for one in made),
    )
    # A tar has no sums of what is in it.
    return trial, kind == "zip" or not how
