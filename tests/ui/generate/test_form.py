"""The Generate page's form: what it asks the worker for, and what is wrong with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from backend.errors import InputError
from backend.generate import samplers
from tests.ui.generate.kit import address, drawn, finished, stack, values, with_worker
from ui.tabs.generate.fields import FIELDS


def test_every_sampler_is_offered_under_its_name():
    offered = dict(next(field.choices for field in FIELDS if field.name == "sampler"))
    assert offered == {name: info.label for name, info in samplers.SAMPLERS.items()}


def test_a_plain_request(context, desk, calls):
    worker = with_worker(desk.studio, drawn)
    loras = [*stack(context, text_strength=0.2), {"path": "", "strength": 1}]
    calls.draw({"values": values(context, count=2, loras=loras)})
    view = finished(desk.studio)
    (message,) = worker.asked
    assert message["op"] == "generate" and message["request"]["seed"] == 5 and message["preview"] is True
    path = str(context.home / "my lora.safetensors")
    assert message["request"]["loras"] == [{"path": path, "strength": 0.5, "text_strength": 0.2}]
    assert Path(message["out"]).parent == context.home / "outputs"
    assert [(s.path.name, s.seed, s.caption, s.place) for s in view.shots] == [
        ("with_0.png", 5, "my lora × 0.5", (0, 0)),
        ("with_1.png", 6, "my lora × 0.5", (1, 0)),
    ]
    assert (view.total, view.done, view.columns, view.notes) == (2, 2, 0, ["size changed"])
    assert view.memory["process"] == 5_000_000 and view.previews == 2 and view.preview == ""


def test_all_of_the_form_reaches_the_engine(context, desk, calls):
    worker = with_worker(desk.studio, drawn)
    picture = calls.give_picture({"picture": address(Image.new("RGB", (8, 6), (9, 9, 9)))})["given"]
    mask = calls.give_picture({"picture": address(Image.new("L", (8, 6), 255))})["given"]
    assert picture["size"] == [8, 6] and picture["name"] != mask["name"]
    guide = {
        "path": str(context.home / "other.safetensors"),
        "image": picture["name"],
        "strength": 0.7,
        "ratio": 0.5,
    }
    calls.draw(
        {
            "values": values(
                context, image=picture["name"], mask=mask["name"], image_strength=0.4, hires=True, hires_scale="1.5",
                hires_steps="", variation_strength=0.2, guides=[guide], clip_skip=2, vae_tile=512, width=640,
                vae=str(context.home / "other.safetensors"), negative_scale="",
            )
        }
    )  # fmt: skip
    finished(desk.studio)
    request = worker.asked[0]["request"]
    assert Path(request["image"]).read_bytes()[:4] == b"\x89PNG" and request["strength"] == 0.4
    assert Path(request["mask"]).stem == mask["name"].removesuffix(".png")
    assert request["hires"] == {"scale": 1.5, "mode": "latent", "strength": 0.6, "steps": None}
    assert request["guides"][0]["ratio"] == 0.5 and Path(request["guides"][0]["image"]).is_file()
    assert (request["clip_skip"], request["vae_tile"], request["negative_scale"]) == (2, 512, None)
    assert request["variation_strength"] == 0.2 and request["variation_seed"] >= 0
    assert request["vae"].endswith("other.safetensors")


def test_before_and_after_stand_side_by_side(context, desk, calls):
    worker = with_worker(desk.studio, drawn)
    calls.draw({"values": values(context, count=3, loras=stack(context), compare=True, seed="")})
    view = finished(desk.studio)
    first, second = worker.asked
    assert first["request"]["loras"] == [] and len(second["request"]["loras"]) == 1
    assert {**first["request"], "loras": 0} == {**second["request"], "loras": 0}
    assert first["request"]["seed"] >= 0
    in_order = [shot.path.name for shot in sorted(view.shots, key=lambda shot: shot.place)]
    assert in_order == [
        "without_0.png", "with_0.png", "without_1.png", "with_1.png", "without_2.png", "with_2.png",
    ]  # fmt: skip
    assert (view.total, view.columns) == (6, 2)


@pytest.mark.parametrize(
    "changes, key, words",
    [
        ({"model": ""}, "model", "No base model"),
        ({"model": "/nowhere/gone.ckpt"}, "model", "gone.ckpt"),
        ({"loras": [{"path": "/nowhere/l.safetensors"}]}, "loras", "l.safetensors"),
        ({"loras": [{"path": "{home}/my lora.safetensors", "strength": "much"}]}, "loras", "much"),
        ({"guides": [{"path": "{home}/other.safetensors", "image": ""}]}, "guides", "no picture"),
        ({"compare": True}, "compare", "needs a LoRA"),
        ({"seed": "twelve"}, "seed", "twelve"),
        ({"width": None}, "width", "Width"),
        ({"steps": "2.5"}, "steps", "2.5"),
        ({"count": 0}, "count", "1 to 1000"),
        ({"variation_strength": 3}, "variation_strength", "0 to 1"),
        ({"hires": True, "hires_scale": 20}, "hires_scale", "1 to 8"),
        ({"image": "0" * 40 + ".png"}, "image", "not there any more"),
        ({"image": "../../drafts/x.png"}, "image", "not there any more"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(context, desk, calls, changes, key, words):
    worker = with_worker(desk.studio, drawn)
    for row in [*changes.get("loras", ()), *changes.get("guides", ())]:
        row["path"] = row["path"].replace("{home}", str(context.home))
    with pytest.raises(InputError, match=words) as caught:
        calls.draw({"values": values(context, **changes)})
    assert caught.value.problems[0].key == key
    assert worker.asked == [] and not desk.studio.view().busy


def test_everything_wrong_is_said_at_once(context, calls):
    with pytest.raises(InputError) as caught:
        calls.draw({"values": values(context, model="", steps="", seed="x")})
    assert [problem.key for problem in caught.value.problems] == ["model", "steps", "seed"]


@pytest.mark.parametrize("text, seed", [("-1", None), (" 7 ", 7), ("0", 0), (str(2**60), 2**60)])
def test_seeds(context, desk, text, seed):
    found, request = desk.ready(values(context, seed=text))
    assert found["seed"] == seed
    assert request["seed"] == seed if seed is not None else 0 <= request["seed"] < 2**32


def test_what_is_no_picture_is_refused(calls):
    for sent in ("", "data:image/png;base64,AAAA", "data:image/png;base64,%%%"):
        with pytest.raises(InputError, match="no picture"):
            calls.give_picture({"picture": sent})


def test_the_page_does_not_load_torch(root):
    code = "import sys, ui.tabs.generate; sys.exit(any(m in sys.modules for m in ('torch', 'diffusers', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
