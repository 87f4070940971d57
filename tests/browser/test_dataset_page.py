"""The Dataset page, driven by clicks and keys, on folders with planted faults."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import expect

from tests.browser.conftest import Server, watch

pytestmark = pytest.mark.browser

SIZES = ((192, 128), (128, 192), (160, 160))
NAME = "<img src=x onerror=window.bad=1> ü.png"
"""A file name that would be an element if it were taken for HTML."""


def picture(path: Path, size: tuple[int, int], seed: int) -> None:
    chosen = random.Random(seed)
    image = Image.new("RGB", size, tuple(chosen.randrange(40, 220) for _ in range(3)))
    draw = ImageDraw.Draw(image)
    for _ in range(9):
        x, y = chosen.randrange(size[0]), chosen.randrange(size[1])
        colour = tuple(chosen.randrange(256) for _ in range(3))
        draw.ellipse((x, y, x + chosen.randrange(16, 80), y + chosen.randrange(16, 80)), fill=colour)
    image.save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """65 small pictures with captions, one without and one with an odd name."""
    place = tmp_path / "bilder ü 100% #1"
    place.mkdir()
    for index in range(64):
        picture(place / f"p{index:02}.png", SIZES[index % 3], index)
        words = ["sks", "dog" if index % 2 else "cat", f"number {index}"]
        (place / f"p{index:02}.txt").write_text(", ".join(words), encoding="utf-8")
    (place / "p05.txt").unlink()
    picture(place / NAME, (160, 160), 99)
    (place / NAME).with_suffix(".txt").write_text("<b>odd</b>, cat", encoding="utf-8")
    return place


@pytest.fixture
def data(browser: Any, server: Server) -> Iterator[Any]:
    """A fresh window on the Dataset page; the test fails for console errors and outside requests."""
    context = browser.new_context(viewport={"width": 1440, "height": 1000}, base_url=server.url)
    window = context.new_page()
    watched = watch(window)
    ready(window)
    yield window
    context.close()
    assert watched.outside == []
    assert watched.errors == []


def ready(window: Any) -> None:
    window.goto("/dataset")
    window.wait_for_selector(".ds[data-ready]", timeout=30_000)


def open_folder(window: Any, folder: Path) -> None:
    window.fill("#ds-path", str(folder))
    window.press("#ds-path", "Enter")
    window.wait_for_function("path => document.querySelector('.ds').dataset.path === path", arg=str(folder))
    window.wait_for_selector(".ds-thumb img")


def shown(window: Any, total: str) -> None:
    """Wait until the grid says how many there are."""
    window.wait_for_function(
        "wanted => document.querySelector('.ds-shown').textContent.endsWith(' ' + wanted)", arg=total
    )


def enlarge(window: Any, name: str) -> None:
    window.click(f'.ds-card[title="{name}"]')
    window.wait_for_selector(".ds-viewer[open]")


def said(window: Any, words: str) -> None:
    window.wait_for_function(
        "words => document.querySelector('.at-toast').innerText.includes(words)", arg=words
    )


def test_a_folder_is_shown_page_by_page_and_filtered(data: Any, folder: Path) -> None:
    data.fill("#ds-path", str(folder / "nothing"))
    data.click("#ds-open")
    data.wait_for_selector("#ds-problems li")
    expect(data.locator("#ds-problems")).to_contain_text("nothing")

    open_folder(data, folder)
    figures = data.inner_text(".ds-figures")
    assert "65" in figures
    assert "1 without" in figures
    shown(data, "65")
    expect(data.locator(".ds-card")).to_have_count(60)
    data.click(".ds-turn [aria-label='Next page'] >> nth=0")
    data.wait_for_function("document.querySelectorAll('.ds-card').length === 5")

    data.fill("#ds-find", "number 1")
    shown(data, "11")
    data.fill("#ds-find", "")
    data.select_option("#ds-only", "missing")
    shown(data, "1")
    expect(data.locator(".ds-grid")).to_contain_text("p05.png")
    data.select_option("#ds-only", "")
    data.fill("#ds-tag", "dog")
    shown(data, "31")

    data.click("#tab-numbers")
    expect(data.locator("#ds-tag-bars")).to_contain_text("sks")
    expect(data.locator("#ds-buckets")).to_contain_text("512×512")
    data.click("#ds-tag-bars button:has-text('cat')")
    shown(data, "33")


def test_names_and_captions_with_html_are_shown_as_text(data: Any, folder: Path) -> None:
    open_folder(data, folder)
    data.fill("#ds-find", "odd")
    shown(data, "1")
    card = data.inner_text(".ds-card")
    assert NAME in card
    assert "<b>odd</b>" in card
    data.click(".ds-card")
    data.wait_for_selector(".ds-viewer[open]")
    expect(data.locator("#ds-view-name")).to_have_text(NAME)
    assert data.evaluate("window.bad") is None


def test_a_caption_is_edited_undone_and_found_again_after_a_restart(
    data: Any, folder: Path, server: Server
) -> None:
    open_folder(data, folder)
    caption = folder / "p00.txt"
    before = caption.read_text(encoding="utf-8")
    enlarge(data, "p00.png")
    expect(data.locator("#ds-caption-text")).to_have_value(before)
    long = "sks, " + ", ".join(f"a very long word number {n}" for n in range(20))
    data.fill("#ds-caption-text", long)
    data.wait_for_function("document.querySelector('.ds-tokens').textContent.includes('151 of 75')")
    expect(data.locator(".ds-cut mark")).to_contain_text("a very long word number 19")
    data.click("#ds-save")
    data.wait_for_function("document.querySelector('.ds-saved').textContent === 'Saved'")
    assert caption.read_text(encoding="utf-8") == long
    data.click(".ds-viewer .ds-close")
    data.wait_for_selector("#ds-undo:enabled")
    data.wait_for_selector('.ds-card[title="p00.png"]:has-text("cut off")')

    data.goto("about:blank")  # a page that comes back by itself would run into the one opened below
    server.stop()
    server.start()
    ready(data)
    expect(data.locator("#ds-path")).to_have_value(str(folder))
    data.wait_for_selector("#ds-undo:enabled")
    data.click("#ds-undo")
    said(data, "Undone")
    assert caption.read_text(encoding="utf-8") == before
    data.wait_for_selector("#ds-redo:enabled")
    data.click("#ds-redo")
    said(data, "Done again")
    assert caption.read_text(encoding="utf-8") == long


def test_two_pages_that_edit_one_caption_are_told(data: Any, folder: Path) -> None:
    open_folder(data, folder)
    other = data.context.new_page()
    ready(other)
    other.wait_for_selector(".ds-card")
    for window, words in ((data, "from the first"), (other, "from the second")):
        enlarge(window, "p02.png")
        window.fill("#ds-caption-text", words)
    data.click("#ds-save")
    data.wait_for_function("document.querySelector('.ds-saved').textContent === 'Saved'")
    other.click("#ds-save")
    other.wait_for_selector(".ds-conflict:visible")
    expect(other.locator(".ds-mine")).to_have_text("from the second")
    expect(other.locator(".ds-theirs")).to_have_text("from the first")
    caption = folder / "p02.txt"
    assert caption.read_text(encoding="utf-8") == "from the first"
    other.click("#ds-keep")
    other.wait_for_function("document.querySelector('.ds-saved').textContent === 'Saved'")
    assert caption.read_text(encoding="utf-8") == "from the second"


def test_many_captions_change_after_a_preview(data: Any, folder: Path) -> None:
    open_folder(data, folder)
    data.click("#tab-bulk")
    data.select_option("#ds-bulk [name=op]", "replace")
    data.fill("#ds-bulk [name=tag]", "dog")
    data.fill("#ds-bulk [name=with]", "hound")
    data.click("#ds-bulk-preview")
    data.wait_for_selector(".ds-diffs ins")
    expect(data.locator("#ds-changes-count")).to_have_text("31 captions would change.")
    assert (folder / "p01.txt").read_text(encoding="utf-8") == "sks, dog, number 1"
    (folder / "p03.txt").write_text("sks, dog, changed elsewhere", encoding="utf-8")
    data.click("#ds-bulk-apply")
    said(data, "30 captions changed. 1 left alone")
    assert (folder / "p01.txt").read_text(encoding="utf-8") == "sks, hound, number 1"
    assert (folder / "p03.txt").read_text(encoding="utf-8") == "sks, dog, changed elsewhere"
    data.click("#ds-undo")
    said(data, "Undone")
    assert (folder / "p01.txt").read_text(encoding="utf-8") == "sks, dog, number 1"


def test_a_mask_is_painted_saved_and_loaded_again(data: Any, folder: Path, server: Server) -> None:
    open_folder(data, folder)
    enlarge(data, "p00.png")
    data.click("#ds-paint")
    data.wait_for_selector(".ds-mask[open]")
    data.click("#ds-mask-save")
    said(data, "Nothing is painted")
    stroke(data, 0.5)
    stroke(data, 0.9)
    data.click("#ds-mask-undo")
    data.click("#ds-mask-save")
    data.wait_for_selector(".ds-mask", state="hidden")
    saved = list((server.home / "masks").rglob("p00.png"))
    assert len(saved) == 1
    with Image.open(saved[0]) as mask:
        assert (mask.size, mask.mode) == ((192, 128), "L")
        assert mask.getpixel((96, 64)) == 255
        assert mask.getpixel((96, 115)) == 0
        assert mask.getpixel((2, 2)) == 0

    data.click("#ds-paint")
    data.wait_for_selector(".ds-mask[open]")
    data.click("#ds-mask-invert")
    data.click("#ds-mask-save")
    data.wait_for_selector(".ds-mask", state="hidden")
    with Image.open(saved[0]) as mask:
        assert mask.getpixel((96, 64)) == 0
        assert mask.getpixel((2, 2)) == 255
    data.click(".ds-viewer .ds-close")
    data.select_option("#ds-only", "masked")
    shown(data, "1")
    assert not list(folder.rglob("*mask*"))


def stroke(window: Any, height: float) -> None:
    """Paint from left to right at a share of the picture's height."""
    window.fill("#ds-brush", "8")
    box = window.query_selector(".ds-stage canvas").bounding_box()
    y = box["y"] + box["height"] * height
    window.mouse.move(box["x"] + box["width"] * 0.2, y)
    window.mouse.down()
    window.mouse.move(box["x"] + box["width"] * 0.8, y, steps=5)
    window.mouse.up()


