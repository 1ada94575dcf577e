"""Bad networks: random sequences of faults of a server and a mirror, and the fetching of a file.

What is fetched is right to the byte or there is a message; nothing wrong keeps the final name;
and when faults that pass have passed, the file is there.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import shutil
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from rnnmt.corpora import fetch
from rnnmt.errors import UserError
from test_download import Server, server

__all__ = ["server"]  # the fixture
LONGEST = 60.0  # seconds for all that one file may take, with what `quick` sets
FOLDER = Path("work/downloads/folder")
NAME = "file.bin"


Fault = Callable[[BaseHTTPRequestHandler, "World"], None]


@dataclass
class World:
    """What the server of one trial has: the file, and another one that it may give instead."""

    dice: random.Random
    file: bytes
    other: bytes
    tag: dict[str, str]  # the headers by which the file is told from another
    plan: list[Fault] = field(default_factory=list)  # what is answered, one after the other


def headers(handler: BaseHTTPRequestHandler, status: int, **named: str) -> None:
    handler.send_response_only(status)
    for key, value in named.items():
        handler.send_header(key.replace("_", "-"), value)
    handler.end_headers()


def give(
    handler: BaseHTTPRequestHandler,
    world: World,
    *,
    body: bytes | None = None,
    stop: int | None = None,
    pause: float = 0.0,
    piece: int = 1 << 20,
    ranges: bool = True,
    **named: str,
) -> None:
    """The file as a good server gives it, but for what is asked to be different."""
    content = world.file if body is None else body
    asked = handler.headers.get("Range") if ranges else None
    known = handler.headers.get("If-Range", "") in ("", *world.tag.values())
    start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and known else 0
    if asked and known and start >= len(content):
        headers(handler, 416, Content_Range=f"bytes */{len(content)}")
        return
    standard = {"Content_Length": str(len(content) - start), **world.tag}
    if start:
        standard["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
    headers(handler, 206 if start else 200, **standard | named)
    sent = content[start:][:stop]
    for at in range(0, len(sent), piece):
        handler.wfile.write(sent[at : at + piece])
        time.sleep(pause)


# ---------------------------------------------------------------- what may go wrong


def late(handler: BaseHTTPRequestHandler, world: World) -> None:
    time.sleep(0.1)
    give(handler, world)


def slow(handler: BaseHTTPRequestHandler, world: World) -> None:
    give(handler, world, piece=len(world.file) // 5 + 1, pause=0.03)


def drip(handler: BaseHTTPRequestHandler, world: World) -> None:
    give(handler, world, piece=1, pause=0.02)


def break_off(handler: BaseHTTPRequestHandler, world: World) -> None:
    give(handler, world, stop=world.dice.randrange(len(world.file) + 1))


def stall(handler: BaseHTTPRequestHandler, world: World) -> None:
    give(handler, world, stop=world.dice.randrange(len(world.file) + 1))
    time.sleep(3)


def reset(handler: BaseHTTPRequestHandler, world: World) -> None:
    give(handler, world, stop=world.dice.randrange(len(world.file) + 1))
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def close(handler: BaseHTTPRequestHandler, world: World) -> None:
    del handler, world


def busy(handler: BaseHTTPRequestHandler, world: World) -> None:
    after = ["0", "0.5", "1", "", "-3", "9" * 400, "soon", "Thu, 01 Jan 1970 00:00:00 GMT", "²"]
    status = world.dice.choice([408, 425, 429, 429, 500, 502, 503, 504, 599])
    headers(handler, status, Retry_After=world.dice.choice(after), Content_Length="0")


def no_ranges(handler: BaseHTTPRequestHandler, world: World) -> None:
    give(handler, world, ranges=False)


def chunked(handler: BaseHTTPRequestHandler, world: World) -> None:
    headers(handler, 200, Transfer_Encoding="chunked", **world.tag)
    for at in range(0, len(world.file), 9000):
        piece = world.file[at : at + 9000]
        handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
    handler.wfile.write(b"0\r\n\r\n")


def chunked_in_part(handler: BaseHTTPRequestHandler, world: World) -> None:
    headers(handler, 200, Transfer_Encoding="chunked", **world.tag)
    piece = world.file[: world.dice.randrange(len(world.file) + 1)]
    ends = [(5, b""), (0, b"\r\n"), (0, b"\r\nxyz\r\n"), (0, b"\r\n-5\r\n")]
    missing, end = world.dice.choice(ends if piece else ends[:1])  # a piece of nothing is the end
    handler.wfile.write(f"{len(piece) + missing:x}\r\n".encode() + piece + end)


def refused_range(handler: BaseHTTPRequestHandler, world: World) -> None:
    if "Range" in handler.headers:
        headers(handler, 416, Content_Range=f"bytes */{len(world.file)}", Content_Length="0")
    else:
        give(handler, world)


def moved(handler: BaseHTTPRequestHandler, world: World) -> None:
    if world.dice.random() < 0.7:
        target = world.dice.choice(["/path/other", "other?a=b", "//" + handler.headers["Host"], ""])
        headers(handler, world.dice.choice([301, 302, 303, 307, 308]), Location=target)
        world.plan.insert(0, moved)
    else:
        give(handler, world)


def part_of_range(handler: BaseHTTPRequestHandler, world: World) -> None:
    """Less than was asked for, rightly named."""
    asked, size = handler.headers.get("Range"), len(world.file)
    start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
    if start + 2 > size or not asked:
        give(handler, world)
        return
    end = world.dice.randrange(start + 1, size)
    length, total = str(end - start), world.dice.choice([str(size), "*"])
    headers(
        handler, 206, Content_Length=length, Content_Range=f"bytes {start}-{end - 1}/{total}",
        **world.tag,
    )  # fmt: skip
    handler.wfile.write(world.file[start:end])


# A client that tries again, often enough, gets the file.
PASSING: list[Fault] = [
    late, slow, drip, break_off, break_off, stall, reset, close, busy, busy, no_ranges, chunked,
    chunked_in_part, refused_range, moved, part_of_range,
]  # fmt: skip


def other_version(handler: BaseHTTPRequestHandler, world: World) -> None:
    """The file was replaced: other bytes, another tag; from now on, or for this once."""
    tag = dict.fromkeys(world.tag, '"other"')
    body, stop = world.other, world.dice.choice([None, len(world.other) // 2])
    give(handler, World(world.dice, body, body, tag), stop=stop)


def final_status(handler: BaseHTTPRequestHandler, world: World) -> None:
    headers(handler, world.dice.choice([204, 300, 304, 400, 401, 403, 404, 410, 418, 999]))


def web_page(handler: BaseHTTPRequestHandler, world: World) -> None:
    types = ["text/html", "text/html; charset=utf-8", "Text/HTML", "application/octet-stream"]
    starts = [b"<!DOCTYPE html>", b"\n\n <HTML lang=en>", b"\xef\xbb\xbf<!doctype html>"]
    page = world.dice.choice(starts) + b"<p>Sign in</p>" * 99
    kind = world.dice.choice(types)
    headers(handler, 200, Content_Type=kind, Content_Length=str(len(page)), **world.tag)
    handler.wfile.write(page)


def nowhere(handler: BaseHTTPRequestHandler, world: World) -> None:
    """Redirections that lead nowhere."""
    targets = [
        handler.path, "file:///etc/passwd", "http://[::1", "http://", "ftp://127.0.0.1/x",
        "http:/x", "http://127.0.0.1:9/x", "http://127.0.0.1:99999/", "http://.a/",
        f"http://{'a' * 99}/", "\x7f\x80", "javascript:1", "http://user:pass@127.0.0.1:9/%zz%00",
    ]  # fmt: skip
    world.plan.insert(0, nowhere)  # where it does lead back
    headers(handler, 302, Location=world.dice.choice(targets), Content_Length="0")


def rubbish(handler: BaseHTTPRequestHandler, world: World) -> None:
    good = b"HTTP/1.1 200 OK\r\n"
    lines = [
        b"", b"\0" * 999, b"HTTP/1.1\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"SSH-2.0-x\r\n",
        b"\r\n" * 9, b"HTTP/9.9 -1 \r\n\r\n", b"HTTP/1.1 20", good + b"a: b\r\n" * 300 + b"\r\n",
        good + b": \r\n\r\n", good + b"x: " + b"y" * 99_999 + b"\r\n\r\n",
        good + b"ETag: a\r\n b\r\nContent-Length: 5\r\n\r\n123",
        good + b'ETag: "\xe9\xff"\r\nContent-Length: 5\r\n\r\n123',
    ]  # fmt: skip
    handler.wfile.write(world.dice.choice(lines))


# The right file is in sight, but a client that is told so must not take what came.
FINAL: list[Fault] = [other_version, final_status, web_page, nowhere, rubbish]


def wrong_length(handler: BaseHTTPRequestHandler, world: World) -> None:
    size = len(world.file)
    lengths = ["0", str(size - 1), str(size // 2), str(size + 1), "x", "-1", "9" * 5000, "5, 6"]
    give(handler, world, Content_Length=world.dice.choice(lengths))


def wrong_range(handler: BaseHTTPRequestHandler, world: World) -> None:
    """206, also where no range was asked for, with a range or with bytes that are not so."""
    size, start = len(world.file), world.dice.randrange(len(world.file) + 1)
    ranges = [
        f"bytes {start}-{size - 1}/{size}", f"bytes 0-{size - 1}/{size + 5}", "bytes */5", "x", "",
        handler.headers.get("Range", "").replace("=", " ") + f"{size - 1}/{size}",
    ]  # fmt: skip
    body = world.dice.choice([world.file[start:], world.file, world.other, world.file * 2, b""])
    named = {"Content_Length": str(len(body)), "Content_Range": world.dice.choice(ranges)}
    headers(handler, 206, **world.tag, **named)
    handler.wfile.write(body)


def other_file(handler: BaseHTTPRequestHandler, world: World) -> None:
    """As if it were the file."""
    body = world.dice.choice(
        [world.other, world.file[1:], world.file + b"x", world.file[::-1], b""]
    )
    give(handler, world, body=body)


def endless(handler: BaseHTTPRequestHandler, world: World) -> None:
    """More and more, with a length or without; as the file, or as the text of a redirection."""
    named = world.dice.choice([{}, {"Content_Length": "9" * 15}, {"Location": "/again"}])
    headers(handler, 302 if "Location" in named else 200, **named)
    while True:
        handler.wfile.write(world.other + bytes(1 << 16))


# Without a sum to check, nobody could tell; with it, all of these are found out.
LIES: list[Fault] = [wrong_length, wrong_range, other_file, endless]


# ---------------------------------------------------------------- trials


class Trial:
    """What happens in one trial."""

    def __init__(self, dice: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.pinned = dice.random() < 0.6  # whether size and sum are known
        self.good = dice.random() < 0.8  # whether the faults come to an end
        pools = [PASSING, PASSING + FINAL, PASSING + FINAL + LIES * self.pinned]
        self.plan = dice.choices(dice.choice(pools), k=dice.choice([1, 2, 3, 4, 8]))
        before = ["nothing", "nothing", "begun", "other", "elsewhere", "mess", "long", "file"]
        self.left = dice.choice(before[: None if self.pinned else -1])
        mirrors = ["url", "right", "half", "wrong", "folder", "gone", "broken"]
        self.mirror = dice.choice(mirrors + ["none"] * len(mirrors))

    def __str__(self) -> str:
        faults = " ".join(fault.__name__ for fault in self.plan)
        return (
            f"{faults}, pinned={self.pinned}, {self.good=}, {self.left} left, mirror {self.mirror},"
        )


def make_world(dice: random.Random) -> World:
    size = dice.choice([0, 1, 1000, 70_000, 70_000, 300_000])
    tags = [
        {"ETag": '"1"'}, {"ETag": '"1"'}, {}, {"ETag": 'W/"1"'},
        {"Last_Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}, {"ETag": '"é \t"'},
    ]  # fmt: skip
    return World(dice, dice.randbytes(size), dice.randbytes(size), dice.choice(tags))


def leave_something(trial: Trial, world: World, url: str) -> None:
    """What runs before this one, killed, may have left."""
    FOLDER.mkdir(parents=True)
    part, source = FOLDER / f"{NAME}.part", FOLDER / f"{NAME}.part.from"
    tag = next(iter(world.tag.values()), "")
    half = world.file[: len(world.file) // 2]
    mark, other = (hashlib.sha256(of.encode()).hexdigest() for of in (url, f"{url}/other"))
    match trial.left:
        case "begun":
            part.write_bytes(half)
            source.write_text(f"{mark}\n{tag}", encoding="utf-8")
        case "other":  # in the folder of an earlier version
            part.write_bytes(world.other[: len(half)])
            source.write_text(f'{mark}\n"earlier"', encoding="utf-8")
        case "elsewhere":
            part.write_bytes(world.other)
            source.write_text(f"{other}\n{tag}", encoding="utf-8")
        case "mess":
            part.write_bytes(b"mess")
            source.write_bytes(b"\xff\n\0\r")
        case "long":
            part.write_bytes(world.file + b"more")
            source.write_text(f"{mark}\n", encoding="utf-8")
        case "file":  # damaged since
            (FOLDER / NAME).write_bytes(world.file[:-1] + b"\n.")


def set_mirror(trial: Trial, world: World, base: str) -> None:
    """RNNMT_MIRROR, a folder or the same server."""
    path = Path("mirror/folder") / NAME
    mirror, half = trial.mirror, world.file[: len(world.file) // 2]
    addresses = {"none": "", "url": f"{base}/mirror"}
    trial.monkeypatch.setenv("RNNMT_MIRROR", addresses.get(mirror, "mirror"))
    path.parent.mkdir(parents=True)
    if mirror == "folder":
        path.mkdir()
    elif mirror in ("right", "half", "wrong", "broken"):
        path.write_bytes({"half": half, "right": world.file}.get(mirror, world.other))
    if mirror == "broken":  # while it is copied

        def copy(_: Path, to: Path) -> None:
            to.write_bytes(world.other[: len(half)])
            raise OSError(28, "No space left on device", str(to))

        trial.monkeypatch.setattr(shutil, "copyfile", copy)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is waited for is short, all that counts as progress small."""
    monkeypatch.setattr(fetch, "BACKOFF", 0.001)
    monkeypatch.setattr(fetch, "LONGEST_WAIT", 0.02)
    monkeypatch.setattr(fetch, "TIMEOUT", (5, 1.0))
    monkeypatch.setattr(fetch, "CRAWL", 100)
    monkeypatch.setattr(fetch, "PROGRESS", 10_000)


