"""The HTTP service of `rnnmt serve`: limits, health, metrics, change of the model, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import math
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TextIO

import prometheus_client as prometheus
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, create_model
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

from rnnmt.addresses import LOOPBACK
from rnnmt.connections import patient
from rnnmt.corpora.clean import normalise
from rnnmt.errors import UserError
from rnnmt.search.answers import Search, answer
from rnnmt.search.translator import Translation
from rnnmt.serving.batching import Batcher, Busy, Model, Stopped

Message = MutableMapping[str, Any]  # of ASGI, and a connection's scope
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64)
CONNECTIONS = 4096  # at once, most of them idle: each costs some kilobytes
GRACE = 1.0  # seconds, at the end, for the rest of a body that is being received


@dataclass(frozen=True)
class Limits:
    """What the service takes on."""

    batch: int = 64  # sentences searched together
    sentences: int = 100  # of one request
    characters: int = 500  # of one sentence
    pieces: int = 300  # of one sentence; rare characters are several
    # Of one request's alignments, nbest x pieces^2 of all sentences: a translation that finds no
    # end has three times the pieces of its sentence, and each weight takes 6 bytes to send.
    weights: int = 1_000_000
    bytes: int = 1 << 20  # of one request's body
    beam: int = 10
    waiting: int = 1000  # sentences, of all requests
    requests: int = 512  # at once: the bodies of all are held in memory
    seconds: float = 30.0  # from a request's head to its answer, and for the head alone


class Source(Protocol):
    """Where the model comes from."""

    @property
    def poll_seconds(self) -> float | None:
        """How often to look for another one; None: on SIGHUP only."""

    def load(self, current: str | None) -> Model | None:
        """The model, or None where it is still the current one, which is called so."""


class Metrics:
    """What Prometheus is told."""

    def __init__(self) -> None:
        self.registry = to = prometheus.CollectorRegistry()
        counter, histogram = prometheus.Counter, prometheus.Histogram
        self.requests = counter("rnnmt_requests", "Requests to translate", ["status"], registry=to)
        self.sentences = counter("rnnmt_sentences", "Sentences translated", registry=to)
        self.loads = counter("rnnmt_model_loads", "Loads of a model", ["outcome"], registry=to)
        self.latency = histogram(
            "rnnmt_request_seconds", "From request to answer", buckets=SECONDS, registry=to
        )
        self.batches = histogram(
            "rnnmt_batch_sentences", "Sentences searched together", buckets=SIZES, registry=to
        )
        self.waiting = prometheus.Gauge(
            "rnnmt_waiting_sentences", "Sentences that wait", registry=to
        )
        self.model = prometheus.Info("rnnmt_model", "The model in use", registry=to)


class Service:
    """The model in use, what waits for it, and its HTTP application `app`.

    Requests must name one of `hosts`, or any where it has a "*".
    """

    def __init__(self, source: Source, limits: Limits, hosts: Sequence[str] = ("*",)) -> None:
        self.source, self.limits, self.metrics = source, limits, Metrics()
        self.model: Model | None = None
        self.failure: UserError | None = None  # of the first load
        self.on_failure: Callable[[], None] = lambda: None
        self._loading = asyncio.Lock()
        self.batcher: Batcher | None = None
        self.stopping = False
        self.reading: set[asyncio.Timeout] = set()  # of bodies that are being received
        self.app = _Counted(
            TrustedHostMiddleware(_application(self), hosts, www_redirect=False), self.metrics
        )

    @contextlib.asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Load the model while the service is up already; at the end answer what waits."""
        self.batcher = Batcher(self.limits.batch, self.limits.waiting, self.metrics.batches.observe)
        self.metrics.waiting.set_function(lambda: self.batcher.waiting if self.batcher else 0)
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload_soon)
        watching = asyncio.create_task(self._watch())
        yield
        watching.cancel()
        await asyncio.to_thread(self.batcher.stop)

    def stop(self) -> None:
        """Wait no longer for the rest of half requests, or the service could not end."""
        self.stopping = True
        soon = asyncio.get_running_loop().time() + GRACE
        for timeout in self.reading:
            if not timeout.expired():
                timeout.reschedule(min(soon, timeout.when() or soon))

    def _reload_soon(self) -> None:
        self._reloading = asyncio.create_task(self.reload())  # kept, or it might be collected

    async def _watch(self) -> None:
        await self.reload()
        if self.failure:
            self.on_failure()
        while self.source.poll_seconds:
            await asyncio.sleep(self.source.poll_seconds)
            await self.reload()

    async def reload(self) -> None:
        """Take another model where there is one; requests that wait keep theirs.

        Where it fails, the present one stays.
        """
        async with self._loading:
            current = self.model.name if self.model else None
            try:
                model = await asyncio.to_thread(self._load, current)
            except UserError as error:
                self.metrics.loads.labels("failed").inc()
                if current is None:
                    self.failure = error
                else:
                    _warn(f"the model stays {current}: {error}")
                return
            if model:
                self.model = model
                self.metrics.loads.labels("done").inc()
                self.metrics.model.info({"name": model.name})
                _say(f"serving {model.name}", sys.stdout)

    def _load(self, current: str | None) -> Model | None:
        try:
            model = self._within_limits(self.source.load(current))
            if model:
                # The first translation prepares the decoder: no client is to wait for that.
                search = model.search
                [[first]] = model.translator.beam(["a"], search.beam, 1, search.length_penalty)
        except UserError:
            raise
        except Exception as error:  # whatever it is, the next look at the source may find better
            raise UserError(f"the model cannot be loaded: {error!r}") from None
        if model and not math.isfinite(first.hypothesis.log_prob):
            raise UserError(f"{model.name}: translates nothing: its weights are not all finite")
        return model

    def _within_limits(self, model: Model | None) -> Model | None:
        """With a search that requests could ask for: a model's own may be wider."""
        most = self.limits.beam
        if model is None or model.search.beam <= most:
            return model
        _warn(
            f"{model.name}: its beam of {model.search.beam} is beyond --max-beam, so {most} is used"
        )
        return model._replace(search=model.search.model_copy(update={"beam": most}))

    async def translate(
        self, sentences: list[str], asked: dict[str, Any], deadline: float
    ) -> Response:
        """Answer one request, before the event loop's time `deadline`."""
        model, batcher = self.model, self.batcher
        if model is None or batcher is None:
            return _refusal(503, "the model is being loaded", retry=1)
        wanted = {name: value for name, value in asked.items() if value is not None}
        search = model.search.model_copy(update=wanted)
        if search.nbest > search.beam:
            return _refusal(422, f"nbest ({search.nbest}) cannot exceed beam ({search.beam})")
        # Sentences that differ in it alone are searched together.
        shared = search.model_copy(update={"alignments": False})
        try:
            seconds = deadline - asyncio.get_running_loop().time()
            texts = [normalise(sentence) for sentence in sentences]  # which may have more pieces
            sizes = list(map(len, model.translator.trained.source.encode(texts)))
            if told := self._too_large(sizes, search):
                return _refusal(422, told)
            found = await batcher.translate(sentences, model, shared, seconds)
            response = await asyncio.to_thread(_answer, model.name, found, search)
        except Busy:
            return _refusal(429, "too many sentences wait", retry=1)
        except Stopped:
            return _refusal(503, "the service is stopping")
        except TimeoutError:
            return _refusal(504, f"not translated within {self.limits.seconds:g} seconds")
        except Exception as error:  # whatever it is, the next requests are to be answered
            _warn(f"a translation failed: {error!r}")
            return _refusal(500, "the translation failed; the service's log says why")
        self.metrics.sentences.inc(len(sentences))
        return response

    def _too_large(self, sizes: list[int], search: Search) -> str:
        """What is beyond the limits in sentences of so many pieces, if anything is."""
        if (longest := max(sizes)) > (most := self.limits.pieces):
            return f"a sentence has {longest} pieces, at most {most} are taken"
        weights = search.nbest * sum(size * size for size in sizes)
        if search.alignments and weights > (most := self.limits.weights):
            return (
                f"alignments: nbest x pieces x pieces are {weights} in all, at most {most} are "
                "taken; ask for fewer sentences at once"
            )
        return ""