def test_the_doctor_finds_what_was_planted_and_its_fix_is_taken_back(data: Any, folder: Path) -> None:
    (folder / "p60.png").write_bytes((folder / "p60.png").read_bytes()[:200])
    (folder / "p61.png").write_bytes((folder / "p62.png").read_bytes())
    (folder / "p63.png").rename(folder / "p63.jpg")
    open_folder(data, folder)
    data.click("#tab-doctor")
    data.click("#ds-examine")
    data.wait_for_selector(".ds-finding", timeout=30_000)
    rules = data.eval_on_selector_all(".ds-finding", "all => all.map(one => one.dataset.rule)")
    assert {"unreadable", "exact_duplicate", "wrong_ending", "caption_missing"} <= set(rules)
    broken = '.ds-finding[data-rule="unreadable"]'
    expect(data.locator(broken)).to_contain_text("Must be mended")
    data.click(f"{broken} .ds-actions button")
    data.wait_for_selector(".ds-fix[open]")
    expect(data.locator(".ds-fix-list")).to_contain_text("p60.png")
    assert (folder / "p60.png").exists()
    data.click("#ds-fix-apply")
    data.wait_for_selector(".ds-fix-undo", timeout=30_000)
    assert not (folder / "p60.png").exists()
    assert (folder / "_excluded" / "p60.png").exists()
    data.wait_for_function("!document.querySelector('[data-rule=unreadable]')")

    data.click(".ds-fix-undo")
    data.wait_for_selector(broken, timeout=30_000)
    assert (folder / "p60.png").exists()
    data.click('.ds-finding[data-rule="exact_duplicate"] button.ds-example')
    data.wait_for_selector(".ds-viewer[open]")
    expect(data.locator("#ds-view-name")).to_have_text(re.compile("p6[12].png"))


