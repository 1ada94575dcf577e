"""`rnnmt serve`, as it is started, against requests and clients of every kind."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import resource
import shutil
import signal
import socket
import string
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from rnnmt.model.folder import load_model
from rnnmt.search.answers import Search, answer, translate
from rnnmt.search.translator import Translator
from rnnmt.serving.service import Limits
from test_serve import WORDS, Process, models  # noqa: F401  (a fixture)

torch.set_num_threads(1)
LIMITS = {"sentences": 8, "characters": 300, "bytes": 20_000, "beam": 6, "waiting": 100}
OPTIONS = ["--timeout", "600"]
OPTIONS += [word for name, value in LIMITS.items() for word in (f"--max-{name}", str(value))]
JSON = {"Content-Type": "application/json"}


class Served(Process):
    """A service with the limits above, what it is known to answer, and what it holds."""

    patience = 600.0  # other campaigns may run beside it

    def __init__(self, folder: Path, *options: str) -> None:
        self.said: list[str] = []
        super().__init__(folder, *OPTIONS, *options)
        self.listening = threading.Thread(target=self._listen)  # or the pipe would be full
        self.listening.start()
        self.translator = Translator(load_model(folder))
        self.expected = cache(self._expected)
        described = self.call("/openapi.json")[1]
        self.described = described
        operation = described["paths"]["/translate"]["post"]
        self.statuses = {int(status) for status in operation["responses"]}
        self.asks, self.answers, self.refusals = (
            jsonschema.Draft202012Validator(
                {"$ref": f"#/components/schemas/{name}", "components": described["components"]}
            )
            for name in ("Request", "Answer", "Refusal")
        )

    def _expected(self, sentence: str, asked: str) -> Any:
        search = Search(**json.loads(asked))
        [found] = translate(self.translator, [sentence], search)
        return answer(found, search)

    def is_right(self, sentences: list[str], asked: dict[str, Any], got: Any) -> bool:
        """Whether each sentence has what the translator itself says of it alone."""
        words = json.dumps(asked, sort_keys=True)
        wanted = [self.expected(sentence, words) for sentence in sentences]
        return same(got["translations"], json.loads(json.dumps(wanted)))

    def send(
        self, body: bytes, headers: dict[str, str], method: str = "POST", path: str = "/translate"
    ) -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=self.patience)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            found = connection.getresponse()
            return found.status, found.read()

    def raw(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), self.patience)

    def holds(self) -> tuple[int, int]:
        """Its open files, and its memory in MB."""
        folder = Path("/proc", str(self.process.pid))
        pages = int((folder / "statm").read_text().split()[1])
        return len(os.listdir(folder / "fd")), pages * resource.getpagesize() >> 20

    def is_well(self, told: str) -> None:
        assert self.process.poll() is None, told
        sentence = "the cat sees a dog"
        status, got = self.translate(sentence)
        assert status == 200, told
        assert self.is_right([sentence], {}, got), told

    def ends_well(self, asked: bool = False) -> None:
        if not asked:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(self.patience)
        self.listening.join(10)
        # SentencePiece says on its own that a file was empty, while it was being copied.
        known = ("WARNING: ", "rnnmt: warning: the model stays ", "E0000 ", "Returns default value")
        assert not [line for line in self.said if not line.startswith(known)]
        assert self.process.returncode == 0, self.said

    def _listen(self) -> None:
        assert self.process.stderr is not None
        self.said.extend(self.process.stderr)


def same(one: Any, other: Any) -> bool:
    """Equal, but for the last digit of numbers, which the size of a batch may change."""
    if isinstance(one, float) and isinstance(other, int | float):
        return abs(one - other) < 0.002 + 1e-5 * abs(other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Served]:  # noqa: F811
    served = Served(models / "one")
    yield served
    served.ends_well()


# --- what is asked ------------------------------------------------------------------------------

STRANGE = (
    "", " ", "\0", "a\0b", "\t\n\r", "\u2028", "\ufeff", "\U0010ffff", "\ud800", "\udfff\ud800",
    "שלום עולם", "\u202eabc\u202c", "e\u0301" * 9, "\U0001f469\u200d\U0001f467", "<script>",
    "{{7*7}}", "'; DROP TABLE", "$(id)", "%s%n", "▁the", "<s>", "</s>", "<unk>", "<pad>",
    "\u2581" * 5, "a" * 299, "Ω" * 300, "𝕏" * 300,
)  # fmt: skip


def text(dice: random.Random, most: int) -> str:
    kind = dice.random()
    if kind < 0.6:
        return " ".join(dice.choices(WORDS, k=dice.randint(0, 9)))
    if kind < 0.8:
        return dice.choice(STRANGE)
    letters = dice.choice([string.printable, "ab \0", "אב \u200f\u202e", "\ud800a", "中文字"])
    return "".join(dice.choices(letters, k=dice.randint(0, dice.choice([5, most, most + 5]))))


def anything(dice: random.Random, deep: int = 3) -> Any:
    """A JSON value."""
    kind = dice.randrange(9 if deep else 7)
    if kind == 7:
        return [anything(dice, deep - 1) for _ in range(dice.randrange(4))]
    if kind == 8:
        return {text(dice, 5): anything(dice, deep - 1) for _ in range(dice.randrange(4))}
    numbers = (0, 1, -1, 5, 7, 1.5, 5.0, 1e-320, 1e400, -1e400, math.nan, 10**30, 10**5000)
    others = (None, True, False, text(dice, 20), str(dice.randint(0, 9)))
    return (*others, *dice.choices(numbers, k=2))[kind]


def of_schema(schema: dict[str, Any], dice: random.Random) -> Any:
    """A value that a schema allows; of a number's or a text's limits rather the last one."""
    if "anyOf" in schema:
        return of_schema(dice.choice(schema["anyOf"]), dice)
    kind = schema.get("type")
    if kind == "object":
        fields = schema["properties"].items()
        chosen = [f for f in fields if f[0] in schema["required"] or dice.random() < 0.4]
        return {name: of_schema(field, dice) for name, field in chosen}
    if kind == "array":
        most = dice.choice([1, 2, schema["maxItems"]])
        count = dice.randint(schema["minItems"], most)
        return [of_schema(schema["items"], dice) for _ in range(count)]
    if kind in ("integer", "number"):
        low, high = int(schema["minimum"]), int(schema["maximum"])
        few = kind == "integer" or dice.random() < 0.3
        return dice.choice([low, high, dice.randint(low, high)]) if few else dice.uniform(low, high)
    if kind == "string":
        return text(dice, schema["maxLength"])[: schema["maxLength"]]
    return {"boolean": dice.random() < 0.5, "null": None}[str(kind)]


def mutated(value: Any, dice: random.Random) -> Any:
    """With one thing in it changed."""
    if isinstance(value, dict) and value and dice.random() < 0.9:
        name = dice.choice(list(value))
        kind = dice.randrange(4)
        if kind == 0:
            return {k: v for k, v in value.items() if k != name}
        if kind == 1:
            return {**value, text(dice, 9): anything(dice)}
        return {**value, name: mutated(value[name], dice)}
    if isinstance(value, list) and value and dice.random() < 0.7:
        place = dice.randrange(len(value))
        if dice.random() < 0.3:
            return value * dice.randint(2, 9)
        return [*value[:place], mutated(value[place], dice), *value[place + 1 :]]
    return anything(dice)


def spoilt(body: bytes, dice: random.Random) -> bytes:
    """With some bytes changed, taken out or put in."""
    found = bytearray(body)
    for _ in range(dice.randint(1, 4)):
        place = dice.randrange(len(found) + 1)
        found[place : place + dice.randrange(3)] = dice.randbytes(dice.randrange(3))
    return bytes(found)


@pytest.mark.trials(40, 5_000)
def test_requests_made_from_its_own_description(
    server: Served, trials: range, tally: Counter[str]
) -> None:
    """What the description allows is answered, and rightly; all else is refused as it says."""
    schema = server.described["components"]["schemas"]["Request"]
    for trial in trials:
        dice = random.Random(trial)
        asked: Any = of_schema(schema, dice)
        if dice.random() < 0.5:
            asked = mutated(asked, dice)
        sys.set_int_max_str_digits(0)
        body = json.dumps(asked, ensure_ascii=dice.random() < 0.7).encode(errors="surrogatepass")
        headers, whole = dict(JSON), True
        if dice.random() < 0.2:
            body, whole = spoilt(body, dice), False
        if dice.random() < 0.1:
            whole = False
            kinds = ("text/plain", "application/xml", "multipart/form-data", "\xff", "", "a/b/c;;=")
            headers = {"Content-Type": dice.choice(kinds), "Accept": dice.choice(["*/*", "x", ""])}
        told = f"trial {trial}: {headers} {body[:2000]!r}"
        status, got = server.send(body, headers)
        assert status in server.statuses, f"{told} -> {status} {got!r}"
        assert status < 500, f"{told} -> {status} {got!r}"
        tally[f"status {status}"] += 1
        if status != 200:
            server.refusals.validate(json.loads(got))
        else:
            server.answers.validate(json.loads(got))
        sound = whole and len(body) <= LIMITS["bytes"] and server.asks.is_valid(asked)
        # What JSON Schema does not say: no half characters, no sign of a number's type.
        sound = sound and not any("\ud800" <= c <= "\udfff" for s in asked["sentences"] for c in s)
        if not sound:
            assert status != 200 or not whole or "5.0" in str(asked), told
            continue
        search = {k: v for k, v in asked.items() if k != "sentences" and v is not None}
        if {"beam": 5, "nbest": 1, **search}["nbest"] > {"beam": 5, **search}["beam"]:
            assert status == 422, told
            continue
        pieces = server.translator.trained.source.encode(asked["sentences"])
        if max(map(len, pieces)) > Limits.pieces:
            assert status == 422, told
            continue
        if any(isinstance(search.get(name), float) for name in ("beam", "nbest")):
            continue  # 5.0 is an integer to JSON Schema
        assert status == 200, f"{told} -> {status} {got!r}"
        assert server.is_right(asked["sentences"], search, json.loads(got)), f"{told} -> {got!r}"
        tally["right translations"] += len(asked["sentences"])
    server.is_well("at the end")


@pytest.mark.trials(40, 4_000)
def test_any_path_and_method(server: Served, trials: range, tally: Counter[str]) -> None:
    paths = [
        "/translate", "/health", "/ready", "/metrics", "/openapi.json", "/", "/docs", "//ready",
        "/x/../ready", "/%2e%2e/%2e%2e/etc/passwd", "/ready?x=" + "a" * 3000, "/ready#%00", "*",
        "/" + "a" * 9000, "http://evil.example/ready",
    ]  # fmt: skip
    methods = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "BREW"]
    more = [
        ("Origin", "http://evil.example"), ("Range", "bytes=9-2"), ("X-Forwarded-For", "\xff"),
        ("Accept-Encoding", "x"), ("Cookie", "a" * 5000), ("Upgrade", "websocket"),
        ("Content-Type", "application/json"),
    ]  # fmt: skip
    ours = ["127.0.0.1", "localhost:1", "[::1]"]
    for trial in trials:
        dice = random.Random(trial)
        method, path, body = dice.choice(methods), dice.choice(paths), dice.randbytes(9)
        host = dice.choice([*ours, "evil.example", "127.0.0.1.evil", ""])
        headers = {**dict(dice.sample(more, 3)), "Host": host}
        told = f"trial {trial}: {method} {path[:50]} {headers}"
        status, _ = server.send(body, headers, method, path)
        assert status < 500, told
        assert host in ours or status == 400, told
        tally[f"status {status}"] += 1
    server.is_well("at the end")


# --- how it is asked ----------------------------------------------------------------------------


def request(body: bytes, **headers: Any) -> bytes:
    fields = {"Host": "localhost", **JSON, "Content-Length": len(body)} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
    return f"POST /translate HTTP/1.1\r\n{lines}\r\n".encode() + body


def awry(dice: random.Random, body: bytes) -> bytes:
    """A request that is no HTTP, or not quite."""
    whole = request(body)
    kind = dice.randrange(10)
    if kind == 0:
        return whole[: dice.randrange(len(whole))]  # a half one
    if kind == 1:
        return spoilt(whole, dice)
    if kind == 2:
        return dice.randbytes(dice.randrange(300))
    if kind == 3:
        size = len(body)
        wrong = [0, 1, size - 1, size + 1, 10**9, 10**40, -1, "x", "1, 2", ""]
        return request(body, Content_Length=dice.choice(wrong))
    if kind == 4:
        return request(body, Transfer_Encoding="chunked")  # both, as smugglers have it
    sizes = dice.choice([b"zz", b"-1", b"f" * 30, b"1;" + b"x" * 500, b"0", b"5", b""])
    if kind == 5:
        head = request(b"", Transfer_Encoding="chunked", Content_Length=None)
        return head + sizes + b"\r\n" + body + b"\r\n0\r\n\r\n"
    if kind == 6:
        return request(b"x" * dice.choice([LIMITS["bytes"], LIMITS["bytes"] + 1, 300_000]))
    if kind == 7:
        return whole.replace(b"\r\n", b"\n").replace(b"HTTP/1.1", dice.choice([b"HTTP/0.9", b"H"]))
    if kind == 8:
        return request(body, **{f"X{i}": "y" * dice.randrange(40) for i in range(900)})
    return request(body, Expect="100-continue", Connection=dice.choice(["close", "x", "Upgrade"]))


def leave(connection: socket.socket, dice: random.Random) -> None:
    """With or without waiting for an answer."""
    kind = dice.randrange(4)
    if kind == 0:
        connection.settimeout(0.05)
        with contextlib.suppress(OSError):
            connection.recv(1000)
    if kind == 1:  # a reset
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if kind == 2:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
    connection.close()


@pytest.mark.trials(60, 8_000)
def test_what_is_no_request(server: Served, trials: range, tally: Counter[str]) -> None:
    """Broken HTTP, in pieces, and clients that leave: the next client is served."""
    for trial in trials:
        dice = random.Random(trial)
        body = json.dumps({"sentences": [text(dice, 50) for _ in range(3)]}).encode()
        content = awry(dice, body)
        size = dice.choice([100, 1000, len(content) + 1])
        with contextlib.suppress(OSError), server.raw() as connection:
            for start in range(0, len(content), size):
                connection.sendall(content[start : start + size])
            leave(connection, dice)
        tally["clients"] += 1
        if trial % 20 == 19:
            server.is_well(f"trial {trial}: {content[:500]!r}")


def own(number: int, count: int) -> list[str]:
    """Sentences that no client of another number asks for."""
    dice = random.Random(number)
    places = [(number * 7 + i) % 5_000 for i in range(count)]
    return [" ".join([WORDS[p % 19], *dice.choices(WORDS, k=2), *str(p)]) for p in places]


@pytest.mark.trials(1, 60)
def test_everyone_gets_their_own(server: Served, trials: range, tally: Counter[str]) -> None:
    """Thirty clients at once, of which some leave before their answer, and others ask slowly."""
    for trial in trials:

        def client(number: int, trial: int = trial) -> str:
            dice = random.Random(trial * 1000 + number)
            sentences = own(trial * 100 + number, dice.randint(1, 4))
            asked = {"beam": dice.choice([1, 2, 5]), "nbest": 1}
            whole = request(json.dumps({"sentences": sentences, **asked}).encode())
            kind = dice.choice(["prompt", "prompt", "slow", "leaving"])
            with server.raw() as connection:
                if kind == "slow":
                    for byte in whole:
                        connection.sendall(bytes([byte]))
                        time.sleep(dice.random() / 100)
                else:
                    connection.sendall(whole)
                if kind == "leaving":
                    time.sleep(dice.random() / 20)
                    leave(connection, dice)
                    return kind
                status, got = received(connection)
            if status == 429:
                return "told to come again"
            assert status == 200, f"trial {trial}, client {number}: {got!r}"
            right = server.is_right(sentences, asked, json.loads(got))
            assert right, f"trial {trial}, client {number}: {sentences} {got!r}"
            return kind

        with ThreadPoolExecutor(30) as pool:
            tally.update(pool.map(client, range(30)))
        server.is_well(f"trial {trial}")


def received(connection: socket.socket) -> tuple[int, bytes]:
    """An answer's status and body."""
    with connection.makefile("rb") as stream:
        status = int(stream.readline().split()[1])
        length = 0
        while (line := stream.readline().strip().lower()) != b"":
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        return status, stream.read(length)


