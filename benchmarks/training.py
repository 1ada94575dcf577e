"""Training: target tokens per second, and validation loss after the same number of updates.

    .venv/bin/python benchmarks/training.py

Each toolkit's own training loop runs in its own process; they train in turn, round after round,
in one session. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
from typing import Any

import workers
from common import shown, spread, table, write
from workers import SYSTEMS, THREADS, Worker

BASE = ("float32", "bfloat16")  # whose speed is divided by that of the others


def main() -> None:
    chosen = _parse()
    workers.check(chosen.systems)
    chosen.systems = workers.usable(chosen.systems)
    workers.prepare_data()
    with workers.started(dict.fromkeys(chosen.systems)) as running:
        versions = workers.versions(running)
        for worker in running.values():
            worker.ask("train", updates=chosen.warmup)
        rounds = _rounds(running, chosen.rounds, chosen.updates)
        losses = _losses(running, _done(chosen), chosen.loss_after)
    results = {
        "settings": vars(chosen),
        "versions": versions,
        "tokens_per_second": rounds,
        "summary": {name: spread(values) for name, values in rounds.items()},
        "validation": losses,
    }
    print(report(results))
    print(write("training", THREADS, results))


def report(results: dict[str, Any]) -> str:
    """The results as two Markdown tables."""
    rounds, summary = results["tokens_per_second"], results["summary"]
    bases = [name for name in BASE if name in rounds]
    speed = [
        [SYSTEMS[name].title, shown(summary[name], 0)]
        + [workers.faster(rounds[base], rounds[name]) for base in bases]
        for name in rounds
    ]
    headers = ["", "target tokens/s", *(f"{SYSTEMS[base].title} ÷ it" for base in bases)]
    updates = results["settings"]["loss_after"]
    losses = [
        [SYSTEMS[name].title, f"{values['nll'] / values['tokens']:.4f}", f"{values['tokens']:,}"]
        for name, values in results["validation"].items()
    ]
    loss_headers = ["", f"nats per target token after {updates:,} updates", "tokens"]
    return f"{table(headers, speed)}\n\n{table(loss_headers, losses)}\n"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), metavar="SYSTEM")
    parser.add_argument("--warmup", type=int, default=20, help="updates that are not counted")
    parser.add_argument("--updates", type=int, default=50, help="of each system in one round")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--loss-after", type=int, default=1000, help="updates; 0 for none")
    chosen = parser.parse_args()
    if 0 < chosen.loss_after < _done(chosen):
        parser.error(f"--loss-after: warm-up and rounds are {_done(chosen)} updates already")
    return chosen


def _done(chosen: argparse.Namespace) -> int:
    """The updates of each system when all rounds are over."""
    return int(chosen.warmup + chosen.rounds * chosen.updates)


def _rounds(running: dict[str, Worker], rounds: int, updates: int) -> dict[str, list[float]]:
    """Target tokens per second of each system in each round."""
    speeds: dict[str, list[float]] = {name: [] for name in running}
    for number in range(rounds):
        for name, worker in running.items():
            done = worker.ask("train", updates=updates)
            speeds[name].append(done["tokens"] / done["seconds"])
        latest = ", ".join(f"{name} {values[-1]:,.0f}" for name, values in speeds.items())
        print(f"round {number + 1}: {latest}", flush=True)
    return speeds


def _losses(running: dict[str, Worker], done: int, after: int) -> dict[str, dict[str, float]]:
    """The validation loss of each system after `after` updates, of which `done` are behind it."""
    if not after:
        return {}
    losses = {}
    for name, worker in running.items():
        if after > done:
            worker.ask("train", updates=after - done)
        losses[name] = worker.ask("loss")
    if len({values["tokens"] for values in losses.values()}) > 1:
        print("the systems were judged on different tokens:", losses)
    return losses


if __name__ == "__main__":
    main()