def test_a_training_set_is_shown_written_and_used_in_train(data: Any, folder: Path) -> None:
    open_folder(data, folder)
    data.click("#tab-build")
    data.wait_for_selector("#ds-build-problems li")
    data.fill("#ds-build [name=trigger]", "sks")
    data.fill("#ds-build [name=class_word]", "dog")
    data.fill("#ds-build [name=steps]", "1300")
    data.wait_for_function("document.querySelector('#ds-build-text').textContent.includes('num_repeats = 2')")
    target = folder.parent / "mine.toml"
    data.fill("#ds-build [name=out]", str(target))
    text = data.inner_text("#ds-build-text")
    assert not target.exists()
    data.click("#ds-write")
    data.wait_for_selector("#ds-use:enabled")
    assert target.read_text(encoding="utf-8").strip() == text.strip()
    data.click("#ds-write")
    data.wait_for_selector("#ds-build-problems li")
    expect(data.locator("#ds-build-problems")).to_contain_text("exists already")
    data.click("#ds-use")
    data.wait_for_selector(".at-train[data-ready]", timeout=30_000)
    data.click(".at-tools [data-view=all]")
    expect(data.locator("#opt-dataset_config")).to_have_value(str(target))
    data.wait_for_function("document.querySelector('.at-facts').innerText.includes('65 pictures')")


