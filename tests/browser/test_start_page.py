"""The Start page: ways into the program, and the demo in one click."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Server
from tests.browser.test_training_run import wait_for, wait_for_step

pytestmark = [pytest.mark.browser, pytest.mark.e2e]


def test_every_way_leads_to_a_page(page: Any, server: Server) -> None:
    page.goto(server.url + "/start")
    page.wait_for_selector(".at-ways a")
    addresses = [link.get_attribute("href") for link in page.query_selector_all(".at-ways a")]
    assert len(addresses) == 4
    for address in addresses:
        window = page.context.new_page()
        window.goto(server.url + address.removeprefix("."))
        window.wait_for_selector("h1")
        expect(window.locator("#head nav a[aria-current]")).to_have_attribute("href", address)
        window.close()


def test_one_click_starts_the_demo_which_then_stands_among_the_newest_runs(page: Any, server: Server) -> None:
    page.goto(server.url + "/start")
    page.wait_for_selector("#btn-demo")
    expect(page.locator(".at-newest")).to_be_hidden()
    page.click("#btn-demo")
    page.wait_for_url(re.compile(r"/\?run=.*demo-creature"))
    page.wait_for_selector("[data-ready]", timeout=30_000)
    wait_for_step(page, 2)
    expect(page.locator(".at-status-text")).to_contain_text("of 600")
    page.click("#btn-stop")
    wait_for(page, "stopped")
    page.goto(server.url + "/start")
    page.wait_for_selector(".at-newest li")
    expect(page.locator(".at-newest .at-run-name")).to_have_text(re.compile("^demo-creature"))
    expect(page.locator(".at-newest .at-run-state")).to_have_attribute("data-state", "stopped")
