"""The worker's protocol, with the small model of ``fake`` behind it."""

from __future__ import annotations

import base64
import functools
import io
import json
import queue
import threading
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from backend import families, networks
from backend.errors import InputError
from backend.generate import engine, pictures, warm
from backend.generate import grid as grids
from backend.generate.grid import Axis, planned
from backend.generate.protocol import order_of, request_of
from backend.generate.request import Guide, Hires, LoraUse, Request
from backend.generate.worker import Worker
from tests.generate.fake import FakeModel


class Client:
    """A worker in a thread, spoken to in its own lines."""

    def __init__(self, idle_minutes: float = 60) -> None:
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.events: queue.Queue[dict] = queue.Queue()
        self.worker = Worker(iter(self.lines.get, None), self, idle_minutes)
        self.thread = threading.Thread(target=self.worker.run)
        self.thread.start()
        assert self.next()["type"] == "ready"

    def write(self, text: str) -> None:
        self.events.put(json.loads(text))

    def flush(self) -> None:
        return

    def send(self, **line) -> None:
        self.lines.put(json.dumps(line))

    def next(self) -> dict:
        return self.events.get(timeout=20)

    def until(self, id_, *types: str) -> list[dict]:
        found = []
        while not found or not (found[-1]["id"] == id_ and found[-1]["type"] in types):
            found.append(self.next())
        return found

    def ask(self, **line) -> list[dict]:
        self.send(**line)
        return self.until(line.get("id"), "done", "error")

    def close(self) -> None:
        self.lines.put(None)
        self.thread.join(20)
        assert not self.thread.is_alive()


class FakeNetwork(torch.nn.Module):
    """Shifts the text projection's bias."""

    def __init__(self, modules) -> None:
        super().__init__()
        self.target = next(iter(modules)).module
        self.strength, self.unused = 1.0, ()

    def set_strengths(self, denoiser: float, text: float) -> None:
        self.strength = denoiser

    def attach(self) -> None:
        self.hook = self.target.register_forward_hook(lambda _m, _i, out: out + 0.7 * self.strength)

    def detach(self) -> None:
        self.hook.remove()


@pytest.fixture
def files(tmp_path):
    for name in ("base.safetensors", "other.safetensors", "lora.safetensors", "second.safetensors"):
        (tmp_path / name).write_bytes(b"x" * 8)
    return tmp_path


@pytest.fixture
def loads(monkeypatch):
    """Names of the files that were really loaded, in order."""
    seen: list[str] = []

    def load(path, *, dtype=None, device=None, vae=None, options=None):
        seen.append(path.name)
        return FakeModel()

    def read(path):
        seen.append(path.name)
        return {}, {}

    monkeypatch.setattr(families, "load", load, raising=False)
    monkeypatch.setattr(networks, "read_lora", read)
    monkeypatch.setattr(networks, "from_weights", lambda weights, modules: FakeNetwork(modules))
    return seen


@pytest.fixture
def client(loads):
    started = Client()
    yield started
    started.close()


def generate(files, id_="1", loras=(), model="base.safetensors", **request) -> dict:
    stack = [{"path": str(files / name), "strength": strength} for name, strength in loras]
    wanted = {"prompt": "a cat", "seed": 3, "steps": 3, "width": 64, "height": 64, "loras": stack, **request}
    return {
        "id": id_,
        "op": "generate",
        "model": str(files / model),
        "request": wanted,
        "out": str(files / "out"),
    }


def bytes_of(events) -> list[bytes]:
    return [Image.open(Path(e["path"])).tobytes() for e in events if e["type"] == "picture"]


def test_events_of_a_picture(client, files):
    events = client.ask(**generate(files, count=2))
    assert [e["type"] for e in events if e["type"] != "alive"] == [
        "loading",
        *["progress"] * 3,
        "picture",
        *["progress"] * 3,
        "picture",
        "done",
    ]
    assert {e["id"] for e in events} == {"1"}
    assert [
        (e["step"], e["total"], e["picture"], e["pictures"]) for e in events if e["type"] == "progress"
    ] == [
        *((s, 3, 1, 2) for s in (1, 2, 3)),
        *((s, 3, 2, 2) for s in (1, 2, 3)),
    ]
    shown = [e for e in events if e["type"] == "picture"]
    assert [e["seed"] for e in shown] == [3, 4]
    assert events[-1]["pictures"] == [e["path"] for e in shown] and events[-1]["stopped"] is False
    from pathlib import Path

    text = pictures.parameters_of(Path(shown[1]["path"]))
    assert text.startswith("a cat\nSteps: 3") and "Seed: 4" in text and "Model: base" in text