def test_caches_are_filled_by_a_job_that_is_followed(data: Any, tmp_path: Path, tiny_sd15: Path) -> None:
    folder = tmp_path / "2_few"
    folder.mkdir()
    picture(folder / "a.png", (160, 160), 1)
    picture(folder / "b.png", (160, 160), 2)
    open_folder(data, folder)
    data.click("#tab-prepare")
    data.click("#ds-prepare")
    data.wait_for_selector("#ds-prepare-problems li")
    expect(data.locator("#ds-prepare-problems")).to_contain_text("base model")
    data.fill("#ds-model", str(tiny_sd15))
    data.click("#ds-prepare")
    data.wait_for_function(
        "document.querySelector('#ds-prepare-line').textContent === 'Done.'", timeout=120_000
    )
    expect(data.locator("#ds-prepare-notes")).to_contain_text("2 of 2 pictures encoded")


def test_a_small_screen_shows_everything_without_scrolling_sideways(
    browser: Any, server: Server, folder: Path
) -> None:
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, base_url=server.url, has_touch=True, color_scheme="dark"
    )
    window = context.new_page()
    watched = watch(window)
    ready(window)
    open_folder(window, folder)
    wide = "document.documentElement.scrollWidth - innerWidth"
    for name in ("pictures", "numbers", "bulk", "doctor", "build", "prepare"):
        window.click(f"#tab-{name}")
        window.wait_for_selector(f"#pane-{name}:visible")
        assert window.evaluate(wide) <= 0, name
    window.click("#tab-pictures")
    window.tap('.ds-card[title="p01.png"]')
    window.wait_for_selector(".ds-viewer[open]")
    inside = "name => { const box = document.querySelector(name); return box.scrollWidth - box.clientWidth; }"
    assert window.evaluate(inside, ".ds-viewer") <= 0
    window.tap("#ds-paint")
    window.wait_for_selector(".ds-mask[open]")
    assert window.evaluate(inside, ".ds-mask") <= 0
    window.tap(".ds-stage canvas")
    window.wait_for_selector("#ds-mask-undo:enabled")
    context.close()
    assert watched.errors == []
    assert watched.outside == []
