"""Decoding: sentences and tokens per second, BLEU and memory, greedy and with beam 5.

    .venv/bin/python benchmarks/decoding.py

Each toolkit trains a model for the same number of updates, which is kept in benchmarks/work/ for
the next time; then each one's own decoder translates test_2016_flickr in its own process, in turn,
round after round, in one session. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import workers
from common import shown, spread, table, write
from workers import DATA, MODELS, SYSTEMS, THREADS, Worker

from rnnmt.dataset.tokenizer import Tokenizer

SPLIT = "test_2016_flickr"
OURS = "bfloat16"
# One way of training for each; a toolkit's models decode alike, however they were trained.
TITLES = {
    "opennmt": "OpenNMT-py 3.5.1",
    "joeynmt-bucketed": "joeynmt 2.3.0",
    OURS: "rnnmt",
}


class Setting(NamedTuple):
    beam: int
    batch: int
    every: int  # n-th sentence only: one at a time takes long

    @property
    def title(self) -> str:
        return f"{'greedy' if self.beam == 1 else f'beam {self.beam}'}, batch {self.batch}"


SETTINGS = (Setting(5, 64, 1), Setting(1, 64, 1), Setting(5, 1, 5), Setting(1, 1, 5))


def main() -> None:
    chosen = _parse()
    workers.check(chosen.systems)
    workers.prepare_data()
    models = _train(chosen.systems, chosen.updates)
    runs: dict[str, dict[str, list[dict[str, float]]]] = {}
    for setting in SETTINGS:
        # A fresh process for each: its peak memory is that of this setting.
        with workers.started(models) as running:
            versions = workers.versions(running)
            runs[setting.title] = _rounds(running, setting, chosen.rounds)
    results = {"settings": vars(chosen), "versions": versions, "runs": runs}
    print(report(results))
    print(write("decoding", THREADS, results))


def report(results: dict[str, Any]) -> str:
    """The results as a Markdown table for each setting; our speed is divided by that of each."""
    return "\n".join(f"{title}:\n\n{_table(runs)}\n" for title, runs in results["runs"].items())


def _table(runs: dict[str, list[dict[str, float]]]) -> str:
    def speeds(name: str, what: str) -> list[float]:
        return [run[f"{what}_per_second"] for run in runs[name]]

    def row(name: str) -> list[str]:
        last = runs[name][-1]
        return [
            TITLES.get(name, SYSTEMS[name].title),
            shown(spread(speeds(name, "sentences"))),
            workers.faster(speeds(OURS, "sentences"), speeds(name, "sentences")),
            shown(spread(speeds(name, "tokens")), 0),
            workers.faster(speeds(OURS, "tokens"), speeds(name, "tokens")),
            f"{last['bleu']:.1f}",
            f"{last['memory_mb']:,.0f}",
        ]

    headers = ["", "sentences/s", "rnnmt ÷ it", "tokens/s", "rnnmt ÷ it", "BLEU", "MB"]
    return table(headers, [row(name) for name in runs])


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--systems", nargs="+", default=list(TITLES), metavar="SYSTEM")
    parser.add_argument("--updates", type=int, default=2000, help="that the models are trained for")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    if OURS not in chosen.systems:
        parser.error(f"--systems: {OURS} is what the others are compared with; name it too")
    return chosen


def _train(names: list[str], updates: int) -> dict[str, Path | None]:
    """The file or folder of each system's model, trained now where there is none yet."""
    MODELS.mkdir(exist_ok=True)
    models = {name: MODELS / f"{name}-{updates}" for name in names}
    for name, model in models.items():
        if model.exists():
            continue
        print(f"{name}: {updates:,} updates", flush=True)
        part = model.with_name(f"{model.name}.part")  # only a whole one gets its name
        with workers.started({name: None}) as running:
            running[name].ask("train", updates=updates)
            running[name].ask("save", model=str(part))
        part.rename(model)
    return dict(models)


def _rounds(
    running: dict[str, Worker], setting: Setting, rounds: int
) -> dict[str, list[dict[str, float]]]:
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in running}
    for worker in running.values():  # warm-up
        worker.ask("translate", split=SPLIT, **setting._replace(every=50)._asdict())
    count = Tokenizer(DATA / "tokens" / "target.model").encode
    for number in range(rounds):
        for name, worker in running.items():
            answer = worker.ask("translate", split=SPLIT, **setting._asdict())
            runs[name].append(_measured(answer, setting, count))
        latest = ", ".join(f"{n} {r[-1]['sentences_per_second']:.1f}" for n, r in runs.items())
        print(f"{setting.title}, round {number + 1}: {latest} sentences/s", flush=True)
    return runs


def _measured(
    answer: dict[str, Any], setting: Setting, encode: Callable[[list[str]], list[list[int]]]
) -> dict[str, float]:
    texts, seconds = workers.translated(answer), answer["seconds"]
    return {
        "sentences_per_second": len(texts) / seconds,
        "tokens_per_second": sum(map(len, encode(texts))) / seconds,
        "bleu": workers.bleu(texts, SPLIT, setting.every),
        "memory_mb": answer["memory_mb"],
    }


if __name__ == "__main__":
    main()
