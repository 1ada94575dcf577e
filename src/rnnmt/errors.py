"""How a program runs and ends: with errors that a person is meant to read, with its parent, and
what memory it took.
"""

from __future__ import annotations

import gc
import re
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path


class UserError(Exception):
    """Something that the user can mend: the message names file, line or key and what to do."""


def run_main(main: Callable[[], None]) -> None:
    """Run a program's `main`; a `UserError` becomes one message on stderr and exit code 1."""
    # Of the million objects of torch and Lightning none is garbage. Looking for some costs a
    # fifth of their import, and longer than a second at the program's end.
    gc.set_threshold(10_000)
    try:
        main()
    except UserError as error:
        print(f"rnnmt: error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    finally:
        gc.freeze()


def run_stage(main: Callable[[], None]) -> None:
    """`run_main` for what DVC starts: it ends with DVC."""
    end_with_parent()
    run_main(main)


def end_with_parent() -> None:
    """On Linux, get a SIGTERM when the parent is killed.

    A stage would go on alone otherwise, beside the one that the next `dvc repro` starts.
    """
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def peak_memory_mb() -> float:
    """The most memory (MB, libraries included) that this process has held at once."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the process was forked from
        peak = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        if peak:
            return round(int(peak[1]) / 1024, 1)
    unit = 2**20 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)
