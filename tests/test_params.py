"""params.yaml and the recipes: every one parses, and every mistake is named with its place."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dvc.utils.serialize import load_yaml
from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from rnnmt import params
from rnnmt.check import check_settings
from rnnmt.corpora import settings as corpus_settings
from rnnmt.corpora.clean import CleaningSettings
from rnnmt.dataset.tokenizer import TokenizerSettings
from rnnmt.errors import UserError, run_main
from rnnmt.insight.settings import AnalyzeSettings, MemorySettings
from rnnmt.model.settings import ModelSettings, TrainSettings, cores, variant
from rnnmt.params import Settings
from rnnmt.scoring.settings import EvaluateSettings, PromoteSettings
from rnnmt.search.settings import DecodeSettings

ROOT = Path(__file__).parent.parent
DEFAULTS = ROOT / "params.yaml"
SHIPPED = [DEFAULTS, *sorted((ROOT / "recipes").glob("*.yaml"))]
SCHEMAS: dict[str, type[Settings]] = {
    "cleaning": CleaningSettings,
    "tokenizer": TokenizerSettings,
    "model": ModelSettings,
    "train": TrainSettings,
    "decode": DecodeSettings,
    "evaluate": EvaluateSettings,
    "promote": PromoteSettings,
    "analyze": AnalyzeSettings,
    "memory": MemorySettings,
}
# Every section of a small file; a test replaces lines of it.
TEXT = """\
seeds: [1, 2]
threads: 2
corpus: {name: toy, source: bundled, seed: 1, sizes: {train: 9, valid: 3, test: 3}}
cleaning: {max_words: 100, max_length_ratio: 4.0, drop_identical: true, drop_duplicates: true}
tokenizer: {algorithm: bpe, joint: true, vocabulary: 400, byte_fallback: true}
model:
  cell: lstm
  attention: general
  heads: 1
  embedding: 8
  hidden: 8
  encoder_layers: 1
  decoder_layers: 1
  layer_norm: false
  dropout: 0.2
  word_dropout: 0.0
  tie_embeddings: true
train:
  fraction: 1.0
  batch_tokens: 100
  max_epochs: 2
  patience: 2
  monitor: val/bleu
  learning_rate: 0.002
  warmup_steps: 2
  schedule: cosine
  bpe_dropout: 0.0
  label_smoothing: 0.1
  gradient_clip: 1.0
  weight_decay: 0.0
  weight_average: 0.0
  precision: float32
  processes: 1
  nodes: 1
  checkpoint_seconds: 60
decode: {beam: 5, nbest: 3, length_penalty: [1.0], max_length_ratio: 3.0, batch_sentences: 64}
evaluate: {bootstrap_samples: 1000, confidence: 0.95, seed: 12345}
promote: {level: 0.05, margin: 0.5, max_slowdown: 2.0}
analyze: {sentences: 60, beams: [1, 2, 5], examples: 12}
memory: {seeds: 3, lags: [10, 20], parameters: 3000, updates: 500}
variants:
  x: {cell: gru}
  y:
    attention: none
    learning_rate: 0.5
  z:
"""


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """use(old, new): the small file, with one line replaced, is the settings file from now on."""

    def write(old: str = "", new: str = "") -> Path:
        assert TEXT.count(old) == 1 or not old
        file = tmp_path / "params.yaml"
        file.write_text(TEXT.replace(old, new) if old else TEXT, encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("RNNMT_PARAMS", raising=False)
        return file

    return write


def check_everything() -> None:
    """Read each section as its stage does."""
    for section, schema in SCHEMAS.items():
        params.load(section, schema)
    corpus_settings.load()
    assert params.seeds()
    assert params.threads() >= 1
    for name in params.variants():
        variant(name)


def message_of(check: Callable[[], object] = check_everything) -> str:
    with pytest.raises(UserError) as caught:
        check()
    return str(caught.value)


def line_of(text: str, start: str) -> int:
    [line] = [i for i, x in enumerate(text.splitlines(), 1) if x.strip().startswith(start)]
    return line


# --- what is shipped ------------------------------------------------------------------------------


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_what_is_shipped_parses(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNNMT_PARAMS", str(file))
    check_everything()


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_dvc_reads_the_same(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its own reader, types included: 1 is not 1.0 and neither is "1"."""
    monkeypatch.setenv("RNNMT_PARAMS", str(file))
    assert repr(load_yaml(str(file))) == repr(params.read())


