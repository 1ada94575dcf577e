"""`rnnmt serve` as its clients see it: answers, limits, health, metrics, reload and end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn

from rnnmt import cli
from rnnmt.addresses import LOOPBACK
from rnnmt.dataset.tokenizer import Tokenizer
from rnnmt.errors import UserError
from rnnmt.model.folder import load_model, save_model
from rnnmt.model.seq2seq import Seq2Seq, Vocabularies
from rnnmt.model.settings import ModelSettings
from rnnmt.search.answers import Search, translate
from rnnmt.search.translator import Translator
from rnnmt.serving import batching, service
from rnnmt.serving.batching import Batcher, Model, Stopped
from rnnmt.serving.service import Limits, Server, Service
from rnnmt.serving.sources import source

WORDS = [
    "the", "a", "cat", "dog", "house", "sees", "sleeps", "eats", "big", "small", "red", "green",
    "in", "on", "with", "and", "not", "never", "where",
]  # fmt: skip
MODEL = {
    "cell": "gru", "attention": "general", "embedding": 16, "hidden": 16, "encoder_layers": 1,
    "decoder_layers": 1, "dropout": 0.0, "tie_embeddings": False, "word_dropout": 0.0, "heads": 1,
    "layer_norm": False,
}  # fmt: skip
SENTENCES = [" ".join(WORDS[(i * k + i) % 19] for k in range(2 + i % 9)) for i in range(90)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two untrained models, which translate everything differently."""
    import sentencepiece

    folder = tmp_path_factory.mktemp("models")
    (folder / "text").write_text("\n".join(SENTENCES))
    for side in ("source", "target"):
        sentencepiece.SentencePieceTrainer.train(
            input=str(folder / "text"), model_prefix=str(folder / side), vocab_size=60,
            model_type="bpe", pad_id=0, unk_id=1, bos_id=2, eos_id=3, hard_vocab_limit=False,
            minloglevel=2,
        )  # fmt: skip
    size = Tokenizer(folder / "source.model").vocabulary_size
    for name in ("one", "two"):
        torch.manual_seed(len(name) + ord(name[0]))
        settings = {
            "model": MODEL,
            "vocabularies": {"source": size, "target": size, "joint": False},
            "fingerprint": f"{name}-fingerprint",
        }
        model = Seq2Seq(ModelSettings(**MODEL), Vocabularies(size, size, False))  # type: ignore[arg-type]
        save_model(folder / name, model, settings, folder)
    return folder


class Client:
    """Talks to a service."""

    patience = 60.0  # seconds to an answer

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def call(self, path: str, body: bytes | None = None) -> tuple[int, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=self.patience) as answer:
                text, status = answer.read().decode(), answer.status
        except urllib.error.HTTPError as error:
            text, status = error.read().decode(), error.code
        return status, json.loads(text) if text.startswith("{") else text

    def translate(self, *sentences: str, **asked: Any) -> tuple[int, Any]:
        return self.call("/translate", json.dumps({"sentences": sentences, **asked}).encode())

    def until(self, reached: Callable[[], bool]) -> None:
        end = time.monotonic() + self.patience
        while time.monotonic() < end:
            try:
                if reached():
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise AssertionError("never reached")


