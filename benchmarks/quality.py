"""Quality at equal time: validation BLEU after some minutes of training of each toolkit.

    .venv/bin/python benchmarks/quality.py --minutes 5 10 20

The toolkits train in turn, a slice of time each, in one session; at each mark all translate the
validation set greedily with their own decoder. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
from typing import Any

import workers
from common import table, write
from workers import SYSTEMS, THREADS, Worker

NAMES = ("opennmt", "joeynmt-bucketed", "float32", "bfloat16")


def main() -> None:
    chosen = _parse()
    workers.check(chosen.systems)
    chosen.systems = workers.usable(chosen.systems)
    workers.prepare_data()
    scores: dict[str, list[dict[str, float]]] = {name: [] for name in chosen.systems}
    with workers.started(dict.fromkeys(chosen.systems)) as running:
        versions = workers.versions(running)
        # The first update, when all have been loaded and none disturbs another, takes no time.
        behind = {name: worker.ask("train", updates=1) for name, worker in running.items()}
        for done in behind.values():
            done["seconds"] = 0.0
        for minutes in sorted(chosen.minutes):
            _train_until(minutes * 60, chosen.slice, running, behind)
            for name, worker in running.items():
                answer = worker.ask("translate", split="valid", beam=1, batch=64)
                bleu = workers.bleu(workers.translated(answer), "valid")
                scores[name].append({"minutes": minutes, **behind[name], "bleu": bleu})
            latest = ", ".join(f"{name} {rows[-1]['bleu']:.1f}" for name, rows in scores.items())
            print(f"{minutes:g} minutes: {latest} BLEU", flush=True)
    results = {"settings": vars(chosen), "versions": versions, "scores": scores}
    print(report(results))
    print(write("quality", THREADS, results))


def report(results: dict[str, Any]) -> str:
    """The results as a Markdown table: BLEU, and how many updates it took."""
    scores = results["scores"]
    marks = [f"{row['minutes']:g} min" for row in next(iter(scores.values()))]
    rows = [
        [SYSTEMS[name].title, *(f"{row['bleu']:.1f} ({row['updates']:,})" for row in scores[name])]
        for name in scores
    ]
    return table(["validation BLEU (updates)", *marks], rows) + "\n"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--systems", nargs="+", default=list(NAMES), metavar="SYSTEM")
    parser.add_argument("--minutes", type=float, nargs="+", default=[5, 10, 20])
    parser.add_argument("--slice", type=float, default=60, help="seconds that each trains in turn")
    return parser.parse_args()


def _train_until(
    seconds: float,
    longest: float,
    running: dict[str, Worker],
    behind: dict[str, dict[str, Any]],
) -> None:
    """Train in turn until each has had so many `seconds`; adds what was done to `behind`."""
    while any(done["seconds"] < seconds for done in behind.values()):
        for name, worker in running.items():
            left = seconds - behind[name]["seconds"]
            if left > 0:
                done = worker.ask("train", seconds=min(longest, left))
                for key in behind[name]:
                    behind[name][key] += done[key]


if __name__ == "__main__":
    main()
