"""The Generate page: what it asks the worker for, what it shows, and how it goes on by itself."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from backend.errors import InputError, RunFault
from backend.generate import pictures, samplers
from backend.generate.parameters import parameters_text
from backend.generate.request import Hires, LoraUse, Request
from backend.jobs.events import EventLog
from backend.jobs.runs import create_run
from ui import studio as studio_module
from ui.context import Context
from ui.drafts import Drafts
from ui.studio import Job, Order, Studio, View
from ui.tabs.generate import files
from ui.tabs.generate.drawing import Desk, DrawCalls, restored
from ui.tabs.generate.fields import DEFAULTS, FIELDS
from ui.tabs.generate.grids import GridCalls, VoteCalls
from ui.tabs.generate.made import GalleryCalls


class FakeWorker:
    """Answers as the real worker does; ``script`` gives the events of each request."""

    def __init__(self, script) -> None:
        self.script, self.running, self.asked, self.told = script, False, [], []

    def request(self, message, timeout=None):
        self.running = True
        self.asked.append(message)
        for event in self.script(self, message):
            yield {"id": message["id"], **event}

    def tell(self, message) -> bool:
        self.told.append(message)
        return True

    def stop(self) -> None:
        self.running = False


def drawn(worker, message):
    """Events of a request that goes well; pictures are written as the worker writes them."""
    request = message["request"]
    yield {"type": "loading", "what": "model", "path": "base.safetensors"}
    for index in range(request["count"]):
        yield {"type": "progress", "step": 1, "total": request["steps"], "picture": index + 1, "pictures": 2}
        yield {"type": "preview", "image": f"data:image/png;base64,{index}"}
        seed = request["seed"] + index
        name = f"{'with' if request['loras'] else 'without'}_{index}.png"
        text = f"{request['prompt']}\nSteps: {request['steps']}, Seed: {seed}"
        path = pictures.save(Image.new("RGB", (8, 8)), Path(message["out"]) / name, text)
        yield {"type": "picture", "path": str(path), "index": index, "seed": seed, "parameters": text}
    yield {"type": "note", "text": "size changed"}
    yield {"type": "done", "stopped": False, "memory": {"process": 5_000_000}}


def drawn_grid(worker, message):
    """Events of a grid whose every cell is drawn."""
    from backend.generate.grid import opened

    folder = opened(Path(message["folder"]))
    for place in folder.missing():
        shade = 20 * sum(place)
        path = pictures.save(
            Image.new("RGB", (8, 8), (shade, 0, 0)), folder.picture(place), "a cat\nSteps: 1"
        )
        yield {"type": "cell", "place": list(place), "path": str(path), "label": folder.grid.label(place),
               "problems": [], "parameters": "a cat\nSteps: 1", "seed": 1}  # fmt: skip
    yield {"type": "done", "stopped": False}


@pytest.fixture
def context(tmp_path) -> Context:
    (tmp_path / "runs").mkdir()
    for name in ("base.safetensors", "my lora.safetensors", "other.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    return Context(tmp_path, tmp_path / "runs", Drafts(tmp_path / "drafts"))


@pytest.fixture
def desk(context) -> Desk:
    return Desk(context)


@pytest.fixture
def calls(desk) -> DrawCalls:
    return DrawCalls(desk)


def with_worker(studio: Studio, script) -> FakeWorker:
    worker = FakeWorker(script)
    studio.worker = worker
    return worker


def values(context: Context, **changes):
    return {
        **DEFAULTS,
        "model": str(context.home / "base.safetensors"),
        "prompt": "a cat",
        "seed": "5",
        **changes,
    }


def stack(context: Context, **changes) -> list[dict]:
    return [{"path": f' "{context.home}/my lora.safetensors" ', "strength": 0.5, **changes}]


def finished(studio: Studio) -> View:
    deadline = time.monotonic() + 20
    while (studio.view().busy or studio.waiting()) and time.monotonic() < deadline:
        time.sleep(0.01)
    view = studio.view()
    assert not view.busy
    return view


def address(image: Image.Image, text: str = "") -> str:
    """A picture as a page sends it."""
    from PIL.PngImagePlugin import PngInfo

    info, data = PngInfo(), io.BytesIO()
    if text:
        info.add_text("parameters", text)
    image.save(data, "PNG", pnginfo=info)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


# -- asking --------------------------------------------------------------------


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


# -- the queue -----------------------------------------------------------------


def test_jobs_wait_their_turn_and_can_be_taken_away(context, desk, calls):
    going = threading.Event()

    def slow(worker, message):
        going.wait(10)
        yield {"type": "done", "stopped": False}

    worker = with_worker(desk.studio, slow)
    for prompt in ("first", "second", "third"):
        reply = calls.draw({"values": values(context, prompt=prompt)})
    assert [job["title"] for job in reply["waiting"]] == ["second", "third"] and reply["now"]["busy"]
    reply = calls.cancel({"job": reply["now"]["job"], "waiting": reply["waiting"][0]["id"]})
    assert [job["title"] for job in reply["waiting"]] == ["third"]
    going.set()
    finished(desk.studio)
    assert [message["request"]["prompt"] for message in worker.asked] == ["first", "third"]
    assert desk.studio.cancel("gone") is False


def test_stop_ends_what_is_drawn_and_the_next_goes_on(context, desk, calls):
    stopped = threading.Event()

    def script(worker, message):
        yield {"type": "progress", "step": 1, "total": 9, "picture": 1, "pictures": 1}
        if message["request"]["prompt"] == "first":
            stopped.wait(10)
            yield {"type": "alive"}
        yield {"type": "done", "stopped": message["request"]["prompt"] == "first"}

    worker = with_worker(desk.studio, script)
    calls.draw({"values": values(context, prompt="first")})
    calls.draw({"values": values(context, prompt="second")})
    assert calls.stop({})["now"]["state"] == "stopping" and worker.told[0]["op"] == "stop"
    assert desk.studio.release() is False, "a worker that draws is not ended"
    stopped.set()
    view = finished(desk.studio)
    assert len(worker.asked) == 2 and not view.stopped and view.title == "second"
    assert desk.studio.release() is True and not worker.running


def test_a_stop_between_two_passes_is_obeyed(context, desk, calls):
    def script(worker, message):
        desk.studio.stop()
        yield {"type": "loading", "path": "x"}
        yield {"type": "done", "stopped": False}

    worker = with_worker(desk.studio, script)
    calls.draw({"values": values(context, loras=stack(context), compare=True)})
    assert finished(desk.studio).stopped and len(worker.asked) == 1


def test_errors_of_the_worker_are_shown_and_the_next_try_works(context, desk, calls):
    problem = {"what": "<b>x</b>.safetensors is damaged", "next": "download it again", "detail": "line 1"}
    with_worker(desk.studio, lambda w, m: iter([{"type": "error", "problems": [problem]}]))
    calls.draw({"values": values(context)})
    finished(desk.studio)
    assert calls.look({})["now"]["problems"][0]["what"].startswith("<b>x</b>")

    def died(worker, message):
        raise RunFault("the picture worker ended", next="try again")
        yield

    with_worker(desk.studio, died)
    calls.draw({"values": values(context)})
    assert "picture worker ended" in finished(desk.studio).problems[0]["what"]
    with_worker(desk.studio, drawn)
    calls.draw({"values": values(context)})
    assert finished(desk.studio).problems == []


def test_a_page_gets_only_what_it_has_not_seen(context, desk, calls):
    with_worker(desk.studio, drawn)
    calls.draw({"values": values(context, count=3)})
    finished(desk.studio)
    now = calls.look({})["now"]
    assert (now["first"], len(now["shots"])) == (0, 3)
    assert now["shots"][0]["url"].startswith("/gradio_api/file=")
    again = calls.look({"job": now["job"], "shots": 2, "preview": 3})["now"]
    assert (again["first"], [shot["seed"] for shot in again["shots"]]) == (2, [7])
    assert len(calls.look({"job": "another", "shots": 3})["now"]["shots"]) == 3


def test_memory_is_asked_of_an_idle_worker_only(desk):
    def script(worker, message):
        yield {"type": "pong", "memory": {"process": 7, "model": "m"}}
        yield {"type": "done"}

    worker = with_worker(desk.studio, script)
    desk.studio.measure()
    assert worker.asked == [] and desk.studio.view().memory == {}, "none is started for that"
    worker.running = True
    desk.studio.measure()
    assert desk.studio.view().memory == {"process": 7, "model": "m"}
    desk.studio.release()
    assert desk.studio.view().memory == {}


# -- trainings -----------------------------------------------------------------


def waited(condition) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_a_training_gets_the_memory(context, desk, calls, monkeypatch):
    monkeypatch.setattr(studio_module, "_LOOK", 0.05)
    worker = with_worker(desk.studio, drawn)
    calls.draw({"values": values(context)})
    finished(desk.studio)
    assert worker.running
    monkeypatch.setattr(desk.studio, "training", lambda: "my cat")
    assert waited(lambda: not worker.running)
    assert calls.look({})["training"] == "my cat"


def test_a_grid_makes_way_for_a_training_that_begins(desk, monkeypatch):
    monkeypatch.setattr(studio_module, "_LOOK", 0.05)
    training = [None]
    monkeypatch.setattr(desk.studio, "training", lambda: training[0])

    def script(worker, message):
        yield {"type": "progress", "step": 1, "total": 9}
        waited(lambda: bool(worker.told))
        yield {"type": "done", "stopped": True}

    worker = with_worker(desk.studio, script)
    for id in ("one", "two"):
        desk.studio.add(Job((Order({"op": "grid"}),), id, 4, "grid", id))
    assert waited(lambda: desk.studio.view().state == "drawing")
    time.sleep(0.2)
    assert not worker.told, "nothing is left while nobody trains"
    training[0] = "my cat"
    view = finished(desk.studio)
    assert view.stopped and "my cat" in view.notes[0] and len(worker.asked) == 1
    assert waited(lambda: not worker.running)


# -- files and settings --------------------------------------------------------


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


# -- the gallery ---------------------------------------------------------------


@pytest.fixture
def made(context, desk, calls) -> GalleryCalls:
    with_worker(desk.studio, drawn)
    for prompt in ("a cat", "a dog"):
        calls.draw({"values": values(context, prompt=prompt)})
    finished(desk.studio)
    return GalleryCalls(desk)


def test_the_gallery_finds_searches_and_shows_small_ones(made):
    reply = made.list_made({})
    assert (reply["total"], reply["pages"]) == (2, 1)
    (dog,) = made.list_made({"words": "dog"})["items"]
    assert dog["text"].startswith("a dog") and dog["size"] == [8, 8]
    small = made.small_ones({"paths": [dog["path"], "../base.safetensors"]})["small"]
    assert small[dog["path"]].endswith(".webp") and small["../base.safetensors"] == ""


def test_a_picture_is_sent_on(made, context, tmp_path):
    (cat,) = made.list_made({"words": "cat"})["items"]
    assert made.use_settings({"path": cat["path"]})["values"]["prompt"] == "a cat"
    assert made.use_picture({"path": cat["path"]})["given"]["size"] == [8, 8]
    by_place = made.use_picture({"path": str(context.home / "outputs" / cat["path"])})
    assert by_place["given"]["size"] == [8, 8], "the Draw view names pictures by their whole path"
    folder = tmp_path / "training"
    with pytest.raises(InputError, match="training"):
        made.to_dataset({"path": cat["path"], "folder": str(folder)})
    folder.mkdir()
    for _ in range(2):
        made.to_dataset({"path": cat["path"], "folder": f'"{folder}"'})
    assert len(list(folder.glob("*.png"))) == 2, "nothing is replaced"
    assert [path.read_text() for path in folder.glob("*.txt")] == ["a cat"] * 2
    with pytest.raises(InputError, match="not there"):
        made.use_picture({"path": "../base.safetensors"})


def test_folders_of_the_dataset_page_are_offered(made, context, tmp_path):
    (tmp_path / "mine").mkdir()
    context.drafts.save("dataset", {"path": str(tmp_path / "mine")})
    context.drafts.remember("dataset", {"path": str(tmp_path / "gone")})
    assert made.dataset_folders({})["folders"] == [str(tmp_path / "mine")]


# -- grids ---------------------------------------------------------------------

AXES = [{"key": "seed", "text": "1, 2"}, {"key": "scale", "text": "4, 7, 9"}, {"key": "steps", "text": " "}]


@pytest.fixture
def grid(desk) -> GridCalls:
    with_worker(desk.studio, drawn_grid)
    return GridCalls(desk)


def test_a_grid_is_drawn_shown_and_gone_on_with(context, desk, grid):
    assert grid.count_cells({"axes": AXES}) == {"cells": 6}
    id = grid.start_grid({"values": values(context, count=4), "axes": AXES, "name": "mine"})["id"]
    finished(desk.studio)
    shown = grid.show_grid({"grid": id})
    assert (shown["done"], shown["total"], shown["wanted"], shown["name"]) == (6, 6, False, "mine")
    assert shown["axes"][1]["labels"] == ["CFG 4", "CFG 7", "CFG 9"]
    assert shown["cells"]["1-2"]["small"].endswith(".webp")
    Path(shown["cells"]["1-2"]["path"]).unlink()
    assert grid.show_grid({"grid": id})["done"] == 5
    grid.continue_grid({"grid": id})
    view = finished(desk.studio)
    assert (view.done, view.total, len(view.shots)) == (6, 6, 1)
    assert [found["id"] for found in grid.list_grids({})["grids"]] == [id]


def test_grids_that_cannot_be_drawn_are_refused(context, grid):
    with pytest.raises(InputError, match="No axis"):
        grid.start_grid({"values": values(context), "axes": [{"key": "seed", "text": ""}]})
    with pytest.raises(InputError, match="gone"):
        grid.start_grid({"values": values(context), "axes": [{"key": "file", "text": "/gone"}]})
    for id in ("", "..", "../..", "no such", "/etc"):
        with pytest.raises(InputError, match="no"):
            grid.show_grid({"grid": id})


def test_which_epoch_is_best_takes_the_runs_own_files_in_order(context, grid):
    config = f'pretrained_model_name_or_path = "{context.home}/base.safetensors"\nsample_prompt_text = "a toy --w 64"\n'
    run = create_run(context.runs, "toy", config)
    for name in ("toy-000010", "toy-000002", "toy"):
        (run.path / "checkpoints" / f"{name}.safetensors").write_bytes(b"x")
        time.sleep(0.02)
    offered = grid.list_grids({})["runs"]
    assert offered == [{"id": run.id, "name": "toy", "files": 3}]
    plan = grid.plan_run({"run": run.id})
    names = [Path(line).stem for line in plan["axes"][0]["text"].splitlines()]
    assert names == ["toy-000002", "toy-000010", "toy"]
    assert (plan["prompt"], plan["model"]) == ("a toy", str(context.home / "base.safetensors"))
    assert [axis["key"] for axis in plan["axes"]] == ["file", "strength", "seed"]
    with pytest.raises(InputError, match="no network files"):
        grid.plan_run({"run": "none"})


def test_a_vote_tells_nothing_until_it_is_over(context, desk, grid):
    id = grid.start_grid({"values": values(context), "axes": AXES})["id"]
    finished(desk.studio)
    vote = VoteCalls(grid)
    asked = vote.next_pair({"grid": id})
    assert set(asked) == {"pair", "pictures", "prompt", "votes"} and asked["prompt"] == "a cat"
    assert all(picture.startswith("data:image/png;base64,") for picture in asked["pictures"])
    again = vote.vote({"grid": id, "pair": asked["pair"], "choice": "first"})
    assert again["votes"] == 1
    assert vote.vote({"grid": id, "pair": asked["pair"], "choice": "first"})["votes"] == 1, "each pair once"
    skipped = vote.vote({"grid": id, "pair": again["pair"], "choice": "skip"})
    assert skipped["votes"] == 1
    for _ in range(40):  # the darker one is always better: it has the smaller scale
        reds = [
            Image.open(io.BytesIO(base64.b64decode(p.partition(",")[2]))).getpixel((0, 0))[0]
            for p in skipped["pictures"]
        ]
        skipped = vote.vote(
            {"grid": id, "pair": skipped["pair"], "choice": "first" if reds[0] < reds[1] else "second"}
        )
    result = grid.show_grid({"grid": id})["votes"]
    assert result["votes"] == 41 and result["rows"][0]["label"] == "CFG 4" and result["clear"]
    assert result["rows"][0]["low"] < result["rows"][0]["chance"] < result["rows"][0]["high"]


def test_the_page_does_not_load_torch(root):
    code = "import sys, ui.tabs.generate; sys.exit(any(m in sys.modules for m in ('torch', 'diffusers', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