class Process(Client):
    """One that runs as a user starts it."""

    patience = 180.0  # a busy machine takes its time to import torch and MLflow

    def __init__(self, model: Path | str, *options: str) -> None:
        super().__init__()
        command = ["-m", "rnnmt.cli", "serve", "--model", str(model), "--port", str(self.port)]
        self.process = subprocess.Popen(
            [sys.executable, *command, "--threads", "1", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            self.until(lambda: self.call("/ready")[0] == 200)
        except AssertionError:
            self.process.kill()
            raise

    def end(self) -> str:
        self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=120)[1]


@contextlib.contextmanager
def within(folder: Path, **limits: Any) -> Iterator[Client]:
    """A service in a thread of this process, which saves its start."""
    client = Client()
    made = Service(source(str(folder), 30), Limits(**limits), ("127.0.0.1",))
    server = Server(made, "127.0.0.1", client.port)
    thread = threading.Thread(target=server.run)
    thread.start()
    client.until(lambda: client.call("/ready")[0] == 200)
    yield client
    server.should_exit = True
    thread.join(60)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def client(models: Path) -> Iterator[Client]:
    limits = {"characters": 200, "sentences": 8, "bytes": 5000, "beam": 6}
    with within(models / "one", **limits) as made:
        yield made


@pytest.fixture(scope="module")
def expected(models: Path) -> dict[str, dict[str, str]]:
    """model -> sentence -> its translation alone."""
    return {
        name: {
            sentence: Translator(load_model(models / name)).beam([sentence], 5, 1, 1.0)[0][0].text
            for sentence in SENTENCES[:40]
        }
        for name in ("one", "two")
    }


def texts(answer: Any) -> list[str]:
    return [one[0]["text"] for one in answer["translations"]]


def test_many_clients_each_get_their_own_translation_in_batches(
    client: Client, expected: dict[str, dict[str, str]]
) -> None:
    asked = [*expected["one"]] * 4
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(client.translate, asked))
    assert {status for status, _ in answers} == {200}
    assert [texts(answer) for _, answer in answers] == [[expected["one"][s]] for s in asked]
    assert "one-fingerpr" in answers[0][1]["model"]
    metrics = client.call("/metrics")[1]
    batches = float(re.search(r"rnnmt_batch_sentences_count (\S+)", metrics)[1])  # type: ignore[index]
    assert float(re.search(r'requests_total{status="200"} (\S+)', metrics)[1]) == len(asked)  # type: ignore[index]
    assert batches < len(asked) / 2
    assert 'rnnmt_model_info{name="' in metrics


def test_a_request_says_how_to_search(client: Client, models: Path) -> None:
    translator = Translator(load_model(models / "one"))
    ours = translator.beam(SENTENCES[:3], 4, 2, 0.5)
    asked = {"beam": 4, "nbest": 2, "length_penalty": 0.5, "alignments": True}
    status, answer = client.translate("", *SENTENCES[:3], **asked)
    assert status == 200
    assert answer["translations"][0] == [{"text": "", "score": 0.0, "log_prob": 0.0}]
    for found, wanted in zip(answer["translations"][1:], ours, strict=True):
        assert [t["text"] for t in found] == [t.text for t in wanted]
        assert found[0]["log_prob"] == pytest.approx(wanted[0].hypothesis.log_prob, abs=1e-4)
        assert len(found[0]["alignment"]) == len(found[0]["target_pieces"])
        assert len(found[0]["alignment"][0]) == len(found[0]["source_pieces"])


def test_few_characters_may_be_too_many_pieces(models: Path) -> None:
    """Memory and time go with these, and a rare character is several."""
    with within(models / "one", pieces=5) as client:
        assert client.translate("a a a a a")[0] == 200
        refused = client.translate("a", "a a a a a a")
        assert refused == (422, {"detail": "a sentence has 6 pieces, at most 5 are taken"})


def test_alignments_of_many_pieces_are_refused(models: Path) -> None:
    with within(models / "one", weights=100) as client:
        asked = {"beam": 2, "nbest": 2, "alignments": True}
        assert client.translate("a a a a a", "a a a a a", **asked)[0] == 200
        told = client.translate("a a a a a", "a a a a a", "a", **asked)
        assert told[0] == 422
        assert "nbest x pieces x pieces are 102 in all, at most 100 are taken" in told[1]["detail"]
        assert client.translate("a a a a a", "a a a a a", "a", beam=2, nbest=2)[0] == 200
        description = client.call("/openapi.json")[1]["components"]["schemas"]["Request"]
        assert "at most 100" in description["properties"]["alignments"]["description"]


