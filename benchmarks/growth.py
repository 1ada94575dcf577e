"""Time and memory as a corpus grows: `python benchmarks/growth.py --sizes 30000 300000`.

Each corpus is made of the bundled one: a new sentence has the beginning of one and the end of
another, and each fifth pair a number that no other has. It is given as `source: files` with
held-out sets. Every stage runs as a process of its own in a folder of its own, as DVC runs it;
training ends after UPDATES updates. The results are those of this run alone. For Linux.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common
from ruamel.yaml import YAML

SIZES = (30_000, 300_000, 3_000_000, 10_000_000)
UPDATES = 300
LIMIT_LINES = 200_000  # of which SentencePiece's own speed is measured
BASE = 10_000  # sentence pairs of the bundled corpus that the others are made of
VARIANT = {"cell": "lstm", "attention": "general"}

# Opens the store and makes one batch, in a process that has torch: seconds of each.
OPEN = """
import sys, time
from pathlib import Path
from rnnmt.dataset.batch import BatchLoader
from rnnmt.dataset.store import open_split
start = time.perf_counter()
store = open_split(Path("data/growth/tokens"), "train")
opened = time.perf_counter()
loader = BatchLoader(store, int(sys.argv[1]), 1)
made = time.perf_counter()
next(iter(loader))
print(opened - start, made - opened, time.perf_counter() - made)
"""

# The stage train, but for its end: prints when the first batch came, the speed after it, and the
# megabytes that are its own, without files that are mapped.
TRAIN = """
import os, sys, time
began = float(sys.argv.pop())
updates = int(sys.argv.pop())
from rnnmt.errors import run_stage
from rnnmt.stages import train
make_trainer = train._trainer

def trainer(settings, work, callbacks, logger):
    import pytorch_lightning as pl

    class Stop(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            if index == 0:
                self.first, self.tokens = time.time() - began, 0
            if index == 20:  # warm
                self.since = time.perf_counter()

        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            if index >= 20:
                self.tokens += outputs["tokens"]
            if index + 1 == updates:
                speed = self.tokens / (time.perf_counter() - self.since)
                with open("/proc/self/status") as status:
                    own = next(line.split()[1] for line in status if line.startswith("RssAnon"))
                print(self.first, speed, int(own) / 1024, flush=True)
                os._exit(0)

    return make_trainer(settings, work, [*callbacks, Stop()], logger)

train._trainer = trainer
run_stage(train.main)
"""

# SentencePiece's own encoding of whole sentences: pairs a second.
LIMIT = """
import itertools, sys, time
import sentencepiece
texts = []
for side in ("source", "target"):
    with open(f"data/growth/raw/train.{side}") as file:
        texts.append([line.rstrip() for line in itertools.islice(file, int(sys.argv[1]))])
models = [sentencepiece.SentencePieceProcessor(f"data/growth/tokens/{side}.model")
          for side in ("source", "target")]
start = time.perf_counter()
for text, model in zip(texts, models):
    model.encode(text, num_threads=1)
print(len(texts[0]) / (time.perf_counter() - start))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, help="sentence pairs")
    sizes = parser.parse_args().sizes
    results: dict[str, Any] = {}
    for size in sorted(sizes):
        with tempfile.TemporaryDirectory() as folder:
            results[str(size)] = measure(Path(folder), size)
        print(json.dumps({size: results[str(size)]}), flush=True)
    print(show(results))
    print(common.write("growth", threads=1, results={"updates": UPDATES, "pairs": results}))


def measure(folder: Path, pairs: int) -> dict[str, Any]:
    """Seconds and peak megabytes of every step with a corpus of so many pairs."""
    settings = write_settings(folder)
    # By a child: Linux counts a parent's memory to those that it starts later.
    writer = multiprocessing.Process(target=write_corpus, args=(folder, pairs))
    writer.start()
    writer.join()
    found: dict[str, Any] = {}
    for stage in ("download", "tokenize"):
        _, found[stage] = run(folder, "-m", f"rnnmt.stages.{stage}")
    (limit,), _ = run(folder, "-c", LIMIT, str(LIMIT_LINES))
    found["sentencepiece_pairs_per_second"] = limit
    batch_tokens = str(settings["train"]["batch_tokens"])
    (opened, loader, batch), used = run(folder, "-c", OPEN, batch_tokens)
    found["store"] = {"open": opened, "loader": loader, "batch": batch, "mb": used["mb"]}
    # The database of MLflow is made once and for all: not by this training.
    run(folder, "-c", "from rnnmt.tracking import store; store.connect(store.tracking_uri())")
    (first, speed, own), used = run(
        folder, "-c", TRAIN, "lstm", "1", str(UPDATES), str(time.time())
    )
    found["train"] = {"first_batch": first, "tokens_per_second": speed}
    found["train"] |= {"mb": used["mb"], "own_mb": own}
    return found


