"""The Generate page: what it offers, what it shows, and how it talks to the worker."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from backend.errors import InputError, RunFault
from backend.generate import samplers
from backend.jobs.events import EventLog
from backend.jobs.runs import create_run
from ui import studio as studio_module
from ui.context import Context
from ui.drafts import Drafts
from ui.studio import Shot, Studio, View
from ui.tabs import generate
from ui.tabs.generate import DEFAULTS, GeneratePage, status_html


class FakeWorker:
    """Answers as the real worker does; ``script`` gives the events of each request."""

    def __init__(self, script) -> None:
        self.script, self.running, self.asked, self.told = script, False, [], []

    def request(self, message):
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
    """Events of a request that goes well."""
    request = message["request"]
    yield {"type": "loading", "what": "model", "path": "base.safetensors"}
    for index in range(request["count"]):
        yield {"type": "progress", "step": 1, "total": request["steps"], "picture": index + 1, "pictures": 2}
        name = f"{'with' if message['loras'] else 'without'}_{index}.png"
        yield {
            "type": "picture",
            "path": f"{message['out']}/{name}",
            "index": index,
            "seed": request["seed"] + index,
        }
    yield {"type": "note", "text": "size changed"}
    yield {"type": "done", "stopped": False}


@pytest.fixture
def context(tmp_path) -> Context:
    (tmp_path / "runs").mkdir()
    for name in ("base.safetensors", "my lora.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    return Context(tmp_path, tmp_path / "runs", Drafts(tmp_path / "drafts"))


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


def finished(studio: Studio) -> View:
    deadline = time.monotonic() + 10
    while studio.view().busy and time.monotonic() < deadline:
        time.sleep(0.01)
    view = studio.view()
    assert not view.busy
    return view


def test_every_sampler_is_offered_under_its_name():
    assert {name: label for label, name in generate.SAMPLERS} == {
        n: i.label for n, i in samplers.SAMPLERS.items()
    }


def test_a_plain_request(context):
    page = GeneratePage(context)
    worker = with_worker(page.studio, drawn)
    page.start(values(context, count=2, lora=f' "{context.home}/my lora.safetensors" ', strength=0.5))
    view = finished(page.studio)
    (message,) = worker.asked
    assert message["op"] == "generate" and message["request"]["seed"] == 5
    assert message["loras"] == [{"path": str(context.home / "my lora.safetensors"), "strength": 0.5}]
    assert Path(message["out"]).parent == context.home / "outputs"
    assert [(s.path.name, s.seed, s.caption) for s in view.shots] == [
        ("with_0.png", 5, "my lora × 0.5"),
        ("with_1.png", 6, "my lora × 0.5"),
    ]
    assert (view.total, view.done, view.columns, view.notes) == (2, 2, 0, ["size changed"])


def test_before_and_after_stand_side_by_side(context):
    page = GeneratePage(context)
    worker = with_worker(page.studio, drawn)
    page.start(
        values(context, count=3, lora=str(context.home / "my lora.safetensors"), compare=True, seed="")
    )
    view = finished(page.studio)
    first, second = worker.asked
    assert first["loras"] == [] and len(second["loras"]) == 1
    assert first["request"] == second["request"] and first["request"]["seed"] >= 0
    assert [s.path.name for s in view.shots] == [
        "without_0.png", "with_0.png", "without_1.png", "with_1.png", "without_2.png", "with_2.png",
    ]  # fmt: skip
    assert (view.total, view.columns) == (6, 2)


@pytest.mark.parametrize(
    "changes, key, words",
    [
        ({"model": ""}, "model", "No base model"),
        ({"model": "/nowhere/gone.ckpt"}, "model", "gone.ckpt"),
        ({"lora": "/nowhere/l.safetensors"}, "lora", "l.safetensors"),
        ({"compare": True}, "lora", "needs a LoRA"),
        ({"seed": "twelve"}, "seed", "twelve"),
        ({"width": None}, "width", "Width"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(context, changes, key, words):
    page = GeneratePage(context)
    worker = with_worker(page.studio, drawn)
    with pytest.raises(InputError, match=words) as caught:
        page.start(values(context, **changes))
    assert caught.value.problems[0].key == key
    assert worker.asked == [] and not page.studio.view().busy


def test_one_set_of_pictures_at_a_time_and_stop(context):
    going, page = threading.Event(), GeneratePage(context)

    def slow(worker, message):
        yield {"type": "progress", "step": 1, "total": 9, "picture": 1, "pictures": 1}
        going.wait(10)
        yield {"type": "alive"}
        yield {"type": "done", "stopped": bool(worker.told)}

    worker = with_worker(page.studio, slow)
    page.start(values(context))
    with pytest.raises(InputError, match="already"):
        page.start(values(context))
    page.studio.stop()
    assert page.studio.view().state == "stopping" and worker.told[0]["op"] == "stop"
    assert page.studio.release() is False
    going.set()
    view = finished(page.studio)
    assert view.stopped and "Stopped" in status_html(view)
    assert page.studio.release() is True and not worker.running


def test_a_stop_between_two_passes_is_obeyed(context):
    page = GeneratePage(context)

    def script(worker, message):
        page.studio.stop()
        yield {"type": "loading", "path": "x"}
        yield {"type": "done", "stopped": False}

    worker = with_worker(page.studio, script)
    page.start(values(context, lora=str(context.home / "my lora.safetensors"), compare=True))
    assert finished(page.studio).stopped and len(worker.asked) == 1


def test_errors_of_the_worker_are_shown_and_the_next_try_works(context):
    page = GeneratePage(context)
    problem = {"what": "<b>x</b>.safetensors is damaged", "next": "download it again", "detail": "line 1"}
    with_worker(page.studio, lambda w, m: iter([{"type": "error", "problems": [problem]}]))
    page.start(values(context))
    view = finished(page.studio)
    shown = status_html(view)
    assert "&lt;b&gt;x&lt;/b&gt;.safetensors" in shown and "<b>" not in shown and "download it again" in shown

    def died(worker, message):
        raise RunFault("the picture worker ended", next="try again")
        yield

    with_worker(page.studio, died)
    page.start(values(context))
    assert "picture worker ended" in status_html(finished(page.studio))
    with_worker(page.studio, drawn)
    page.start(values(context))
    assert finished(page.studio).problems == []


def test_a_training_gets_the_memory(context, monkeypatch):
    monkeypatch.setattr(studio_module, "_LOOK", 0.05)
    page = GeneratePage(context)
    worker = with_worker(page.studio, drawn)
    page.start(values(context))
    finished(page.studio)
    assert worker.running
    monkeypatch.setattr(page.studio, "training", lambda: "my cat")
    deadline = time.monotonic() + 5
    while worker.running and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not worker.running
    assert "my cat" in generate.training_html("my cat") and generate.training_html(None) == ""


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
    offered = GeneratePage(context).loras()
    assert offered[0][1] == ""
    assert [Path(path).name for _, path in offered[1:]] == [
        "new.safetensors", "new-000001.safetensors", "old.safetensors", "old-000001.safetensors",
    ]  # fmt: skip
    assert "newest" in offered[1][0] and "newest" not in offered[2][0]


def test_the_last_values_come_back(context):
    page = GeneratePage(context)
    with_worker(page.studio, drawn)
    page.start(values(context, steps=7, prompt="a dog"))
    finished(page.studio)
    again = GeneratePage(context)
    assert (again.values()["steps"], again.values()["prompt"]) == (7, "a dog")
    assert again.models() == [str(context.home / "base.safetensors")]


@pytest.mark.parametrize("text, seed", [("", None), ("-1", None), (" 7 ", 7), (None, None), ("0", 0)])
def test_seeds(text, seed):
    assert generate._seed(text) == seed


def test_progress_says_picture_and_step():
    view = View(state="drawing", step=3, steps=20, done=1, total=4)
    assert "Picture 2 of 4, step 3 of 20" in status_html(view)
    assert 'value="0.287"' in status_html(view)


def test_notes_and_paths_are_escaped():
    view = View(shots=[Shot(Path("/a/<i>/x.png"), 1, "<s>")], notes=["<u>"], seed=1)
    assert not any(tag in status_html(view) for tag in ("<i>", "<s>", "<u>"))


def test_the_page_does_not_load_torch(root):
    code = "import sys, ui.tabs.generate; sys.exit(any(m in sys.modules for m in ('torch', 'diffusers', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
