"""Files that are offered, and settings that come back: the last ones, and those inside of pictures."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from PIL import Image

from backend.errors import InputError
from backend.generate.parameters import parameters_text
from backend.generate.request import Hires, LoraUse, Request
from backend.jobs.events import EventLog
from backend.jobs.runs import create_run
from tests.ui.generate.kit import address, drawn, finished, stack, values, with_worker
from ui.tabs.generate import files
from ui.tabs.generate.drawing import Desk, DrawCalls, restored
from ui.tabs.generate.fields import DEFAULTS


def test_results_of_runs_are_offered_newest_first(context):
    for name in ("old", "new"):
        run = create_run(context.runs, name, "")
        result = run.path / "checkpoints" / f"{name}.safetensors"
        result.write_bytes(b"x")
        (run.path / "checkpoints" / f"{name}-000001.safetensors").write_bytes(b"x")
        log = EventLog(run.events)
        log.emit("result", path=str(result), facts={})
        log.close()
        time.sleep(1.1)
    offered = files.loras(context)
    assert [Path(path).name for _, path in offered] == [
        "new.safetensors", "new-000001.safetensors", "old.safetensors", "old-000001.safetensors",
    ]  # fmt: skip
    assert "newest" in offered[0][0] and "newest" not in offered[1][0]


def test_the_last_values_come_back(context, desk, calls):
    with_worker(desk.studio, drawn)
    picture = calls.give_picture({"picture": address(Image.new("RGB", (8, 8)))})["given"]["name"]
    calls.draw({"values": values(context, steps=7, prompt="a dog", image=picture, loras=stack(context))})
    finished(desk.studio)
    calls.keep_form({"values": values(context, steps="", prompt="half a", image=picture, odd=1)})
    page = DrawCalls(Desk(context)).open_page({})
    assert (page["values"]["steps"], page["values"]["prompt"]) == ("", "half a")
    assert page["models"] == [str(context.home / "base.safetensors")]
    assert page["loras"][0]["path"] == str(context.home / "my lora.safetensors")
    assert page["given"][picture]["size"] == [8, 8] and "odd" not in page["values"]


def test_a_dropped_picture_restores_its_settings(context, calls, desk):
    with_worker(desk.studio, drawn)
    calls.draw({"values": values(context, loras=stack(context))})
    finished(desk.studio)
    asked = Request(
        "a (red:1.2) cat", "blurry", 320, 448, 77, 33, 6.5, "dpmsolver++_karras", clip_skip=2,
        loras=(LoraUse("x/my lora.safetensors", 0.75, 0.25), LoraUse("gone.safetensors", 1.0)),
        hires=Hires(1.5, "image", 12, 0.4),
    )  # fmt: skip
    text = parameters_text(asked, "base")
    head, _, body = address(Image.new("RGB", (320, 448)), text).partition(",")
    reply = calls.read_settings(
        {"picture": f"{head},{body[: len(body) // 8 * 4]}"}
    )  # its beginning is enough
    found = reply["values"]
    for key in ("prompt", "negative", "width", "height", "seed", "steps", "scale", "sampler", "clip_skip"):
        assert found[key] == getattr(asked, key), key
    path = str(context.home / "my lora.safetensors")
    assert found["loras"] == [{"path": path, "strength": 0.75, "text_strength": 0.25}]
    assert found["model"] == str(context.home / "base.safetensors")
    assert (found["hires"], found["hires_scale"], found["hires_mode"], found["hires_steps"]) == (
        True,
        1.5,
        "image",
        12,
    )
    assert any("gone" in note for note in reply["notes"])
    assert set(found) <= set(DEFAULTS)


def test_a_picture_of_another_model_leaves_the_model_of_the_form(context):
    found = restored(context, parameters_text(Request("x", "", 64, 64, 1, 5), "elsewhere"))
    assert "model" not in found["values"] and any("elsewhere" in note for note in found["notes"])


def test_a_picture_without_settings_says_so(calls):
    with pytest.raises(InputError, match="no settings"):
        calls.read_settings({"picture": address(Image.new("RGB", (4, 4)))})
    with pytest.raises(InputError, match="no picture"):
        calls.read_settings({"picture": "data:text/plain;base64,aGVsbG8="})