def _warn(text: str) -> None:
    _say(f"rnnmt: warning: {text}", sys.stderr)


def _say(text: str, stream: TextIO) -> None:
    """A full disk, or a reader of the log that is gone, is to end nothing."""
    with contextlib.suppress(OSError):
        print(text, file=stream, flush=True)


def _answer(model: str, found: list[list[Translation]], search: Search) -> Response:
    """The `Answer` to a request, written a translation at a time.

    As Python's numbers, all alignments at once would take a multiple of the memory of their
    digits, and no other thread could run until the last one is written.
    """
    written = (",".join(map(_json, answer(translations, search))) for translations in found)
    sentences = ",".join(f"[{translations}]" for translations in written)
    body = f'{{"model":{_json(model)},"translations":[{sentences}]}}'
    return Response(body, media_type="application/json")


def _json(value: Any) -> str:
    """As starlette's JSONResponse has it. Raises ValueError for numbers that are not finite."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def allowed_hosts(host: str, allow: Sequence[str]) -> Sequence[str]:
    """What requests may have as their Host where the service listens on `host`; "*" is anything.

    A foreign site whose name comes to mean this machine (DNS rebinding) has its own name there. On
    other addresses than this machine's own, only who runs it knows by which names it is reached.
    """
    name = f"[{host}]" if ":" in host else host
    local = name in LOOPBACK
    with contextlib.suppress(ValueError):  # a name
        local = local or ipaddress.ip_address(host).is_loopback
    return (*LOOPBACK, name, *allow) if local or allow else ("*",)


def serve(source: Source, limits: Limits, host: str, port: int, allow: Sequence[str]) -> None:
    """Serve until SIGTERM or SIGINT; requests that have come are answered first.

    On a loopback address, or where `allow` names some, requests must name an allowed host. Raises
    UserError where the model cannot be loaded or the address cannot be used.
    """
    service = Service(source, limits, allowed_hosts(host, allow))
    server = Server(service, host, port)

    def stop() -> None:
        server.should_exit = True

    service.on_failure = stop
    for number in (signal.SIGTERM, signal.SIGINT):
        # Until uvicorn has its own; and it raises them again when all is done.
        signal.signal(number, lambda *_: stop())
    try:
        server.run()
    except SystemExit:
        raise UserError(f"cannot serve on {host}:{port}; is the port in use?") from None
    if service.failure:
        raise service.failure


class Server(uvicorn.Server):
    """uvicorn with the service's limits, which is told when it has to end."""

    def __init__(self, service: Service, host: str, port: int) -> None:
        self._service = service
        config = uvicorn.Config(
            service.app,
            host=host,
            port=port,
            access_log=False,
            log_level="warning",
            limit_concurrency=CONNECTIONS,
            http=patient(service.limits.seconds),
            timeout_graceful_shutdown=int(service.limits.seconds) + 1,
        )
        super().__init__(config)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and answer the requests that have come."""
        self._service.stop()
        await super().shutdown(sockets)


class _Counted:
    """ASGI: tell Prometheus of every answer to a request to translate, whoever gives it."""

    def __init__(self, app: App, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass everything on."""
        started = time.perf_counter()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.metrics.requests.labels(message["status"]).inc()
                self.metrics.latency.observe(time.perf_counter() - started)
            await send(message)

        asked = (scope.get("method"), scope.get("path")) == ("POST", "/translate")
        await self.app(scope, receive, counted if asked else send)


