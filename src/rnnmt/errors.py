"""The one exception that a person is meant to read."""

from __future__ import annotations

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something that the user can mend: the message names file, line or key and what to do."""


def run_main(main: Callable[[], None]) -> None:
    """Run a program's `main`; a `UserError` becomes one message on stderr and exit code 1."""
    try:
        main()
    except UserError as error:
        print(f"rnnmt: error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
