"""Campaign: servers and mirrors that fail in any order, and in between a run that was killed.

In the end the right bytes are there, or a message is and nothing under the file's name.
"""

from __future__ import annotations

import contextlib
import random
import shutil
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from rnnmt.corpora import fetch
from rnnmt.errors import UserError
from test_download import BODY, Answer, Server, remote, serve, server, status

__all__ = ["server"]  # a fixture
OTHER = BODY[::-1]
FILE = Path("work/downloads/folder/file.bin")


def closes(handler: BaseHTTPRequestHandler) -> None:
    """Ends the connection without a word."""
    handler.close_connection = True


def says(text: bytes) -> Answer:
    """Something that is no HTTP, or not all of it."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        with contextlib.suppress(OSError):
            handler.wfile.write(text)
        handler.close_connection = True

    return answer


def wrong_range(dice: random.Random) -> Answer:
    """206 where nobody asked for a part, or another part than was asked for."""
    start, length = dice.randrange(len(BODY)), dice.choice((len(BODY), 5, 10**9))
    header = dice.choice((f"bytes {start}-{length}/{len(BODY)}", f"bytes {start}-/*", "x", ""))
    return status(206, {"Content-Range": header}, BODY[start : start + 1000])


def lies(dice: random.Random) -> Answer:
    """About the length of what comes."""
    stated = dice.choice((0, 1, len(BODY) - 1, len(BODY) + 1, 10**12, -1))
    return status(200, {"Content-Length": str(stated), "ETag": '"1"'}, BODY)


def redirects(dice: random.Random) -> Answer:
    place = dice.choice(("/path/file.bin", "/a b", "http://127.0.0.1:9/x", "ftp://x/y", "//", ""))
    return status(dice.choice((301, 302, 307, 308)), {"Location": place})


FAULTS: tuple[Callable[[random.Random], Answer], ...] = (
    lambda dice: serve(stop=dice.choice((0, 1, 65_536, dice.randrange(len(BODY))))),
    lambda dice: serve(stop=dice.randrange(len(BODY)), ranges=False),
    lambda dice: serve(OTHER, stop=dice.randrange(len(BODY)), etag='"old"'),
    lambda dice: serve(BODY[:-1], etag=dice.choice(('"2"', ""))),
    lambda dice: status(dice.choice((403, 404, 408, 410, 416, 425, 500, 502, 503))),
    lambda dice: status(429, {"Retry-After": dice.choice(("0", "x", "-1", "Mon, 1 Jan 1900"))}),
    lambda _: status(200, {"Content-Type": "text/html"}, b"<html>Sign in"),
    lambda _: closes,
    lambda _: says(b"SSH-2.0-OpenSSH\r\n"),
    lambda _: says(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nab"),
    lambda _: says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    wrong_range,
    lies,
    redirects,
)


def leave(dice: random.Random, address: str) -> None:
    """What a run that was killed, or another program, may have left in the cache."""
    FILE.parent.mkdir(parents=True, exist_ok=True)
    part = FILE.with_name("file.bin.part")
    if dice.random() < 0.5:
        part.write_bytes(dice.choice((BODY, OTHER, BODY + b"x"))[: dice.randrange(len(BODY) + 2)])
    if dice.random() < 0.5:
        texts = (f'{address}/path/file.bin\n"1"', f"{address}/path/file.bin\n", "x", "\n", "")
        part.with_name("file.bin.part.from").write_text(dice.choice(texts))


@pytest.mark.trials(12, 1500)
def test_servers(
    trials: range, tally: Counter[str], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "LONGEST_WAIT", 0.002)
    monkeypatch.setattr(fetch, "TIMEOUT", (5, 5))
    for number in trials:
        dice = random.Random(number)
        shutil.rmtree("work", ignore_errors=True)
        shutil.rmtree("mirror", ignore_errors=True)
        if dice.random() < 0.3:
            leave(dice, server.url)
        monkeypatch.setenv("RNNMT_MIRROR", "mirror" if dice.random() < 0.3 else "")
        if dice.random() < 0.3:
            Path("mirror/folder").mkdir(parents=True)
            Path("mirror/folder/file.bin").write_bytes(dice.choice((BODY[:99], OTHER, b"")))
        server.answers = [dice.choice(FAULTS)(dice) for _ in range(dice.randrange(6))]
        server.answers.append(serve() if dice.random() < 0.8 else dice.choice(FAULTS)(dice))
        try:
            assert fetch.fetch(remote(server)).read_bytes() == BODY
            tally["the right bytes"] += 1
        except UserError as error:
            tally["clear error"] += 1
            message = str(error)
        except BaseException as error:
            raise AssertionError(f"trial {number}: {error!r}") from error
        else:
            continue
        assert not FILE.exists(), number
        assert server.url in message, number
        assert "RNNMT_MIRROR" in message, number