def leaves(node: Node, at: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], int]]:
    """Key path and line (from 0) of every scalar and list beneath `node`."""
    if not isinstance(node, MappingNode):
        return [(at, node.start_mark.line)]
    found = []
    for key, value in node.value:
        path = (*at, key.value)
        found += (
            leaves(value, path) if isinstance(value, MappingNode) else [(path, key.start_mark.line)]
        )
    return found


def ends(node: Node) -> list[tuple[int, int]]:
    """Line and column where every scalar and every [] and {} beneath `node` ends."""
    children = []
    if isinstance(node, MappingNode):
        children = [child for pair in node.value for child in pair]
    elif isinstance(node, SequenceNode):
        children = node.value
    # The end mark of a block stands where the next thing begins.
    own = isinstance(node, ScalarNode) or node.flow_style
    mark = [(node.end_mark.line, node.end_mark.column)] if own else []
    return [end for child in children for end in ends(child)] + mark


def uncommented(text: str) -> list[str]:
    """The keys outside `variants` without a comment on their line."""
    root = YAML(pure=True).compose(text)
    lines, last = text.splitlines(), dict(sorted(ends(root)))
    return [
        ".".join(path)
        for path, line in leaves(root)
        if path[0] != "variants" and not re.match(r"\s+# *\w", lines[line][last[line] :])
    ]


def test_every_key_has_a_comment_on_its_line() -> None:
    assert uncommented(DEFAULTS.read_text(encoding="utf-8")) == []


def test_a_missing_comment_would_be_seen() -> None:
    text = "a: 1  # yes\nb: 'no # one'\nc:\n  d: {e: 1, f: 2}  # two\n  g: [1, 2]\n  h: 1  #\n"
    assert uncommented(text) == ["b", "c.g", "c.h"]


# --- what a variant changes -----------------------------------------------------------------------


def test_a_variant_overrides_model_and_train(use: Callable[..., Path]) -> None:
    use()
    base = params.load("model", ModelSettings), params.load("train", TrainSettings)
    assert variant("z") == base
    assert variant("x") == (base[0].model_copy(update={"cell": "gru"}), base[1])
    assert variant("y") == (
        base[0].model_copy(update={"attention": "none"}),
        base[1].model_copy(update={"learning_rate": 0.5}),
    )
    assert params.variants() == ["x", "y", "z"]


def test_a_variant_takes_threads_times_processes(use: Callable[..., Path]) -> None:
    use()
    assert cores() == 2
    use("  x: {cell: gru}", "  x: {processes: 3}")
    assert cores() == 6


def test_an_unknown_variant_is_told_which_there_are(use: Callable[..., Path]) -> None:
    use()
    message = message_of(lambda: variant("w"))
    assert re.search(r"params\.yaml.*'w'.*x, y, z", message)


# --- mistakes -------------------------------------------------------------------------------------

