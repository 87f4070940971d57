"""Files and folders of the server are chosen inside the page, wherever a path is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Server

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def place(server: Server) -> Path:
    folder = server.home / "my files"
    (folder / "pictures").mkdir(parents=True)
    (folder / "house style.safetensors").write_bytes(b"x" * 2000)
    (folder / "notes.docx").write_bytes(b"x")
    return folder


@pytest.mark.parametrize(
    ("page_name", "drawn", "field", "chosen"),
    [
        ("generate", ".ge[data-ready]", "#ge-f-model", "house style.safetensors"),
        ("models", ".mo-fields .at-control", "#mo-model", "house style.safetensors"),
        ("tagging", ".an-basic .at-control", "#an-train_data_dir", "pictures"),
        ("dataset", ".ds[data-ready]", "#ds-path", "pictures"),
    ],
)
def test_a_path_is_chosen_in_the_page(
    page: Any, place: Path, page_name: str, drawn: str, field: str, chosen: str
) -> None:
    page.goto(f"/{page_name}")
    page.wait_for_selector(drawn)
    control = page.locator(f".at-control:has(> {field})")
    page.fill(field, str(place / "gone"))
    control.locator("button").click()
    page.wait_for_selector(".at-files[open]")
    page.wait_for_function(
        "path => document.querySelector('.at-file-address input').value === path", arg=str(place)
    )
    shown = page.locator(".at-file-name").all_inner_texts()
    assert any("pictures" in name for name in shown) and not any("docx" in name for name in shown)
    page.click(f".at-file:has-text('{chosen}')")
    page.click(".at-files .at-primary")
    page.wait_for_selector(".at-files", state="hidden")
    expect(page.locator(field)).to_have_value(str(place / chosen))


def test_escape_leaves_the_field_as_it_was(page: Any, place: Path) -> None:
    page.goto("/generate")
    page.wait_for_selector(".ge[data-ready]")
    control = page.locator(".at-control:has(> #ge-f-model)")
    page.fill("#ge-f-model", str(place / "mine.safetensors"))
    control.locator("button").click()
    page.wait_for_selector(".at-files[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector(".at-files", state="hidden")
    expect(page.locator("#ge-f-model")).to_have_value(str(place / "mine.safetensors"))
