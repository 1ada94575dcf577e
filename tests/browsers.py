"""A real Chromium, and what of a page cannot be seen or read in it."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

READABLE = 4.5  # WCAG 2's least contrast of text (1.4.3, AA)
Pixels = NDArray[np.uint8]  # (height, width, 3)


@contextmanager
def chromium() -> Iterator[Any]:
    """Playwright's browser. Its tests are skipped where there is none, and in CI."""
    if os.environ.get("CI"):
        pytest.skip("what needs a browser is never tested in CI ($CI is set)")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def problems(page: Any, *places: str) -> list[str]:
    """Grows with a page's errors, and with what it asks of other places than these prefixes."""
    found: list[str] = []

    def note(asked: Any) -> None:
        if not asked.url.startswith(places):
            found.append(asked.url)

    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("console", lambda said: found.append(said.text) if said.type == "error" else None)
    page.on("request", note)
    return found


def contrast(page: Any, selector: str) -> float:
    """WCAG 2's contrast of an element's text with the background that styles give it."""
    if not page.locator(selector).count():
        return float("inf")
    colours = page.locator(selector).first.evaluate(
        """node => {
          const own = getComputedStyle(node).color;
          for (; node; node = node.parentElement) {
            const behind = getComputedStyle(node).backgroundColor;
            if (!/, 0\\)$/.test(behind)) return [own, behind];
          }
          return [own, getComputedStyle(document.documentElement).backgroundColor];
        }"""
    )
    return ratio(*map(channels, colours))


def texts(page: Any) -> list[dict[str, Any]]:
    """The page's texts, those of its pictures too: where on the page, and how they are coloured."""
    found: list[dict[str, Any]] = page.evaluate(_TEXTS)
    assert found, "no text at all is shown; has this machine no fonts?"
    return found


def faint(texts: list[dict[str, Any]], painted: Pixels, least: float = READABLE) -> list[str]:
    """Those that stand out too little from what is painted behind them."""
    found = []
    for one in texts:
        x, y = int(one["x"]), int(one["y"])
        around = painted[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3].reshape(-1, 3)
        behind = np.median(around, axis=0)
        own = one["opacity"] * np.array(channels(one["colour"])) + (1 - one["opacity"]) * behind
        if (reached := ratio(own, behind)) < least:
            found.append(f"{one['text']!r} {reached:.2f}: {one['colour']} on {behind}")
    return found


def empty(page: Any, selector: str, painted: Pixels) -> list[str]:
    """The elements that show nothing, by their labels: their pixels are all alike."""
    boxes = page.locator(selector).evaluate_all(
        """all => all.map(one => {
          const box = one.getBoundingClientRect();
          return [one.getAttribute("aria-label"), one.checkVisibility(),
                  box.x, box.y + scrollY, box.right, box.bottom + scrollY];
        })"""
    )
    found = []
    for label, visible, left, top, right, bottom in boxes:
        part = painted[int(top) : int(bottom), int(left) : int(right)].astype(int)
        other = np.abs(part - part[:1, :1]).max(axis=2, initial=0) > 48
        if not (visible and other.sum() > 1e-3 * other.size):
            found.append(label)
    return found


def photograph(page: Any) -> Pixels:
    """All that is painted of a page but text, which it loses. Window by window: of one image so
    long Chromium paints but the beginning."""
    page.add_style_tag(content=_WITHOUT_TEXT)
    seen: list[Pixels] = []
    height = page.evaluate("document.documentElement.scrollHeight")
    while (done := sum(map(len, seen))) < height:
        top = page.evaluate(
            "top => { scrollTo({top, behavior: 'instant'}); return Math.round(scrollY); }", done
        )
        window = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
        seen.append(window[done - top :])
    page.evaluate("scrollTo({top: 0, behavior: 'instant'})")
    return np.concatenate(seen)


def channels(colour: str) -> list[float]:
    """Red, green and blue, 0 to 255, of a colour as computed styles have it."""
    return [float(value) for value in re.findall(r"[\d.]+", colour)[:3]]


def luminance(colour: Sequence[float] | NDArray[np.float64]) -> float:
    """WCAG 2's relative luminance of red, green and blue, 0 to 255."""
    parts = np.asarray(colour) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def ratio(
    one: Sequence[float] | NDArray[np.float64], other: Sequence[float] | NDArray[np.float64]
) -> float:
    """WCAG 2's contrast, 1 to 21."""
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


# The middle of each text's first line, unless it is outside of what can be scrolled to it.
_TEXTS = """() => {
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode());) {
    const parent = node.parentElement, range = document.createRange();
    if (!node.data.trim() || !parent.checkVisibility({visibilityProperty: true})) continue;
    range.selectNodeContents(node);
    const drawn = parent instanceof SVGElement;
    const box = drawn ? parent.getBoundingClientRect() : range.getClientRects()[0];
    if (!box || !box.width) continue;
    const x = box.x + box.width / 2, y = box.y + box.height / 2;
    let shown = 0 <= x && x < innerWidth, opacity = 1;
    for (let outer = parent; outer !== document.body; outer = outer.parentElement) {
      const style = getComputedStyle(outer), edge = outer.getBoundingClientRect();
      opacity *= style.opacity;
      if (style.overflowX !== "visible") shown &&= edge.left <= x && x <= edge.right;
    }
    const style = getComputedStyle(parent);
    if (shown) found.push({
      text: node.data.trim(), x, y: y + scrollY, opacity, colour: drawn ? style.fill : style.color,
    });
  }
  return found;
}"""
_WITHOUT_TEXT = """
  *, *::before, *::after { color: transparent !important; }
  svg text { visibility: hidden !important; }
"""
