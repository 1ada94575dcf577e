"""The playground's start and its answers: `python benchmarks/playground.py`.

Starts `rnnmt playground` on the trained models of params.yaml's corpus and asks as the page does:
all variants at once, over six connections, for a sentence of 15 words that is new each time
by its forced start. `processor` is the time that the server's threads computed for it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import common
import psutil
import requests

SENTENCE = "If the old doctor did not write his long letter, he would find his friend."
STARTS = ("", "Si", "Si le", "Le", "Un", "Il", "Elle", "Nous")
CONNECTIONS = 6  # of a browser to one host
BARS = {"start": 10_000.0, "answer": 300.0}  # ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    command = [sys.executable, "-m", "rnnmt.cli", "playground", "--port", "0"]
    started = time.perf_counter()
    server = subprocess.Popen(command, cwd=common.ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split()[0]
        start = (time.perf_counter() - started) * 1000
        measured = measure(address, psutil.Process(server.pid), rounds)
    finally:
        server.terminate()
    measured = {"start": common.spread([start]), **measured}
    rows = [[name, common.shown(values), BARS.get(name, "")] for name, values in measured.items()]
    print(common.table(["", "ms", "bar"], rows))
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(common.write("playground", threads=1, results=measured))


def measure(address: str, server: psutil.Process, rounds: int) -> dict[str, Any]:
    """Milliseconds until all variants have answered, and what the slowest part of each took."""
    variants = [v["name"] for v in requests.get(f"{address}/api/variants").json()["variants"]]
    sessions = [requests.Session() for _ in range(CONNECTIONS)]
    walls, processor, answers = [], [], []

    def ask(number: int, variant: str, start: str) -> dict[str, Any]:
        question = {"variant": variant, "sentence": SENTENCE, "prefix": start}
        found = sessions[number % CONNECTIONS].post(f"{address}/api/answer", json=question)
        found.raise_for_status()
        answer: dict[str, Any] = found.json()
        return answer

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for start in STARTS * rounds:
            begun, spent = time.perf_counter(), sum(server.cpu_times()[:2])
            count = len(variants)
            answers += pool.map(ask, range(count), variants, [start] * count)
            walls.append((time.perf_counter() - begun) * 1000)
            processor.append((sum(server.cpu_times()[:2]) - spent) * 1000)
    parts = {
        part: common.spread([answer["milliseconds"][part] for answer in answers])
        for part in ("search", "gates")
    }
    slow = statistics.quantiles(walls, n=20)[-1]
    return {
        "answer": common.spread(walls),
        "answer, 95th percentile": common.spread([slow]),
        "processor": common.spread(processor),
        **{f"one variant, {part}": values for part, values in parts.items()},
    }


if __name__ == "__main__":
    main()
