"""What a training made, in the Generate page's form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from backend.errors import InputError
from backend.jobs.events import EventLog
from backend.jobs.runs import Run, create_run
from tests.weights.weights_kit import make_lora
from ui.context import Context
from ui.drafts import Drafts
from ui.tabs.generate.drawing import DRAFT, Desk
from ui.tabs.generate.using import UseCalls

CONFIG = """
[model]
pretrained_model_name_or_path = "/m/base.safetensors"
vae = "/m/vae.safetensors"
clip_skip = 2
[dataset]
resolution = "96,64"
conditioning_data_dir = '{guides}'
[sampling]
sample_prompt_text = "a sks cat on a mat --w 64"
"""


@pytest.fixture
def context(tmp_path: Path) -> Context:
    (tmp_path / "runs").mkdir()
    return Context(tmp_path, tmp_path / "runs", Drafts(tmp_path / "drafts"))


@pytest.fixture
def run(context: Context, tmp_path: Path) -> Run:
    guides = tmp_path / "guides"
    guides.mkdir()
    Image.new("RGB", (8, 8), "white").save(guides / "b.png")
    Image.new("RGB", (8, 8), "black").save(guides / "a.png")
    run = create_run(context.runs, "cat", CONFIG.format(guides=guides))
    EventLog(run.events).emit("result", path="x", facts={"usage": "<lora:cat:1> sks cat"})
    return run


def form(context: Context, run: Run, file: Path) -> dict[str, Any]:
    UseCalls(context).use({"run": run.id, "file": str(file)})
    return Desk(context).values()


def test_a_network_goes_with_its_model_size_and_words(context: Context, run: Run, tmp_path: Path) -> None:
    context.drafts.save(DRAFT, {"steps": 7, "embeddings": "/old", "compare": True})
    file = make_lora(tmp_path / "cat.safetensors")
    values = form(context, run, file)
    assert values["loras"] == [{"path": str(file), "strength": 1}] and values["compare"]
    assert (values["model"], values["vae"], values["clip_skip"]) == (
        "/m/base.safetensors", "/m/vae.safetensors", 2,
    )  # fmt: skip
    assert (values["width"], values["height"], values["steps"]) == (96, 64, 7)
    assert values["prompt"] == "a sks cat on a mat" and values["embeddings"] == ""


def test_what_was_written_stays_behind_the_words(context: Context, run: Run, tmp_path: Path) -> None:
    file = make_lora(tmp_path / "cat.safetensors")
    context.drafts.save(DRAFT, {"prompt": "a house"})
    assert form(context, run, file)["prompt"] == "sks cat, a house"
    assert form(context, run, file)["prompt"] == "sks cat, a house"


def test_a_word_is_the_name_of_its_file(context: Context, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "words" / "mycat-step00000002.safetensors"
    file.parent.mkdir()
    save_file({"emb_params": torch.ones(2, 768)}, file)
    values = form(context, run, file)
    assert values["embeddings"] == str(file.parent) and values["prompt"] == file.stem
    assert values["model"] == "/m/base.safetensors" and values["loras"] == [] and not values["compare"]


def test_a_guide_comes_with_a_picture_to_follow(context: Context, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "lines.safetensors"
    save_file({"lllite_unet_x.down.0.weight": torch.ones(4, 4)}, file)
    (row,) = form(context, run, file)["guides"]
    kept = Image.open(Desk(context).inputs.path(row["image"]))
    assert row["path"] == str(file) and kept.getpixel((0, 0)) == (0, 0, 0)
    for path in (tmp_path / "guides").iterdir():
        path.unlink()
    assert form(context, run, file)["guides"][0]["image"] == ""


def test_a_model_takes_the_base_models_place(context: Context, run: Run, tiny_sd15: Path) -> None:
    values = form(context, run, tiny_sd15)
    assert values["model"] == str(tiny_sd15) and values["loras"] == values["guides"] == []


def test_what_is_gone_is_said_and_changes_nothing(context: Context, run: Run, tmp_path: Path) -> None:
    for asked in ({"run": "no", "file": "x"}, {"run": run.id, "file": str(tmp_path / "gone.safetensors")}):
        with pytest.raises(InputError):
            UseCalls(context).use(asked)
    assert context.drafts.load(DRAFT) is None
