"""Every page at three widths, in both themes and three languages: nothing is cut off, faint or untranslated.

With ``ATELIER_PICTURES=folder`` each combination is written there as a picture, to be looked at.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Server, Watched, watch
from tests.browser.test_runs_page import make_run
from ui.i18n import DEFAULT, NAMES, catalogue
from ui.i18n.language import COOKIE

pytestmark = pytest.mark.browser

WIDTHS = (1440, 1024, 390)
PAGES = {
    "start": "/start",
    "train": "/",
    "dataset": "/dataset",
    "captioning": "/captioning",
    "tagging": "/tagging",
    "generate": "/generate",
    "models": "/models",
    "runs": "/runs",
    "system": "/system",
    "help": "/docs/train-a-lora",
    "options": "/docs/options",
}
OPENED = {
    "train": ".at-tools [data-view=all]",
    "runs": ".at-run-list .at-run-title",
}
"""Page -> what to click to see more of it."""
LOOK = (Path(__file__).parent / "look.js").read_text(encoding="utf-8")
UNFILLED = re.compile(r"\{[a-z_]+\}|\[\[|\bundefined\b|\[object |\bNaN\b")


@pytest.fixture(scope="module")
def seeded(server: Server) -> Server:
    """The server with a finished run to show."""
    make_run(server.home, "calm", 1e-4)
    return server


@pytest.fixture(scope="module", params=list(NAMES))
def reader(
    browser: Any, seeded: Server, request: pytest.FixtureRequest
) -> Iterator[tuple[Any, Watched, str]]:
    """A window in one language, what went wrong in it, and the language."""
    context = browser.new_context(base_url=seeded.url, viewport={"width": WIDTHS[0], "height": 900})
    context.add_cookies([{"name": COOKIE, "value": request.param, "url": seeded.url}])
    window = context.new_page()
    watched = watch(window)
    yield window, watched, request.param
    context.close()


READY = {"train", "dataset", "captioning", "tagging", "generate"}
"""Pages that tell when they are drawn."""


def settle(window: Any, name: str = "") -> None:
    """Wait until a page is drawn, and says the same for a tenth of a second."""
    window.locator("h1").first.wait_for(timeout=60_000)
    if name in READY:
        window.wait_for_selector("[data-ready]", state="attached", timeout=60_000)
    before = ""
    while (now := str(window.evaluate("document.body.innerText"))) != before:
        before = now
        window.wait_for_timeout(100)


def dress(window: Any, theme: str) -> None:
    window.evaluate("theme => document.body.classList.toggle('dark', theme === 'dark')", theme)


def faults_at_every_width(window: Any, look: Any) -> list[str]:
    found: list[str] = []
    for width in WIDTHS:
        window.set_viewport_size({"width": width, "height": 900})
        said = window.evaluate("look => [...look.tooWide(), ...look.cutOff()]", look)
        found += [f"at {width} px: {fault}" for fault in said]
    window.set_viewport_size({"width": WIDTHS[0], "height": 900})
    return found


def faults_in_both_themes(window: Any, look: Any) -> list[str]:
    found: list[str] = []
    for theme in ("light", "dark"):
        dress(window, theme)
        found += [f"{theme}: {fault}" for fault in window.evaluate("look => look.faint()", look)]
    return found


def faults_of_words(window: Any, look: Any, language: str) -> list[str]:
    """Keys in place of texts, parts that were not filled, and English where there is a translation."""
    english, theirs = catalogue(DEFAULT), catalogue(language)
    keys = {*english, *(key.partition(".")[2] for key in english if "_" in key)}
    same = (
        {text for key, text in english.items() if theirs[key] == text}
        if language != DEFAULT
        else set(english.values())
    )
    foreign = {text for text in english.values() if len(text) > 3} - same - set(theirs.values())
    said: list[str] = window.evaluate("look => look.texts()", look)
    assert said
    wrong = [f"not a text: {text}" for text in said if text in keys or UNFILLED.search(text)]
    return wrong + [f"English: {text}" for text in said if text in foreign]


def faults_of_page(window: Any, look: Any, language: str) -> list[str]:
    """All of them. Colours are the same in every language."""
    colours = faults_in_both_themes(window, look) if language == DEFAULT else []
    return faults_of_words(window, look, language) + faults_at_every_width(window, look) + colours


def picture(window: Any, name: str, language: str) -> None:
    """A picture of each width and theme, when a folder is named for them."""
    if not (folder := os.environ.get("ATELIER_PICTURES")):
        return
    for width in WIDTHS:
        window.set_viewport_size({"width": width, "height": 900})
        for theme in ("light", "dark"):
            dress(window, theme)
            window.screenshot(path=Path(folder) / f"{name}-{language}-{theme}-{width}.png", full_page=True)
    window.set_viewport_size({"width": WIDTHS[0], "height": 900})


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_legible_and_translated(reader: tuple[Any, Watched, str], name: str):
    window, watched, language = reader
    window.goto(PAGES[name])
    settle(window, name)
    look = window.evaluate_handle(LOOK)
    faults = faults_of_page(window, look, language)
    picture(window, name, language)
    if name in OPENED:
        window.locator(OPENED[name]).first.click()
        settle(window)
        faults += faults_of_page(window, look, language)
        picture(window, name + "-open", language)
    assert not faults, "\n".join(dict.fromkeys(faults))
    assert (watched.errors, watched.outside) == ([], [])


@pytest.mark.parametrize("name", ["captioning", "tagging", "generate", "models"])
def test_what_a_field_does_is_told_behind_its_label(reader: tuple[Any, Watched, str], name: str):
    window, watched, _ = reader
    window.goto(PAGES[name])
    settle(window, name)
    if name == "models":
        window.locator(".mo-kinds button").nth(4).click()
    marks = window.locator(".at-about:visible")
    # What has no mark is told below itself: pictures, masks and lists of files.
    assert marks.count() >= 5
    card = window.locator(".at-card-about")
    for place in range(marks.count()):
        marks.nth(place).click()
        expect(card.locator("p").first).to_have_text(re.compile(r"\S{4}"))
        expect(card.locator("a").last).to_have_attribute("href", re.compile(r"^\./docs/[a-z-]+$"))
        window.keyboard.press("Escape")
        expect(card).to_be_hidden()
    assert (watched.errors, watched.outside) == ([], [])


def test_the_checks_see_what_is_wrong(reader: tuple[Any, Watched, str]):
    """Each check finds a fault that is planted for it."""
    window, _, language = reader
    window.goto("/start")
    settle(window)
    window.evaluate(
        """() => document.querySelector("h1").insertAdjacentHTML("afterend",
          '<p style="color:#999;background:#fff">faint words</p><p>start.title</p><p>{value} of it</p>' +
          '<button style="width:20px;overflow:hidden;white-space:nowrap">cut off words</button>' +
          '<p style="width:3000px;position:absolute">wide</p>')"""
    )
    look = window.evaluate_handle(LOOK)
    words = "\n".join(faults_of_words(window, look, language))
    assert "start.title" in words and "{value} of it" in words
    dress(window, "light")
    assert any(
        "faint words" in fault and "2.8" in fault for fault in window.evaluate("look => look.faint()", look)
    )
    places = "\n".join(faults_at_every_width(window, look))
    assert '"cut off words" is cut off' in places
    assert 'at 390 px: p "wide" reaches beyond the window' in places
