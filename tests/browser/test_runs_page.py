"""The Runs page in a browser: search, the card, two runs side by side, the queue, the trash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import expect

from backend.jobs import queue
from backend.jobs.events import EventLog
from backend.jobs.runs import Run, create_run, find_run

pytestmark = pytest.mark.browser


def make_run(home: Path, name: str, rate: float) -> Run:
    run = create_run(home / "runs", name, f"[optimizer]\nlearning_rate = {rate}\n")
    file = run.path / "checkpoints" / f"{name}.safetensors"
    file.write_bytes(b"weights")
    log = EventLog(run.events)
    log.emit("plan", title="LoRA, rank 4", images=12, steps=20)
    log.emit("note", text="2 pictures left out: <i>a</i>.png is empty (0 bytes); b.png is cut off.")
    for step in range(1, 21):
        log.emit("step", step=step, total=20, epoch=1, loss=1 / step, lr={"unet": rate})
    for step in (0, 20):
        Image.new("RGB", (64, 64), (step * 10, 90, 90)).save(run.path / "samples" / f"{step}.png")
        log.emit("sample", path=f"samples/{step}.png", step=step, index=0, prompt="a <b>cat</b>", seed=1)
    log.emit("saved", step=20, epoch=1, kind="result", path=str(file))
    log.emit("result", path=str(file), facts={"steps": 20, "usage": f"<lora:{name}:1> sks cat"})
    log.close()
    return run


@pytest.fixture(scope="module")
def two(server: Any) -> list[Run]:
    queue.hold(server.home / "runs", "the test holds it")
    return [make_run(server.home, "calm", 1e-4), make_run(server.home, "bold", 1e-3)]


def row(page: Any, run: Run) -> Any:
    return page.locator(f'.at-run-list > li[data-run="{run.id}"]')


def test_the_card_is_read_tagged_and_found_again(page: Any, server: Any, two: list[Run]) -> None:
    calm, bold = two
    page.goto(f"{server.url}/runs")
    row(page, calm).locator(".at-run-title").click()
    card = row(page, calm).locator(".at-card")
    card.locator(".at-usage code").wait_for()
    expect(card.locator(".at-usage code")).to_have_text("<lora:calm:1> sks cat")
    expect(card.locator(".at-shot")).to_have_count(2)
    expect(card.locator("figcaption")).to_have_text("a <b>cat</b>")
    told = card.locator(".at-card-told")
    expect(told.locator("li")).to_be_hidden()
    told.locator("summary").click()
    expect(told.locator("li")).to_have_text(
        "2 pictures left out: <i>a</i>.png is empty (0 bytes); b.png is cut off."
    )
    card.get_by_label("Tags").fill("night, best")
    card.get_by_label("Note").fill("soft light")
    card.get_by_label("Note").blur()
    card.get_by_text("kept", exact=True).wait_for()
    page.reload()
    page.locator(".at-runs-search").fill("soft light")
    row(page, bold).wait_for(state="hidden")
    assert row(page, calm).locator(".at-tags").inner_text().split() == ["night", "best"]
    page.locator(".at-runs-search").fill("nothing like it")
    page.locator(".at-none-found").wait_for()


def test_two_runs_side_by_side(page: Any, server: Any, two: list[Run]) -> None:
    page.goto(f"{server.url}/runs")
    for run in two:
        row(page, run).locator("input[type=checkbox]").check()
    page.locator(".at-do-compare").click()
    table = page.locator(".at-compare table").first
    table.wait_for()
    assert "learning_rate" in table.inner_text() and "0.001" in table.inner_text()
    expect(page.locator(".at-compare polyline")).to_have_count(2)
    expect(page.locator(".at-strip .at-shot")).to_have_count(4)
    page.locator(".at-close").click()
    expect(page.locator(".at-compare")).to_be_hidden()


def test_a_run_waits_in_the_queue_and_is_taken_out(page: Any, server: Any, two: list[Run]) -> None:
    page.goto(f"{server.url}/runs")
    for run in two:
        row(page, run).locator(".at-run-title").click()
        row(page, run).get_by_role("button", name="Add to the queue").click()
        row(page, run).get_by_text("waits, place").wait_for()
    expect(page.locator(".at-queue li .at-run-name")).to_have_text(["calm", "bold"])
    page.locator(".at-queue").get_by_label("Run next: bold").click()
    page.locator('.at-queue li:first-child .at-run-name:text-is("bold")').wait_for()
    for name in ("calm", "bold"):
        page.locator(".at-queue").get_by_label(f"Take out: {name}").click()
        page.locator(f'.at-queue li .at-run-name:text-is("{name}")').wait_for(state="hidden")
    assert queue.read(server.home / "runs").waiting == ()


def test_deleting_is_undone_from_the_message(page: Any, server: Any, two: list[Run]) -> None:
    calm = two[0]
    page.goto(f"{server.url}/runs")
    row(page, calm).locator(".at-run-title").click()
    row(page, calm).get_by_role("button", name="Delete").click()
    row(page, calm).wait_for(state="hidden")
    assert find_run(server.home / "runs", calm.id) is None
    page.locator(".at-said button").click()
    row(page, calm).wait_for()
    assert find_run(server.home / "runs", calm.id) == calm