def test_an_answer_is_written_beside_the_loop(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may, written = threading.Event(), service.answer

    def late(*asked: Any) -> Any:
        may.wait(60)
        return written(*asked)

    monkeypatch.setattr(service, "answer", late)
    with within(models / "one") as client, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.translate, "the cat", alignments=True)
        time.sleep(0.5)
        try:
            client.patience = 5
            assert client.call("/health")[0] == 200
            assert not asked.done()
        finally:
            may.set()
        assert asked.result()[0] == 200


def test_the_pieces_are_those_of_the_normalised_sentence(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with within(models / "one", pieces=5) as client:
        assert texts(client.translate("\t" * 400, " a \u00a0 a  a\na a ")[1])[0] == ""
        # As if all characters were spelled in bytes.
        monkeypatch.setattr(Tokenizer, "encode", lambda _, s: [[5] * len(t.encode()) for t in s])
        assert client.translate("\u0915")[0] == 200
        refused = client.translate("\ufb2c")  # 3 bytes, which become 6
        assert refused == (422, {"detail": "a sentence has 6 pieces, at most 5 are taken"})


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b'{"sentences": ["a"], "beam": 7}', 422, "beam"),
        (b'{"sentences": ["a"], "beam": 2, "nbest": 3}', 422, "nbest (3) cannot exceed beam (2)"),
        (b'{"sentences": ["a"], "baem": 2}', 422, "baem"),
        (b'{"sentences": ["a"], "length_penalty": NaN}', 422, "finite number"),
        (b'{"sentences": []}', 422, "sentences"),
        (b'{"sentences": ["a", "b", "c", "d", "e", "f", "g", "h", "i"]}', 422, "at most 8"),
        (b'{"sentences": ["' + b"a" * 201 + b'"]}', 422, "at most 200 characters"),
        (b'{"sentences": ["' + b"a" * 6000 + b'"]}', 413, "at most 5000 bytes"),
        (b'{"sentences": "a"}', 422, "list"),
        (b"\xff{", 400, ""),
        (b"nonsense", 422, "JSON"),
    ],
)
def test_what_is_beyond_the_limits_is_refused(
    client: Client, body: bytes, status: int, told: str
) -> None:
    before = counted(client, status)
    found, answer = client.call("/translate", body)
    assert found == status
    assert told in json.dumps(answer)
    assert counted(client, status) == before + 1
    assert client.translate("a")[0] == 200


def counted(client: Client, status: int) -> float:
    """How many requests to translate have been answered so, by Prometheus."""
    metrics = client.call("/metrics")[1]
    found = re.search(rf'rnnmt_requests_total{{status="{status}"}} (\S+)', metrics)
    return float(found[1]) if found else 0


def test_requests_that_are_no_translation_or_of_another_host_are_counted_rightly(
    client: Client,
) -> None:
    def asked(path: str, host: str) -> bytes:
        with socket.create_connection(("127.0.0.1", client.port)) as connection:
            head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\n\r\n"
            connection.sendall(head.encode() + b"{}")
            return connection.recv(12)

    before = [counted(client, status) for status in (400, 404, 405)]
    assert asked("/translate", "evil.example") == b"HTTP/1.1 400"
    assert asked("/other", "127.0.0.1") == b"HTTP/1.1 404"
    assert asked("/ready", "127.0.0.1") == b"HTTP/1.1 405"
    after = [counted(client, status) for status in (400, 404, 405)]
    assert after == [before[0] + 1, *before[1:]]


