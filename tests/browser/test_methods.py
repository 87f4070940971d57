"""Each training method from the Train page, by clicks: two steps, the result, and the result drawn with."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw, ImageFilter
from playwright.sync_api import expect

from backend.demo.tiny import build_tiny_sdxl
from backend.system.identify import identify
from tests.browser.conftest import Server

pytestmark = [pytest.mark.browser, pytest.mark.e2e]
WAIT = 180_000


@dataclass(frozen=True)
class Things:
    """Small models, four pictures with captions, their outlines, and a file that names them."""

    sd1: Path
    sdxl: Path
    pictures: Path
    guides: Path
    metadata: Path


@dataclass(frozen=True)
class Case:
    """A method as somebody chooses it."""

    method: str
    preset: str = ""
    """The preset that is loaded; none: the method is chosen in the form as it stands."""
    model: str = "sd1"
    options: dict[str, str] = field(default_factory=dict[str, str])
    hidden: tuple[str, ...] = ()
    """Options that are for other methods."""
    kind: str = "base"
    """Of the result."""
    title: str = ""
    prompt: str = "a sks ball"


CASES = (
    Case("dreambooth", options={"learning_rate": "1e-6"}, hidden=("network_dim", "token_string"),
         title="DreamBooth, U-Net and text encoder"),
    Case("finetune", "sd15/fine-tune", options={"in_json": "{things.metadata}", "lr_warmup_steps": "0",
         "save_model_as": "diffusers_safetensors"}, hidden=("network_dim", "stop_text_encoder_training"),
         title="Fine-tuning, U-Net"),
    Case("textual_inversion", "sd15/textual-inversion", options={"token_string": "mycat", "init_word": "cat"},
         hidden=("network_dim", "text_encoder_lr", "cache_text_encoder_outputs"), kind="embedding",
         title="Textual inversion 'mycat', 4 vectors", prompt="mycat"),
    Case("lllite", "sdxl/lllite-outlines", "sdxl", {"conditioning_data_dir": "{things.guides}", "network_dim": "4",
         "optimizer_type": "AdamW"}, hidden=("network_alpha", "text_encoder_lr", "reg_data_dir"), kind="lllite",
         title="ControlNet-LLLite, 4 inner numbers"),
)  # fmt: skip


@pytest.fixture(scope="module")
def things(tiny_sd15: Path, tmp_path_factory: pytest.TempPathFactory) -> Things:
    home = tmp_path_factory.mktemp("things")
    pictures, guides = home / "pictures" / "1_sks ball", home / "guides"
    pictures.mkdir(parents=True)
    guides.mkdir()
    told: dict[str, dict[str, str]] = {}
    for index in range(4):
        picture = Image.new("RGB", (64, 64), (60 * index, 90, 160))
        ImageDraw.Draw(picture).ellipse((12, 12, 52, 52), fill=(250, 220, 30))
        picture.save(pictures / f"{index}.png")
        (pictures / f"{index}.txt").write_text(f"a sks ball, number {index}", encoding="utf-8")
        picture.filter(ImageFilter.FIND_EDGES).convert("L").convert("RGB").save(guides / f"{index}.png")
        told[str(pictures / f"{index}.png")] = {"caption": f"a sks ball, number {index}"}
    metadata = home / "metadata.json"
    metadata.write_text(json.dumps(told), encoding="utf-8")
    build_tiny_sdxl(home / "tiny_sdxl.safetensors")
    return Things(tiny_sd15, home / "tiny_sdxl.safetensors", pictures.parent, guides, metadata)


def choose(page: Any, case: Case) -> None:
    """The method, in the form or by its preset, with all options in sight."""
    if case.preset:
        page.select_option("#preset-choice", case.preset)
        page.click("#btn-load-preset")
    else:
        page.select_option("#opt-training_method", case.method)
    page.wait_for_function(
        "(m) => document.querySelector('#opt-training_method').value === m", arg=case.method
    )
    page.click(".at-tools [data-view=all]")


def fill_in(page: Any, values: dict[str, str]) -> None:
    for key, value in values.items():
        box = page.locator(f"#opt-{key}")
        if box.evaluate("(node) => node.tagName") == "SELECT":
            box.select_option(value)
        else:
            box.fill(value)
            box.press("Tab")


def short(case: Case, things: Things) -> dict[str, str]:
    """What makes two quick steps of it, with a sample picture."""
    guide = f" --cn {things.guides / '0.png'}" if case.kind == "lllite" else ""
    return {
        "pretrained_model_name_or_path": str(getattr(things, case.model)),
        "train_data_dir": str(things.pictures),
        "output_name": f"by {case.method}" if case.kind != "embedding" else "mycat",
        "resolution": "64",
        "train_batch_size": "2",
        "mixed_precision": "no",
        "max_train_epochs": "",
        "max_train_steps": "2",
        "sample_prompt_text": f"{case.prompt} --w 64 --h 64 --s 2{guide}",
        "sample_every_n_epochs": "",
        "sample_every_n_steps": "2",
        "save_every_n_epochs": "",
        "save_every_n_steps": "",
        **{key: value.format(things=things) for key, value in case.options.items()},
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.method)
def test_a_method_is_started_watched_and_its_result_drawn_with(
    page: Any, server: Server, things: Things, case: Case
) -> None:
    choose(page, case)
    values = short(case, things)
    fill_in(page, values)
    assert not [key for key in case.hidden if page.locator(f"#opt-{key}").is_visible()]
    name = values["output_name"]
    page.click("#btn-start")
    page.wait_for_function(
        "(name) => { const s = document.querySelector('.at-status');"
        " return (s.dataset.state === 'finished' || s.dataset.state === 'failed') && s.textContent.includes(name) }",
        arg=name, timeout=WAIT,
    )  # fmt: skip
    page.wait_for_function("document.querySelector('#live .lv-samples img')?.naturalWidth > 0", timeout=WAIT)
    page.wait_for_function("document.querySelector('#live .lv-saved .lv-final')", timeout=WAIT)
    expect(page.locator(".at-status"), page.inner_text("#live")).to_have_attribute("data-state", "finished")
    expect(page.locator(".lv-message:is([data-kind=warning], [data-kind=error])")).to_have_count(0)
    expect(page.locator(".lv-plan")).to_contain_text(case.title)
    result = Path(str(page.get_attribute(".lv-saved .lv-final", "title")))
    assert identify(result).kind == case.kind
    if case.kind == "embedding":
        expect(page.locator(".lv-usage code")).to_have_text("mycat")
    draw_with(page, server, case, result, things)


def draw_with(page: Any, server: Server, case: Case, result: Path, things: Things) -> None:
    """From the list of files to a picture that the result has to do with."""
    seed = str(100 + CASES.index(case))
    page.locator(".lv-saved .lv-final").get_by_role("button", name="Use in Generate").click()
    page.wait_for_url("**/generate")
    page.wait_for_selector("#ge-f-prompt")
    model = result if case.kind == "base" else getattr(things, case.model)
    expect(page.locator("#ge-f-model")).to_have_value(str(model))
    expect(page.locator("#ge-f-width")).to_have_value("64")
    expect(page.locator("#ge-f-prompt")).to_have_value(re.compile(re.escape(case.prompt)))
    if case.kind == "lllite":
        expect(page.locator(".ge-guide input").first).to_have_value(str(result))
        page.wait_for_function("document.querySelector('.ge-guide img').naturalWidth === 64")
    if case.kind == "embedding":
        expect(page.locator("#ge-f-embeddings")).to_have_value(str(result.parent))
    page.fill("#ge-f-steps", "2")
    page.fill("#ge-f-seed", seed)
    page.click("#ge-start")
    page.wait_for_function(
        "(seed) => document.querySelector('#ge-status').textContent.includes(seed)"
        " || !document.querySelector('#ge-problems').hidden",
        arg=seed, timeout=WAIT,
    )  # fmt: skip
    expect(page.locator("#ge-problems"), page.inner_text("#ge-problems")).to_be_hidden()
    page.wait_for_function("document.querySelector('#ge-shots img')?.naturalWidth === 64", timeout=WAIT)
