"""What files of tests share: a browser; and of the campaigns of tests/torture, how long they are
and the table of what they tried.

`make test` makes a few trials of each; `make torture` a percentage of each campaign's own number.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

import browsers

# Shells start jobs in the background with SIGINT ignored, which programs under test would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

TALLIES: dict[str, Counter[str]] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--trials",
        type=int,
        default=0,
        help="percent of each campaign's own, in tests/torture (0: a few)",
    )
    parser.addoption(
        "--first-trial", type=int, default=0, help="number of the first, which seeds its chances"
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, where there is one; never in CI."""
    with browsers.chromium() as started:
        yield started


@pytest.fixture
def trials(request: pytest.FixtureRequest) -> range:
    """The numbers of the trials, each of which is the seed of one."""
    marker = request.node.get_closest_marker("trials")
    few, many = marker.args if marker else (3, 100)
    asked = request.config.getoption("--trials")
    first = request.config.getoption("--first-trial")
    # Campaigns whose trials are short make more of them.
    return range(first, first + (round(asked * many / 100) or 1 if asked else few))


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Counter[str]:
    """Counts of what happened in this campaign's trials, printed at the end."""
    return TALLIES.setdefault(request.node.name, Counter())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not TALLIES:
        return
    terminalreporter.section("trials")
    for campaign, counts in TALLIES.items():
        outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in counts.most_common())
        terminalreporter.write_line(f"{campaign}: {outcomes}")
