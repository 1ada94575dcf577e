"""Starts and commands the workers of rnnmt and of the toolkits that it is compared with.

Everything they write is in benchmarks/work/. See peers/gate.py for what a worker can do.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from common import ROOT, shown, spread

from rnnmt.dataset.store import open_split
from rnnmt.dataset.tokenizer import Tokenizer
from rnnmt.scoring import metrics

HERE = Path(__file__).parent
WORK = HERE / "work"
MODELS = WORK / "models"  # for decoding
SETTINGS = HERE / "multi30k.yaml"
DATA = WORK / "data" / "multi30k"
THREADS = int(os.environ.get("BENCHMARK_THREADS", "2"))  # of each toolkit
PEERS_PYTHON = HERE / ".venv-peers" / "bin" / "python"


class System(NamedTuple):
    """A toolkit in one of its ways; `script` and `kind` start its worker."""

    title: str
    script: str
    kind: str

    @property
    def python(self) -> Path:
        return Path(sys.executable) if self.script == "ours.py" else PEERS_PYTHON


SYSTEMS = {
    "opennmt": System("OpenNMT-py 3.5.1", "opennmt.py", "feed"),
    "opennmt-nofeed": System("OpenNMT-py, no input feeding", "opennmt.py", "nofeed"),
    "joeynmt": System("joeynmt 2.3.0", "joey.py", "own"),
    "joeynmt-bucketed": System("joeynmt, our length buckets", "joey.py", "bucketed"),
    "float32": System("rnnmt, float32", "ours.py", "float32"),
    "bfloat16": System("rnnmt, bfloat16", "ours.py", "bfloat16"),
}


class Worker:
    """One running worker; `model` makes it one that decodes with a saved model."""

    def __init__(self, name: str, model: Path | None = None) -> None:
        system = SYSTEMS[name]
        folder = WORK / "runs" / f"{name}{'-decoding' if model else ''}"
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.log = folder / "log"
        command = [system.python, HERE / "peers" / system.script, system.kind]
        command += ["--data", DATA, "--work", folder, "--threads", THREADS]
        command += ["--model", model] if model else []
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [str(word) for word in command],
                cwd=folder,
                env=_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def ask(self, do: str, **how: Any) -> dict[str, Any]:
        """Send a command and wait for its answer. Exits where the worker has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **how}) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            tail = "\n".join(self.log.read_text(errors="replace").split("\n")[-16:])
            sys.exit(f"{self.name}: its worker ended; the end of {self.log}:\n{tail}")
        result: dict[str, Any] = json.loads(answer)
        return result

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def started(models: dict[str, Path | None]) -> Iterator[dict[str, Worker]]:
    """A worker for each name, ended at the end; those with a saved model decode with it."""
    with ExitStack() as stack:
        workers = {}
        for name, model in models.items():
            workers[name] = Worker(name, model)
            stack.callback(workers[name].close)
        yield workers


def versions(running: dict[str, Worker]) -> dict[str, dict[str, str]]:
    """Of Python, torch and the toolkit in each worker's own environment."""
    return {name: worker.ask("versions")["versions"] for name, worker in running.items()}


def translated(answer: dict[str, Any]) -> list[str]:
    """The detokenised sentences of an answer to `translate`; the peers answer with pieces."""
    if "texts" in answer:
        return list(answer["texts"])
    # A piece is written as its number; what is none, the peers' own mark for unknown, is left out.
    return Tokenizer(DATA / "tokens" / "target.model").decode(
        [[int(piece) for piece in pieces if piece.isdigit()] for pieces in answer["pieces"]]
    )


def bleu(texts: list[str], split: str, every: int = 1) -> float:
    """sacreBLEU, cased, 13a, of every n-th sentence of a split."""
    references = (DATA / "tokens" / f"{split}.target.txt").read_text().split("\n")[:-1][::every]
    return metrics.score("bleu", metrics.statistics("bleu", texts, references).sum(axis=0))


def faster(ours: list[float], theirs: list[float]) -> str:
    """How many times as fast we are, round by round: the median and the extremes."""
    return shown(spread([a / b for a, b in zip(ours, theirs, strict=True)]), 2)


def check(names: Iterable[str]) -> None:
    """Exit where a system is unknown or its environment is missing."""
    for name in names:
        if name not in SYSTEMS:
            sys.exit(f"no system '{name}'; there are {', '.join(SYSTEMS)}")
        if not SYSTEMS[name].python.exists():
            sys.exit(f"{PEERS_PYTHON}: no such file; run benchmarks/peers/install.sh first")


def usable(names: Iterable[str]) -> list[str]:
    """Without what would train in float32 under the name of bfloat16 on this processor."""
    from rnnmt.model.training import usable_precision

    return [name for name in names if name != "bfloat16" or usable_precision(name) == name]


def prepare_data() -> None:
    """Multi30k through the project's own stages, and as pieces for the peers; once.

    With other settings also the models go, which were trained with other pieces.
    """
    stamp = WORK / "multi30k.yaml"
    if stamp.exists() and stamp.read_bytes() == SETTINGS.read_bytes():
        return
    WORK.mkdir(exist_ok=True)
    stamp.unlink(missing_ok=True)  # first: from here on the data is of no settings
    if MODELS.exists():
        shutil.rmtree(MODELS)
    for stage in ("download", "tokenize"):
        command = [sys.executable, "-m", f"rnnmt.stages.{stage}"]
        if subprocess.run(command, cwd=WORK, env=_environment()).returncode:
            sys.exit(f"stage {stage} failed")
    _write_pieces()
    stamp.write_bytes(SETTINGS.read_bytes())


def _write_pieces() -> None:
    """Every split in pieces of our SentencePiece model, each written as its number.

    Numbers are words that any toolkit reads the same way; a piece may hold a byte or a mark that
    one of them would change. The vocabulary has all of them but our four special ones.
    """
    folder, tokens = DATA / "pieces", DATA / "tokens"
    folder.mkdir(exist_ok=True)
    size = Tokenizer(tokens / "target.model").vocabulary_size
    (folder / "vocabulary").write_text("".join(f"{piece}\n" for piece in range(4, size)))
    splits = json.loads((tokens / "manifest.json").read_text())["splits"]
    for split in splits:
        for side, store in open_split(tokens, split)._asdict().items():
            lines = (" ".join(map(str, store[row].tolist())) for row in range(len(store)))
            (folder / f"{split}.{side}").write_text("".join(f"{line}\n" for line in lines))


def _environment() -> dict[str, str]:
    path = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "RNNMT_PARAMS": str(SETTINGS),
        "GOMP_SPINCOUNT": "10000",
        "OMP_NUM_THREADS": str(THREADS),
    }
