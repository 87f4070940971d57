"""From the words behind a label to the page that explains it."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Server, watch
from ui.docs.library import readings

pytestmark = pytest.mark.browser


def test_help_leads_to_the_docs_inside_the_program(page: Any, server: Server) -> None:
    page.click(".at-tools [data-view=all]")
    page.locator("[data-key=noise_offset] .at-about").click()
    links = page.locator("[data-key=noise_offset] .at-read-on a")
    expect(links).to_have_count(2)
    page.keyboard.press("Tab")
    page.wait_for_function("document.activeElement.closest('.at-read-on') !== null")
    with page.expect_popup() as opened:
        links.last.click()
    docs = opened.value
    watched = watch(docs)
    row = docs.locator("tr#noise_offset")
    row.wait_for()
    expect(docs).to_have_url(server.url + "/docs/options#noise_offset")
    assert row.evaluate("row => row.matches(':target') && row.getBoundingClientRect().top < innerHeight")
    links.first.click()  # the page that explains it, in the same window
    docs.wait_for_url(f"{server.url}/docs/{readings()['noise_offset']}")
    expect(page.locator("#opt-noise_offset"), "the form stays as it was").to_be_visible()
    assert watched.outside == watched.errors == []


def test_a_page_of_the_docs_is_read_in_theme_and_language(page: Any, server: Server) -> None:
    page.goto(server.url + "/start")
    page.evaluate("localStorage.setItem('atelier-theme', 'dark')")
    with page.expect_popup() as opened:
        page.locator(".at-howto a").first.click()
    docs = opened.value
    watched = watch(docs)
    docs.goto(docs.url)
    expect(docs.locator("main h1")).to_have_text("Train a LoRA")
    docs.wait_for_function("document.body.classList.contains('dark')")
    docs.wait_for_function("document.querySelector('main img').decode().then(() => true)")
    docs.click(".at-theme")
    docs.wait_for_function("localStorage.getItem('atelier-theme') === 'light'")
    with docs.expect_navigation():
        docs.locator(".at-language").select_option("ja")
    docs.wait_for_function("document.documentElement.lang === 'ja'")
    docs.locator("#contents a[href='./options']").click()
    docs.locator("tr#seed").wait_for()
    docs.set_viewport_size({"width": 390, "height": 844})
    docs.wait_for_function("document.documentElement.scrollWidth <= 390")
    docs.locator(".at-head nav a").first.click()
    docs.wait_for_url(server.url + "/start*")
    assert watched.outside == watched.errors == []
