"""The stage tokenize through its command, the tokenizer and the token store."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from rnnmt.corpora.clean import normalise
from rnnmt.dataset.store import (
    ParallelStore,
    TokenStore,
    TokenStoreWriter,
    ids_dtype,
    open_split,
)
from rnnmt.dataset.tokenizer import BOS, EOS, PAD, UNK, Tokenizer, TokenizerSettings, train
from rnnmt.errors import UserError
from rnnmt.stages import tokenize

DEFAULTS = Path(__file__).parent.parent / "params.yaml"
ENGLISH = ["the", "a", "black", "small", "cat", "house", "eats", "milk", "Anna", "12", "today"]
FRENCH = ["le", "la", "noir", "petit", "chat", "maison", "mange", "lait", "Anna", "12", "été"]


def make(folder: Path, tokenizer: dict[str, Any] | None = None, **texts: bytes) -> Path:
    """A params.yaml and a raw corpus; `train_source=...` and the like replace its files."""
    params = YAML(typ="safe", pure=True).load(DEFAULTS.read_text(encoding="utf-8"))
    params["corpus"]["name"] = "toy"
    params["tokenizer"] |= {"vocabulary": 330} | (tokenizer or {})
    raw = folder / "data" / "toy" / "raw"
    raw.mkdir(parents=True)
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(params, file)
    generator = random.Random(7)
    sizes = {"train": 400, "valid": 20, "test": 30, "test_long": 10}
    for split, size in sizes.items():
        for side, words in (("source", ENGLISH), ("target", FRENCH)):
            # A number of its own for each pair, so that no two are equal by chance.
            lines = (f"{' '.join(generator.choices(words, k=6))} {split} {n}" for n in range(size))
            (raw / f"{split}.{side}").write_bytes("".join(f"{x}\n" for x in lines).encode())
    manifest = {"name": "toy", "source_language": "en", "target_language": "fr", "splits": sizes}
    (raw / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    for name, text in texts.items():
        split, kind = name.rsplit("_", 1)
        (raw / f"{split}.{kind.replace('labels', 'labels.jsonl')}").write_bytes(text)
    return raw


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rnnmt.stages.tokenize"],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def tokens(folder: Path) -> Path:
    result = run(folder)
    assert result.returncode == 0, result.stderr
    return folder / "data" / "toy" / "tokens"


def manifest_of(folder: Path) -> Any:
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def failure(folder: Path) -> str:
    """The message of a run that must fail, without a traceback or half an output."""
    result = run(folder)
    assert result.returncode == 1
    assert result.stderr.startswith("rnnmt: error: ")
    assert "Traceback" not in result.stderr
    assert [path.name for path in (folder / "data" / "toy").iterdir()] == ["raw"]
    return result.stderr


def texts(store: TokenStore, model: Path) -> list[str]:
    return Tokenizer(model).decode([store[i].tolist() for i in range(len(store))])


@pytest.mark.parametrize("joint", [True, False])
def test_ids_spell_the_corpus(tmp_path: Path, joint: bool) -> None:
    raw = make(tmp_path, {"joint": joint})
    out = tokens(tmp_path)
    for split, size in (("train", 400), ("valid", 20), ("test", 30), ("test_long", 10)):
        store = open_split(out, split)
        for side in ("source", "target"):
            lines = (raw / f"{split}.{side}").read_text(encoding="utf-8").splitlines()
            assert len(lines) == size
            assert texts(getattr(store, side), out / f"{side}.model") == lines
            assert (out / f"{split}.{side}.txt").exists() == (split != "train")
    same = (out / "source.model").read_bytes() == (out / "target.model").read_bytes()
    assert same == joint
    manifest = manifest_of(out)
    assert manifest["vocabulary"] == {"source": 330, "target": 330}
    assert manifest["splits"]["train"]["tokens"] == {
        side: int(getattr(open_split(out, "train"), side).lengths.sum())
        for side in ("source", "target")
    }


def test_training_pairs_are_dropped_and_counted(tmp_path: Path) -> None:
    pairs = [
        ("one cat", "un chat", "kept"),
        ("one cat", "un chat", "duplicate"),
        ("one\u00a0cat", "un  chat\r", "duplicate"),
        ("", "rien", "empty"),
        ("a " * 101, "b " * 101, "too_long"),
        ("short", "long " * 9, "length_ratio"),
        ("Paris", "Paris", "identical"),
        ("held  out\x00", "autre", "source_in_held_out_set"),
        ("another", "gardé", "kept"),
        ("two\u2028dogs\x0c", "\ufeffdeux chiens", "kept"),
    ]
    make(
        tmp_path,
        {"vocabulary": 300},
        train_source="".join(f"{source}\n" for source, _, _ in pairs).encode(),
        train_target="".join(f"{target}\n" for _, target, _ in pairs).encode(),
        train_labels="".join(f'{{"n": {n}}}\n' for n in range(len(pairs))).encode(),
        test_source=b"\nheld out\nheld out\n",
        test_target="rien\n\ngardé\n".encode(),
    )
    out = tokens(tmp_path)
    counts = manifest_of(out)["splits"]["train"]
    assert (counts["read"], counts["kept"]) == (10, 3)
    for reason, number in counts["dropped"].items():
        assert number == sum(verdict == reason for _, _, verdict in pairs), reason
    assert counts["control_characters"] == 1
    assert counts["kept_with_held_out_target"] == 1
    train = open_split(out, "train")
    assert texts(train.source, out / "source.model") == ["one cat", "another", "two dogs"]
    assert texts(train.target, out / "target.model") == ["un chat", "gardé", "deux chiens"]
    kept = [json.loads(line) for line in (out / "train.labels.jsonl").read_text().splitlines()]
    assert kept == [{"n": n} for n, pair in enumerate(pairs) if pair[2] == "kept"]


def test_held_out_sets_keep_every_line_in_order(tmp_path: Path) -> None:
    source = "same\nsame\n\n" + "word " * 500 + "\nL\u2019e\u0301te\u0301 :\u00a0!\r\nsame"
    target = "same\nsame\nx\ny\nz\nsame"
    labels = b'{"a": 1}\n{}\n{}\n{}\n{}\n{"b": 2}\n'
    make(
        tmp_path,
        test_source=source.encode(),
        test_target=target.encode(),
        test_labels=labels,
    )
    out = tokens(tmp_path)
    expected = ["same", "same", "", "word " * 499 + "word", "L\u2019\u00e9t\u00e9 : !", "same"]
    assert (out / "test.source.txt").read_bytes().decode() == "".join(f"{x}\n" for x in expected)
    assert (out / "test.target.txt").read_bytes().decode() == target + "\n"
    assert (out / "test.labels.jsonl").read_bytes() == labels
    assert texts(open_split(out, "test").source, out / "source.model") == expected
    assert manifest_of(out)["splits"]["test"]["kept"] == 6


def test_tokenizer_learns_from_training_text_only(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    make(first)
    make(second, valid_source=b"quixotic\n" * 99, valid_target=b"zygomatique\n" * 99)
    outputs = [tokens(first), tokens(second)]
    assert len({(out / "source.model").read_bytes() for out in outputs}) == 1
    assert len({manifest_of(out)["sha256"] for out in outputs}) == 2


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_same_bytes_in_any_folder(tmp_path: Path, algorithm: str) -> None:
    outputs = []
    for folder, seed in ((tmp_path / "a", "1"), (tmp_path / "b" / "deeper", "2")):
        make(folder, {"algorithm": algorithm}, train_labels=b"{}\n" * 400)
        assert run(folder, PYTHONHASHSEED=seed, OMP_NUM_THREADS=seed).returncode == 0
        out = folder / "data" / "toy" / "tokens"
        outputs.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) == 4 * 4 + 2 * 3 + 1 + 2 + 1
    assert not any(str(tmp_path).encode() in content for content in outputs[0].values())


def test_a_second_run_replaces_the_first(tmp_path: Path) -> None:
    make(tmp_path)
    out = tokens(tmp_path)
    before = (out / "manifest.json").read_bytes()
    (out / "stale.txt").touch()
    rest = out.with_name("tokens.partial")  # of a run that was killed
    rest.mkdir()
    (rest / "stale.txt").touch()
    assert (tokens(tmp_path) / "manifest.json").read_bytes() == before
    assert not (out / "stale.txt").exists()
    assert not rest.exists()


def test_a_small_corpus_gets_a_smaller_vocabulary(tmp_path: Path) -> None:
    make(tmp_path, {"vocabulary": 5000})
    result = run(tmp_path)
    size = manifest_of(tmp_path / "data" / "toy" / "tokens")["vocabulary"]["source"]
    assert 260 < size < 5000
    assert f"vocabulary: {size} source, {size} target" in result.stdout
    assert "too small for 5,000 pieces" in result.stdout
    assert Tokenizer(tmp_path / "data/toy/tokens/source.model").vocabulary_size == size


@pytest.mark.parametrize(("language", "told"), [("zh-Hant-TW", 1), ("jpn", 1), ("fr", 0)])
def test_bleu_has_no_words_without_spaces(tmp_path: Path, language: str, told: int) -> None:
    make(tmp_path)
    file = tmp_path / "data/toy/raw/manifest.json"
    manifest = json.loads(file.read_text()) | {"target_language": language}
    file.write_text(json.dumps(manifest))
    assert run(tmp_path).stdout.count("set train.monitor to val/loss") == told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_source": b"one\n"}, r"train.source has 1 lines, .*train.target has 400"),
        ({"test_labels": b"{}\n"}, r"test.source has 30 lines, .*test.labels.jsonl has 1"),
        ({"train_source": b"a\n" * 398 + b"\xff\nb\n"}, r"train.source:399: not UTF-8"),
        ({"valid_target": b"a\n" * 18 + b"\xc3\nb\n"}, r"valid.target:19: not UTF-8"),
        ({"train_source": b"\n" * 400}, r"no training pair is left .* 400 empty"),
        ({"tokenizer": {"vocabulary": 265}}, r"tokenizer.vocabulary: 265 pieces .* 256 bytes"),
        ({"tokenizer": {"vocabulary": 2}}, r"params.yaml:\d+: tokenizer.vocabulary"),
        ({"tokenizer": {"algorithm": "word"}}, r"params.yaml:\d+: tokenizer.algorithm"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    make(tmp_path, **change)
    assert re.search(message, failure(tmp_path))


def test_missing_files_are_named(tmp_path: Path) -> None:
    raw = make(tmp_path)
    (raw / "test.target").unlink()
    assert "test.target: No such file" in failure(tmp_path)
    (raw / "manifest.json").write_text("{")
    assert "manifest.json: damaged" in failure(tmp_path)
    (raw / "manifest.json").unlink()
    assert "run the stage 'download' first" in failure(tmp_path)


def test_a_large_corpus_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_text("".join(f"{path.name} {n:06}\n" for n in range(1000)))
    assert len(list(tokenize._sample(paths))) == 2000
    monkeypatch.setattr(tokenize, "SAMPLE_BYTES", 3000)
    sample = list(tokenize._sample(paths))
    assert sample[1] == "a 000007"
    assert len(sample) == 2 * 143


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    settings = TokenizerSettings(
        algorithm=request.param, joint=True, vocabulary=320, byte_fallback=True
    )
    generator = random.Random(1)
    return Tokenizer(
        train((" ".join(generator.choices(ENGLISH, k=8)) for _ in range(300)), settings, "toy")
    )


TROUBLE = [
    "👩\u200d🚀",
    "漢字かな交じり文",
    "q\u0323\u0307",
    "▅",
    "<s>",
    "</s>",
    "<0x0A>",
    "<unk>",
    "e\u0301",
]


@given(st.lists(st.lists(st.one_of(st.text(), st.sampled_from(ENGLISH + TROUBLE))).map(" ".join)))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_comes_back(tokenizer: Tokenizer, lines: list[str]) -> None:
    lines = [normalise(line) for line in lines]
    ids = tokenizer.encode(lines)
    assert tokenizer.decode(ids) == lines
    assert not {PAD, UNK, BOS, EOS} & {i for line in ids for i in line}
    flat, lengths = tokenizer.encode_flat(lines)
    assert flat.tolist() == [i for line in ids for i in line]
    assert lengths.tolist() == [len(line) for line in ids]


def test_words_are_cut_as_sentencepiece_cuts_sentences(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rnnmt.dataset.tokenizer.REMEMBERED_WORDS", 4)
    monkeypatch.setattr("rnnmt.dataset.tokenizer.REMEMBERED_LENGTH", 6)
    generator = random.Random(2)
    words = [*ENGLISH, "catsdogs", "Annaannannna", "1234", "unheard-of", "été", *TROUBLE]
    lines = [" ".join(generator.choices(words, k=12)) for _ in range(200)]
    assert tokenizer.encode(lines) == tokenizer._model.encode(lines)
    assert 0 < len(tokenizer._words) <= 4
    assert max(map(len, tokenizer._words)) <= 6


def test_decoding_leaves_marks_out_and_never_breaks_a_line(tokenizer: Tokenizer) -> None:
    (ids,) = tokenizer.encode(["the cat"])
    assert tokenizer.decode([[BOS, *ids, EOS, PAD, PAD], [], [EOS]]) == ["the cat", "", ""]
    line_break = tokenizer._model.piece_to_id("<0x0A>")
    assert tokenizer.decode([[*ids, line_break, *ids]]) == ["the cat the cat"]
    assert "".join(tokenizer.pieces(ids)) == "\u2581the\u2581cat"


def test_marks_and_digits_are_pieces_of_their_own(tokenizer: Tokenizer) -> None:
    assert tokenizer.pieces([PAD, UNK, BOS, EOS]) == ["<pad>", "<unk>", "<s>", "</s>"]
    pieces = tokenizer.pieces(list(range(tokenizer.vocabulary_size)))
    assert "1" in pieces
    assert not any("12" in piece for piece in pieces if piece != "<0x12>")


def test_a_large_vocabulary_has_wide_ids(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rnnmt.dataset.tokenizer.ids_dtype", lambda _: np.dtype("<u4"))
    wide = Tokenizer(tokenizer._model.serialized_model_proto())
    lines = ["the black cat", "", "milk"]
    assert wide.encode(lines) == tokenizer.encode(lines)
    ids, lengths = wide.encode_flat(lines)
    assert ids.dtype == np.uint32
    assert lengths.tolist() == tokenizer.encode_flat(lines)[1].tolist()


def test_without_byte_fallback_the_unseen_is_unknown() -> None:
    settings = TokenizerSettings(algorithm="bpe", joint=True, vocabulary=60, byte_fallback=False)
    tokenizer = Tokenizer(train([" ".join(ENGLISH)] * 9, settings, "toy"))
    assert UNK in tokenizer.encode(["漢"])[0]


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.model").write_text("no model")
    with pytest.raises(UserError, match=r"x\.model: not a SentencePiece model"):
        Tokenizer(tmp_path / "x.model")
    with pytest.raises(UserError, match=r"y\.model: no such file"):
        Tokenizer(tmp_path / "y.model")


@given(st.lists(st.lists(st.lists(st.integers(0, 70_000)))), st.sampled_from([300, 65_536, 70_001]))
def test_a_store_gives_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[list[list[int]]], vocabulary: int
) -> None:
    dtype = ids_dtype(vocabulary)
    chunks = [[[i % vocabulary for i in line] for line in chunk] for chunk in chunks]
    prefix = tmp_path_factory.mktemp("store") / "train.source"
    with TokenStoreWriter(prefix, dtype) as writer:
        for chunk in chunks:
            flat = np.array([i for line in chunk for i in line], dtype)
            writer.append(flat, np.array([len(line) for line in chunk], np.int64))
    lines = [line for chunk in chunks for line in chunk]
    store = TokenStore(prefix)
    assert len(store) == len(lines)
    assert [store[i].tolist() for i in range(len(store))] == lines
    assert store.lengths.tolist() == [len(line) for line in lines]
    assert writer.tokens == sum(map(len, lines))
    assert store.ids.dtype == dtype
    if lines:
        assert store[-1].tolist() == lines[-1]
    for outside in (len(lines), -len(lines) - 1):
        with pytest.raises(IndexError):
            store[outside]


@given(st.lists(st.lists(st.integers(0, 99)), min_size=1), st.floats(0.01, 1.0))
def test_a_fraction_of_a_store_is_its_first_pairs(lines: list[list[int]], part: float) -> None:
    flat = np.array([i for line in lines for i in line], "<u2")
    store = TokenStore.of(flat, np.array([len(line) for line in lines]))
    first = ParallelStore(store, store).first(part)
    assert 1 <= len(first.source) == len(first.target) <= len(lines)
    assert abs(len(first.source) - part * len(lines)) < 1
    found = [first.source[i].tolist() for i in range(len(first.source))]
    assert found == lines[: len(found)]
    assert len(first.source.ids) == first.source.lengths.sum()


def test_a_store_stays_on_disk(tmp_path: Path) -> None:
    with TokenStoreWriter(tmp_path / "s", ids_dtype(9)) as writer:
        writer.append(np.arange(9, dtype="<u2"), np.array([4, 5]))
    store = TokenStore(tmp_path / "s")
    for array in (store.ids, store.offsets):
        assert isinstance(array.base, np.memmap)
        assert not array.flags.writeable


def test_damaged_stores_are_named(tmp_path: Path) -> None:
    for side, lengths in (("source", [1, 2]), ("target", [3])):
        with TokenStoreWriter(tmp_path / f"train.{side}", ids_dtype(9)) as writer:
            writer.append(np.zeros(3, "<u2"), np.array(lengths))
    with pytest.raises(UserError, match="'train' has 2 source and 1 target"):
        open_split(tmp_path, "train")
    with pytest.raises(UserError, match=r"valid\.source\.ids\.npy: no such file"):
        open_split(tmp_path, "valid")
    ids = tmp_path / "train.source.ids.npy"
    ids.write_bytes(ids.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"train\.source\.ids\.npy: damaged"):
        open_split(tmp_path, "train")
    (tmp_path / "train.target.ids.npy").replace(ids)
    with TokenStoreWriter(tmp_path / "train.source", ids_dtype(9)) as writer:
        writer.append(np.zeros(4, "<u2"), np.array([3]))
    with pytest.raises(UserError, match="do not fit"):
        TokenStore(tmp_path / "train.source")
    np.save(tmp_path / "train.source.offsets.npy", np.zeros(0, np.int64))
    with pytest.raises(UserError, match="do not fit"):
        TokenStore(tmp_path / "train.source")


def test_the_stage_loads_no_heavy_library() -> None:
    code = (
        "import sys, rnnmt.stages.tokenize; print({'torch', 'mlflow', 'mtdata'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "set()\n"
