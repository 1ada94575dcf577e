"""Stage `download`: a parallel corpus from wherever it is to data/<corpus>/raw/.

For each split S: S.source and S.target, UTF-8, one sentence on a line, aligned; for the bundled
corpus S.labels.jsonl and, of the sets held out, S.links.jsonl as well; and manifest.json. Nothing
is cleaned here.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from rnnmt.corpora import settings
from rnnmt.corpora.files import Corpus, digest
from rnnmt.errors import UserError, run_stage


def main() -> None:
    """Write the corpus that params.yaml names. Raises UserError for whatever the user can mend."""
    chosen = settings.load()
    folder = Path("data") / chosen.name / "raw"
    try:
        manifest = write(chosen, _corpus(chosen), folder)
    except OSError as error:  # a full disk, a folder that may not be written
        raise UserError(f"{error.filename or folder}: {error.strerror or error}") from None
    _report(folder, manifest)


def write(chosen: settings.Corpus, corpus: Corpus, folder: Path) -> Mapping[str, Any]:
    """Write the corpus to `folder`, which is replaced when all is written; returns the manifest.

    Raises UserError where a split has no sentences, or where reading the corpus does.
    """
    part = folder.with_name(folder.name + ".part")
    _remove(part)
    part.mkdir(parents=True)
    try:
        manifest = _write(chosen, corpus, part)
        _move(part, folder)
    finally:
        _remove(part)
    return manifest


def _write(chosen: settings.Corpus, corpus: Corpus, part: Path) -> Mapping[str, Any]:
    counts = _write_rows(corpus, part)
    for kind, by_split in (("labels", corpus.labels), ("links", corpus.links)):
        for split, lines in by_split.items():
            text = "".join(f"{line}\n" for line in lines)
            (part / f"{split}.{kind}.jsonl").write_text(text, encoding="utf-8", newline="\n")
    manifest = {
        "name": chosen.name,
        "source": chosen.source,
        "source_language": corpus.source_language,
        "target_language": corpus.target_language,
        "splits": counts,
        "dropped": dict(corpus.dropped),
        "sha256": {file.name: digest(file) for file in sorted(part.iterdir())},
        "licence": corpus.licence,
        "citation": corpus.citation,
        "origin": list(corpus.origin),
        "origin_sha256": {at: hexits for at, hexits in corpus.origin.items() if hexits},
    }
    text = json.dumps(manifest, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
    (part / "manifest.json").write_text(text, encoding="utf-8", newline="\n")
    return manifest


def _corpus(chosen: settings.Corpus) -> Corpus:
    # Imported here: each source needs other libraries, and some take seconds to load.
    if isinstance(chosen, settings.Bundled):
        return _bundled(chosen)
    if isinstance(chosen, settings.Opus):
        from rnnmt.corpora import opus

        return opus.corpus(chosen)
    if isinstance(chosen, settings.Languages):
        from rnnmt.corpora import files

        return files.corpus(chosen)
    from rnnmt.corpora import catalogue

    return catalogue.corpus(chosen.source)


def _bundled(chosen: settings.Bundled) -> Corpus:
    from rnnmt.corpora import bundled
    from rnnmt.corpora.words import to_json

    try:
        splits = bundled.generate(chosen.seed, chosen.sizes, chosen.lexicon)
    except ValueError as error:  # more sentences than its grammar has
        raise UserError(f"corpus.sizes: {error}") from None
    return Corpus(
        source_language="en",
        target_language="fr",
        licence="made by this program with pyRealB (MIT), whose lexicon is CC BY",
        citation="pyRealB: https://github.com/rali-udem/pyrealb",
        origin={"rnnmt.corpora.bundled": None},
        rows=((name, s.source, s.target) for name, made in splits.items() for s in made),
        labels={name: [_label(s) for s in made] for name, made in splits.items()},
        links={
            name: [to_json(s.links) for s in splits[name]] for name in splits if name != "train"
        },
    )


def _label(sentence: Any) -> str:
    label = {
        "length": len(sentence.source.split()),  # in words
        "phenomena": list(sentence.phenomena),
    }
    return json.dumps(label, ensure_ascii=False)


def _write_rows(corpus: Corpus, folder: Path) -> Counter[str]:
    """Write the files of each split; returns the number of pairs of each."""
    counts: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:

        def create(name: str) -> IO[str]:
            return stack.enter_context((folder / name).open("x", encoding="utf-8", newline="\n"))

        files: dict[str, tuple[IO[str], IO[str]]] = {}
        for split, source, target in corpus.rows:
            if split not in files:
                files[split] = create(f"{split}.source"), create(f"{split}.target")
            files[split][0].write(source + "\n")
            files[split][1].write(target + "\n")
            counts[split] += 1
    if not counts["train"] or not counts["valid"] or not any(s.startswith("test") for s in counts):
        found = ", ".join(f"{split} {pairs}" for split, pairs in counts.items())
        raise UserError(f"a split of the corpus is empty: found {found or 'no sentence at all'}")
    return counts


def _move(part: Path, folder: Path) -> None:
    """Put the whole `part` in the place of `folder`: at no time is half a corpus there."""
    old = folder.with_name(folder.name + ".old")
    _remove(old)
    if folder.is_symlink() or folder.exists():
        os.replace(folder, old)
    os.replace(part, folder)
    _remove(old)


def _remove(folder: Path) -> None:
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def _report(folder: Path, manifest: Mapping[str, Any]) -> None:
    for split, pairs in manifest["splits"].items():
        for side in ("source", "target"):
            file = folder / f"{split}.{side}"
            print(f"{file}: {pairs:,} sentences, {file.stat().st_size / 1e6:.2f} MB")
    for reason, pairs in manifest["dropped"].items():
        print(f"dropped: {pairs:,} {reason.replace('_', ' ')}")
    print(
        f"{manifest['name']}: {manifest['source_language']} to {manifest['target_language']}, "
        f"{sum(manifest['splits'].values()):,} sentence pairs. Licence: {manifest['licence']}"
    )


if __name__ == "__main__":
    run_stage(main, check=True)