class _Allowed:
    """ASGI: take no more requests at once, no longer bodies and none more slowly than allowed.

    Of a client that does not wait for its answer, the sentences shall not wait either.
    """

    def __init__(self, app: App, service: Service) -> None:
        self.app, self.service, self.limits = app, service, service.limits
        self.requests = 0  # that are here

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Read the body, whether or not its length is told in advance, and pass it on."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        self.requests += 1
        try:
            body = await self._body(scope, receive)
            if isinstance(body, Response):
                body.headers["Connection"] = "close"  # since there may be more of it
                await body(scope, receive, send)
            else:
                await self._answer(bytes(body), scope, receive, send)
        except ClientDisconnect:
            pass
        finally:
            self.requests -= 1

    async def _body(self, scope: Message, receive: Receive) -> bytearray | Response:
        """The whole body, or why it is refused. Raises ClientDisconnect."""
        if self.requests > self.limits.requests:
            return _refusal(503, "too many requests at once", retry=1)
        now, seconds = asyncio.get_running_loop().time(), self.limits.seconds
        scope.setdefault("state", {})["deadline"] = now + seconds
        timeout = asyncio.timeout(min(seconds, GRACE) if self.service.stopping else seconds)
        self.service.reading.add(timeout)
        try:
            async with timeout:
                body = await _received(receive, self.limits.bytes)
        except TimeoutError:
            if self.service.stopping:
                return _refusal(503, "the service is stopping")
            return _refusal(408, f"the request was not whole within {seconds:g} seconds")
        finally:
            self.service.reading.discard(timeout)
        if len(body) > self.limits.bytes:
            return _refusal(413, f"a request has at most {self.limits.bytes} bytes")
        return body

    async def _answer(self, body: bytes, scope: Message, receive: Receive, send: Send) -> None:
        unread = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return unread.pop() if unread else await receive()

        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        answering = asyncio.ensure_future(self.app(scope, again, send))
        leaving = asyncio.ensure_future(gone())
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
        finally:
            answering.cancel()
            leaving.cancel()


