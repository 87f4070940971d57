"""``python -m backend.generate.worker``: draws pictures on request and keeps the model warm.

One JSON object a line comes in, events go out, each with the request's ``id``:

- ``generate`` (model, clip_l, clip_g, t5xxl, request, out, preview, first): ``loading``, ``progress``,
  ``preview``, ``note``, ``picture``, then ``done`` or ``error``. ``first`` pictures are there already.
- ``grid`` (folder, preview): draws what a grid still lacks; ``cell`` in place of ``picture``.
- ``ping``: ``pong`` and ``done`` at once, also in the middle of a picture: busy, model, device, memory.
- ``stop``: ``done`` at once; what was asked for before ends within one step, with ``done`` and ``stopped``.
- ``unload``: gives the memory back, then ``done``. ``quit``: ends.

Work that says nothing for long (reading a large file) is accompanied by ``alive``. The process ends
by itself when its input closes or the process that started it is gone.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from backend.errors import InputError, Problem
from backend.generate.protocol import Order, order_of

if TYPE_CHECKING:
    from PIL import Image

    from backend.generate import engine
    from backend.generate.request import Request
    from backend.generate.warm import Warm

Line = dict[str, Any]
_GRACE = 5.0
"""Seconds that a picture has to end after the input closed."""
_BEAT = 10.0
"""Seconds between two signs of life."""


class Worker:
    """One thread reads lines, the calling one draws."""

    def __init__(self, lines: Iterable[str], out: TextIO, idle_minutes: float) -> None:
        self._lines = lines
        self._out = out
        self._idle = idle_minutes * 60
        self._queue: queue.Queue[Line | None] = queue.Queue()
        self._lock = threading.Lock()
        self._waiting: list[str] = []
        """Ids that were asked for and are not finished."""
        self._stopped: set[str] = set()
        self._ended = threading.Event()
        self._warm: Warm | None = None
        self._serving: Any = None
        """Id of the line that is being served."""

    def run(self) -> int:
        """Serve until the input ends or ``quit`` is asked for. Returns the exit code."""
        threading.Thread(target=self._read, daemon=True).start()
        self._emit(None, "ready", pid=os.getpid())
        try:
            self._prepare()
            self._serve_all()
        finally:
            self._ended.set()
        return 0

    def _serve_all(self) -> None:
        while True:
            try:
                line = self._queue.get(timeout=self._idle if self._loaded() else None)
            except queue.Empty:
                self._unload(None)
                continue
            if line is None:
                return
            self._serve(line)

    # -- the reading thread ------------------------------------------------

    def _read(self) -> None:
        for text in self._lines:
            if text.strip():
                self._take(text)
        self._stop_all()
        self._queue.put(None)
        if not self._ended.wait(_GRACE):
            os._exit(0)

    def _take(self, text: str) -> None:
        """Answer what can be answered at once; queue the rest."""
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict):
            self._fail(None, [Problem("a line was not a JSON object", detail=text[:200])])
            return
        id_, op = line.get("id"), line.get("op")
        if op == "ping":
            self._emit(id_, "pong", **self._facts())
            self._emit(id_, "done")
        elif op == "stop":
            self._stop_all()
            self._emit(id_, "done")
        elif op == "quit":
            self._stop_all()
            self._queue.put(None)
        elif op in ("generate", "grid", "unload"):
            self._waiting.append(str(id_))
            self._queue.put(line)
        else:
            self._fail(id_, [Problem(f"unknown operation {op!r}")])

    def _stop_all(self) -> None:
        self._stopped.update(self._waiting)

    # -- the drawing thread ------------------------------------------------

    def _prepare(self) -> None:
        """Import what drawing needs while the person still writes."""
        from backend.generate.warm import Warm

        self._warm = Warm()

    def _serve(self, line: Line) -> None:
        from backend.generate.faults import problems_of

        id_ = self._serving = line.get("id")
        try:
            with self._alive(id_):
                if line["op"] == "unload":
                    self._unload(id_)
                elif line["op"] == "grid":
                    self._grid(id_, line)
                else:
                    self._generate(id_, order_of(line))
        except Exception as error:
            self._fail(id_, problems_of(error))
        finally:
            with suppress(ValueError):
                self._waiting.remove(str(id_))
            self._stopped.discard(str(id_))

    def _generate(self, id_: Any, order: Order) -> None:
        """Draw an order's pictures into its folder."""
        from backend.generate import engine

        began = time.perf_counter()
        paths: list[str] = []
        try:
            self._check_stop(id_)
            for drawn in self._drawn(id_, order):
                paths.append(self._save(id_, order, drawn, order.first + len(paths)))
            stopped = False
        except engine.Stopped:
            stopped = True
        seconds = round(time.perf_counter() - began, 3)
        self._emit(id_, "done", stopped=stopped, pictures=paths, seconds=seconds, **self._memory())

    def _grid(self, id_: Any, line: Mapping[str, Any]) -> None:
        """Draw what a grid's folder still lacks."""
        from backend.generate import engine, grid, grid_draw

        began = time.perf_counter()
        folder = grid.opened(Path(str(line.get("folder"))))
        place = {"picture": len(folder.finished()), "pictures": len(folder.grid.places)}

        def draw(model: Path, encoders: Mapping[str, Path], request: Request) -> engine.Drawn:
            self._check_stop(id_)
            order = Order(model, encoders, request, folder.path, bool(line.get("preview")))
            return next(iter(self._drawn(id_, order, place)))

        def on_cell(cell: grid_draw.Cell) -> None:
            place["picture"] += 1
            facts = {"label": cell.label, "parameters": cell.text, "seed": cell.seed}
            problems = [problem.as_dict() for problem in cell.problems]
            path = None if cell.path is None else str(cell.path)
            self._emit(id_, "cell", place=list(cell.place), path=path, problems=problems, **facts)

        try:
            failed, stopped = grid_draw.draw_missing(folder, draw, parameters_of, on_cell), False
        except engine.Stopped:
            failed, stopped = [], True
        seconds = round(time.perf_counter() - began, 3)
        sheet = folder.path / grid.SHEET
        facts = {"sheet": str(sheet) if sheet.is_file() else None, "failed": len(failed)}
        self._emit(id_, "done", stopped=stopped, seconds=seconds, **facts, **self._memory())

    def _drawn(
        self, id_: Any, order: Order, within: Mapping[str, int] | None = None
    ) -> Iterator[engine.Drawn]:
        """Load what is needed, then the pictures as they are finished.

        ``within``: how many pictures of a larger whole there are before these, and in all.
        """
        from backend.generate import engine

        assert self._warm is not None
        model, attachments = self._warm.use(order.model, self._say, order.encoders, order.request.vae)
        requests = engine.resolve(model, order.request)
        self._say_notes(id_, requests)
        batch, done = order.request.batch, 0
        before, total = (within["picture"], within["pictures"]) if within else (order.first, len(requests))

        def on_step(step: int, steps: int) -> None:
            first = before + done + 1
            last = min(before + done + batch, total)
            self._emit(id_, "progress", step=step, total=steps, picture=first, last=last, pictures=total)

        for drawn in engine.draw(
            model,
            requests[order.first :],
            on_step=on_step,
            should_stop=lambda: self._should_stop(id_),
            on_preview=(lambda images: self._preview(id_, images)) if order.preview else None,
            attachments=attachments,
        ):
            done += 1
            yield drawn

    def _preview(self, id_: Any, images: Sequence[Image.Image]) -> None:
        """Show how far the pictures of a batch are, side by side."""
        self._emit(id_, "preview", image=preview_address(images))

    def _check_stop(self, id_: Any) -> None:
        from backend.generate import engine

        if self._should_stop(id_):
            raise engine.Stopped

    def _save(self, id_: Any, order: Order, drawn: engine.Drawn, index: int) -> str:
        from backend.generate import pictures

        request = drawn.request
        text = parameters_of(order.model, drawn)
        name = f"{time.strftime('%H%M%S')}_{index + 1:02d}_{request.seed}"
        path = str(pictures.save(drawn.image, order.out / f"{name}.png", text))
        if drawn.first is not None:
            pictures.save(drawn.first, order.out / f"{name}_first.png", text)
        size = {"width": drawn.image.width, "height": drawn.image.height}
        self._emit(id_, "picture", path=path, index=index, seed=request.seed, parameters=text, **size)
        if drawn.fault:
            self._emit(id_, "note", text=drawn.fault, fault=True)
        return path

    def _say(self, **facts: str) -> None:
        """What is being loaded, or noted meanwhile, for the line that is being served."""
        if "note" in facts:
            self._emit(self._serving, "note", text=facts["note"])
        else:
            self._emit(self._serving, "loading", **facts)

    def _say_notes(self, id_: Any, requests: Iterable[Any]) -> None:
        for note in dict.fromkeys(note for request in requests for note in request.notes):
            self._emit(id_, "note", text=note)

    @contextmanager
    def _alive(self, id_: Any) -> Generator[None, None, None]:
        """Signs of life meanwhile."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(_BEAT):
                self._emit(id_, "alive")

        threading.Thread(target=beat, daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def _should_stop(self, id_: Any) -> bool:
        return str(id_) in self._stopped

    def _loaded(self) -> bool:
        return self._warm is not None and self._warm.model is not None

    def _unload(self, id_: Any) -> None:
        if self._warm is not None:
            self._warm.unload()
        self._emit(id_, "done" if id_ is not None else "unloaded")

    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"busy": bool(self._waiting), "model": None, "device": None}
        if self._warm is not None:
            path = self._warm.path
            facts |= {"model": path and str(path), "device": self._warm.device.type}
        return facts | self._memory()

    def _memory(self) -> dict[str, Any]:
        """Bytes in use, when what can tell them is loaded."""
        if self._warm is None:
            return {}
        from backend.generate.warm import memory

        path = self._warm.path
        return {"memory": {"model": path and path.name, **memory(self._warm.device)}}

    def _fail(self, id_: Any, problems: list[Problem]) -> None:
        self._emit(id_, "error", problems=[problem.as_dict() for problem in problems])

    def _emit(self, id_: Any, type_: str, **fields: Any) -> None:
        line = json.dumps({"id": id_, "type": type_, **fields}, ensure_ascii=False)
        with self._lock, suppress(BrokenPipeError, ValueError):
            self._out.write(line + "\n")
            self._out.flush()


def parameters_of(model: Path, drawn: engine.Drawn) -> str:
    """The text inside a finished picture's file."""
    from backend.generate import parameters

    return parameters.parameters_text(drawn.request, model.stem)