def test_for_those_who_left_nothing_is_translated(server: Served) -> None:
    """Nor do they take the places of those who wait."""
    sentences = [" ".join(WORDS * 3)] * 8
    whole = request(json.dumps({"sentences": sentences, "beam": 6}).encode())
    before = translated(server)
    for _ in range(10):
        with contextlib.ExitStack() as stack:
            for _ in range(10):
                stack.enter_context(server.raw()).sendall(whole)
    started = time.monotonic()
    server.until(lambda: server.translate("the cat")[0] == 200)
    server.is_well(f"after {time.monotonic() - started} s")
    assert translated(server) - before < 300  # of 800


def translated(server: Served) -> float:
    """How many sentences have been searched."""
    text = str(server.call("/metrics")[1])
    return float(text.partition("\nrnnmt_batch_sentences_sum ")[2].split()[0])


@pytest.mark.trials(1, 10)
def test_thousands_of_connections(server: Served, trials: range, tally: Counter[str]) -> None:
    """Idle, half a request, or more than it may have files: it goes on when they have gone."""
    process = server.process.pid
    before, limit = server.holds()[0], resource.prlimit(process, resource.RLIMIT_NOFILE)
    for trial in trials:
        count = min(2000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200)
        with contextlib.ExitStack() as stack:
            for number in range(count):
                connection = stack.enter_context(server.raw())
                if number % 2:
                    connection.sendall(request(b"{}")[: number % 150])
            if limit[0] > count + 100:
                server.is_well(f"trial {trial}")
            tally["connections"] += count
        server.until(lambda: server.holds()[0] <= before + 3)
        resource.prlimit(process, resource.RLIMIT_NOFILE, (before + 20, limit[1]))
        with contextlib.ExitStack() as stack:
            for _ in range(100):
                stack.enter_context(server.raw())
            time.sleep(0.1)
            tally["connections beyond what the system allows"] += 80
        resource.prlimit(process, resource.RLIMIT_NOFILE, limit)
        server.until(lambda: server.holds()[0] <= before + 3)
        server.is_well(f"trial {trial}, after too many")
        server.said.clear()  # that there were too many open files, with tracebacks of asyncio


