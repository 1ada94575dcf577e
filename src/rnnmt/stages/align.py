"""Stage `align`: which words of the test sets translate each other.

    python -m rnnmt.stages.align

Writes `data/NAME/links/SPLIT.links.jsonl` for each test set: the true links where the corpus comes
with them, as the bundled one does, or else those of a statistical aligner that learns from the
training text.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from rnnmt import params
from rnnmt.corpora.clean import normalise
from rnnmt.corpora.words import read_links, to_json, words
from rnnmt.errors import UserError, run_stage
from rnnmt.scoring.settings import references

SOURCE_FILE = "source.json"


def main() -> None:
    """Raises UserError where input is missing."""
    corpus = params.corpus_name()
    raw, out = Path("data", corpus, "raw"), Path("data", corpus, "links")
    tests = references(corpus).tests
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    true = [raw / f"{split}.links.jsonl" for split in tests]
    if all(file.exists() for file in true):
        for file in true:
            read_links(file)
            shutil.copyfile(file, out / file.name)
        origin = "true"
    else:
        _align(corpus, tests, out)
        origin = "statistical"
    (out / SOURCE_FILE).write_text(f'{{"links": "{origin}"}}\n')
    print(f"{out}: {origin} links of {', '.join(tests)}")


def _align(corpus: str, tests: list[str], out: Path) -> None:
    from rnnmt.insight.aligner import PAIRS, align

    raw, tokens = Path("data", corpus, "raw"), Path("data", corpus, "tokens")
    training = list(_pairs(raw / "train.source", raw / "train.target", PAIRS))
    sets = {s: list(_pairs(tokens / f"{s}.source.txt", tokens / f"{s}.target.txt")) for s in tests}
    linked = iter(align(training, [pair for pairs in sets.values() for pair in pairs]))
    for split, pairs in sets.items():
        lines = [to_json(next(linked)) + "\n" for _ in pairs]
        (out / f"{split}.links.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")


def _pairs(
    source: Path, target: Path, at_most: int | None = None
) -> Iterator[tuple[list[str], list[str]]]:
    """The words of both sides of each line, or of `at_most` lines evenly spread."""
    try:
        with (
            open(source, encoding="utf-8", newline="\n") as sources,
            open(target, encoding="utf-8", newline="\n") as targets,
        ):
            step = 1
            if at_most:
                step += sum(1 for _ in sources) // at_most
                sources.seek(0)
            for number, (one, other) in enumerate(zip(sources, targets, strict=True)):
                if number % step == 0:
                    yield words(normalise(one)), words(normalise(other))
    except FileNotFoundError as error:
        raise UserError(
            f"{error.filename}: no such file; run: {params.remake('tokenize')}"
        ) from None


if __name__ == "__main__":
    run_stage(main)
