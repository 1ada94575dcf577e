"""Addresses: those of this machine alone, and any as it may be printed."""

from __future__ import annotations

import re

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")  # as a Host header names them

_USER = re.compile(r"//[^/\s]*@")
# A password with a slash in it makes no valid address, but is printed with the error that it is.
_PASSWORD = re.compile(r"//[^/@\s:\[]*:(?!\d*(?:[/?#\s]|$))[^@\s]*@")
_VALUE = re.compile(r"([?&][^=&?\s]+=)[^&#\s'\")>]+")


def shown(text: str) -> str:
    """`text` whose addresses have no user and password, and no values in their queries."""
    return _VALUE.sub(r"\1***", _PASSWORD.sub("//", _USER.sub("//", text)))
