"""What all workers share: batches handed out on command, and answers to a controller.

A worker is one long-lived process of one toolkit. It reads commands from its standard input, one
JSON object a line, and answers each with one line of JSON:

    {"do": "versions"}                  -> versions, of Python, torch and the toolkit
    {"do": "train", "updates": 50}      or "seconds": 60 -> updates, tokens, seconds
    {"do": "loss"}                      of the validation set -> nll (nats, a sum), tokens
    {"do": "translate", "split": "valid", "beam": 5, "batch": 64, "every": 1}
                                        every n-th sentence -> seconds, and pieces or texts
    {"do": "save", "model": "..."}      a file or folder that the same worker can decode with
    {"do": "quit"}

The toolkit's own training loop runs unmodified in the worker and asks the gate for its batches.
Between the last batch of one command and the first of the next it waits, and uses no processor.
Imports neither rnnmt nor a peer, since each runs in its own environment.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

BATCH = 64  # sentences of a training batch
SEED = 1

B = TypeVar("B")
Action = Callable[..., dict[str, Any]]


def arguments() -> argparse.Namespace:
    """The worker's command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", help="which way of the toolkit's")
    parser.add_argument("--data", type=Path, required=True, help="folder of the benchmark's data")
    parser.add_argument("--work", type=Path, required=True, help="folder to write to")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", type=Path, help="decode with this saved model, without training")
    return parser.parse_args()


class Gate:
    """Answers commands; between them hands a training loop as many batches as were asked for.

    From its making on, standard output is for answers: what a toolkit prints goes to the log.
    `packages` are those that make the toolkit, torch apart.
    """

    def __init__(self, *packages: str) -> None:
        # May be filled further while the toolkit builds its model.
        self.actions: dict[str, Action] = {"versions": lambda: {"versions": versions(*packages)}}
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._updates = self._tokens = 0
        self._limit: tuple[float, float] | None = None  # updates and seconds, while training
        self._started = 0.0

    def batches(self, source: Iterable[B], tokens: Callable[[B], int]) -> Iterator[B]:
        """The batches of `source`; `tokens` counts a batch's real target tokens.

        Making a batch is timed with the update that it serves. May be called for each epoch.
        """
        iterator = iter(source)
        while True:
            if self._is_closed():
                self.serve()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._updates += 1
            self._tokens += tokens(batch)
            yield batch

    def serve(self) -> None:
        """Answer commands until one asks for training."""
        for line in sys.stdin:
            command = json.loads(line)
            name = command.pop("do")
            if name == "train":
                endless = float("inf")
                self._limit = command.get("updates", endless), command.get("seconds", endless)
                self._updates = self._tokens = 0
                self._started = time.perf_counter()
                return
            if name == "quit":
                break
            self._answer({**self.actions[name](**command), "memory_mb": peak_memory()})
        os._exit(0)  # in the middle of the toolkit's loop, which would go on to save and report

    def _is_closed(self) -> bool:
        """Whether to wait for a command; the training that ends here is reported."""
        if self._limit is None:
            return True
        seconds = time.perf_counter() - self._started
        updates, longest = self._limit
        if self._updates < updates and seconds < longest:
            return False
        self._answer({"updates": self._updates, "tokens": self._tokens, "seconds": seconds})
        self._limit = None
        return True

    def _answer(self, values: dict[str, Any]) -> None:
        self._answers.write(json.dumps(values) + "\n")
        self._answers.flush()


def versions(*packages: str) -> dict[str, str]:
    """Of Python, torch and `packages`, in the worker's own environment."""
    found = {name: importlib.metadata.version(name) for name in ("torch", *packages)}
    return {"python": platform.python_version(), **found}


def timed(
    translate: Callable[[list[str]], list[Any]], sentences: Sequence[str]
) -> tuple[list[Any], float]:
    """`translate` lines of pieces, those of as many together; results in order, and seconds."""
    started = time.perf_counter()
    order = sorted(range(len(sentences)), key=lambda i: len(sentences[i].split()), reverse=True)
    results = dict(zip(order, translate([sentences[i] for i in order]), strict=True))
    return [results[i] for i in range(len(sentences))], time.perf_counter() - started


class LengthBuckets:
    """Batches of 64 rows of like lengths in random order, an epoch with each iteration.

    Rows are sorted by source length, then target length, then at random, as OpenNMT-py sorts.
    """

    def __init__(self, source: Sequence[int], target: Sequence[int]) -> None:
        self._lengths = list(zip(source, target, strict=True))
        self._random = random.Random(SEED)

    def __len__(self) -> int:
        return -(-len(self._lengths) // BATCH)

    def __iter__(self) -> Iterator[list[int]]:
        keys = [(*pair, self._random.random()) for pair in self._lengths]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        self._random.shuffle(batches)
        yield from batches


def read_lines(file: Path, every: int = 1) -> list[str]:
    """Every n-th line of a file."""
    return file.read_text(encoding="utf-8").split("\n")[:-1][::every]


def peak_memory() -> float:
    """The most memory in MB that this process has held since it started.

    From Linux's VmHWM: `ru_maxrss` would count the memory of the process that started this one.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
