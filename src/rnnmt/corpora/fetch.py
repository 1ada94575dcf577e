"""Files from the network or a mirror: fetched once, checked, and never half there."""

from __future__ import annotations

import contextlib
import email.utils
import fcntl
import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote, urljoin, urlsplit

import requests
import urllib3

from rnnmt.addresses import shown
from rnnmt.corpora.files import digest
from rnnmt.errors import UserError

CACHE = Path("work/downloads")  # git-ignored
TIMEOUT = (15, 60)  # seconds to connect, and between two pieces of an answer
CRAWL = 60_000  # bytes in every TIMEOUT[1] seconds: a server that sends fewer has stalled
ATTEMPTS = 5  # in a row without progress
PROGRESS = 1_000_000  # bytes: with less, a server that always breaks off would take days
BACKOFF = 1.0  # seconds before the second attempt, twice as many before each further one
LONGEST_WAIT = 60.0  # seconds, whatever a server asks for
REDIRECTIONS = 20  # of one file
PIECE = 1 << 16


@dataclass(frozen=True)
class Remote:
    """A file of the network and how to know that it is the right one."""

    folder: str  # in a mirror and in the cache
    url: str
    size: int | None = None
    sha256: str | None = None
    filename: str | None = None  # in a mirror and in the cache; as in the URL where not given
    advice: str = ""  # what to do when the publisher has another file now

    @property
    def name(self) -> str:
        return self.filename or unquote(Path(urlsplit(self.url).path).name)


class _UnavailableError(Exception):
    """This origin does not have the file."""