# What is replaced, by what, the key path in the message, and more of the message.
MISTAKES = {
    "unknown section": ("threads: 2", "threads: 2\nmodels: {}", "models", "unknown key"),
    "misspelt section": ("threads: 2", "thread: 2", "thread", "did you mean 'threads'"),
    "unknown key": ("  hidden: 8", "  hidden: 8\n  colour: red", "model.colour", "unknown key"),
    "misspelt key": ("  dropout: 0.2", "  droput: 0.2", "model.droput", "did you mean 'dropout'"),
    "misspelt in variant": ("  x: {cell: gru}", "  x: {cel: gru}", "variants.x.cel", "mean 'cell'"),
    "decode key in variant": ("  x: {cell", "  x: {beam: 2, cell", "variants.x.beam", "unknown"),
    "missing key": ("  embedding: 8\n", "", "model.embedding", "missing"),
    "text for number": ("  hidden: 8", "  hidden: wide", "model.hidden", "'wide'"),
    "number as text": ("  hidden: 8", '  hidden: "8"', "model.hidden", "'8'"),
    "fraction for whole": ("  hidden: 8", "  hidden: 8.5", "model.hidden", "8.5"),
    "whole as fraction": ("  hidden: 8", "  hidden: 8.0", "model.hidden", "8.0"),
    "true for number": ("  hidden: 8", "  hidden: true", "model.hidden", "True"),
    "number for true": ("tie_embeddings: true", "tie_embeddings: 1", "model.tie_embeddings", "1"),
    "yaml 1.1 truth": ("embeddings: true", "embeddings: yes", "model.tie_embeddings", "yes"),
    "nothing": ("  hidden: 8", "  hidden:", "model.hidden", "None"),
    "list": ("  hidden: 8", "  hidden: [8, 8]", "model.hidden", "[8, 8]"),
    "odd": ("  hidden: 8", "  hidden: 7", "model", "even"),
    "zero": ("  hidden: 8", "  hidden: 0", "model.hidden", "0"),
    "negative": ("  patience: 2", "  patience: -1", "train.patience", "-1"),
    "negative rate": ("rate: 0.002", "rate: -1e-3", "train.learning_rate", "-0.001"),
    "not a number": ("rate: 0.002", "rate: .nan", "train.learning_rate", "nan"),
    "infinite": ("gradient_clip: 1.0", "gradient_clip: .inf", "train.gradient_clip", "inf"),
    "beyond one": ("  dropout: 0.2", "  dropout: 1.0", "model.dropout", "less than 1"),
    "no such choice": ("  cell: lstm", "  cell: LSTM", "model.cell", "'lstm'"),
    "no is text": ("  attention: general", "  attention: no", "model.attention", "'no'"),
    "wrong in variant": ("  x: {cell: gru}", "  x: {cell: elman}", "variants.x.cell", "elman"),
    "variant is text": ("  x: {cell: gru}", "  x: gru", "variants.x", "'gru'"),
    "variant is a list": ("  x: {cell: gru}", "  x: []", "variants.x", "[]"),
    "variant is false": ("  x: {cell: gru}", "  x: false", "variants.x", "False"),
    "variant's name": ("  x: {cell: gru}", "  X_1: {cell: gru}", "variants.X_1", "a-z"),
    "variant's name a number": ("  x: {cell: gru}", "  1: {cell: gru}", "variants.1", "a-z"),
    "variant's name an option": ("  x: {cell: gru}", "  -a: {cell: gru}", "variants.-a", "a-z"),
    "variant's long name": ("  x: {", f"  {'x' * 101}: {{", f"variants.{'x' * 101}", "at most 100"),
    "variants": ("variants:\n", "variants: 3\nmodel_:\n", "model_", "unknown"),
    "section is text": ("evaluate: {", "evaluate: all #{", "evaluate", "'all'"),
    "no penalty": ("penalty: [1.0]", "penalty: []", "decode.length_penalty", "least 1"),
    "one penalty": ("penalty: [1.0]", "penalty: 1.0", "decode.length_penalty", "list"),
    "heads": ("  heads: 1", "  heads: 3", "model", "multiple of heads (3)"),
    "nbest beyond beam": ("nbest: 3", "nbest: 6", "decode", "nbest (6) cannot exceed beam (5)"),
    "beams fall": ("beams: [1, 2, 5]", "beams: [1, 5, 2]", "analyze.beams", "ascend from 1"),
    "no greedy": ("beams: [1, 2, 5]", "beams: [2, 5]", "analyze.beams", "ascend from 1"),
    "lag of one": ("lags: [10, 20]", "lags: [1, 20]", "memory.lags", "from 2"),
    "lag beyond": ("lags: [10, 20]", "lags: [10, 10001]", "memory.lags", "10000 at most"),
    "threads": ("threads: 2", "threads: 0", "threads", "0"),
    "threads true": ("threads: 2", "threads: true", "threads", "True"),
    "seeds empty": ("seeds: [1, 2]", "seeds: []", "seeds", "distinct"),
    "seeds twice": ("seeds: [1, 2]", "seeds: [1, 1]", "seeds", "distinct"),
    "seeds negative": ("seeds: [1, 2]", "seeds: [-1]", "seeds", "distinct"),
    "one seed negative": ("seeds: [1, 2]", "seeds: [1, -1]", "seeds", "distinct"),
    "seeds a number": ("seeds: [1, 2]", "seeds: 1", "seeds", "list"),
    "corpus name": ("{name: toy", "{name: ../toy", "corpus.name", "../toy"),
    "corpus name an option": ("{name: toy", "{name: -toy", "corpus.name", "-toy"),
    "one column": (
        "bundled, seed: 1, sizes: {train: 9, valid: 3, test: 3}}",
        "files, tsv: a, source_language: en, target_language: fr, columns: [1, 1],\n"
        "  held_out: {valid: 1, test: 1}, seed: 1}",
        "corpus.columns", "[1, 1]",
    ),
    "split's long name": ("test: 3", f"test{'x' * 97}: 3", "corpus.sizes", "at most 100"),
    "corpus source": ("source: bundled", "source: bundle", "corpus.source", "bundle"),
    "corpus key": ("source: bundled, seed", "source: bundled, sead", "corpus.sead", "'seed'"),
    "corpus sizes": ("valid: 3", "valid: 0", "corpus.sizes.valid", "0"),
    "no words": ("test: 3}", "test: 3}, lexicon: 0.0", "corpus.lexicon", "0"),
    "corpus without test": (", test: 3", "", "corpus.sizes", "test set"),
    "ratio": ("max_length_ratio: 4.0", "max_length_ratio: 0.5", "cleaning.max_length_ratio", "0.5"),
    "bytes alone": ("vocabulary: 400", "vocabulary: 263", "tokenizer", "256 are bytes"),
    "vocabulary": ("vocabulary: 400", "vocabulary: 1", "tokenizer.vocabulary", "1"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_file_line_and_key(mistake: str, use: Callable[..., Path]) -> None:
    old, new, key, more = MISTAKES[mistake]
    text = use(old, new).read_text(encoding="utf-8")
    message = message_of()
    # The line where the key stands; that of its section where the key is missing.
    changed = line_of(text, "model:") if mistake == "missing key" else None
    if changed is None:
        name = key.split(".")[-1]
        in_flow = [
            i for i, x in enumerate(text.splitlines(), 1) if re.search(rf"(?<!\w){name}:", x)
        ]
        section = line_of(text, key.split(".")[0] + ":")
        changed = min(i for i in in_flow if i >= section)
    assert message.startswith(f"params.yaml:{changed}: {key}: "), message
    assert more in message
    assert "\n" not in message


# Section and key: what is just allowed, and what is just refused.
LIMITS: dict[str, tuple[list[Any], list[Any]]] = {
    "cleaning.max_words": ([1], [0]),
    "cleaning.max_length_ratio": ([1.0], [0.99]),
    "model.heads": ([1, 64], [0, 65]),
    "model.embedding": ([1, 8192], [0, 8193]),
    "model.hidden": ([2, 8192], [0, 3, 8194]),
    "model.encoder_layers": ([1, 16], [0, 17]),
    "model.decoder_layers": ([1, 16], [0, 17]),
    "model.dropout": ([0.0, 0.99], [-0.01, 1.0]),
    "model.word_dropout": ([0.0, 0.99], [-0.01, 1.0]),
    "train.fraction": ([0.001, 1.0], [0.0, 1.01]),
    "train.batch_tokens": ([1, 10_000_000], [0, 10_000_001]),
    "train.max_epochs": ([1, 100_000], [0, 100_001]),
    "train.patience": ([1, 100_000], [0, 100_001]),
    "train.learning_rate": ([1e-9, 10.0], [0.0, 10.1]),
    "train.warmup_steps": ([0, 10**9], [-1, 10**9 + 1]),
    "train.bpe_dropout": ([0.0, 0.99], [-0.01, 1.0]),
    "train.label_smoothing": ([0.0, 0.99], [-0.01, 1.0]),
    "train.gradient_clip": ([1e-9], [0.0]),
    "train.weight_decay": ([0.0, 1.0], [-0.01, 1.01]),
    "train.weight_average": ([0.0, 0.99], [-0.01, 1.0]),
    "train.processes": ([1, 1024], [0, 1025]),
    "train.nodes": ([1, 1024], [0, 1025]),
    "train.checkpoint_seconds": ([0.1, 1e9], [0.0, 1.1e9]),
    "decode.beam": ([1, 1000], [0, 1001]),
    "decode.nbest": ([1, 1000], [0, 1001]),
    "decode.length_penalty": ([[-10.0, 10.0]], [[], [-10.1], [10.1]]),
    "decode.max_length_ratio": ([0.01, 100.0], [0.0, 100.1]),
    "decode.batch_sentences": ([1, 100_000], [0, 100_001]),
    "evaluate.bootstrap_samples": ([100, 1_000_000], [99, 1_000_001]),
    "evaluate.confidence": ([0.51, 0.9999], [0.5, 0.99999, 1.0]),
    "evaluate.seed": ([0], [-1]),
    "promote.level": ([0.0001, 0.999], [0.0, 1e-9, 1.0]),
    "promote.margin": ([0.0], [-0.1]),
    "promote.max_slowdown": ([1.0], [0.99]),
    "analyze.sentences": ([1, 10**9], [0, 10**9 + 1]),
    "analyze.beams": (
        [[1, 2], [1, 5, 1000]],
        [[1], [1, 1001], [1, 2, 1001], [2], [1, 1, 2], [1, 3, 2]],
    ),
    "analyze.examples": ([1, 100], [0, 101]),
    "memory.seeds": ([1, 100], [0, 101]),
    "memory.lags": ([[2], [3, 4]], [[], [1], [2, 2], [4, 3]]),
    "memory.parameters": ([100, 10_000_000], [99, 10_000_001]),
    "memory.updates": ([1, 10**9], [0, 10**9 + 1]),
}
# That no other rule is broken by what is allowed.
ROOM = {"model": {"hidden": 64}, "decode": {"beam": 1000, "nbest": 1}}


@pytest.mark.parametrize("place", LIMITS)
def test_every_number_has_its_limits(place: str, use: Callable[..., Path]) -> None:
    use()
    section, key = place.split(".")
    base = params.load(section, SCHEMAS[section]).model_dump() | ROOM.get(section, {})
    if place == "decode.beam":
        base["nbest"] = 1
    allowed, refused = LIMITS[place]
    for value in allowed:
        read = params.validate(base | {key: value}, SCHEMAS[section], (section,))
        assert getattr(read, key) == value
    for value in refused:
        with pytest.raises(UserError, match=rf"^params\.yaml:\d+: {section}"):
            params.validate(base | {key: value}, SCHEMAS[section], (section,))


def test_bpe_dropout_needs_bpe(use: Callable[..., Path]) -> None:
    use("algorithm: bpe", "algorithm: unigram")
    check_settings()
    file = use("algorithm: bpe", "algorithm: unigram")
    file.write_text(file.read_text().replace("  x: {cell: gru}", "  x: {bpe_dropout: 0.1}"))
    with pytest.raises(UserError, match=r"^params\.yaml: train\.bpe_dropout of the variant 'x'"):
        check_settings()


def test_every_number_is_in_the_table_of_limits() -> None:
    numbers = {
        f"{section}.{name}"
        for section, schema in SCHEMAS.items()
        for name, field in schema.model_fields.items()
        if section != "tokenizer" and re.search(r"\b(int|float)\b", str(field.annotation))
    }
    assert numbers == set(LIMITS)


def test_the_limits_of_what_has_no_class(use: Callable[..., Path]) -> None:
    use("seeds: [1, 2]", f"seeds: [0, {2**31 - 1}]")
    assert params.seeds() == [0, 2**31 - 1]
    bomb = ", ".join(["&a0 [1]", *(f"&a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))])
    for wrong in f"[{bomb}]", f"[{2**31}]", "[-1]", "[1.0]", "[true]", "[1, 1]", "[]", "{}", "[a]":
        use("seeds: [1, 2]", f"seeds: {wrong}")
        assert message_of(params.seeds).startswith("params.yaml:1: seeds: expected a list of dist")
    for count in 1, 1024:
        use("threads: 2", f"threads: {count}")
        assert params.threads() == count
    for count in 0, 1025:
        use("threads: 2", f"threads: {count}")
        message = message_of(params.threads)
        assert message == f"params.yaml:2: threads: expected a whole number from 1, found {count}"


@pytest.mark.parametrize("written", ["variants: 3", "variants: {}", "variants:", "variants: [x]"])
def test_there_are_variants(written: str, use: Callable[..., Path]) -> None:
    file = use()
    file.write_text(TEXT[: TEXT.index("variants:")] + written + "\n", encoding="utf-8")
    line = line_of(file.read_text(), "variants:")
    message = message_of(params.variants)
    assert message == f"params.yaml:{line}: variants: expected one entry for each variant"


def test_what_no_text_may_have_is_no_yaml(use: Callable[..., Path]) -> None:
    use("threads: 2", "threads: \x01")
    assert message_of(params.read).startswith("params.yaml: not valid YAML: ")


class Deep(Settings):
    width: int


class Outer(Settings):
    threads: int
    inner: Deep


def test_keys_within_keys_are_checked_too(use: Callable[..., Path]) -> None:
    use()
    for inner, said in [
        ({"width": 1, "wide": 2}, r"params\.yaml:\d+: inner\.wide: unknown key"),
        ({}, r"params\.yaml:\d+: inner\.width: this key is missing"),
        ({"width": "1"}, r"params\.yaml:\d+: inner\.width: .*integer.*, found '1'"),
    ]:
        file = Path("params.yaml")
        file.write_text(TEXT + f"inner: {json.dumps(inner)}\n", encoding="utf-8")
        with pytest.raises(UserError, match=f"^{said}"):
            params.validate({"threads": 1, "inner": inner}, Outer, ())


@pytest.mark.parametrize(("count", "set_to"), [(None, [2]), (3, [3]), (1, [1]), (0, [])])
def test_torch_uses_so_many_threads(
    count: int | None,
    set_to: list[int],
    use: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All cores if 0; and what the user has set in the environment stays."""
    use()
    asked: list[int] = []
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(set_num_threads=asked.append))
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "")
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    params.use_threads(count, shapes=9)
    params.use_threads(count, shapes=8)
    assert asked == set_to * 2
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "9"


def test_what_is_not_in_the_file_has_no_line(use: Callable[..., Path]) -> None:
    use()
    message = message_of(lambda: params.check_keys({"nowhere": 1}, ["b", "a"], ()))
    assert message == "params.yaml: nowhere: unknown key; known are: a, b"


def test_a_missing_section_is_named(use: Callable[..., Path]) -> None:
    for section in params.SECTIONS:
        file = use()
        lines = YAML(typ="safe", pure=True).load(TEXT)
        del lines[section]
        with file.open("w", encoding="utf-8") as out:
            YAML(typ="safe", pure=True).dump(lines, out)
        assert re.search(rf"^params\.yaml: .*'{section}'.*missing", message_of(params.read))


@pytest.mark.parametrize(
    ("broken", "line"),
    [
        ("threads: 2\nthreads: 3", 3),  # which of them should count?
        ("threads: [2", None),
        ("threads: {a: 1, a: 2}", 2),
        ("\tthreads: 2", 2),
        ("threads: *nothing", 2),
        ("threads: !!python/object/apply:os.getcwd []", 2),
    ],
    ids=str,
)
def test_what_is_not_yaml_is_named_with_its_line(
    broken: str, line: int | None, use: Callable[..., Path]
) -> None:
    use("threads: 2", broken)
    message = message_of(params.read)
    assert re.match(r"params\.yaml:\d+: not valid YAML: ", message), message
    if line:
        assert message.startswith(f"params.yaml:{line}: ")


@pytest.mark.parametrize(
    "broken",
    [
        "!!bool maybe",
        "!!timestamp never",
        "[" * 3000,
        "9" * 5000,
        "0x" + "f" * 5000,
        "2024-13-45",
        "&a [*a]",
    ],
    ids=lambda broken: broken[:20],
)
def test_whatever_the_parser_raises_is_an_error_of_the_file(
    broken: str, use: Callable[..., Path]
) -> None:
    use("threads: 2", f"threads: {broken}")
    message = message_of(params.threads)
    assert message.startswith("params.yaml:")
    assert len(message) < 4000


@pytest.mark.parametrize("place", ["threads: 2", "seeds: [1, 2]", "max_words: 100"])
def test_numbers_too_long_to_be_printed_are_refused_anywhere(
    place: str, use: Callable[..., Path]
) -> None:
    use(place, f"{place.split(':')[0]}: 0x{'f' * 5000}")
    assert message_of(check_settings).startswith("params.yaml: not valid YAML: Exceeds the limit")


def test_a_long_wrong_value_is_shown_in_short(use: Callable[..., Path]) -> None:
    use("threads: 2", f"threads: {'x' * 10_000}")
    assert len(message_of(params.threads)) < 300


@pytest.mark.parametrize("content", [b"", b"- 1\n", b"hello", b"# only a comment\n"], ids=repr)
def test_a_file_without_sections(content: bytes, use: Callable[..., Path]) -> None:
    use().write_bytes(content)
    assert message_of(params.read).startswith("params.yaml: ")


def test_a_file_that_is_not_utf_8(use: Callable[..., Path]) -> None:
    use().write_bytes(b"threads: \xff\n")
    assert message_of(params.read).startswith("params.yaml: not UTF-8")


def test_a_file_that_is_not_there(use: Callable[..., Path]) -> None:
    use().unlink()
    assert message_of(params.read).startswith("params.yaml: no such file; run in")


def test_a_file_that_the_environment_names(
    use: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    use()
    monkeypatch.setenv("RNNMT_PARAMS", "mine")
    assert message_of(params.read).startswith("mine: no such file, which RNNMT_PARAMS names;")
    monkeypatch.setenv("RNNMT_PARAMS", "")  # as if it were not set
    assert params.read()


def test_a_file_that_is_a_folder(use: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """RNNMT_PARAMS=recipes, say."""
    monkeypatch.setenv("RNNMT_PARAMS", str(use().parent))
    assert message_of(params.read) == f"{params.path()}: cannot be read: Is a directory"


def test_every_mistake_of_a_section_is_told_at_once(use: Callable[..., Path]) -> None:
    use("  hidden: 8\n", "  hidden: -8\n")
    file = Path("params.yaml")
    file.write_text(
        file.read_text(encoding="utf-8").replace("  dropout: 0.2", "  dropout: 2.0"),
        encoding="utf-8",
    )
    lines = message_of(lambda: params.load("model", ModelSettings)).splitlines()
    assert [re.match(r"params\.yaml:\d+: model\.(\w+): ", line)[1] for line in lines] == [
        "hidden",
        "dropout",
    ]


# --- what YAML makes of a value -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "value"), [("1e-3", 0.001), ("1E-3", 0.001), ("2", 2.0), (".5", 0.5)]
)
def test_numbers_are_what_they_look_like(
    written: str, value: float, use: Callable[..., Path]
) -> None:
    use("rate: 0.002", f"rate: {written}")
    assert params.load("train", TrainSettings).learning_rate == value


@pytest.mark.parametrize("written", ["../toy", "a/b", "Toy", '""', "7", "", "[a]"], ids=repr)
def test_the_corpus_name_is_that_of_a_folder(written: str, use: Callable[..., Path]) -> None:
    use()
    assert params.corpus_name() == "toy"
    use("{name: toy", f"{{name: {written}")
    assert message_of(params.corpus_name).startswith("params.yaml:3: corpus.name: ")


@pytest.mark.parametrize("name", ["no", "on", "y", "off"])
def test_a_word_is_text_even_where_older_yaml_had_a_truth(
    name: str, use: Callable[..., Path]
) -> None:
    use("  z:", f"  {name}-1:")
    assert params.variants()[-1] == f"{name}-1"
    use("{name: toy", f"{{name: {name}")
    assert params.corpus_name() == name


def test_settings_are_frozen(use: Callable[..., Path]) -> None:
    use()
    settings = params.load("model", ModelSettings)
    with pytest.raises(ValueError, match="frozen"):
        settings.hidden = 3


# --- through a stage's command --------------------------------------------------------------------

COMMANDS = {
    "unknown section": ("train", "threads: 2", "threads: 2\nmodels: {}"),
    "misspelt key": ("train", "  dropout: 0.2", "  droput: 0.2"),
    "wrong type": ("train", "  hidden: 8", "  hidden: wide"),
    "duplicate key": ("train", "  hidden: 8", "  hidden: 8\n  hidden: 8"),
    "variant": ("train", "  x: {cell: gru}", "  x: 3"),
    "corpus without name": ("train", "{name: toy, ", "{"),
    "corpus is a list": ("decode", "corpus: {", "corpus: [] #{"),
}


@pytest.mark.parametrize("mistake", COMMANDS)
def test_a_stage_says_it_in_one_line(
    mistake: str,
    use: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage, old, new = COMMANDS[mistake]
    file = use(old, new)
    monkeypatch.setattr(sys, "argv", [stage, "x", "1"])
    with pytest.raises(SystemExit) as end:
        run_main(importlib.import_module(f"rnnmt.stages.{stage}").main)
    assert end.value.code == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(r"rnnmt: error: params\.yaml:\d+: [^\n]+\n", printed.err), printed.err
    assert os.listdir(file.parent) == ["params.yaml"]


def test_a_stage_says_that_there_is_no_file(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "rnnmt.stages.train", "x", "1"],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "RNNMT_PARAMS"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert re.fullmatch(r"rnnmt: error: params\.yaml: no such file[^\n]*\n", result.stderr)


@pytest.mark.parametrize("stage", [["download"], ["train", "x", "1"]], ids=lambda stage: stage[0])
def test_what_takes_long_under_dvc_checks_the_settings_of_what_comes_later(
    stage: list[str], use: Callable[..., Path]
) -> None:
    file = use("beams: [1, 2, 5]", "beams: [2, 5]")
    result = subprocess.run(
        [sys.executable, "-m", f"rnnmt.stages.{stage[0]}", *stage[1:]],
        env={**os.environ, "DVC_STAGE": stage[0]},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert re.fullmatch(r"rnnmt: error: params\.yaml:\d+: analyze\.beams: [^\n]*\n", result.stderr)
    assert os.listdir(file.parent) == ["params.yaml"]
