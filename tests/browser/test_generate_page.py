"""The Generate page, driven by clicks and keys, with the small model that comes with Atelier."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import expect

from backend.demo.session import BUNDLED
from backend.generate.pictures import parameters_of
from tests.browser.conftest import ROOT, Server, watch

pytestmark = pytest.mark.browser
SLOW = 150_000
"""ms: the worker starts with the first picture, on a machine that may be busy."""


@pytest.fixture
def draw(browser: Any, server: Server) -> Iterator[Any]:
    """A fresh window on the Generate page; the test fails for console errors and outside requests."""
    context = browser.new_context(viewport={"width": 1440, "height": 1000}, base_url=server.url)
    window = context.new_page()
    window.set_default_timeout(60_000)
    watched = watch(window)
    ready(window)
    yield window
    context.close()
    assert watched.outside == []
    assert watched.errors == []


def ready(window: Any) -> None:
    window.goto("/generate")
    window.wait_for_selector(".ge[data-ready]")


def fill(window: Any, **values: Any) -> None:
    for key, value in values.items():
        window.fill(f"#ge-f-{key}", str(value))


def small(window: Any, **values: Any) -> None:
    """A form that is drawn in a moment."""
    drawing = {"width": 64, "height": 64, "steps": 2, "count": 1, "seed": 5, "scale": 3}
    fill(window, **{"model": BUNDLED, "prompt": "a red ball", **drawing, **values})


def start(window: Any, pictures: int = 1) -> None:
    """Draw, and wait for the pictures; those of an earlier job may be shown until the first one is done."""
    shown = "document.querySelector('#ge-shots img')?.src ?? ''"
    before = window.evaluate(shown)
    window.click("#ge-start")
    window.wait_for_function(f"before => ![before, ''].includes({shown})", arg=before, timeout=SLOW)
    window.wait_for_selector(f"#ge-shots figure:nth-child({pictures})", timeout=SLOW)
    idle(window)


def idle(window: Any) -> None:
    window.wait_for_function("document.querySelector('#ge-stop').disabled", timeout=SLOW)


def made(server: Server) -> list[Path]:
    """All pictures, the newest last. One may be on its way to its name."""
    found: list[tuple[int, Path]] = []
    for path in (server.home / "outputs").rglob("20*/*.png"):
        with contextlib.suppress(FileNotFoundError):
            found.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(found)]


def newer(server: Server, known: Path) -> Path:
    """The newest picture, once it is another than ``known``."""
    deadline = time.monotonic() + SLOW / 1000
    while (newest := made(server)[-1]) == known and time.monotonic() < deadline:
        time.sleep(0.2)
    return newest


def test_pictures_are_drawn_and_found_again_after_a_reload(draw: Any, server: Server) -> None:
    small(draw, model="/nowhere/gone.safetensors", steps="")
    draw.click("#ge-start")
    draw.wait_for_selector("#ge-problems li")
    expect(draw.locator("#ge-problems")).to_contain_text("gone.safetensors")
    expect(draw.locator("[data-field=model].ge-wrong")).to_have_count(1)
    expect(draw.locator("[data-field=steps].ge-wrong")).to_have_count(1)
    small(draw, count=2)
    start(draw, 2)
    expect(draw.locator(".ge-wrong")).to_have_count(0)
    expect(draw.locator("#ge-status")).to_contain_text("Made 2")
    expect(draw.locator("#ge-memory")).to_contain_text("atelier-demo")
    expect(draw.locator("#ge-shots figcaption >> nth=1")).to_have_text("6")
    assert [re.search(r"Seed: (\d)", parameters_of(path))[1] for path in made(server)] == ["5", "6"]  # type: ignore[index]
    draw.wait_for_timeout(900)
    ready(draw)
    expect(draw.locator("#ge-f-prompt")).to_have_value("a red ball")
    expect(draw.locator("#ge-shots figure")).to_have_count(2)


def test_stop_ends_a_long_picture_and_what_waits_is_drawn_or_taken_away(draw: Any) -> None:
    small(draw, steps=400, width=128, height=128)
    draw.click("#ge-start")
    draw.wait_for_function("document.querySelector('#ge-status').innerText.includes('step')", timeout=SLOW)
    small(draw, prompt="the next one")
    draw.click("#ge-start")
    small(draw, prompt="one too many")
    draw.click("#ge-start")
    draw.wait_for_selector("#ge-queue li:nth-child(2)")
    draw.click("#ge-queue li:nth-child(2) button")
    draw.wait_for_selector("#ge-queue li:nth-child(2)", state="detached")
    draw.wait_for_selector("#ge-preview:visible")
    expect(draw.locator("#ge-preview")).to_have_attribute("src", re.compile("^data:image/png"))
    draw.click("#ge-stop")
    draw.wait_for_selector("#ge-shots figure")
    idle(draw)
    expect(draw.locator("#ge-queue")).to_be_hidden()
    expect(draw.locator("#ge-preview")).to_be_hidden()
    draw.click("#ge-shots .ge-open")
    expect(draw.locator("#ge-view-text")).to_have_text(re.compile("^the next one"))


def test_the_queue_outlives_the_server(draw: Any, server: Server) -> None:
    small(draw, prompt="a long one", steps=400, width=128, height=128)
    draw.click("#ge-start")
    draw.wait_for_function("document.querySelector('#ge-status').innerText.includes('step')", timeout=SLOW)
    small(draw, prompt="the next one")
    draw.click("#ge-start")
    draw.wait_for_selector("#ge-queue li")
    server.stop()
    server.start()
    ready(draw)
    draw.wait_for_selector("#ge-left-jobs li:nth-child(2)")
    expect(draw.locator("#ge-left-jobs li:nth-child(1)")).to_contain_text("a long one")
    expect(draw.locator("#ge-stop"), "nothing is drawn before it is asked for").to_be_disabled()
    draw.click("#ge-left-jobs li:nth-child(1) button")
    draw.wait_for_selector("#ge-left-jobs li:nth-child(2)", state="detached")
    draw.click("#ge-go-on")
    draw.wait_for_selector("#ge-shots figure", timeout=SLOW)
    idle(draw)
    expect(draw.locator("#ge-left-jobs")).to_be_hidden()
    draw.click("#ge-shots .ge-open")
    expect(draw.locator("#ge-view-text")).to_have_text(re.compile("^the next one"))


def test_a_picture_gives_its_settings_back_is_painted_over_and_compared(draw: Any, server: Server) -> None:
    small(draw, prompt="a blue house", seed=11)
    start(draw)
    first = made(server)[-1]
    small(draw, prompt="another", seed=12)
    draw.wait_for_selector("#ge-shots img")
    draw.evaluate(
        """async () => {
            const image = document.querySelector("#ge-shots img");
            const blob = await (await fetch(image.src)).blob();
            const transfer = new DataTransfer();
            transfer.items.add(new File([blob], "x.png", { type: "image/png" }));
            const at = document.querySelector(".ge h1");
            at.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
        }"""
    )
    draw.wait_for_function("document.querySelector('#ge-f-prompt').value === 'a blue house'")
    expect(draw.locator("#ge-f-seed")).to_have_value("11")

    draw.click("#ge-shots .ge-open")
    draw.click("text=Paint over it")
    draw.wait_for_selector("#ge-mask[open]")
    box = draw.locator("#ge-mask canvas").bounding_box()
    middle = box["y"] + box["height"] / 2
    draw.evaluate("document.querySelector('#ge-brush').value = 20")
    draw.mouse.move(box["x"] + box["width"] * 0.1, middle)
    draw.mouse.down()
    draw.mouse.move(box["x"] + box["width"] * 0.4, middle, steps=4)
    draw.mouse.up()
    draw.click("#ge-mask-invert")
    draw.click("#ge-mask-undo")
    draw.click("#ge-mask-save")
    draw.wait_for_selector(".ge-mask-small:visible")
    fill(draw, prompt="a red ball", steps=4, image_strength=1)
    start(draw)
    before, after = (Image.open(path).convert("RGB") for path in (first, newer(server, first)))
    assert before.getpixel((60, 60)) == after.getpixel((60, 60)), "outside of the mask nothing changes"
    painted = [(x, 32) for x in range(10, 24)]
    assert any(before.getpixel(at) != after.getpixel(at) for at in painted)

    draw.wait_for_selector("#ge-earlier .ge-open img[src]")
    draw.click("#ge-shots .ge-open")
    draw.click("text=Compare with another")
    draw.click("#ge-viewer .ge-close")
    draw.click("#ge-earlier .ge-open >> nth=0")
    draw.click("#ge-view-actions >> text=Compare with")
    draw.wait_for_selector("#ge-compare[open]")
    draw.evaluate(
        "const s = document.querySelector('#ge-slider'); s.value = 20; s.dispatchEvent(new Event('input'))"
    )
    draw.wait_for_function("getComputedStyle(document.querySelector('#ge-right')).clipPath.includes('20%')")


def test_loras_stand_in_rows_with_two_strengths(draw: Any, tmp_path: Path) -> None:
    draw.click("text=Add a LoRA")
    draw.fill(".ge-lora [aria-label='LoRA file']", str(tmp_path / "<b>gone</b>.safetensors"))
    draw.fill(".ge-lora [aria-label='Text strength']", "0.3")
    small(draw)
    draw.click("#ge-start")
    draw.wait_for_selector("#ge-problems li")
    expect(draw.locator("#ge-problems")).to_contain_text("<b>gone</b>.safetensors")
    draw.wait_for_timeout(900)
    ready(draw)
    expect(draw.locator(".ge-lora [aria-label='Text strength']")).to_have_value("0.3")
    draw.click(".ge-lora .ge-remove")
    draw.wait_for_timeout(900)
    ready(draw)
    expect(draw.locator(".ge-lora")).to_have_count(0)


def test_the_gallery_is_searched_and_a_picture_sent_to_a_dataset(draw: Any, tmp_path: Path) -> None:
    small(draw, prompt="a singular pelican", seed=21)
    start(draw)
    draw.click("#ge-tab-made")
    draw.wait_for_selector("#ge-list img[src]")
    draw.fill("#ge-words", "pelican singular")
    draw.wait_for_function("document.querySelectorAll('#ge-list li').length === 1")
    draw.click("#ge-list .ge-open")
    draw.click("text=To a dataset")
    draw.fill("#ge-folder", str(tmp_path))
    draw.click("#ge-send-go")
    draw.wait_for_function("document.querySelector('.at-toast').innerText.includes('Copied')")
    assert [path.read_text() for path in tmp_path.glob("*.txt")] == ["a singular pelican"]
    draw.click("#ge-viewer .ge-close")
    draw.fill("#ge-words", "no such words")
    draw.wait_for_selector("#ge-none:visible")


def train(server: Server, pictures: Path) -> None:
    """A run of three epochs of one step, each of which leaves a file."""
    (pictures / "1_sks ball").mkdir()
    Image.new("RGB", (64, 64), (250, 220, 30)).save(pictures / "1_sks ball" / "a.png")
    options = {
        "pretrained_model_name_or_path": BUNDLED, "train_data_dir": pictures, "output_name": "my ball",
        "resolution": 64, "train_batch_size": 1, "network_module": "networks.lora", "network_dim": 2,
        "learning_rate": 0.01, "max_train_epochs": 3, "save_every_n_epochs": 1, "seed": 1,
        "mixed_precision": "no",
    }  # fmt: skip
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    places = {"ATELIER_HOME": str(server.home), "ATELIER_RUNS": str(server.home / "runs")}
    command = [sys.executable, "tools/train_network.py", *words]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **places}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_which_epoch_is_best_of_a_run(draw: Any, server: Server, tmp_path: Path) -> None:
    train(server, tmp_path)
    small(draw, prompt="a house", width=128, height=128, model="/nowhere")
    draw.click("text=Add a LoRA")
    draw.fill(".ge-lora [aria-label='LoRA file']", "/nowhere/else.safetensors")
    draw.click("#ge-tab-grids")
    draw.wait_for_selector("#ge-run option", state="attached")
    expect(draw.locator("#ge-run")).to_have_text("my ball (3 files)")
    draw.click("button#ge-best")
    draw.wait_for_selector("#ge-grid td img", timeout=SLOW)
    expect(draw.locator("#ge-grid-problems"), "the run's model, and no networks of before").to_be_hidden()
    expect(draw.locator("#ge-f-width")).to_have_value("64")
    expect(draw.locator(".ge-lora")).to_have_count(0)
    expect(draw.locator("#ge-f-prompt")).to_have_value("sks ball, a house")
    draw.wait_for_selector("text=Contact sheet", timeout=SLOW)
    assert (
        draw.inner_text(".ge-grid-done")
        == "18 of 18"
        == draw.inner_text("#ge-gridlist [aria-current=true] small")
    )
    heads = draw.locator("#ge-grid thead >> nth=0").inner_text().split("\t")
    assert [head.strip() for head in heads if head.strip()] == ["my ball-000001", "my ball-000002", "my ball"]
    draw.click("text=Blind vote")
    draw.wait_for_selector("#ge-vote[open] .ge-pair img[src]")
    expect(draw.locator("#ge-vote")).not_to_contain_text("my ball")
    expect(draw.locator("#ge-vote .ge-actions [data-choice=first]")).to_have_text("\u2190 Left")
    draw.keyboard.press("ArrowLeft")
    draw.wait_for_function("document.querySelector('#ge-vote-count').textContent.startsWith('1')")
    draw.click("#ge-vote .ge-close")
    draw.wait_for_selector(".ge-standing tbody tr:nth-child(9)")
    expect(draw.locator(".ge-votes")).to_contain_text("my ball")


def test_a_grid_is_drawn_cell_by_cell_and_voted_on(draw: Any, server: Server) -> None:
    small(draw, prompt="a green tree")
    draw.click("#ge-tab-grids")
    draw.wait_for_selector(".ge-axis textarea:visible")
    draw.fill(".ge-axis textarea >> nth=0", "1, two")
    draw.wait_for_function("document.querySelector('#ge-cells').textContent.includes('two')")
    draw.fill(".ge-axis textarea >> nth=0", "1-2")
    draw.fill(".ge-axis textarea >> nth=1", "2, 6")
    draw.wait_for_function("document.querySelector('#ge-cells').textContent.startsWith('4')")
    draw.fill("#ge-grid-name", "<i>trees</i>")
    draw.click("#ge-grid-start")
    named = "document.querySelector('.ge-grid-head h2')?.innerText === '<i>trees</i>'"
    draw.wait_for_function(named, timeout=SLOW)  # until then an earlier grid is shown
    draw.wait_for_selector("#ge-grid td img", timeout=SLOW)
    draw.wait_for_selector("text=Contact sheet", timeout=SLOW)
    expect(draw.locator("#ge-grid td img")).to_have_count(4)
    expect(draw.locator(".ge-grid-done")).to_have_text("4 of 4")
    folder = max((server.home / "outputs" / "grids").iterdir(), key=lambda path: path.stat().st_mtime)
    assert (folder / "sheet.png").is_file()

    draw.click("text=Blind vote")
    draw.wait_for_selector("#ge-vote[open] .ge-pair img[src]")
    shown = draw.inner_html("#ge-vote")
    assert "CFG" not in shown and folder.name not in shown and "cells" not in shown
    for votes, key in enumerate(("ArrowLeft", "ArrowRight", "ArrowDown"), 1):
        draw.keyboard.press(key)
        draw.wait_for_function(f"document.querySelector('#ge-vote-count').textContent.startsWith('{votes}')")
    draw.click("#ge-vote .ge-close")
    draw.wait_for_selector(".ge-standing tbody tr:nth-child(2)")
    expect(draw.locator(".ge-standing")).to_contain_text("CFG")
    expect(draw.locator(".ge-votes")).to_contain_text("Bradley")

    (folder / "cells" / "1-1.png").unlink()
    draw.click("#ge-gridlist button")
    draw.click("text=Go on")
    draw.wait_for_function("document.querySelectorAll('#ge-grid td img').length === 4", timeout=SLOW)
    idle(draw)
    draw.click("#ge-grid td[data-place='1-1'] .ge-open")
    expect(draw.locator("#ge-view-name")).to_have_text("seed 2, CFG 6")


def test_the_model_is_let_go(draw: Any) -> None:
    small(draw)
    start(draw)
    draw.click("#ge-unload")
    draw.wait_for_function("document.querySelector('#ge-memory').textContent === 'No model loaded'")
    expect(draw.locator("#ge-unload")).to_be_hidden()


def test_the_page_stays_light(browser: Any, server: Server) -> None:
    window = browser.new_page(base_url=server.url)
    sizes: list[int] = []
    window.on("response", lambda response: sizes.append(_size(response)))
    ready(window)
    assert sum(sizes) < 1_000_000, f"{sum(sizes)} bytes in {len(sizes)} answers"
    window.close()


def _size(response: Any) -> int:
    """Bytes over the wire, or of the text where the server does not say."""
    said = response.headers.get("content-length")
    return int(said) if said else 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_narrow_window(browser: Any, server: Server, scheme: str) -> None:
    window = browser.new_page(
        base_url=server.url, viewport={"width": 390, "height": 844}, color_scheme=scheme
    )
    ready(window)
    for tab in ("draw", "made", "grids"):
        window.click(f"#ge-tab-{tab}")
        window.wait_for_timeout(300)
        window.wait_for_function("document.documentElement.scrollWidth <= 390")
    window.close()
