"""Stage tokenize: raw parallel text -> clean token ids.

data/NAME/raw/ -> data/NAME/tokens/, which has for every split S

    S.source.ids.npy, S.source.offsets.npy      and the same for target; see dataset/store.py
    S.source.txt, S.target.txt                  the normalised text, of valid and test sets
    S.labels.jsonl                              where the corpus has labels

and source.model, target.model and manifest.json.

Training pairs are cleaned, and the tokenizer learns from them alone. Validation and test sets
keep every pair, in order, so that their scores stay comparable with published ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, TextIO

from rnnmt import params
from rnnmt.corpora.clean import (
    KEPT,
    REASONS,
    CleaningSettings,
    count_lines,
    judge,
    read_lines,
    read_normalised,
)
from rnnmt.dataset.store import TokenStoreWriter, ids_dtype
from rnnmt.dataset.tokenizer import SAMPLE_BYTES, Tokenizer, TokenizerSettings, train
from rnnmt.errors import UserError, run_stage

SIDES = ("source", "target")
# Written without spaces: Burmese, Chinese, Japanese, Khmer, Lao and Thai.
UNSPACED = ("my", "mya", "zh", "zho", "ja", "jpn", "km", "khm", "lo", "lao", "th", "tha")
# Sentences that are encoded and written at once.
CHUNK = 1 << 14

Manifest = dict[str, Any]


def main() -> None:
    """Run the stage for the corpus that params.yaml names. Raises UserError."""
    cleaning = params.load("cleaning", CleaningSettings)
    tokenizing = params.load("tokenizer", TokenizerSettings)
    corpus = Path("data") / params.corpus_name()
    raw = _read_manifest(corpus / "raw" / "manifest.json")
    try:
        for split in raw["splits"]:
            _check_aligned(corpus / "raw", split)
        with _whole_folder(corpus / "tokens") as folder:
            splits = _clean_all(corpus / "raw", folder, sorted(raw["splits"]), cleaning)
            models = _train_tokenizers(folder, tokenizing)
            _encode_all(folder, splits, models)
            manifest = {
                "name": raw["name"],
                "source_language": raw["source_language"],
                "target_language": raw["target_language"],
                "joint": tokenizing.joint,
                "vocabulary": {side: models[side].vocabulary_size for side in SIDES},
                "splits": splits,
                "sha256": _digest(folder),
            }
            _write_manifest(folder / "manifest.json", manifest)
    except OSError as error:  # a missing file, a full disk
        raise UserError(f"{error.filename or corpus}: {error.strerror or error}") from None
    _report(manifest, tokenizing)


def _read_manifest(path: Path) -> Manifest:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; run the stage 'download' first") from None
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}); repeat the stage 'download'") from None
    keys = ("name", "source_language", "target_language", "splits")
    if not isinstance(manifest, dict) or any(key not in manifest for key in keys):
        raise UserError(f"{path}: expected the keys {', '.join(keys)}; repeat 'download'")
    for split in ("train", "valid"):
        if split not in manifest["splits"]:
            raise UserError(f"{path}: the corpus has no split '{split}'")
    return manifest


def _check_aligned(raw: Path, split: str) -> None:
    """Raises UserError where the files of a split differ in their number of lines."""
    source = raw / f"{split}.source"
    expected = count_lines(source)
    for other in (raw / f"{split}.target", raw / f"{split}.labels.jsonl"):
        if other.suffix == ".jsonl" and not other.exists():
            continue
        if (lines := count_lines(other)) != expected:
            raise UserError(
                f"{source} has {expected} lines, {other} has {lines}: line n of one must "
                "belong to line n of the other"
            )


def _clean_all(
    raw: Path, folder: Path, splits: list[str], cleaning: CleaningSettings
) -> dict[str, Manifest]:
    """Write the clean text of all splits. Returns the counts of each."""
    held_out = [split for split in splits if split != "train"]
    counts = {split: _normalise(raw, folder, split) for split in held_out}
    return {"train": _clean(raw, folder, cleaning, held_out)} | counts


def _normalise(raw: Path, folder: Path, split: str) -> Manifest:
    """Write the text and labels of a held-out split, whole and in order. Returns its counts."""
    counts: Counter[str] = Counter()
    for side in SIDES:
        with _create(_text(folder, split, side)) as file:
            for line in read_normalised(raw / f"{split}.{side}", counts):
                counts[side] += 1
                file.write(line + "\n")
    if (labels := raw / f"{split}.labels.jsonl").exists():
        shutil.copyfile(labels, folder / labels.name)
    return {
        "read": counts["source"],
        "kept": counts["source"],
        "dropped": {},
        "control_characters": counts["control_characters"],
    }


def _clean(raw: Path, folder: Path, cleaning: CleaningSettings, held_out: list[str]) -> Manifest:
    """Write the training text that is kept, and its labels. Returns its counts."""
    counts: Counter[str] = Counter(dict.fromkeys((KEPT, *REASONS), 0))
    known_sources, known_targets = (
        {line for split in held_out for line in read_lines(_text(folder, split, side))}
        for side in SIDES
    )
    sources, targets = (read_normalised(raw / f"train.{side}", counts) for side in SIDES)
    judged = judge(zip(sources, targets, strict=True), cleaning, known_sources)
    source_file, target_file = (_create(_text(folder, "train", side)) for side in SIDES)
    with source_file, target_file, _labels(raw, folder) as (labels, labels_file):
        for (verdict, (source, target)), label in zip(judged, labels, strict=False):
            counts[verdict] += 1
            if verdict == KEPT:
                counts["known_target"] += target in known_targets
                source_file.write(source + "\n")
                target_file.write(target + "\n")
                labels_file.write(label)
    dropped = {reason: counts[reason] for reason in REASONS}
    if not counts[KEPT]:
        raise UserError(
            f"{raw}: no training pair is left after cleaning; dropped: {_list(dropped)}; "
            "see the section 'cleaning'"
        )
    return {
        "read": counts[KEPT] + sum(dropped.values()),
        "kept": counts[KEPT],
        "dropped": dropped,
        "control_characters": counts["control_characters"],
        "kept_with_held_out_target": counts["known_target"],
    }


@contextmanager
def _labels(raw: Path, folder: Path) -> Iterator[tuple[Iterable[str], TextIO]]:
    """The lines of the training labels, and the file for those to keep."""
    labels = raw / "train.labels.jsonl"
    if labels.exists():
        with _create(folder / labels.name) as file:
            yield (line + "\n" for line in read_lines(labels)), file
    else:
        with open(os.devnull, "w", encoding="utf-8") as file:
            yield repeat(""), file


def _train_tokenizers(folder: Path, tokenizing: TokenizerSettings) -> dict[str, Tokenizer]:
    """Learn and write source.model and target.model."""
    tokenizers = {}
    for sides in [SIDES] if tokenizing.joint else [(side,) for side in SIDES]:
        texts = [_text(folder, "train", side) for side in sides]
        model = train(_sample(texts), tokenizing, " and ".join(sides))
        tokenizer = Tokenizer(model)
        for side in sides:
            (folder / f"{side}.model").write_bytes(model)
            tokenizers[side] = tokenizer
    return tokenizers


def _sample(texts: list[Path]) -> Iterator[str]:
    """Every n-th line of the files, such that no more than about SAMPLE_BYTES are read."""
    step = 1 + sum(text.stat().st_size for text in texts) // SAMPLE_BYTES
    return chain.from_iterable(islice(read_lines(text), 0, None, step) for text in texts)


def _encode_all(folder: Path, splits: dict[str, Manifest], models: dict[str, Tokenizer]) -> None:
    """Write all token stores, add their sizes to the counts, remove the training text."""
    for split, counts in splits.items():
        counts["tokens"] = {
            side: _encode(folder, f"{split}.{side}", models[side]) for side in SIDES
        }
    for side in SIDES:
        _text(folder, "train", side).unlink()


def _encode(folder: Path, name: str, tokenizer: Tokenizer) -> int:
    """Write the token store of NAME.txt. Returns its number of tokens."""
    lines = read_lines(folder / f"{name}.txt")
    with TokenStoreWriter(folder / name, ids_dtype(tokenizer.vocabulary_size)) as store:
        while chunk := list(islice(lines, CHUNK)):
            store.append(*tokenizer.encode_flat(chunk))
    return store.tokens


@contextmanager
def _whole_folder(path: Path) -> Iterator[Path]:
    """A folder to write to, which takes the place of `path` when all went well."""
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial)
        raise
    if path.exists():
        shutil.rmtree(path)
    partial.replace(path)


def _text(folder: Path, split: str, side: str) -> Path:
    return folder / f"{split}.{side}.txt"


def _create(path: Path) -> TextIO:
    return path.open("w", encoding="utf-8", newline="\n")


def _digest(folder: Path) -> str:
    """SHA-256 of the names and contents of all files of a folder."""
    whole = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            whole.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def _write_manifest(path: Path, manifest: Manifest) -> None:
    text = json.dumps(manifest, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def _report(manifest: Manifest, tokenizing: TokenizerSettings) -> None:
    for split, counts in manifest["splits"].items():
        tokens = " + ".join(f"{counts['tokens'][side]:,}" for side in SIDES)
        dropped = {reason: n for reason, n in counts["dropped"].items() if n}
        print(
            f"{split}: {counts['kept']:,} of {counts['read']:,} pairs, {tokens} tokens"
            + (f"; dropped: {_list(dropped)}" if dropped else "")
        )
    sizes = manifest["vocabulary"]
    print(f"vocabulary: {sizes['source']:,} source, {sizes['target']:,} target pieces")
    if min(sizes.values()) < tokenizing.vocabulary:
        print(f"note: the training text is too small for {tokenizing.vocabulary:,} pieces")
    language = manifest["target_language"]
    if language.lower().partition("-")[0].partition("_")[0] in UNSPACED:
        print(
            f"note: BLEU counts what stands between spaces, of which '{language}' has few: set "
            "train.monitor to val/loss, and go by chrF++"
        )


def _list(counts: dict[str, int]) -> str:
    return ", ".join(f"{n:,} {reason.replace('_', ' ')}" for reason, n in counts.items())


if __name__ == "__main__":
    run_stage(main)