def write_settings(folder: Path) -> dict[str, Any]:
    yaml = YAML(typ="safe", pure=True)
    settings: dict[str, Any] = yaml.load((common.ROOT / "params.yaml").read_text())
    settings["threads"] = 1
    settings["corpus"] = {
        "name": "growth",
        "source": "files",
        "source_language": "en",
        "target_language": "fr",
        "splits": {"train": ["source.txt", "target.txt"]},
        "held_out": {"valid": 500, "test": 500},
        "seed": 1,
    }
    settings["tokenizer"] |= {"vocabulary": 8000}
    settings["variants"] = {"lstm": VARIANT}
    with open(folder / "params.yaml", "w", encoding="utf-8") as file:
        yaml.dump(settings, file)
    return settings


def write_corpus(folder: Path, pairs: int) -> None:
    for side, sentences in zip(("source", "target"), base(), strict=True):
        with open(folder / f"{side}.txt", "w", encoding="utf-8") as file:
            file.writelines(itertools.islice(mixed(sentences), pairs))


def base() -> tuple[list[str], list[str]]:
    from rnnmt.corpora import bundled

    made = bundled.generate(1, {"train": BASE, "valid": 1, "test": 1, "test_long": 1})["train"]
    return [sentence.source for sentence in made], [sentence.target for sentence in made]


def mixed(sentences: list[str]) -> Iterator[str]:
    """Lines without end: the first half of each sentence, the second half of one further on."""
    words = [sentence.split() for sentence in sentences]
    heads = [" ".join(one[: len(one) // 2]) for one in words]
    tails = [" ".join(one[len(one) // 2 :]) for one in words]
    for i in itertools.count():
        turn, at = divmod(i, len(words))
        number = f" {i}" if i % 5 == 0 else ""
        yield f"{heads[at]}{number} {tails[(at + 37 * turn) % len(words)]}\n"


def run(folder: Path, *arguments: str) -> tuple[list[float], Any]:
    """Run Python. Returns the numbers it printed, its seconds and its peak memory."""
    environment = os.environ | {"DVC_ROOT": str(folder), "PYTHONPATH": str(common.ROOT / "src")}
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"{arguments[:2]} failed:\n{printed}")
    numbers = [] if arguments[0] == "-m" else [float(n) for n in printed.split()]
    return numbers, {"seconds": seconds, "mb": usage.ru_maxrss / 1024}


def show(results: dict[str, Any]) -> str:
    """One row for each size."""
    headers = [
        "pairs", "download µs/pair", "MB", "tokenize µs/pair", "MB", "SentencePiece alone µs/pair",
        "open store s", "loader s", "its first batch s", "train: first batch s", "tokens/s", "MB",
        "of it own",
    ]  # fmt: skip
    rows = []
    for size, found in results.items():
        stages = [found[stage] for stage in ("download", "tokenize")]
        cells = [f"{v:.1f}" for s in stages for v in (s["seconds"] / int(size) * 1e6, s["mb"])]
        store, train = found["store"], found["train"]
        rows.append(
            [
                f"{int(size):,}",
                *cells,
                f"{1e6 / found['sentencepiece_pairs_per_second']:.1f}",
                *(f"{store[key]:.3f}" for key in ("open", "loader", "batch")),
                f"{train['first_batch']:.1f}",
                f"{train['tokens_per_second']:,.0f}",
                f"{train['mb']:.0f}",
                f"{train['own_mb']:.0f}",
            ]
        )
    return common.table(headers, rows)


if __name__ == "__main__":
    main()
