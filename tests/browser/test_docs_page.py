"""From the words behind a label to the page that explains it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.conftest import Server, watch
from ui.docs.library import readings

pytestmark = pytest.mark.browser


def test_help_leads_to_the_docs_inside_the_program(page: Any, server: Server) -> None:
    page.click(".at-tools [data-view=all]")
    page.locator("[data-key=noise_offset] .at-about").click()
    links = page.locator("[data-key=noise_offset] .at-read-on a")
    assert links.count() == 2
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('.at-read-on') !== null"), (
        "the keyboard reaches them"
    )
    with page.expect_popup() as opened:
        links.last.click()
    docs = opened.value
    watched = watch(docs)
    row = docs.locator("tr#noise_offset")
    row.wait_for()
    assert docs.url == server.url + "/docs/options#noise_offset"
    assert row.evaluate("row => row.matches(':target') && row.getBoundingClientRect().top < innerHeight")
    links.first.click()  # the page that explains it, in the same window
    docs.wait_for_url(f"{server.url}/docs/{readings()['noise_offset']}")
    assert page.locator("#opt-noise_offset").is_visible(), "the form stays as it was"
    assert watched.outside == watched.errors == []


def test_a_page_of_the_docs_is_read_in_theme_and_language(page: Any, server: Server) -> None:
    page.goto(server.url + "/start")
    page.evaluate("localStorage.setItem('atelier-theme', 'dark')")
    with page.expect_popup() as opened:
        page.locator(".at-howto a").first.click()
    docs = opened.value
    watched = watch(docs)
    docs.goto(docs.url)
    assert docs.locator("main h1").inner_text() == "Train a LoRA"
    assert docs.evaluate("document.body.classList.contains('dark')")
    assert docs.evaluate("document.querySelector('main img').decode().then(() => true)")
    docs.click(".at-theme")
    assert docs.evaluate("localStorage.getItem('atelier-theme')") == "light"
    with docs.expect_navigation():
        docs.locator(".at-language").select_option("ja")
    assert docs.evaluate("document.documentElement.lang") == "ja"
    docs.locator("#contents a[href='./options']").click()
    docs.locator("tr#seed").wait_for()
    docs.set_viewport_size({"width": 390, "height": 844})
    assert docs.evaluate("document.documentElement.scrollWidth") <= 390
    docs.locator(".at-head nav a").first.click()
    docs.wait_for_url(server.url + "/start*")
    assert watched.outside == watched.errors == []