def test_pictures_that_are_there_are_left_out(client, files):
    whole = client.ask(**generate(files, "1", count=3))
    rest = client.ask(**generate(files, "2", count=3), first=1)
    assert bytes_of(rest) == bytes_of(whole)[1:]
    told = [(e["index"], e["seed"]) for e in rest if e["type"] == "picture"]
    assert told == [(1, 4), (2, 5)]
    assert next((e["picture"], e["pictures"]) for e in rest if e["type"] == "progress") == (2, 3)
    assert client.ask(**generate(files, "3", count=3), first=3)[-1]["pictures"] == []


def test_the_model_stays_and_networks_come_and_go(client, files, loads):
    plain = bytes_of(client.ask(**generate(files)))
    full = bytes_of(client.ask(**generate(files, loras=[("lora.safetensors", 1.0)])))
    half = bytes_of(client.ask(**generate(files, loras=[("lora.safetensors", 0.5)])))
    zero = bytes_of(client.ask(**generate(files, loras=[("lora.safetensors", 0.0)])))
    both = bytes_of(client.ask(**generate(files, loras=[("second.safetensors", 1), ("lora.safetensors", 1)])))
    again = bytes_of(client.ask(**generate(files)))
    assert plain == zero == again
    assert len({*plain, *full, *half, *both}) == 4
    assert loads == ["base.safetensors", "lora.safetensors", "second.safetensors"]


def test_previews_are_shown_while_it_draws_when_asked_for(client, files, monkeypatch):
    monkeypatch.setattr(engine, "draw", functools.partial(engine.draw, preview_seconds=0.0))
    line = generate(files, count=2, batch=2, steps=4)
    shown = [event for event in client.ask(**line, preview=True) if event["type"] == "preview"]
    assert shown and shown[0]["image"].startswith("data:image/png;base64,")
    image = Image.open(io.BytesIO(base64.b64decode(shown[-1]["image"].partition(",")[2])))
    assert image.width == 2 * image.height, "both pictures of the batch, side by side"
    assert not [event for event in client.ask(**generate(files, id_="2")) if event["type"] == "preview"]


def test_the_picture_before_it_was_enlarged_is_kept_when_asked_for(client, files):
    hires = {"scale": 2, "steps": 2, "save_first": True}
    picture = next(e for e in client.ask(**generate(files, hires=hires)) if e["type"] == "picture")
    path = Path(picture["path"])
    assert (picture["width"], picture["height"]) == Image.open(path).size == (128, 128)
    assert Image.open(path.with_stem(path.stem + "_first")).size == (64, 64)


def test_another_base_loads_anew(client, files, loads):
    client.ask(**generate(files, loras=[("lora.safetensors", 1.0)]))
    client.ask(**generate(files, model="other.safetensors", loras=[("lora.safetensors", 1.0)]))
    assert loads == ["base.safetensors", "lora.safetensors", "other.safetensors", "lora.safetensors"]


def test_a_changed_file_is_read_again(client, files, loads):
    client.ask(**generate(files, loras=[("lora.safetensors", 1.0)]))
    (files / "lora.safetensors").write_bytes(b"y" * 9)
    client.ask(**generate(files, loras=[("lora.safetensors", 1.0)]))
    assert loads == ["base.safetensors", "lora.safetensors", "lora.safetensors"]


def test_errors_are_problem_lists_and_work_goes_on(client, files, monkeypatch):
    missing = client.ask(**generate(files, model="gone.safetensors"))[-1]
    assert missing["type"] == "error" and "gone.safetensors" in missing["problems"][0]["what"]
    bad = client.ask(**generate(files, id_="2", steps="many", colour=1))[-1]
    assert [p["key"] for p in bad["problems"]] == ["steps", "colour"]
    sampler = client.ask(**generate(files, id_="3", sampler="magic"))[-1]
    assert "'magic'" in sampler["problems"][0]["what"]
    unknown = client.ask(id="4", op="dance")[-1]
    assert "dance" in unknown["problems"][0]["what"]
    client.lines.put("{broken")
    assert client.until(None, "error")[-1]["problems"]
    assert client.ask(**generate(files, id_="5"))[-1]["type"] == "done"