class _InterruptedError(Exception):
    """It may work the next time, `after` so many seconds if the server said so."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


def fetch(remote: Remote) -> Path:
    """The path of the file in the cache, after fetching it if it is not there yet.

    The mirror that RNNMT_MIRROR names, a folder or a URL, is asked first. Raises UserError
    that says what each origin answered and what to do.
    """
    file = CACHE / remote.folder / remote.name
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{file.parent}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be fetching it
        if not (file.is_file() and remote.sha256 in (None, digest(file))):
            _fetch(remote, file)
    return file


def _fetch(remote: Remote, file: Path) -> None:
    part = file.with_name(file.name + ".part")
    problems: list[str] = []
    for origin in _origins(remote):
        named = shown(str(origin))  # a mirror's address may hold a password
        if problems:
            print(f"rnnmt: {problems[-1]}; trying {named}", file=sys.stderr, flush=True)
        try:
            _obtain(origin, part, remote)
        except _UnavailableError as problem:
            problems.append(shown(str(problem)))
            continue
        os.replace(part, file)
        _source_of(part).unlink(missing_ok=True)
        print(f"fetched {remote.folder}/{remote.name} from {named}", flush=True)
        return
    advice = remote.advice or "Check the connection, or set RNNMT_MIRROR to a folder or URL that"
    has = f" has it as {remote.folder}/{remote.name}, or put it at {file} yourself."
    raise UserError("\n  ".join([f"cannot get {remote.name}:", *problems, advice + has]))


def _origins(remote: Remote) -> Iterator[Path | str]:
    mirror = os.environ.get("RNNMT_MIRROR", "")
    if "://" in mirror:
        yield f"{mirror.rstrip('/')}/{remote.folder}/{quote(remote.name)}"
    elif mirror:
        # Unlike Path.expanduser, it leaves a user that there is not as it is.
        yield Path(os.path.expanduser(mirror)) / remote.folder / remote.name
    yield remote.url


def _obtain(origin: Path | str, part: Path, remote: Remote) -> None:
    if isinstance(origin, str):
        _download(origin, part, remote)
        return
    if not origin.is_file():
        raise _UnavailableError(f"{origin}: no such file")
    try:
        origin.open("rb").close()
    except OSError as error:
        raise _UnavailableError(f"{origin}: {error.strerror}") from None
    _discard(part)  # or what is copied, if only in part, would be continued as of the URL
    shutil.copyfile(origin, part)
    _check(part, remote, origin)


def _check(part: Path, remote: Remote, origin: Path | str) -> None:
    """Remove the file and raise _UnavailableError if it is not the right one."""
    with part.open("rb") as stream:
        start = stream.read(200).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    size = part.stat().st_size
    if start.startswith((b"<!doctype html", b"<html")):
        problem = "a web page came instead of the file"
    elif remote.size not in (None, size):
        problem = f"the file has {size:,} bytes, expected {remote.size:,}"
    elif remote.sha256 and (found := digest(part)) != remote.sha256:
        problem = f"the file has SHA-256 {found}, expected {remote.sha256}"
    else:
        return
    _discard(part)
    raise _UnavailableError(f"{origin}: {problem}")


def _download(url: str, part: Path, remote: Remote) -> None:
    """Fetch `url` to `part`, checked, in as many attempts as it takes while there is progress."""
    failures, most = 0, _size(part)
    while True:
        try:
            _attempt(url, part, remote)
            return
        except _InterruptedError as problem:
            size = _size(part)
            failures, most = (1, size) if size >= most + PROGRESS else (failures + 1, most)
            if failures >= ATTEMPTS:
                raise _UnavailableError(f"{url}: {problem} ({failures} attempts)") from None
            wait = BACKOFF * 2 ** (failures - 1) if problem.after is None else problem.after
            wait = min(wait, LONGEST_WAIT)
            told = shown(f"{url}: {problem}")
            print(f"rnnmt: {told}; again in {wait:.0f} s", file=sys.stderr, flush=True)
            time.sleep(wait)


def _attempt(url: str, part: Path, remote: Remote) -> None:
    start, validator = _resumable(url, part, remote)
    if start < (remote.size or sys.maxsize):
        try:
            start = _receive(url, part, remote, start, validator)
        except (ValueError, requests.TooManyRedirects) as error:  # what requests says of bad URLs
            raise _UnavailableError(f"{url}: {error}") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise _InterruptedError(_brief(error)) from None
    try:
        _check(part, remote, url)
    except _UnavailableError as problem:
        if start:  # the first half may have been of another file
            raise _InterruptedError(f"{problem} after a resumed download") from None
        raise


def _resumable(url: str, part: Path, remote: Remote) -> tuple[int, str]:
    """How many bytes of `url` are there already, and what tells whether it has changed since."""
    try:
        origin, _, validator = _source_of(part).read_text(encoding="utf-8").partition("\n")
    except (FileNotFoundError, UnicodeDecodeError):
        origin, validator = "", ""
    size = _size(part)
    known = origin == _mark(url) and (validator or remote.sha256)
    if not known or size > (remote.size or sys.maxsize):
        _discard(part)
        return 0, ""
    return size, validator


def _mark(url: str) -> str:
    """By which an address is known again; it may hold a password, which is not to be on disk."""
    return hashlib.sha256(url.encode()).hexdigest()


def _receive(url: str, part: Path, remote: Remote, start: int, validator: str) -> int:
    """One request. Returns how many bytes were there before: 0 where it began anew."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "rnnmt"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator:
            headers["If-Range"] = validator
    with _get(url, headers, remote) as response:
        _judge(response, url, part)
        total = _length(response, part, remote, start, validator)
        if remote.size is not None and total not in (None, remote.size):
            _discard(part)
            raise _UnavailableError(
                f"{url}: the file has {total:,} bytes, expected {remote.size:,}"
            )
        if response.status_code != 206:
            start, validator = 0, ""
            _discard(part)
        validator = _validator(response) or validator
        _source_of(part).write_text(f"{_mark(url)}\n{validator}", encoding="utf-8")
        expected = remote.size if total is None else total
        if expected is None and not remote.sha256 and not response.raw.chunked:
            told = shown(f"{url}: the server does not say how large the file is")
            print(f"rnnmt: {told}; part of it would pass for all", file=sys.stderr, flush=True)
        with part.open("ab" if start else "wb") as out:
            try:
                _pump(response.raw, out, expected, remote)
            except urllib3.exceptions.ProtocolError:
                if expected is None:
                    raise
    if expected is not None and _size(part) < expected:
        raise _InterruptedError(f"the connection ended after {_size(part):,} of {expected:,} bytes")
    if start and expected is not None and _size(part) > expected:
        _discard(part)
        raise _InterruptedError(f"more came than the {expected:,} bytes that the server stated")
    return start


