"""Latency and throughput of `rnnmt serve`: `python benchmarks/serving.py --model FOLDER`.

Clients on one machine, each with one request of one sentence at a time, against the service, the
same service without batches (`--max-batch 1`) and the same translator behind LitServe, in turn.
Every answer is compared with that of the translator itself, so that none may be lost or mixed up.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import common

CLIENTS = (1, 8, 64)
BAR = 3.0  # times the throughput of one by one, at the most clients
BATCH = 64  # sentences translated together, at most
PEERS = Path(__file__).parent / "peers"
LITSERVE = Path(__file__).parent / ".venv-peers/litserve"  # made by peers/install.sh


def main() -> None:
    arguments = _parse()
    sentences = Path(arguments.sentences).read_text(encoding="utf-8").splitlines()[:500]
    expected = translated(arguments.model, sentences, arguments.threads)
    services = _services(arguments)
    found: dict[str, dict[int, list[dict[str, float]]]] = {
        name: {clients: [] for clients in CLIENTS} for name in services
    }
    wrong = 0
    for _ in range(arguments.runs):
        for name, command in services.items():
            with service(command) as port:
                for clients in CLIENTS:
                    measured = asyncio.run(
                        load(port, clients, arguments.seconds, sentences, expected)
                    )
                    wrong += int(measured.pop("wrong"))
                    found[name][clients].append(measured)
    report(found, wrong, arguments)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="models/bundled/lstm-attention-1")
    parser.add_argument("--sentences", default="data/bundled/tokens/test.source.txt")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of the translator")
    return parser.parse_args()


def _services(arguments: argparse.Namespace) -> dict[str, list[str]]:
    """The command of each service, LitServe's too if it is installed."""
    threads = str(arguments.threads)
    own = [
        sys.executable, "-m", "rnnmt.cli", "serve", "--model", arguments.model, "--port", "PORT",
        "--threads", threads, "--timeout", "600", "--max-batch",
    ]  # fmt: skip
    services = {"rnnmt": [*own, str(BATCH)], "rnnmt, one by one": [*own, "1"]}
    if not LITSERVE.exists():
        print(f"without LitServe: {PEERS / 'install.sh'} installs it")
        return services
    program = str(PEERS / "litserve_service.py")
    litserve = [sys.executable, program, arguments.model, "PORT", str(BATCH), threads]
    return services | {"LitServe": litserve}


def translated(model: str, sentences: Sequence[str], threads: int) -> dict[str, str]:
    """Every sentence's translation by the translator itself."""
    import torch

    from rnnmt.model.folder import load_model
    from rnnmt.search.answers import Search, translate
    from rnnmt.search.translator import Translator

    torch.set_num_threads(threads)
    found = translate(Translator(load_model(model)), list(sentences), Search())
    return {s: best[0].text for s, best in zip(sentences, found, strict=True)}


@contextlib.contextmanager
def service(command: Sequence[str]) -> Iterator[int]:
    """A service on a free port, ready; gracefully ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [str(port) if part == "PORT" else part for part in command],
        stdout=subprocess.DEVNULL,
        env=os.environ,
        start_new_session=True,
    )
    try:
        wait_ready(port)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def wait_ready(port: int, seconds: float = 120) -> None:
    """Return when the service translates. Raises TimeoutError."""
    body = json.dumps({"sentences": ["a"]}).encode()
    headers = {"Content-Type": "application/json"}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/translate", body, headers)
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5):
            return
        time.sleep(0.1)
    raise TimeoutError(f"no service on port {port}")


async def load(
    port: int, clients: int, seconds: float, sentences: Sequence[str], expected: dict[str, str]
) -> dict[str, float]:
    """Requests as fast as they are answered, by so many clients: milliseconds and requests/s."""
    times: list[float] = []
    wrong, numbers, until = 0, count(), time.perf_counter() + seconds

    async def client() -> None:
        nonlocal wrong
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (started := time.perf_counter()) < until:
            sentence = sentences[next(numbers) % len(sentences)]
            status, answer = await post(reader, writer, {"sentences": [sentence]})
            times.append(time.perf_counter() - started)
            text = answer["translations"][0][0]["text"] if status == 200 else None
            wrong += text != expected[sentence]
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    spent = time.perf_counter() - started
    cuts = statistics.quantiles(times, n=100)
    return {
        "p50": 1000 * cuts[49],
        "p95": 1000 * cuts[94],
        "p99": 1000 * cuts[98],
        "per_second": len(times) / spent,
        "wrong": wrong,
    }


async def post(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: dict[str, Any]
) -> tuple[int, Any]:
    """One request on an open connection: a client library would cost more than the service."""
    data = json.dumps(body).encode()
    head = (
        "POST /translate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    writer.write(head.encode() + data)
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
    length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length:"))
    return int(lines[0].split()[1]), json.loads(await reader.readexactly(length))


def report(
    found: dict[str, dict[int, list[dict[str, float]]]], wrong: int, arguments: argparse.Namespace
) -> None:
    """Print the table and whether the bars are met; write the results."""
    results = {
        name: {
            str(clients): {key: common.spread([m[key] for m in measured]) for key in measured[0]}
            for clients, measured in by_clients.items()
        }
        for name, by_clients in found.items()
    }
    rows = [
        [name, clients, *(common.shown(values[key]) for key in ("p50", "p95", "p99", "per_second"))]
        for name, by_clients in results.items()
        for clients, values in by_clients.items()
    ]
    print(common.table(["service", "clients", "p50 ms", "p95 ms", "p99 ms", "requests/s"], rows))
    most = str(CLIENTS[-1])
    batching, *others = (
        (name, by_clients[most]["per_second"]["median"]) for name, by_clients in results.items()
    )
    gains = {name: round(batching[1] / per_second, 2) for name, per_second in others}
    print()
    for name, gain in gains.items():
        print(f"{gain:.1f} times the requests of {most} clients that {name!r} answers")
    print(f"(bar: {BAR:g} times one by one); answers lost or mixed up: {wrong}")
    values = {"gains": gains, "wrong": wrong, "services": results}
    print(common.write("serving", arguments.threads, values))


if __name__ == "__main__":
    main()