HALF = (
    b"POST /translate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b"Content-Length: 99\r\n\r\n{"
)


@contextlib.contextmanager
def half(client: Client) -> Iterator[socket.socket]:
    """A request of which the body's rest does not come."""
    address = ("127.0.0.1", client.port)
    with socket.create_connection(address, client.patience) as connection:
        connection.sendall(HALF)
        yield connection


def test_a_body_that_does_not_come_is_408(models: Path) -> None:
    with within(models / "one", seconds=1) as client, half(client) as connection:
        for _ in range(3):
            time.sleep(0.2)  # a trickle does not help
            connection.sendall(b" ")
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert counted(client, 408) == 1
        with half(client):  # one that leaves is no answer
            pass
        assert client.translate("a")[0] == 200
        assert counted(client, 408) == 1


def test_the_time_to_the_answer_starts_with_the_request(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may, beam = threading.Event(), Translator.beam

    def late(*asked: Any) -> Any:
        may.wait(60)
        return beam(*asked)

    body = b'{"sentences": ["the cat"]}'
    with within(models / "one", seconds=4) as client:
        monkeypatch.setattr(Translator, "beam", late)
        started = time.monotonic()
        with half(client) as connection:
            time.sleep(3)
            connection.sendall(body[1:].ljust(98))
            assert connection.recv(1000).startswith(b"HTTP/1.1 504 ")
        assert time.monotonic() - started < 6
        may.set()


def test_no_more_requests_at_once_than_allowed(models: Path) -> None:
    with within(models / "one", requests=2) as client:
        with half(client), half(client):
            client.until(lambda: client.translate("a")[0] == 503)
            assert client.translate("a")[1] == {"detail": "too many requests at once"}
            assert client.call("/health")[0] == client.call("/ready")[0] == 200
        client.until(lambda: client.translate("a")[0] == 200)


def test_no_more_connections_than_allowed(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "CONNECTIONS", 5)
    with within(models / "one") as client:
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                stack.enter_context(socket.create_connection(("127.0.0.1", client.port)))
            client.until(lambda: client.translate("a")[0] == 503)
        client.until(lambda: client.translate("a")[0] == 200)


HEAD = b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.mark.parametrize(
    "sent", [b"", HEAD, HEAD + b"\r\n" + HEAD, HEAD + b"Content-Length: 99\r\n\r\n"]
)
def test_slow_clients_are_hung_up_on(
    models: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """Idle, with half a head, as a second request too, or a body that nobody wants."""
    monkeypatch.setattr(service, "CONNECTIONS", 5)
    with within(models / "one", seconds=3) as client, contextlib.ExitStack() as stack:
        address = ("127.0.0.1", client.port)
        slow = [stack.enter_context(socket.create_connection(address, 10)) for _ in range(5)]
        for connection in slow:
            connection.sendall(sent)
        client.until(lambda: client.call("/health")[0] == 503)
        for _ in range(3):
            time.sleep(0.2)  # a trickle does not help
            with contextlib.suppress(ConnectionError):
                slow[0].sendall(b"a" if sent else b"")
        client.until(lambda: client.call("/health")[0] == 200)
        for connection in slow:
            while connection.recv(1 << 16):
                pass


def test_who_does_not_take_answers_is_hung_up_on(models: Path) -> None:
    with within(models / "one", seconds=1) as client, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", client.port))
        connection.settimeout(10)
        with pytest.raises(ConnectionError):
            connection.sendall((HEAD + b"\r\n") * 500_000)
        assert client.translate("a")[0] == 200


def test_who_is_slow_within_the_limit_is_answered(models: Path) -> None:
    with within(models / "one", seconds=2) as client, socket.socket() as connection:
        connection.connect(("127.0.0.1", client.port))
        connection.settimeout(10)
        for _ in range(3):
            connection.sendall(b"GET /health HTTP/1.1\r\n")
            time.sleep(1)
            connection.sendall(b"Host: 127.0.0.1\r\n\r\n")
            answer = connection.recv(1000)
            while not answer.endswith(b"}"):
                answer += connection.recv(1000)
            assert answer.startswith(b"HTTP/1.1 200 ")


def test_a_models_own_beam_is_limited_too(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    translator = Translator(load_model(models / "one"))
    wide, narrow = (
        [translator.beam([s], beam, 1, 1.0)[0][0].text for s in SENTENCES[:20]] for beam in (5, 2)
    )
    assert wide != narrow
    with within(models / "one", beam=2) as client:
        assert texts(client.translate(*SENTENCES[:20])[1]) == narrow
    assert "one one-fingerpr: its beam of 5 is beyond --max-beam, so 2 is used" in (
        capsys.readouterr().err
    )


def test_a_body_whose_length_is_not_told_is_limited_too(client: Client) -> None:
    with socket.create_connection(("127.0.0.1", client.port)) as connection:
        head = b"POST /translate HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head + b"3e8\r\n" + b"a" * 1000 + b"\r\n")
        connection.sendall((b"fa0\r\n" + b"a" * 4000 + b"\r\n") * 2)
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_its_description_states_the_limits(client: Client) -> None:
    described = client.call("/openapi.json")[1]
    operation = described["paths"]["/translate"]["post"]
    assert {"200", "408", "413", "422", "429", "503", "504"} <= set(operation["responses"])
    fields = described["components"]["schemas"]["Request"]["properties"]
    assert fields["sentences"]["maxItems"] == 8
    assert fields["sentences"]["items"]["maxLength"] == 200
    assert client.call("/health") == (200, {"status": "ok"})


class Slow(Translator):
    """Takes its time, and notes what was searched together."""

    def __init__(self, folder: Path) -> None:
        super().__init__(load_model(folder))
        self.may, self.batches = threading.Event(), list[list[str]]()

    def beam(self, sentences: list[str], beam: int, nbest: int, length_penalty: float) -> Any:
        self.batches.append(sentences)
        self.may.wait(30)
        return super().beam(sentences, beam, nbest, length_penalty)


def test_only_what_agrees_is_searched_together_and_what_is_given_up_never(models: Path) -> None:
    async def run() -> None:
        slow = Slow(models / "one")
        model, other = Model("one", slow, Search()), Model("two", slow, Search())
        batcher = Batcher(4, 100, lambda _: None)

        def ask(sentence: str, model: Model = model, seconds: float = 30, **search: Any) -> Any:
            wanted = Search(**search)
            return asyncio.create_task(batcher.translate([sentence], model, wanted, seconds))

        first = ask("first")
        while not slow.batches:
            await asyncio.sleep(0.01)
        given_up = ask("given up", seconds=0.05)
        kept = [ask(f"a{i}") for i in range(5)] + [ask("beam", beam=2), ask("other", other)]
        with pytest.raises(TimeoutError):
            await given_up
        slow.may.set()
        await asyncio.gather(first, *kept)
        together = [sorted(batch) for batch in slow.batches]
        assert together == [["first"], ["a0", "a1", "a2", "a3"], ["a4"], ["beam"], ["other"]]
        batcher.stop()
        assert not batcher.alive
        with pytest.raises(Stopped):
            await ask("late")

    asyncio.run(run())


def test_who_gives_up_while_more_are_expected_ends_nothing(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "PAUSE", 0.5)
    monkeypatch.setattr(batching, "PATIENCE", 1e6)

    async def run() -> None:
        model = Model("one", Translator(load_model(models / "one")), Search())
        batcher = Batcher(4, 100, lambda _: None)
        assert len(await batcher.translate(["a", "b", "c"], model, Search(), 30)) == 3
        with pytest.raises(TimeoutError):
            await batcher.translate(["given up"], model, Search(), 0.05)
        await asyncio.sleep(0.6)
        assert len(await batcher.translate(["a"], model, Search(), 30)) == 1
        batcher.stop()

    asyncio.run(run())


def test_one_failure_is_that_requests_alone(models: Path) -> None:
    class Broken(Slow):
        def beam(self, *asked: Any) -> Any:
            if asked[0] == ["bad"]:
                raise RuntimeError("broken")
            return Translator.beam(self, *asked)

    async def run() -> None:
        model = Model("one", Broken(models / "one"), Search())
        batcher = Batcher(1, 10, lambda _: None)
        with pytest.raises(RuntimeError, match="broken"):
            await batcher.translate(["bad"], model, Search(), 30)
        assert len(await batcher.translate(["good"], model, Search(), 30)) == 1
        batcher.stop()

    asyncio.run(run())


def test_a_full_queue_and_a_graceful_end(models: Path) -> None:
    """SIGTERM while requests wait: all are answered, those too many with 429."""
    options = "--max-waiting 30 --max-batch 1 --timeout 300"
    client = Process(models / "one", *options.split())
    long = " ".join(WORDS * 4)
    assert client.translate(*["cat"] * 31)[0] == 422  # they could never wait together
    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(client.translate, *[long] * 3) for _ in range(12)]
        client.until(lambda: 'status="429"' in client.call("/metrics")[1])
        assert client.call("/health")[0] == 200  # it answers while it translates
        time.sleep(0.5)
        assert client.end() == ""
        statuses = [future.result()[0] for future in asked]
    assert set(statuses) == {200, 429}
    assert client.process.returncode == 0


def test_half_a_request_does_not_keep_it_from_ending(models: Path) -> None:
    client = Process(models / "one", "--timeout", "300")
    with half(client) as connection:
        time.sleep(0.5)
        assert client.end() == ""
        assert b'{"detail":"the service is stopping"}' in connection.recv(1000)
    assert client.process.returncode == 0


def test_a_late_answer_is_504(models: Path) -> None:
    with within(models / "one", seconds=0.05) as client:
        status, answer = client.translate(*[" ".join(WORDS * 4)] * 30, beam=10)
    assert (status, answer["detail"]) == (504, "not translated within 0.05 seconds")


def test_a_failed_translation_is_500_and_the_next_one_is_not(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with within(models / "one") as client:
        with monkeypatch.context() as broken:
            broken.setattr(Translator, "beam", lambda *_: 1 / 0)
            status, answer = client.translate("the cat")
        assert status == 500
        assert answer["detail"] == "the translation failed; the service's log says why"
        assert 'rnnmt_requests_total{status="500"} 1.0' in client.call("/metrics")[1]
        assert client.translate("the cat")[0] == 200
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_log_on_a_full_disk_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stderr", Full())
    service._say("serving one", Full())
    service._warn("the model stays one")


@pytest.mark.parametrize(
    ("host", "allow", "hosts"),
    [
        ("127.0.0.1", [], [*LOOPBACK]),
        ("::1", [], [*LOOPBACK]),
        ("localhost", ["mt.example"], [*LOOPBACK, "mt.example"]),
        ("127.0.0.2", [], [*LOOPBACK, "127.0.0.2"]),
        ("0:0:0:0:0:0:0:1", [], [*LOOPBACK, "[0:0:0:0:0:0:0:1]"]),
        ("fd00::5", ["mt.example"], [*LOOPBACK, "[fd00::5]", "mt.example"]),
        ("10.0.0.5", [], ["*"]),
    ],
)
def test_which_hosts_may_be_asked_for(host: str, allow: list[str], hosts: list[str]) -> None:
    assert sorted(set(service.allowed_hosts(host, allow))) == sorted(hosts)


def test_before_it_has_a_model_it_says_so(models: Path) -> None:
    may = threading.Event()

    class Late:
        poll_seconds = None

        def load(self, current: str | None) -> Model:  # noqa: ARG002
            may.wait(30)
            return Model("late", Translator(load_model(models / "one")), Search())

    client = Client()
    server = uvicorn.Server(uvicorn.Config(Service(Late(), Limits()).app, port=client.port))
    thread = threading.Thread(target=server.run)
    thread.start()
    client.until(lambda: client.call("/health")[0] == 200)
    assert client.call("/ready")[0] == client.translate("a")[0] == 503
    may.set()
    client.until(lambda: client.call("/ready")[0] == 200)
    assert client.translate("a")[0] == 200
    server.should_exit = True
    thread.join(60)


@contextlib.contextmanager
def asked_all_the_time(
    client: Client, sentences: list[str]
) -> Iterator[list[tuple[str, int, Any]]]:
    """Eight clients that ask one sentence after another, and all that they were answered."""
    answers: list[tuple[str, int, Any]] = []
    over = threading.Event()

    def ask(number: int) -> None:
        for i in range(10_000):
            if over.is_set():
                return
            sentence = sentences[(i * 7 + number) % len(sentences)]
            answers.append((sentence, *client.translate(sentence)))

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, number) for number in range(8)]
        try:
            yield answers
        finally:
            over.set()
        for future in asked:
            future.result()


def test_another_model_is_taken_without_dropping_a_request(
    models: Path, expected: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(models / "one", folder)
    client = Process(folder)
    with asked_all_the_time(client, [*expected["one"]]) as answers:
        client.until(lambda: len(answers) > 20)
        (folder / "weights.pt").write_bytes(b"broken")
        (folder / "settings.json").write_text('{"fingerprint": "broken"}')
        client.process.send_signal(signal.SIGHUP)  # a model that cannot be loaded: none is taken
        client.until(lambda: 'loads_total{outcome="failed"} 1' in client.call("/metrics")[1])
        shutil.copytree(models / "two", folder, dirs_exist_ok=True)
        client.process.send_signal(signal.SIGHUP)
        client.until(lambda: "two-finger" in str(client.call("/ready")[1]))
        seen = len(answers)
        client.until(lambda: len(answers) > seen + 40)
    assert client.end().startswith("rnnmt: warning: the model stays ")
    assert {status for _, status, _ in answers} == {200}
    used = set()
    for sentence, _, answer in answers:
        name = "two" if "two-" in answer["model"] else "one"
        used.add(name)
        assert texts(answer) == [expected[name][sentence]]
    assert used == {"one", "two"}


@pytest.mark.parametrize("command", ["serve", "playground"])
@pytest.mark.parametrize("port", ["99999", "-1", "abc", ""])
def test_a_port_that_cannot_be_is_an_error_of_the_command_line(
    command: str, port: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["rnnmt", command, f"--port={port}"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    expected = f"--port: expected a port from 0 to 65535, found {port!r}"
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-11", "1e7"])
@pytest.mark.parametrize(
    "option",
    [
        "translate --length-penalty", "translate --max-length-ratio", "serve --poll",
        "serve --timeout", "playground --max-length-ratio",
    ],
)  # fmt: skip
def test_numbers_that_cannot_be_are_errors_of_the_command_line(
    option: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", f"rnnmt {option}={value}".split())
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert f"{option.split()[1]}: expected a number from" in capsys.readouterr().err


def test_it_says_why_it_cannot_start(models: Path) -> None:
    def fails(model: str, port: int) -> str:
        command = ["serve", "--model", model, "--port", str(port)]
        done = subprocess.run(
            [sys.executable, "-m", "rnnmt.cli", *command],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        return done.stderr

    assert fails("nowhere", Client().port) == (
        "rnnmt: error: nowhere/settings.json: no such file; is nowhere a model's folder?\n"
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = fails(str(models / "one"), taken.getsockname()[1])
    assert "Traceback" not in said
    assert "is the port in use?" in said
    with pytest.raises(UserError, match="expected models:/NAME@champion"):
        source("models:/champion", 30).load(None)


def test_translate_keeps_the_order_and_changes_nothing(models: Path) -> None:
    translator = Translator(load_model(models / "one"))
    found = translate(translator, ["", *SENTENCES, "  "], Search(), batch=7)
    assert found[0] == found[-1] == []
    alone = [translator.beam([sentence], 5, 1, 1.0)[0][0].text for sentence in SENTENCES]
    assert [one[0].text for one in found[1:-1]] == alone
