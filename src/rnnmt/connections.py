"""Connections of clients that do nothing, or little, end: uvicorn would keep them for ever."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


def patient(seconds: float) -> type[H11Protocol]:
    """uvicorn's `http`, which waits so long for a client and then hangs up.

    It waits for the whole head of a request, from the connection's start or the last answer on,
    and for an answer to be taken. The body is left to the application.
    """
    return type("Patient", (_Patient,), {"seconds": seconds})


class _Patient(H11Protocol):
    seconds: float

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def on_response_complete(self) -> None:
        self._wait()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_longer()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._wait_no_longer()
        self._waiting = self.loop.call_later(self.seconds, self._hang_up)

    def _wait_no_longer(self) -> None:
        if self._waiting:
            self._waiting.cancel()

    def _hang_up(self) -> None:
        asked = self.cycle is not None and not self.cycle.response_complete
        if self.flow.write_paused or not asked:
            self.transport.abort()