@pytest.mark.trials(1, 100)
def test_it_holds_nothing_back(server: Served, trials: range, tally: Counter[str]) -> None:
    """Rounds of the same 100 requests, sound and unsound: no more memory, no more open files."""

    def round_of_requests() -> None:
        for number in range(80):
            dice = random.Random(number)
            asked = {"sentences": own(number, 1), "alignments": True, "beam": 1}
            whole = request(json.dumps(asked).encode())
            with contextlib.suppress(OSError), server.raw() as connection:
                connection.sendall(awry(dice, whole) if number % 2 else whole)
                leave(connection, dice)
        for number in range(20):
            assert server.translate(*own(number, 2), beam=2, nbest=2)[0] in (200, 429)

    round_of_requests()
    # On a busy machine more wait, and are translated together: that takes more memory once.
    with ThreadPoolExecutor(60) as pool:
        for beam in 1, 2:
            ask = partial(server.translate, beam=beam, nbest=beam, alignments=True)
            list(pool.map(lambda number, ask=ask: ask(*own(number, 2)), range(120)))
    files, memory = server.holds()
    for trial in trials:
        round_of_requests()
        server.until(lambda: server.holds()[0] <= files + 3)
        grown = server.holds()[1] - memory
        assert grown < 25, f"trial {trial}: {grown} MB more"  # a leak would go on
    tally[f"MB more after {100 * len(trials):,} requests"] += server.holds()[1] - memory


