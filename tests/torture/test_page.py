"""The playground against questions and clients of every kind, and hostile text in the report."""

from __future__ import annotations

import contextlib
import html.parser
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_service import awry, leave, mutated, spoilt, text

from rnnmt.corpora.clean import normalise
from rnnmt.insight import pictures
from rnnmt.insight.page import inline, marked
from rnnmt.insight.pictures import Picture
from test_serve import models  # noqa: F401  (a fixture)

JSON = {"Content-Type": "application/json"}
ANSWER = {
    "variant", "source", "forced", "greedy", "beam", "tree", "layers", "milliseconds",
}  # fmt: skip


class Playground:
    def __init__(self, folder: Path) -> None:
        command = ["-m", "rnnmt.cli", "playground", "--models", str(folder), "--port", "0"]
        self.process = subprocess.Popen(
            [sys.executable, *command, "--max-length-ratio", "1"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().split()[0].rpartition(":")[2])
        self.said: list[str] = []
        self.listening = threading.Thread(target=self._listen)  # or the pipe would be full
        self.listening.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        self.said.extend(self.process.stderr)

    def send(
        self, body: bytes, headers: dict[str, str], method: str = "POST", path: str = "/api/answer"
    ) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=600)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            found = connection.getresponse()
            return found.status, {k.lower(): v for k, v in found.getheaders()}, found.read()

    def raw(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 600)

    def answer(self, **asked: Any) -> Any:
        body = json.dumps({"variant": "one", "sentence": "the cat", **asked}).encode()
        status, _, got = self.send(body, JSON)
        assert status in (200, 422), got  # too many pieces, of few characters
        found = json.loads(got)
        found.pop("milliseconds", None)
        return found

    def holds(self) -> tuple[int, int]:
        """Its open files, and its memory in MB."""
        folder = Path("/proc", str(self.process.pid))
        pages = int((folder / "statm").read_text().split()[1])
        return len(os.listdir(folder / "fd")), pages * resource.getpagesize() >> 20

    def ends_well(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(600)
        self.listening.join(10)
        assert not [line for line in self.said if not line.startswith("WARNING:")]
        assert self.process.returncode in (0, 130), self.said


@pytest.fixture(scope="module")
def playground(models: Path) -> Iterator[Playground]:  # noqa: F811
    made = Playground(models)
    yield made
    made.ends_well()


@pytest.mark.trials(40, 5_000)
def test_any_question(playground: Playground, trials: range, tally: Counter[str]) -> None:
    """An answer, or a refusal with a reason; never a failure."""
    for trial in trials:
        dice = random.Random(trial)
        asked: Any = {"variant": dice.choice(["one", "two"]), "sentence": text(dice, 90)}
        more = {"prefix": text(dice, 9), "beam": dice.randint(1, 10)}
        more["length_penalty"] = dice.choice([0, 1.0, dice.uniform(0, 10)])
        asked |= dict(dice.sample(list(more.items()), dice.randrange(4)))
        if dice.random() < 0.4:
            asked = mutated(asked, dice)
        sys.set_int_max_str_digits(0)
        body = json.dumps(asked, ensure_ascii=dice.random() < 0.7).encode(errors="surrogatepass")
        if dice.random() < 0.2:
            body = spoilt(body, dice)
        headers = dict(JSON)
        if dice.random() < 0.1:
            kinds = ("text/plain", "multipart/form-data", "", "application/json2", "\xff")
            headers["Content-Type"] = dice.choice(kinds)
        told = f"trial {trial}: {headers} {body[:2000]!r}"
        status, got_headers, got = playground.send(body, headers)
        assert status in (200, 404, 413, 415, 422), f"{told} -> {status} {got!r}"
        assert headers == JSON or status == 415, told
        assert "access-control-allow-origin" not in got_headers, told
        assert got_headers["x-content-type-options"] == "nosniff", told
        assert got_headers["content-type"] == "application/json", told
        found = json.loads(got)
        assert status != 200 or found.keys() == ANSWER, told
        assert status == 200 or found["error"], told
        tally[f"status {status}"] += 1


@pytest.mark.trials(40, 4_000)
def test_any_host_and_path(playground: Playground, trials: range, tally: Counter[str]) -> None:
    """Another name for this machine is refused everywhere, and no other file is served."""
    page = {f"/page/{file.name}": file.read_bytes() for file in pages().iterdir()}
    pieces = [
        "page", "..", "%2e%2e", "%2f", "//", "etc", "passwd", "server.py", "\\", "%5c", "%00", ".",
        "main.js", "index.html", "%252e", "~", "api", "variants", "%ff", "a" * 300,
    ]  # fmt: skip
    ours = ["127.0.0.1", "localhost", "[::1]", "LOCALHOST:9"]
    others = [
        "evil.example", "localhost.evil.example", "127.0.0.1@evil", "", "[::1", "0.0.0.0", "127.1",
        "2130706433", "localhost.", "127.0.0.1:80:80", "localhost evil",
    ]  # fmt: skip
    more = [
        ("Origin", "http://evil"), ("Range", "bytes=1-2,9-"), ("X-Forwarded-Host", "localhost"),
        ("If-None-Match", "*"),
    ]  # fmt: skip
    for trial in trials:
        dice = random.Random(trial)
        path = dice.choice([*page, "/", "/api/variants", "/api/answer"])
        if dice.random() < 0.6:
            start = dice.choice(["/", "/page/", "/page"])
            path = start + dice.choice(["/", ""]).join(dice.choices(pieces, k=dice.randint(1, 6)))
        host = dice.choice(ours if dice.random() < 0.6 else others)
        headers = {"Host": host, **dict(dice.sample(more, 1))}
        method = dice.choice(["GET", "GET", "HEAD", "POST", "OPTIONS", "DELETE"])
        told = f"trial {trial}: {method} {path} {headers}"
        status, got_headers, got = playground.send(b"", headers, method, path)
        assert status < 500, told
        assert host in ours or status == 400, told
        assert "access-control-allow-origin" not in got_headers, told
        if status == 200 and method == "GET" and path not in ("/", "/api/variants"):
            assert got in page.values(), told
        if status in (200, 404):
            assert "default-src 'none'" in got_headers["content-security-policy"], told
        tally[f"status {status}"] += 1


def pages() -> Path:
    from rnnmt.playground import server

    return server.PAGE


@pytest.mark.trials(60, 4_000)
def test_what_is_no_question(playground: Playground, trials: range, tally: Counter[str]) -> None:
    """Broken HTTP and clients that leave: no failure, no memory, no open files."""
    expected = playground.answer()
    assert "error" not in expected
    files, memory = playground.holds()
    for trial in trials:
        dice = random.Random(trial)
        body = json.dumps({"variant": "one", "sentence": text(dice, 50)}).encode()
        content = awry(dice, body).replace(b"/translate", b"/api/answer", 1)
        size = dice.choice([100, 1000, len(content) + 1])
        with contextlib.suppress(OSError), playground.raw() as connection:
            for start in range(0, len(content), size):
                connection.sendall(content[start : start + size])
            leave(connection, dice)
        tally["clients"] += 1
        if trial % 20 == 19:
            assert playground.answer() == expected, f"trial {trial}: {content[:500]!r}"
    assert playground.holds()[0] <= files + 5
    assert playground.holds()[1] <= memory + 40


@pytest.mark.trials(1, 30)
def test_everyone_gets_their_own(
    playground: Playground, trials: range, tally: Counter[str]
) -> None:
    for trial in trials:
        dice = random.Random(trial)
        asked = [
            {"variant": dice.choice(["one", "two"]), "sentence": normalise(text(dice, 30)) or "a"}
            for _ in range(12)
        ]
        asked = [one for one in asked if not any("\ud800" <= c < "\ue000" for c in one["sentence"])]
        alone = [playground.answer(**one) for one in asked]
        assert any("error" not in one for one in alone), alone
        with ThreadPoolExecutor(24) as pool:
            together = list(pool.map(lambda one: playground.answer(**one), asked * 2))
        assert together == alone * 2, f"trial {trial}: {asked}"
        tally["answers"] += 3 * len(asked)


# --- the report ---------------------------------------------------------------------------------

HOSTILE = (
    "<script>alert(1)</script>", "</script>", "<!--", "-->", "]]>", "{{7*7}}", "{% raw %}", "&lt;",
    "<img src=x onerror=alert(1)>", "\"'>", "javascript:x", "$x_1$", "\\frac{", "\\$", "$", "_",
    "^", "</svg><script>", "<svg/onload=x>", 'id="x"', "url(#x)", "%s", "\u202e", "▁", "</mark>",
    "a", "le",
)  # fmt: skip


class Tags(html.parser.HTMLParser):
    """The tags of a text, their attributes, and what remains."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.text = set[str](), set[str](), ""
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.filterwarnings("ignore:constrained_layout not applied")  # pieces of any length
@pytest.mark.trials(2, 150)
def test_hostile_text_in_the_report(trials: range, tally: Counter[str]) -> None:
    for trial in trials:
        dice = random.Random(trial)
        for _ in range(30):
            line, wanted = (normalise(" ".join(dice.choices(HOSTILE, k=6))) for _ in range(2))
            found = Tags(str(marked(line, wanted)))
            told = f"trial {trial}: {line!r} {wanted!r}"
            assert found.tags <= {"mark"}, told
            assert found.attributes <= {"class", "title"}, told
            assert found.text.replace("∅", "").split() == line.replace("∅", "").split(), told
            tally["sentences"] += 1
        pieces = dice.choices(HOSTILE, k=5)
        values = np.random.default_rng(trial).random((5, 5))
        gates = {"mean": {"reset": values[0]}, "cells": {"reset": values}}
        with pictures.style():
            figures = [
                pictures.attention_of([("lstm", pieces, pieces[::-1], values)]),
                pictures.gates_of(pieces, [("gru", gates)]),
                pictures.cells_of(pieces, [("gru", gates)], {"gru": "reset"}),
            ]
            for number, figure in enumerate(figures):
                picture = Picture(f"a-{number}.svg", pieces[0], pieces[1], pictures.to_svg(figure))
                found = Tags(str(inline(picture)))
                told = f"trial {trial}: {pieces}"
                assert not found.tags & {"script", "img", "iframe", "foreignobject", "a"}, told
                assert not [name for name in found.attributes if name.startswith("on")], told
                for piece in pieces:
                    if '"' not in piece and "#" not in piece:
                        assert pictures.shown([piece])[0].replace("\\$", "$") in found.text, told
                tally["pictures"] += 1


def test_the_template_escapes_everything() -> None:
    """What is put into the page unescaped is made by `marked` and `inline` alone."""
    source = Path(pictures.__file__).parent
    template = (source / "templates/index.html.j2").read_text()
    assert "safe" not in template.replace("unsafe", "")
    assert "autoescape false" not in template
    scripts = template[template.index("<script>") :]
    assert "{{" not in scripts
    assert "innerHTML" not in scripts


def test_a_translation_without_end_is_shown_as_it_is() -> None:
    """To compare it word by word would take minutes."""
    line = "le la " * 20_000 + "<b>"
    assert str(marked(line, "la le " * 20_000)) == line.replace("<b>", "&lt;b&gt;")
    assert "<mark>" in marked("le " * 200, "la " * 200)
