"""The worker's protocol, with the small model of ``fake`` behind it."""

from __future__ import annotations

import json
import queue
import threading
import time

import pytest
import torch

from backend import families, networks
from backend.errors import InputError
from backend.generate import pictures, warm
from backend.generate.protocol import order_of
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
    """Shifts the text projection's bias; counts how often it is attached."""

    def __init__(self, modules) -> None:
        super().__init__()
        self.target = next(iter(modules)).module
        self.strength, self.attached, self.unused = 1.0, 0, ()

    def attach(self) -> None:
        self.attached += 1
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
    wanted = {"prompt": "a cat", "seed": 3, "steps": 3, "width": 64, "height": 64, **request}
    return {
        "id": id_,
        "op": "generate",
        "model": str(files / model),
        "loras": [{"path": str(files / name), "strength": strength} for name, strength in loras],
        "request": wanted,
        "out": str(files / "out"),
    }


def bytes_of(events) -> list[bytes]:
    from pathlib import Path

    from PIL import Image

    return [Image.open(Path(e["path"])).tobytes() for e in events if e["type"] == "picture"]


def test_events_of_a_picture(client, files):
    events = client.ask(**generate(files, count=2))
    assert [e["type"] for e in events] == [
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
        ({"loras": [{"path": ""}]}, "loras"),
        ({"loras": "x"}, "loras"),
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
    order = order_of({**generate(files), "vae": None, "request": {"width": 64.0, "seed": None, "scale": 3}})
    assert (order.request.width, order.request.seed, order.request.scale) == (64, None, 3)
    assert isinstance(order.request.width, int)


def test_memory_counts_the_process():
    assert warm.memory(torch.device("cpu"))["process"] > 10_000_000
