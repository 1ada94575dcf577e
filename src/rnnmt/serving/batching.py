"""Many clients, one translator: whatever waits is translated together.

A thread takes the sentences that wait, as many as make a batch, and translates them; meanwhile new
ones gather. So batches grow by themselves with the number of clients. The clients that were just
answered ask again within moments: as long as sentences keep coming, a batch waits for as many as
the last one had. A single client's never waits.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from rnnmt.search.answers import Search, translate
from rnnmt.search.translator import Translation, Translator

PAUSE = 0.005  # seconds without a new sentence, after which no more are expected
PATIENCE = 0.25  # of the last batch's time, that the next one may wait in all


class Model(NamedTuple):
    """A translator, what it is called, and the search where a request says nothing else."""

    name: str
    translator: Translator
    search: Search


class Busy(Exception):  # noqa: N818
    """As many sentences wait as may."""


class Stopped(Exception):  # noqa: N818
    """No more sentences are taken."""


@dataclass(eq=False)
class _Job:
    """One sentence of a request."""

    sentence: str
    model: Model
    search: Search
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def __post_init__(self) -> None:
        self.future: asyncio.Future[list[Translation]] = self.loop.create_future()

    def fits(self, other: _Job) -> bool:
        """Whether both can be searched together."""
        return self.model is other.model and self.search == other.search


class Batcher:
    """Translates sentences in a thread of its own, at most `batch` at a time.

    At most `waiting` sentences wait; `observe` is told the size of every batch.
    """

    def __init__(self, batch: int, waiting: int, observe: Callable[[int], None]) -> None:
        self._batch, self._limit, self._observe = batch, waiting, observe
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._last, self._seconds = 0, 0.0  # the last batch: sentences, and time
        self._thread = threading.Thread(target=self._work, name="translating", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many sentences wait."""
        return len(self._jobs)

    @property
    def alive(self) -> bool:
        """Whether sentences are taken and translated."""
        return self._thread.is_alive() and not self._stopping

    async def translate(
        self, sentences: list[str], model: Model, search: Search, seconds: float
    ) -> list[list[Translation]]:
        """The translations of a request's sentences (N,), all by the same model.

        Raises Busy, Stopped, or TimeoutError after so many seconds, when what still waits is
        dropped.
        """
        jobs = [_Job(sentence, model, search) for sentence in sentences]
        with self._changed:
            if self._stopping:
                raise Stopped
            if len(self._jobs) + len(jobs) > self._limit:
                raise Busy
            self._jobs.extend(jobs)
            self._changed.notify()
        try:
            async with asyncio.timeout(seconds):
                return list(await asyncio.gather(*(job.future for job in jobs)))
        finally:
            self._drop(jobs)

    def stop(self) -> None:
        """Take no more sentences, translate those that wait, and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _drop(self, jobs: list[_Job]) -> None:
        """Of a request that is over, by time or otherwise, nothing goes on waiting."""
        if any(not job.future.done() or job.future.cancelled() for job in jobs):
            gone = set(map(id, jobs))
            with self._changed:
                self._jobs = deque(job for job in self._jobs if id(job) not in gone)

    def _work(self) -> None:
        while jobs := self._next():
            self._observe(len(jobs))
            started = time.monotonic()
            try:
                first = jobs[0]
                found: list[list[Translation]] | Exception = translate(
                    first.model.translator,
                    [job.sentence for job in jobs],
                    first.search,
                    self._batch,
                )
            except Exception as error:  # one request's misfortune must not end the service
                found = error
            for loop in {job.loop for job in jobs}:
                loop.call_soon_threadsafe(_deliver, jobs, found)
            self._last, self._seconds = len(jobs), time.monotonic() - started

    def _next(self) -> list[_Job]:
        """The sentences of the next batch; none at the end."""
        with self._changed:
            while True:
                self._gather()
                if self._jobs or self._stopping:  # or else those that waited have given up
                    break
            if not self._jobs:
                return []
            first = self._jobs[0]
            chosen: list[_Job] = []
            others: deque[_Job] = deque()
            for job in self._jobs:
                fits = len(chosen) < self._batch and job.fits(first)
                (chosen if fits else others).append(job)
            self._jobs = others
            return chosen

    def _gather(self) -> None:
        """Wait for a sentence, and a little for more."""
        while not self._jobs and not self._stopping:
            self._changed.wait()
        until = time.monotonic() + PATIENCE * self._seconds
        while len(self._jobs) < self._last and not self._stopping:
            if time.monotonic() > until or not self._changed.wait(PAUSE):
                break


def _deliver(jobs: list[_Job], found: list[list[Translation]] | Exception) -> None:
    for i, job in enumerate(jobs):
        if job.future.done():  # given up in the meantime
            continue
        if isinstance(found, Exception):
            job.future.set_exception(found)
        else:
            job.future.set_result(found[i])
