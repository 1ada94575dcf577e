"""Commands that run beside each other, and end with this program."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from types import FrameType, TracebackType
from typing import Self

from rnnmt.errors import end_with_parent


class Commands:
    """Runs commands, several at once, and passes on to all of them the signals that it gets.

    To be entered in the main thread, whose handlers of signals it gives back at the end.
    """

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self.stopped = 0  # by this signal
        self._before: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def run(self, *command: str, label: str = "") -> int:
        """Run a command and return its exit code; with a label, which begins each of its lines.

        Raises OSError where it cannot begin.
        """
        if self.stopped:
            return 128 + self.stopped
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if label else None,
            stderr=subprocess.STDOUT if label else None,
            encoding="utf-8",
            errors="backslashreplace",
            process_group=0,  # of its own: a signal reaches it and its children, and once
            preexec_fn=end_with_parent,
        )
        self._running.add(process)
        if self.stopped:  # meanwhile
            self._signal(process, self.stopped)
        for line in process.stdout or ():
            if line.strip():
                # In one piece, so that no line gets into another.
                print(f"{label}: {line.rstrip()}\n", end="", flush=True)
        code = process.wait()
        self._running.discard(process)
        return code

    def check(self, *command: str) -> None:
        """Run a command. Raises SystemExit where it fails."""
        code = self.run(*command)
        self.end_if_stopped()
        if code:
            raise SystemExit(code)

    def end_if_stopped(self) -> None:
        """Raises SystemExit where a signal has come."""
        if self.stopped:
            print("Stopped; the same command goes on where this one was.", flush=True)
            raise SystemExit(128 + self.stopped)

    def _stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        # DVC waits for its stage to end by a Ctrl-C; whoever repeats it will not.
        passed_on = signal.SIGTERM if self.stopped else number
        self.stopped = self.stopped or number
        for process in tuple(self._running):
            self._signal(process, passed_on)

    @staticmethod
    def _signal(process: subprocess.Popen[str], number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
