"""A real training from the page: start, watch, stop, resume, reload, restart of the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import expect

from tests.browser.conftest import Server, open_train

pytestmark = [pytest.mark.browser, pytest.mark.e2e]
WAIT = 180_000


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures") / "1_sks ball"
    folder.mkdir()
    for index in range(4):
        picture = Image.new("RGB", (64, 64), (60 * index, 90, 160))
        ImageDraw.Draw(picture).ellipse((12, 12, 52, 52), fill=(250, 220, 30))
        picture.save(folder / f"{index}.png")
    return folder.parent


def fill_in(page: Any, model: Path, pictures: Path, steps: int) -> None:
    page.click(".at-tools [data-view=all]")
    for key, typed in {
        "pretrained_model_name_or_path": str(model),
        "train_data_dir": str(pictures),
        "output_name": "yellow ball",
        "resolution": "64",
        "train_batch_size": "1",
        "learning_rate": "1e-3",
        "text_encoder_lr": "",
        "network_dim": "4",
        "network_alpha": "1",
        "max_train_epochs": "",
        "max_train_steps": str(steps),
        "seed": "1",
        "sample_prompt_text": "a ball --w 64 --h 64 --s 2",
        "sample_every_n_steps": "5",
        "sample_every_n_epochs": "",
        "save_every_n_epochs": "",
    }.items():
        page.fill(f"#opt-{key}", typed)
        page.press(f"#opt-{key}", "Tab")
    for key in ("gradient_checkpointing", "enable_bucket"):
        if page.is_checked(f"#opt-{key}"):
            page.click(f"#opt-{key}")
    page.select_option("#opt-mixed_precision", "no")


def state_of(page: Any) -> str:
    return str(page.get_attribute(".at-status", "data-state"))


def wait_for(page: Any, *states: str) -> None:
    wanted = " || ".join(f"s.dataset.state === '{state}'" for state in states)
    page.wait_for_function(
        f"() => {{ const s = document.querySelector('.at-status'); return {wanted} }}", timeout=WAIT
    )


def wait_for_step(page: Any, step: int) -> None:
    page.wait_for_function(
        r"(n) => Number(/Step (\d+)/.exec(document.querySelector('.at-status-text').textContent)?.[1] ?? 0) >= n",
        arg=step,
        timeout=WAIT,
    )


def test_a_training_from_start_to_resume(page: Any, server: Server, tiny_sd15: Path, pictures: Path) -> None:
    fill_in(page, tiny_sd15, pictures, steps=400)
    page.dblclick("#btn-start")
    page.wait_for_selector(".at-toast:not([hidden]), .at-loud")
    expect(page.locator(".at-loud"), page.inner_text(".at-needs")).to_be_hidden()
    wait_for(page, "running")
    runs = [path for path in (server.home / "runs").iterdir() if (path / "config.toml").is_file()]
    assert len(runs) == 1, "a double click makes one job"
    wait_for_step(page, 6)
    page.wait_for_function("document.querySelector('#live').innerText.includes('yellow ball')", timeout=WAIT)
    page.wait_for_function("document.querySelector('#live img')?.naturalWidth > 0", timeout=WAIT)

    open_train(page)
    wait_for(page, "running")
    expect(page.locator("#opt-output_name")).to_have_value("yellow ball")
    expect(page.locator("#btn-start")).to_be_disabled()

    page.evaluate("window.before = true")
    server.stop()
    server.start()
    page.wait_for_function("!window.before && document.querySelector('[data-ready]')", timeout=WAIT)
    wait_for(page, "running")
    wait_for_step(page, 8)

    page.click("#btn-stop")
    wait_for(page, "stopping", "stopped")
    wait_for(page, "stopped")
    page.wait_for_selector("#btn-resume", state="visible")
    stopped_at = int("".join(filter(str.isdigit, page.inner_text(".at-status-text").split(":")[0])))
    assert stopped_at >= 8

    page.click("#btn-resume")
    wait_for(page, "running")
    wait_for_step(page, stopped_at + 2)
    page.click("#btn-stop")
    wait_for(page, "stopped")
    assert len([path for path in (server.home / "runs").iterdir() if (path / "config.toml").is_file()]) == 1


def test_runs_are_listed_and_opened(page: Any, server: Server) -> None:
    page.goto("/runs")
    page.wait_for_selector("#runs li")
    expect(page.locator("#runs li")).to_contain_text("yellow ball")
    page.click("#runs li a")
    page.wait_for_selector("[data-ready]")
    wait_for(page, "stopped")
    page.wait_for_function("document.querySelector('#live').innerText.includes('yellow ball')")


def test_a_second_window_follows_what_the_first_one_starts(
    browser: Any, server: Server, page: Any, tiny_sd15: Path, pictures: Path
) -> None:
    fill_in(page, tiny_sd15, pictures, steps=300)
    page.press("#opt-seed", "Tab")
    second = browser.new_page(base_url=server.url)
    open_train(second)
    page.click("#btn-start")
    wait_for(page, "running")
    wait_for(second, "starting", "running")
    assert second.is_disabled("#btn-start")
    second.wait_for_selector("#btn-stop", state="visible")
    second.click("#btn-stop")
    wait_for(page, "stopped")
    second.close()
