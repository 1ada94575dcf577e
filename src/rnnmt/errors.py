"""How a program runs and ends: with errors that a person is meant to read, with its parent, and
what memory it took.
"""

from __future__ import annotations

import gc
import io
import os
import re
import resource
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

# What libraries in C++ say where they get no memory, or cannot write a file.
_NO_MEMORY = "can't allocate memory|annot allocate memory|bad_alloc|failed to map segment"
_NOT_WRITTEN = "file write failed|unexpected pos|open file failed"


class UserError(Exception):
    """Something that the user can mend: the message names file, line or key and what to do."""


def run_main(main: Callable[[], None]) -> None:
    """Run a program's `main`; a `UserError`, and what the system refuses, becomes one message on
    stderr and exit code 1.
    """
    # Of the million objects of torch and Lightning none is garbage. Looking for some costs a
    # fifth of their import, and longer than a second at the program's end.
    gc.set_threshold(10_000)
    if isinstance(sys.stdout, io.TextIOWrapper):  # whose encoding may lack some letters
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        main()
    except (UserError, OSError, MemoryError, RuntimeError, ImportError) as error:
        if not (message := str(error) if isinstance(error, UserError) else _refusal(error)):
            raise
        print(f"rnnmt: error: {message}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    finally:
        gc.freeze()


def _refusal(error: Exception) -> str:
    """What the system has refused, if that is what an error says: room, rights or memory."""
    said = (str(error) or type(error).__name__).splitlines()[0]
    if isinstance(error, MemoryError) or re.search(_NO_MEMORY, str(error)):
        return f"out of memory ({said})"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file'}: {error.strerror}"
    if re.search(_NOT_WRITTEN, str(error)):
        return f"a file cannot be written: {said}"
    if "terminated abruptly" in said:  # of a ProcessPoolExecutor
        return "one of its processes was killed, for want of memory perhaps; run it again"
    return ""


def run_stage(main: Callable[[], None], check: bool = False) -> None:
    """`run_main` for what DVC starts: it ends with DVC.

    With `check`, for what takes long, DVC's run first checks all settings: those of later stages
    would else be refused hours later. By itself the stage asks for its own alone.
    """
    end_with_parent()
    _end_with_dvc()
    if check and "DVC_STAGE" in os.environ:
        run_main(_check_settings)
    run_main(main)


def _check_settings() -> None:
    # A process: a stage depends on what it imports, and these are the settings of all others.
    done = subprocess.run(
        [sys.executable, "-m", "rnnmt.check"], stdout=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        raise SystemExit(done.returncode)


def end_with_parent() -> None:
    """On Linux, get a SIGTERM when the parent is killed.

    A stage would go on alone otherwise, beside the one that the next `dvc repro` starts.
    """
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def end_with(process: int) -> None:
    """On Linux, get a SIGTERM when the process of this id ends, or at once where it has."""
    if sys.platform != "linux":
        return
    try:
        ended = os.pidfd_open(process)
    except ProcessLookupError:
        _terminate()
    except OSError:  # an old system, without pidfd_open
        end_with_parent()
    else:
        threading.Thread(target=_terminate, args=[ended], daemon=True).start()


def _end_with_dvc() -> None:
    """On Linux, get a SIGTERM when DVC is killed, or was before `end_with_parent`.

    Between DVC and its stage there may be a shell, which ends with neither of them.
    """
    if sys.platform != "linux" or "DVC_STAGE" not in os.environ or os.getpid() == os.getpgrp():
        return
    parent = os.getppid()
    try:
        if b"-m rnnmt." in Path(f"/proc/{parent}/cmdline").read_bytes():  # a shell's command
            parent = int(Path(f"/proc/{parent}/stat").read_bytes().rpartition(b")")[2].split()[1])
        ended = os.pidfd_open(parent)
        gone = os.getpgid(parent) != os.getpgrp()  # it is init, which takes orphans
    except (FileNotFoundError, ProcessLookupError):
        gone = True
    except OSError:  # an old system, without pidfd_open
        return
    if gone:
        _terminate()
    else:
        threading.Thread(target=_terminate, args=[ended], daemon=True).start()


def _terminate(after: int | None = None) -> None:
    """SIGTERM to this process, at once or after the end of the one of a file descriptor."""
    if after is not None:
        select.select([after], [], [])
    os.kill(os.getpid(), signal.SIGTERM)


def peak_memory_mb() -> float:
    """The most memory (MB, libraries included) that this process has held at once."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the process was forked from
        peak = re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"))
        if peak:
            return round(int(peak[1]) / 1024, 1)
    unit = 2**20 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)