def preview_address(images: Sequence[Image.Image]) -> str:
    """Small pictures side by side as a ``data:`` address; they grow in the page, not here."""
    from PIL import Image

    width, height = images[0].size
    whole = Image.new("RGB", (width * len(images), height))
    for index, image in enumerate(images):
        whole.paste(image, (index * width, 0))
    data = io.BytesIO()
    whole.save(data, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"


def private_stdout() -> TextIO:
    """The real standard output, for JSON only. Whatever else prints goes to standard error."""
    sys.stdout.flush()
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return channel


def watch_parent(seconds: float = 2.0) -> None:
    """End this process soon after the one that started it has gone, however it went."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(seconds)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def main(arguments: list[str] | None = None) -> int:
    """Run a worker on this process's standard input and output."""
    parser = argparse.ArgumentParser(prog="python -m backend.generate.worker", description="Draws pictures.")
    parser.add_argument("--idle-minutes", type=float, default=15.0, help="forget the model after so long")
    chosen = parser.parse_args(arguments)
    if not chosen.idle_minutes > 0:
        raise InputError("--idle-minutes must be above 0")
    # Idle threads must not spin: on a busy processor that makes each step many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    channel = private_stdout()
    watch_parent()
    lines = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    return Worker(lines, channel, chosen.idle_minutes).run()


if __name__ == "__main__":
    from backend.errors import run_main

    code = run_main(main)
    sys.stderr.flush()
    os._exit(code)
