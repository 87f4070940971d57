"""What the tests of the Generate page share: a worker that only pretends, and the form's values."""

from __future__ import annotations

import base64
import io
import time
from pathlib import Path

from PIL import Image

from backend.generate import pictures
from ui.context import Context
from ui.studio import Studio, View
from ui.tabs.generate.fields import DEFAULTS


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
    for index in range(message.get("first", 0), request["count"]):
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


def waited(condition) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()
