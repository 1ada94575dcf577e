"""Long tests that want a server are never skipped unseen."""

from __future__ import annotations

import pytest

import servers
from closure import ROOT


@pytest.mark.parametrize(("required", "outcome"), [("1", pytest.fail), ("", pytest.skip)])
def test_what_is_required_is_not_skipped(
    required: str, outcome: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUIRE_SERVERS", required)
    with pytest.raises(outcome.Exception, match="needs sshd"):
        servers.missing("needs sshd")


def test_the_summary_of_the_long_tests_names_what_was_skipped() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "-m pytest -m long -rs " in makefile
