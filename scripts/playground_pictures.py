"""Take the README's pictures of the playground: `python scripts/playground_pictures.py`.

Needs the models of params.yaml's corpus and Debian's chromium; writes docs/playground-*.png.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parent.parent
SENTENCE = "The prisoner will break the bucket, but he will paint the old bedroom."
# Picture: variant, part of the page, and what the mouse points at.
PICTURES = {
    "alignment": ("lstm-attention-1", "#alignment", ".map tbody tr:nth-child(4) td:nth-of-type(3)"),
    "tree": ("lstm-1", "#tree", ".scroll .node.dropped:nth-of-type(14)"),
}


def main() -> None:
    program = shutil.which("chromium") or sys.exit("no chromium here (apt-get install chromium)")
    command = [sys.executable, "-m", "rnnmt.cli", "playground", "--port", "0"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split()[0]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            for name, picture in PICTURES.items():
                page = browser.new_page(viewport={"width": 1180, "height": 1400})
                _take(page, address, name, *picture)
            browser.close()
    finally:
        server.terminate()


def _take(page: Page, address: str, name: str, variant: str, part: str, target: str) -> None:
    page.goto(f"{address}/#{urlencode({'s': SENTENCE, 'v': variant})}")
    page.get_by_text("Answered in").wait_for()
    page.locator("#chosen").evaluate("node => node.remove()")  # it would lie upon the picture
    page.locator(f"{part} {target}").first.hover()
    page.locator(part).screenshot(path=ROOT / "docs" / f"playground-{name}.png")


if __name__ == "__main__":
    main()