# --- other models, and the end ------------------------------------------------------------------


@pytest.mark.trials(1, 25)
def test_reload_and_stop_under_load(
    models: Path,  # noqa: F811
    trials: range,
    tally: Counter[str],
    tmp_path: Path,
) -> None:
    """Models come, go and are broken, then SIGTERM: nobody gets a wrong answer or none."""
    translators = {name: Translator(load_model(models / name)) for name in ("one", "two")}

    @cache
    def expected(name: str, sentence: str) -> Any:
        [found] = translate(translators[name], [sentence], Search(beam=2))
        return json.loads(json.dumps(answer(found, Search(beam=2))))

    for trial in trials:
        dice, folder = random.Random(trial), tmp_path / str(trial) / "model"
        shutil.copytree(models / "one", folder)
        server = Served(folder)
        over = threading.Event()

        def ask(number: int, server: Served = server, over: threading.Event = over) -> None:
            for turn in range(100_000):
                sentences = own((number * 97 + turn) % 50, 1 + turn % 3)
                try:
                    status, got = server.translate(*sentences, beam=2)
                except OSError:
                    assert over.is_set(), "a connection was refused before the end"
                    return
                tally[f"status {status}"] += 1
                assert status in ((200, 429, 503) if over.is_set() else (200, 429)), got
                if status == 200:
                    name = "two" if "two-" in got["model"] else "one"
                    right = [expected(name, sentence) for sentence in sentences]
                    assert same(got["translations"], right), (sentences, got)
                    tally[f"by model {name}"] += 1

        with ThreadPoolExecutor(12) as pool:
            asked = [pool.submit(ask, number) for number in range(12)]
            for _ in range(6):
                change(folder, models, dice)
                looked_at(server, folder)
                assert server.call("/health")[0] == 200
            half = server.raw()  # a client that will never say all must not keep it from ending
            half.sendall(request(b"{}")[: dice.choice([10, 60])])
            over.set()
            server.process.send_signal(signal.SIGTERM)
            if dice.random() < 0.3:
                server.process.send_signal(signal.SIGHUP)
            for future in asked:
                future.result()
        half.close()
        server.ends_well(asked=True)