def test_memory_that_runs_out_is_said_in_words(client, files, monkeypatch):
    def load(*_args, **_options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(families, "load", load)
    problem = client.ask(**generate(files))[-1]["problems"][0]
    assert "not enough memory" in problem["what"] and "smaller" in problem["next"]
    assert "20.00 GiB" in problem["detail"]


def test_stop_ends_within_a_step(client, files):
    client.send(**generate(files, steps=1000, width=512, height=512))
    client.until("1", "progress")
    asked = time.perf_counter()
    client.send(id="s", op="stop")
    done = client.until("1", "done")[-1]
    assert (done["stopped"], done["pictures"]) == (True, [])
    assert time.perf_counter() - asked < 2
    assert client.ask(**generate(files, id_="2"))[-1]["stopped"] is False


def test_stop_reaches_what_waits_and_nothing_later(client, files):
    client.send(**generate(files, id_="1", steps=1000, width=512, height=512))
    client.send(**generate(files, id_="2"))
    client.until("1", "progress")
    client.send(id="s", op="stop")
    client.send(**generate(files, id_="3"))
    ends = {e["id"]: e for e in client.until("3", "done", "error") if e["type"] == "done"}
    assert (ends["1"]["stopped"], ends["2"]["stopped"], ends["3"]["stopped"]) == (True, True, False)


def test_ping_is_answered_in_the_middle(client, files):
    client.send(**generate(files, steps=1000, width=512, height=512))
    client.until("1", "progress")
    client.send(id="p", op="ping")
    pong = next(e for e in client.until("p", "done") if e["type"] == "pong")
    assert pong["busy"] is True and pong["model"].endswith("base.safetensors")
    assert pong["memory"]["process"] > 0
    client.send(id="s", op="stop")
    client.until("1", "done")


def test_unload_on_demand(client, files, loads):
    client.ask(**generate(files))
    assert client.ask(id="u", op="unload")[-1]["type"] == "done"
    assert client.worker._warm.model is None
    client.ask(**generate(files))
    assert loads == ["base.safetensors", "base.safetensors"]


def test_unloads_by_itself_when_idle(files, loads):
    client = Client(idle_minutes=0.2 / 60)
    client.ask(**generate(files))
    assert client.until(None, "unloaded")
    assert client.worker._warm.model is None
    assert client.ask(**generate(files))[-1]["type"] == "done"
    client.close()


def test_quit_ends(loads):
    client = Client()
    client.send(id="q", op="quit")
    client.thread.join(20)
    assert not client.thread.is_alive()
    client.close()


@pytest.mark.parametrize(
    "change, key",
    [
        ({"model": ""}, "model"),
        ({"out": None}, "out"),
        ({"first": -1}, "first"),
        ({"request": {"loras": [{"path": ""}]}}, "loras"),
        ({"request": {"loras": "x"}}, "loras"),
        ({"request": {"loras": [{"path": "a", "strength": "much"}]}}, "loras"),
        ({"request": {"loras": [{"path": "a", "colour": 1}]}}, "loras"),
        ({"request": {"guides": [{"path": "a"}]}}, "guides"),
        ({"request": {"hires": {"scale": 0.5}}}, "hires_scale"),
        ({"request": {"hires": {"mode": "magic"}}}, "hires_mode"),
        ({"request": {"hires": 2}}, "hires"),
        ({"request": {"strength": 1.5}}, "strength"),
        ({"request": {"vae_tile": 5}}, "vae_tile"),
        ({"request": {"image": None}}, "image"),
        ({"request": {"count": 0}}, "count"),
        ({"request": {"scale": None}}, "scale"),
        ({"request": {"scale": float("inf")}}, "scale"),
        ({"request": {"prompt": 3}}, "prompt"),
        ({"request": {"width": 64.5}}, "width"),
        ({"request": {"notes": ["x"]}}, "notes"),
    ],
)
def test_orders_are_checked(files, change, key):
    with pytest.raises(InputError) as caught:
        order_of({**generate(files), **change})
    assert [p.key for p in caught.value.problems] == [key]


def test_orders_take_what_json_gives(files):
    hires = {"scale": 2, "mode": "image", "steps": 8.0}
    order = order_of(
        {**generate(files), "request": {"width": 64.0, "seed": None, "scale": 3, "hires": hires}}
    )
    assert (order.request.width, order.request.seed, order.request.scale) == (64, None, 3)
    assert isinstance(order.request.width, int)
    assert order.request.hires == Hires(2, "image", 8) and isinstance(order.request.hires.steps, int)


def test_a_request_survives_json():
    request = Request(
        "a cat", loras=(LoraUse("l", 0.5, 0.1),), guides=(Guide("g", "i.png", 0.5, 0.8),), hires=Hires(1.5), seed=2**60
    )  # fmt: skip
    assert request_of(json.loads(json.dumps(request.as_dict()))) == request


def grid_line(files, grid, id_="g") -> tuple[dict, grids.GridFolder]:
    folder = grids.create(files / "grids", grid)
    return {"id": id_, "op": "grid", "folder": str(folder.path)}, folder


def test_a_grid_is_drawn_cell_by_cell_and_goes_on_where_it_was_left(client, files, loads):
    axes = (Axis("strength", (0.0, 1.0)), Axis("seed", (3, 4)))
    base = Request("a cat", width=64, height=64, steps=2, loras=(LoraUse(str(files / "lora.safetensors")),))
    line, folder = grid_line(files, planned(str(files / "base.safetensors"), base, axes))
    events = client.ask(**line)
    cells = [event for event in events if event["type"] == "cell"]
    assert [tuple(cell["place"]) for cell in cells] == folder.grid.places
    assert [cell["label"] for cell in cells] == ["× 0, seed 3", "× 1, seed 3", "× 0, seed 4", "× 1, seed 4"]
    assert (events[-1]["failed"], events[-1]["stopped"]) == (0, False) and folder.missing() == []
    assert Path(events[-1]["sheet"]).is_file()
    whole = {place: folder.picture(place).read_bytes() for place in folder.grid.places}
    assert whole[0, 0] != whole[1, 0] and "Seed: 4" in pictures.parameters_of(folder.picture((1, 1)))
    assert "<lora:lora:1>" in pictures.parameters_of(folder.picture((1, 1)))

    folder.picture((1, 0)).unlink()
    kept = folder.picture((0, 0)).stat().st_mtime_ns
    again = client.ask(**line)
    assert [cell["place"] for cell in again if cell["type"] == "cell"] == [[1, 0]]
    assert folder.picture((1, 0)).read_bytes() == whole[1, 0], "drawn alone, a cell is the same"
    assert folder.picture((0, 0)).stat().st_mtime_ns == kept
    assert loads == ["base.safetensors", "lora.safetensors"]


def test_a_stopped_grid_keeps_its_cells(client, files):
    base = Request("a cat", width=512, height=512, steps=60)
    line, folder = grid_line(
        files, planned(str(files / "base.safetensors"), base, (Axis("seed", tuple(range(50))),))
    )
    client.send(**line)
    client.until("g", "cell")
    client.send(id="s", op="stop")
    done = client.until("g", "done")[-1]
    assert done["stopped"] and 1 <= len(folder.finished()) < 50


def test_a_cell_that_fails_is_told_and_the_others_are_drawn(client, files, monkeypatch):
    monkeypatch.setattr("backend.generate.grid.kind_of", lambda _files: "lora")
    paths = tuple(str(files / name) for name in ("lora.safetensors", "second.safetensors"))
    base = Request("a cat", width=64, height=64, steps=1, seed=1)
    line, folder = grid_line(files, planned(str(files / "base.safetensors"), base, (Axis("file", paths),)))
    (files / "lora.safetensors").unlink()
    events = client.ask(**line)
    bad, good = [event for event in events if event["type"] == "cell"]
    assert bad["path"] is None and "lora.safetensors" in bad["problems"][0]["what"]
    assert good["path"] and events[-1]["failed"] == 1 and folder.missing() == [(0,)]


def test_a_grid_that_is_not_there_is_an_error(client, files):
    assert "no grid" in client.ask(id="g", op="grid", folder=str(files / "gone"))[-1]["problems"][0]["what"]


def test_memory_counts_the_process():
    assert warm.memory(torch.device("cpu"))["process"] > 10_000_000
