"""The playground as a web application: one page, its files, and answers as JSON.

GET  /              the page
GET  /page/FILE     its parts
GET  /api/variants  what is there: variants, limits, example sentences
POST /api/answer    one variant's answer to a `Question`
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import anyio
import torch
import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rnnmt.addresses import LOOPBACK
from rnnmt.connections import patient
from rnnmt.errors import UserError
from rnnmt.playground.variant import MAX_BEAM, MAX_CHARACTERS, Question, Variant

PAGE = Path(__file__).parent / "page"
MAX_BODY = 16_384  # bytes
MAX_SECONDS = 30.0  # for a request to come, or its answer to be taken
MAX_CONNECTIONS = 1000
MAX_WAITING = 200  # questions; a page asks one for each variant
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def application(
    variants: list[Variant], examples: list[dict[str, str]], hosts: tuple[str, ...]
) -> Starlette:
    """The application; it answers requests that name one of `hosts`."""
    settings = variants[0].trained.settings
    overview = {
        "corpus": settings.get("corpus", ""),
        "source_language": settings.get("source_language", ""),
        "target_language": settings.get("target_language", ""),
        "variants": [variant.describe() for variant in variants],
        "examples": examples,
        "max_characters": MAX_CHARACTERS,
        "max_beam": MAX_BEAM,
    }

    def page(request: Request) -> Response:  # noqa: ARG001
        return FileResponse(PAGE / "index.html")

    def list_variants(request: Request) -> Response:  # noqa: ARG001
        return JSONResponse(overview)

    return Starlette(
        routes=[
            Route("/", page),
            Mount("/page", StaticFiles(directory=PAGE)),
            Route("/api/variants", list_variants),
            Route("/api/answer", _Answers(variants), methods=["POST"]),
        ],
        middleware=[
            Middleware(_Headers),
            # A foreign site whose name comes to mean this machine (DNS rebinding) has its own
            # name in the Host header.
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
        ],
    )


class _Answers:
    """POST /api/answer; the variants answer one after the other."""

    def __init__(self, variants: list[Variant]) -> None:
        self.variants = {variant.name: variant for variant in variants}
        # An answer is many small products, each of which takes Python's lock again: two at a time
        # wait for each other, take more of the processor, and are no sooner there.
        self.turns = anyio.CapacityLimiter(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self.answer(Request(scope, receive))
        await response(scope, receive, send)

    async def answer(self, request: Request) -> Response:
        # No other site's page can send this type: a browser would have to ask first.
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            return _refuse(415, "Send JSON, as content type application/json.")
        try:
            async with asyncio.timeout(MAX_SECONDS):
                body = await _body(request)
        except TimeoutError:
            return _refuse(408, f"A question has to be whole within {MAX_SECONDS:g} seconds.")
        except ClientDisconnect:  # in the middle of its question
            return Response(status_code=204)
        if body is None:
            return _refuse(413, f"A question has at most {MAX_BODY} bytes.")
        try:
            question = Question.model_validate_json(body)
        except ValidationError as error:
            return _refuse(422, _explain(error))
        if question.variant not in self.variants:
            return _refuse(404, f"There is no variant '{question.variant}'.")
        if self.turns.statistics().tasks_waiting >= MAX_WAITING:
            return _refuse(503, "Too many questions at once; ask again in a moment.")
        return await self._in_turn(request, question)

    async def _in_turn(self, request: Request, question: Question) -> Response:
        answer = self.variants[question.variant].answer
        async with self.turns:
            if await request.is_disconnected():  # the person typed on, nobody wants it any more
                return Response(status_code=204)
            try:
                return JSONResponse(await anyio.to_thread.run_sync(answer, question))
            except UserError as error:
                return _refuse(422, str(error))


def serve(
    variants: list[Variant],
    examples: list[dict[str, str]],
    host: str,
    port: int,
    allow: list[str],
) -> None:
    """Answer on `host`:`port` until stopped. Raises UserError where that address is not free.

    Requests must name a loopback address, `host`, or one of the names in `allow`.
    """
    if host in ("0.0.0.0", "::") and not allow:
        raise UserError(
            f"--host {host} listens on every network of this machine; say by which name it is "
            "reached: --allow-host NAME"
        )
    torch.set_num_threads(1)  # products this small are faster alone
    for variant in variants:  # the first translation prepares the decoder
        variant.answer(Question(variant=variant.name, sentence="."))
    listening = _listen(host, port)
    name = f"[{host}]" if ":" in host else host
    hosts = (*LOOPBACK, name, *allow)
    print(f"http://{name}:{listening.getsockname()[1]}  (Ctrl-C ends it)", flush=True)
    config = configuration(application(variants, examples, hosts))
    uvicorn.Server(config).run(sockets=[listening])


def configuration(app: ASGIApp) -> uvicorn.Config:
    """How uvicorn serves the application."""
    return uvicorn.Config(
        app,
        log_level="warning",
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        http=patient(MAX_SECONDS),
        timeout_graceful_shutdown=2,
    )


def examples(tokens: Path) -> list[dict[str, str]]:
    """Some test sentences of all lengths with their references, from a corpus' tokens/."""
    chosen = []
    for source in sorted(tokens.glob("test*.source.txt")):
        target = source.with_name(source.name.replace(".source.", ".target."))
        sides = (file.read_text(encoding="utf-8").split("\n")[:-1] for file in (source, target))
        pairs = sorted(zip(*sides, strict=True), key=lambda pair: (len(pair[0]), pair))
        for part in (0.1, 0.6, 0.95):
            sentence, reference = pairs[int(part * len(pairs))]
            chosen.append({"sentence": sentence, "reference": reference})
    return sorted(chosen, key=lambda example: len(example["sentence"]))


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise UserError(f"cannot listen on {host}:{port}: {error}; try another --port") from None


async def _body(request: Request) -> bytes | None:
    """The request's body, or None where it is too long; no more than that is read."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            return None
    return body


def _refuse(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status_code=status)


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "string_too_long":
        return f"Too long: the {where} has at most {MAX_CHARACTERS} characters."
    return f"{where}: {first['msg']}" if where else str(first["msg"])


class _Headers:
    """Adds HEADERS to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(k.encode(), v.encode()) for k, v in HEADERS.items()]
            await send(message)

        await self.app(scope, receive, with_headers)