class _Session(requests.Session):
    """Follows no redirection: it would read the text of each to its end, which may never come."""

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002
        return None


def _get(url: str, headers: dict[str, str], remote: Remote) -> requests.Response:
    """The answer to which all redirections lead; none of them from https to what is not."""
    secure = urlsplit(url).scheme == "https" and not remote.sha256
    for _ in range(REDIRECTIONS):
        response = _Session().get(url, headers=headers, stream=True, timeout=TIMEOUT)
        target = requests.Session().get_redirect_target(response)
        if target is None:
            return response
        response.close()
        url = urljoin(response.url, target)
        if secure and urlsplit(url).scheme != "https":
            raise _UnavailableError(f"{response.url}: redirected to {url}, which anyone can change")
    raise requests.TooManyRedirects(f"more than {REDIRECTIONS} redirections")


def _judge(response: requests.Response, url: str, part: Path) -> None:
    """Raise where the answer is not the file."""
    status = response.status_code
    if status == 416:
        _discard(part)
    if status in (408, 416, 425, 429) or status >= 500:
        raise _InterruptedError(f"HTTP status {status} {response.reason}", _retry_after(response))
    if status not in (200, 206):
        raise _UnavailableError(f"{url}: HTTP status {status} {response.reason}")
    if response.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise _UnavailableError(f"{url}: a web page came instead of the file")


def _length(
    response: requests.Response, part: Path, remote: Remote, start: int, validator: str
) -> int | None:
    """The size of the whole file as the server states it, if it does."""
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        return int(length) if length.isdecimal() else None
    # Of an unknown size (*), nothing would tell that the rest of the file is still missing.
    size = r"\d+" if remote.size is None else r"\d+|\*"
    answer = re.fullmatch(rf"bytes (\d+)-\d+/({size})", response.headers.get("Content-Range", ""))
    if not answer or int(answer[1]) != start or _validator(response) not in ("", validator):
        _discard(part)
        raise _InterruptedError("the server does not continue the file that was begun")
    return None if answer[2] == "*" else int(answer[2])


def _pump(raw: urllib3.BaseHTTPResponse, out: IO[bytes], size: int | None, of: Remote) -> None:
    # Undecoded: a server may call a .gz file gzip-encoded text, and its bytes are what is pinned.
    printed = began = time.monotonic()
    terminal = sys.stderr.isatty()
    before = out.tell()
    # Not `stream`, which waits until a whole piece is there, however slowly it comes.
    while piece := raw.read1(PIECE, decode_content=False):
        out.write(piece)
        if time.monotonic() - began > TIMEOUT[1]:
            if out.tell() < before + CRAWL:
                raise _InterruptedError(f"fewer than {CRAWL:,} bytes in {TIMEOUT[1]} seconds")
            began, before = time.monotonic(), out.tell()
        if size is not None and out.tell() > size:
            return  # more than there is: the check will say so
        if terminal and time.monotonic() - printed > 0.2:
            printed = time.monotonic()
            share = f" of {size / 1e6:.1f}" if size else ""
            print(f"\r{of.name}: {out.tell() / 1e6:.1f}{share} MB ", end="", file=sys.stderr)
    if terminal:
        print("\r\033[K", end="", file=sys.stderr)


def _validator(response: requests.Response) -> str:
    """What If-Range takes: a strong ETag, else the date."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _retry_after(response: requests.Response) -> float | None:
    value = response.headers.get("Retry-After", "")
    if value.isdecimal():
        return float(value)
    with contextlib.suppress(ValueError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None


def _brief(error: Exception) -> str:
    """The reason at the bottom of nested exceptions, whose own texts are long."""
    text = str(error)
    return text[text.rfind(": ") + 2 :].strip("'\")> ") if ": " in text else text or repr(error)


def _source_of(part: Path) -> Path:
    """Beside a partial file: the URL that it is from, and its validator."""
    return part.with_name(part.name + ".from")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _source_of(part).unlink(missing_ok=True)
