"""The page in the reader's language: by the browser at first, as chosen from then on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Server, watch
from ui.i18n import catalogue
from ui.i18n.language import COOKIE
from ui.i18n.options import option_texts

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def window(browser: Any, server: Server) -> Iterator[Any]:
    """A window of a reader whose browser asks for Japanese."""
    context = browser.new_context(locale="ja-JP", base_url=server.url, viewport={"width": 390, "height": 844})
    page = context.new_page()
    watched = watch(page)
    yield page
    context.close()
    assert watched.outside == []
    assert watched.errors == []


def open_page(window: Any, path: str) -> None:
    window.goto(path)
    window.locator(".at-head").wait_for()


def test_the_first_page_is_in_the_browsers_language(window: Any):
    open_page(window, "/start")
    expect(window.locator("h1")).to_have_text(catalogue("ja")["start.title"])
    window.wait_for_function("document.documentElement.lang === 'ja'")
    expect(window.locator(".at-language")).to_have_value("ja")


def test_a_choice_counts_on_every_page_and_loads_each_once(window: Any):
    loads: list[str] = []
    window.on("load", lambda: loads.append(window.url))
    with window.expect_navigation():
        window.locator(".at-language").select_option("zh")
    for path, key in (("/start", "start.title"), ("/", "train.title"), ("/dataset", "data.title")):
        if path != "/start":
            open_page(window, path)
        window.get_by_role("heading", name=catalogue("zh")[key], exact=True).wait_for()
        window.wait_for_function("document.documentElement.lang === 'zh'")
    assert len(loads) == 3


def test_nothing_is_wider_than_a_narrow_page(window: Any):
    for path in ("/", "/dataset", "/start"):
        open_page(window, path)
        window.wait_for_function("document.documentElement.scrollWidth <= 390")
        heights = window.locator(".at-head nav a").evaluate_all(
            "links => links.map((link) => link.offsetHeight)"
        )
        assert len(set(heights)) == 1, "names of pages are not broken into lines"


def test_problems_and_search_are_in_the_language_chosen(window: Any, server: Server):
    window.context.add_cookies([{"name": COOKIE, "value": "zh", "url": server.url}])
    open_page(window, "/")
    window.get_by_text("没有选择底模").first.wait_for()
    label = option_texts("zh")["option.noise_offset.label"]
    for words in (label, "noise offset", "NOISE_OFFSET", "ｎｏｉｓｅ offset"):
        window.locator("#form-search").fill(words)
        window.get_by_label(label, exact=True).wait_for()