def looked_at(server: Served, folder: Path) -> None:
    """Let it look at the folder, and wait until it has."""

    def loads() -> float:
        lines = str(server.call("/metrics")[1]).splitlines()
        return sum(float(li.split()[1]) for li in lines if li.startswith("rnnmt_model_loads_total"))

    def done() -> bool:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            name = json.loads((folder / "settings.json").read_text())["fingerprint"][:12]
            if name in server.call("/ready")[1]["model"]:
                return True
        return loads() > before

    before = loads()
    server.process.send_signal(signal.SIGHUP)
    server.until(done)


def change(folder: Path, models: Path, dice: random.Random) -> None:  # noqa: F811
    """Another model in the same place, whole or not."""
    kind = dice.randrange(6)
    if kind == 0:
        shutil.rmtree(folder)
    if kind == 1:
        torch.save({}, folder / "weights.pt") if folder.exists() else None
    if kind == 2 and folder.exists():
        (folder / "settings.json").write_text(dice.choice(["[]", "{", '{"fingerprint": []}', "\0"]))
    if kind == 3 and folder.exists():
        broken = torch.load(models / "two" / "weights.pt", weights_only=True)
        for weight in broken.values():
            weight.fill_(float("nan"))
        shutil.copytree(models / "two", folder, dirs_exist_ok=True)
        torch.save(broken, folder / "weights.pt")
    if kind > 3:
        shutil.copytree(models / dice.choice(["one", "two"]), folder, dirs_exist_ok=True)
