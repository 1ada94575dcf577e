"""Take the README's pictures of the playground and of MLflow: `python scripts/pictures.py`.

Needs what `make repro` leaves, and Debian's chromium; writes docs/*.png.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SENTENCE = "The old teacher will not read the red book because it is long."
# Picture: variant, part of the page, and what the mouse points at.
PLAYGROUND = {
    "alignment": (
        "lstm-additive-1",
        "#alignment",
        ".map tbody tr:nth-child(8) td:nth-of-type(10)",
    ),
    "tree": ("lstm-1", "#tree", ".scroll .node.dropped >> nth=8"),
}


def main() -> None:
    program = shutil.which("chromium") or sys.exit("no chromium here (apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        rnnmt = [sys.executable, "-m", "rnnmt.cli"]
        with server([*rnnmt, "playground", "--port", "0"]) as address:
            for name in PLAYGROUND:
                take_playground(browser, address, name)
        store = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{ROOT}/mlflow.db")
        mlflow = [sys.executable, "-m", "mlflow", "ui", "--port", "5099", "--workers", "1"]
        with server([*mlflow, "--backend-store-uri", store]) as address:
            take_mlflow(browser, address)
        browser.close()


@contextmanager
def server(command: list[str]) -> Iterator[str]:
    """Runs it until the block ends; gives the address that it prints once it listens."""
    environment = os.environ | {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true",
    }  # fmt: skip
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                yield found[0]
                return
        sys.exit(f"{' '.join(command)}: ended with exit code {process.wait()}")
    finally:
        process.terminate()


def take_playground(browser: Browser, address: str, name: str) -> None:
    variant, part, target = PLAYGROUND[name]
    page = browser.new_page(viewport={"width": 1180, "height": 1400})
    page.goto(f"{address}/#{urlencode({'s': SENTENCE, 'v': variant})}")
    page.get_by_text("Answered in").wait_for()
    page.locator("#chosen").evaluate("node => node.remove()")  # it would lie upon the picture
    page.locator(f"{part} {target}").first.hover(timeout=90_000)
    page.locator(part).screenshot(path=DOCS / f"playground-{name}.png")


def take_mlflow(browser: Browser, address: str) -> None:
    """The charts of the experiment's runs, those of BLEU."""
    page = browser.new_page(viewport={"width": 1500, "height": 900})
    page.goto(f"{address}/#/experiments/1/runs?compareRunsMode=CHART")
    page.get_by_role("button", name="Close", exact=True).click()  # an assistant beside them
    page.get_by_placeholder("Search metric charts").fill("bleu")
    page.get_by_text("lstm-additive-1").first.wait_for()
    page.wait_for_timeout(5000)  # the charts are drawn one after the other, with animations
    page.screenshot(path=DOCS / "mlflow-charts.png")


if __name__ == "__main__":
    main()