def check_fetch(server: Server, world: World, remote: fetch.Remote, trial: Trial) -> str:
    """Fetch it, and fetch it again from a good server; returns what came of the first time."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        then = give if trial.good else world.dice.choice(trial.plan)
        with contextlib.suppress(OSError):
            (world.plan.pop(0) if world.plan else then)(handler, world)

    server.answers, world.plan = [answer], list(trial.plan)
    allowed = [world.file]
    if not trial.pinned:  # it cannot know
        allowed += [world.other] * (other_version in trial.plan) + [b""] * (rubbish in trial.plan)
        allowed += [world.other] * (trial.mirror == "wrong")
        allowed += [world.file[: len(world.file) // 2]] * (trial.mirror == "half")
    passes = trial.good and set(trial.plan) <= set(PASSING) and len(trial.plan) < fetch.ATTEMPTS
    began, outcome = time.monotonic(), "fetched"
    try:
        found = fetch.fetch(remote).read_bytes()
    except UserError as error:
        outcome = "clear error"
        said = str(error)
        assert not passes, f"given up: {said}"
        assert NAME in said
        assert remote.url in said
        assert not (FOLDER / NAME).exists() or trial.left == "file"
    except OSError:  # which the stage reports
        outcome = "full disk"
        assert trial.mirror == "broken"
        assert not (FOLDER / NAME).exists() or trial.left == "file"
    else:
        assert found in allowed, f"wrong: {len(found)} bytes, {found[:50]!r}"
        allowed = [found]
    assert time.monotonic() - began < LONGEST
    trial.monkeypatch.delenv("RNNMT_MIRROR", raising=False)
    world.plan, trial.good = [], True
    assert fetch.fetch(remote).read_bytes() in allowed, "wrong afterwards"
    assert [file.name for file in FOLDER.iterdir()] == [NAME]
    return outcome


def run_trial(
    number: int,
    dice: random.Random,
    server: Server,
    tally: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, trial = make_world(dice), Trial(dice, monkeypatch)
    sums = {"size": len(world.file), "sha256": hashlib.sha256(world.file).hexdigest()}
    pins: dict[str, Any] = sums if trial.pinned else {}
    remote = fetch.Remote("folder", f"{server.url}/path/{NAME}", **pins)
    leave_something(trial, world, remote.url)
    set_mirror(trial, world, server.url)
    try:
        tally[check_fetch(server, world, remote, trial)] += 1
    except Exception as error:
        what = f"{trial} {len(world.file)} {world.tag}"
        raise AssertionError(f"trial {number}: {what}") from error


@pytest.mark.usefixtures("quick")
@pytest.mark.trials(25, 3000)
def test_any_sequence_of_faults(
    trials: range, tally: Counter[str], server: Server, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for number in trials:
        dice = random.Random(number)
        folder = tmp_path / str(number)
        folder.mkdir()
        with monkeypatch.context() as patches:
            patches.chdir(folder)
            run_trial(number, dice, server, tally, patches)
        shutil.rmtree(folder)
