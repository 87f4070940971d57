"""What the server knows about the pictures being made: one worker, one set of pictures at a time.

It lives on the server, so a page that is reloaded finds everything again.
"""

from __future__ import annotations

import secrets
import sys
import threading
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from backend.errors import AtelierError, InputError, Problem
from backend.generate.protocol import ENCODERS
from backend.jobs.process import running_training
from backend.jobs.worker import Worker
from ui.context import Context
from ui.i18n import t

State = Literal["idle", "starting", "loading", "drawing", "stopping"]
_COMMAND = [sys.executable, "-m", "backend.generate.worker"]
_SILENCE = 120.0
"""Seconds without a sign of life after which the worker counts as hung; it gives one every 10."""
_LOOK = 3.0
"""Seconds between two looks whether a training needs the memory."""


@dataclass(frozen=True)
class Shot:
    """A finished picture."""

    path: Path
    seed: int
    caption: str


@dataclass
class View:
    """Everything a page shows, at one moment."""

    state: State = "idle"
    detail: str = ""
    """Name of the file being loaded."""
    step: int = 0
    steps: int = 0
    done: int = 0
    """Pictures finished."""
    total: int = 0
    shots: list[Shot] = field(default_factory=list)
    columns: int = 0
    """Pictures side by side that belong together; 0: as fits."""
    notes: list[str] = field(default_factory=list)
    problems: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    stopped: bool = False
    seed: int | None = None
    """Seed of the first picture."""

    @property
    def busy(self) -> bool:
        return self.state != "idle"


class Studio:
    """Asks the generation worker for pictures and keeps what it says."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.worker = Worker(
            _COMMAND, context.home / ".atelier" / "generate.log", t("gen.worker_name"), timeout=_SILENCE
        )
        self._view = View()
        self._lock = threading.Lock()
        self._keeper: threading.Thread | None = None

    def view(self) -> View:
        """A copy of what is known now."""
        with self._lock:
            return deepcopy(self._view)

    def start(self, wanted: Mapping[str, Any]) -> None:
        """Begin to draw; returns at once.

        Args:
            wanted: ``model``, ``vae``, ``lora`` (paths or ''), ``strength``, ``compare``, and under
                ``request`` what the worker's requests take.

        Raises:
            InputError: something is missing or contradictory, or pictures are being made already.
        """
        orders = self._orders(wanted)
        with self._lock:
            if self._view.busy:
                raise InputError(t("gen.busy"), next=t("gen.busy_next"))
            count = int(wanted["request"]["count"])
            self._view = View(
                state="starting",
                total=count * len(orders),
                columns=2 if len(orders) == 2 else 0,
                seed=orders[0][1]["request"]["seed"],
            )
        threading.Thread(target=self._work, args=(orders,), name="studio", daemon=True).start()
        self._watch()

    def stop(self) -> None:
        """End what is being drawn, within one step."""
        with self._lock:
            if self._view.busy:
                self._view.state = "stopping"
        self._tell_stop()

    def release(self) -> bool:
        """End the worker, so that all its memory is free, unless it is drawing."""
        if self.view().busy or not self.worker.running:
            return False
        self.worker.stop()
        return True

    def _tell_stop(self) -> None:
        self.worker.tell({"id": "stop", "op": "stop"})

    def training(self) -> str | None:
        """The name of the training that is running, if any."""
        run = running_training(self.context.runs)
        return run.name if run else None

    def _orders(self, wanted: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        """(caption, message) of each pass: one, or without and with the LoRA."""
        if not wanted.get("model"):
            raise InputError(Problem(t("gen.no_model"), next=t("gen.no_model_next"), key="model"))
        lora, strength = str(wanted.get("lora") or ""), float(wanted.get("strength") or 0.0)
        if wanted.get("compare") and not lora:
            raise InputError(Problem(t("gen.no_lora"), next=t("gen.no_lora_next"), key="lora"))
        request = dict(wanted["request"])
        if request.get("seed") is None or request["seed"] < 0:
            request["seed"] = secrets.randbelow(2**32)
        out = self.context.home / "outputs" / time.strftime("%Y-%m-%d")
        own = {key: wanted[key] for key in ("vae", *ENCODERS) if wanted.get(key)}
        files = {"model": wanted["model"], "vae": None, **own, "out": str(out)}
        without, loras = t("gen.without"), [{"path": lora, "strength": strength}] if lora else []
        with_it = t("gen.with", name=Path(lora).stem, strength=f"{strength:g}") if lora else ""
        passes = [(without, []), (with_it, loras)] if wanted.get("compare") else [(with_it, loras)]
        return [
            (
                caption,
                {"op": "generate", "id": secrets.token_hex(6), **files, "loras": chosen, "request": request},
            )
            for caption, chosen in passes
        ]

    def _work(self, orders: list[tuple[str, dict[str, Any]]]) -> None:
        began = time.monotonic()
        try:
            for turn, (caption, message) in enumerate(orders):
                if not self._ask(message, caption, turn, len(orders)):
                    break
        except AtelierError as error:
            self._fail([problem.as_dict() for problem in error.problems])
        except Exception as error:
            self._fail([Problem(t("app.fault", error=repr(error)), next=t("app.fault_next")).as_dict()])
        with self._lock:
            self._view.seconds = time.monotonic() - began
            self._view.stopped |= self._view.state == "stopping"
            self._view.state = "idle"

    def _ask(self, message: dict[str, Any], caption: str, turn: int, turns: int) -> bool:
        """One pass. False when there is no point in going on."""
        stopping = False
        for event in self.worker.request(message):
            if event.get("id") != message["id"]:
                continue
            with self._lock:
                self._take(event, caption, turn, turns)
                stopping = self._view.state == "stopping"
            if event["type"] == "error" or event.get("stopped"):
                return False
            if stopping:
                # The first word may have come before the worker was there to hear it.
                self._tell_stop()
        return not stopping

    def _take(self, event: dict[str, Any], caption: str, turn: int, turns: int) -> None:
        view = self._view
        match event["type"]:
            case "loading":
                view.detail = str(event.get("path", ""))
                self._set_state("loading")
            case "progress":
                view.step, view.steps = event["step"], event["total"]
                self._set_state("drawing")
            case "picture":
                shot = Shot(Path(event["path"]), event["seed"], caption)
                # Pictures of one seed stand side by side.
                view.shots.insert(event["index"] * (turn + 1) + turn if turns > 1 else len(view.shots), shot)
                view.done += 1
                view.step = 0
            case "note" if event["text"] not in view.notes:
                view.notes.append(event["text"])
            case "error":
                view.problems = event["problems"]
            case "done":
                view.stopped = bool(event.get("stopped"))
            case _:
                pass

    def _set_state(self, state: State) -> None:
        if self._view.state != "stopping":
            self._view.state = state

    def _fail(self, problems: list[dict[str, Any]]) -> None:
        with self._lock:
            self._view.problems = problems

    def _watch(self) -> None:
        """Look, as long as the worker lives, whether a training needs the memory."""
        if self._keeper is None or not self._keeper.is_alive():
            self._keeper = threading.Thread(target=self._keep, name="studio-keeper", daemon=True)
            self._keeper.start()

    def _keep(self) -> None:
        while True:
            time.sleep(_LOOK)
            if not self.worker.running and not self.view().busy:
                return
            if self.training():
                self.release()