async def _received(receive: Receive, limit: int) -> bytearray:
    """A request's body, or of one that is longer a little more than `limit` bytes."""
    body, more = bytearray(), True
    while more and len(body) <= limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _refusal(status: int, detail: str, retry: int | None = None) -> Response:
    headers = {"Retry-After": str(retry)} if retry else None
    return JSONResponse({"detail": detail}, status, headers)


class Translated(BaseModel):
    """One translation of a sentence."""

    text: str
    score: float
    log_prob: float
    source_pieces: list[str] | None = None
    target_pieces: list[str] | None = None
    alignment: list[list[float]] | None = None


class Answer(BaseModel):
    """The model that translated, and for each sentence its translations, best first."""

    model: str
    translations: list[list[Translated]]


class Refusal(BaseModel):
    """Why there is no answer."""

    detail: str


def _request(limits: Limits) -> type[BaseModel]:
    """The class of a request's body, with the limits that OpenAPI then states."""
    fields = Search.model_fields
    sentence = Annotated[str, Field(max_length=limits.characters)]
    sentences = Field(
        min_length=1,
        max_length=limits.sentences,
        description=f"of at most {limits.pieces} of the model's pieces each",
    )
    beam = Field(None, ge=1, le=limits.beam, description=fields["beam"].description)
    nbest = Field(None, ge=1, le=limits.beam, description=fields["nbest"].description)
    penalty = Field(None, ge=-10, le=10, description=fields["length_penalty"].description)
    alignments = Field(
        False,
        description=f"{fields['alignments'].description}; with them, nbest x pieces x pieces of "
        f"all sentences are at most {limits.weights} in all",
    )
    return create_model(
        "Request",
        __config__=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False),
        sentences=(list[sentence], sentences),
        beam=(int | None, beam),
        nbest=(int | None, nbest),
        length_penalty=(float | None, penalty),
        alignments=(bool, alignments),
    )


def _application(service: Service) -> FastAPI:
    # Its pages of documentation would load scripts from elsewhere; /openapi.json says it all.
    app = FastAPI(title="rnnmt", lifespan=service.lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(_Allowed, service=service)
    schema = _request(service.limits)
    refusals: dict[int | str, dict[str, Any]] = {
        400: {"model": Refusal, "description": "Not JSON that can be read"},
        408: {"model": Refusal, "description": "Not received in time"},
        413: {"model": Refusal, "description": "More bytes than a request may have"},
        422: {"model": Refusal, "description": "Not as described here, or beyond the limits"},
        429: {"model": Refusal, "description": "Too many sentences wait; try again"},
        500: {"model": Refusal, "description": "The translation failed"},
        503: {"model": Refusal, "description": "No model yet, too many requests, or stopping"},
        504: {"model": Refusal, "description": "Not translated in time"},
    }

    async def translate(request: BaseModel, connection: Request) -> Response:
        """Translate sentences; each is translated as it would be alone."""
        asked = request.model_dump()
        deadline = connection.state.deadline
        return await service.translate(asked.pop("sentences"), asked, deadline)

    # The class is made here, so that no name in a module could stand for it.
    translate.__annotations__ |= {"request": schema, "connection": Request, "return": Response}
    app.post("/translate", response_model=Answer, responses=refusals)(translate)

    @app.exception_handler(RequestValidationError)
    async def refuse(_: Request, error: RequestValidationError) -> Response:
        told = [f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors()]
        if any(e["loc"] == ("body",) for e in error.errors()):
            told.append("expected JSON, sent as Content-Type: application/json")
        return _refusal(422, "; ".join(told))

    @app.get("/health")
    async def health() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/ready", responses={503: {"model": Refusal}})
    async def ready() -> Response:
        """A model is loaded and translates."""
        if service.model is None or service.batcher is None or not service.batcher.alive:
            return _refusal(503, "no model yet")
        return JSONResponse({"model": service.model.name})

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        text = prometheus.generate_latest(service.metrics.registry)
        return Response(text, media_type=prometheus.CONTENT_TYPE_LATEST)

    return app
