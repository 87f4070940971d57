"""Filling caches ahead of a training, for the page: a job of its own, and the commands that do the same."""

from __future__ import annotations

import sys
from typing import Any

from backend.errors import InputError
from backend.jobs import control, process
from backend.jobs.events import read_events
from backend.jobs.runs import Run, create_run, find_run
from backend.jobs.state import state
from backend.settings import Settings, check_files, to_command_line, to_toml
from ui.i18n import said, said_problem, t
from ui.tabs.dataset.opened import Opened
from ui.tabs.dataset.shelf import FORM, TRAIN, Shelf

_MODEL = "pretrained_model_name_or_path"
_TOOLS = (("data.prepare_latents", "cache_latents"), ("data.prepare_texts", "cache_text_encoder_outputs"))
_KEPT = 40
"""Datasets whose last preparation is remembered."""


class PrepareCalls:
    """What the server does to prepare caches. Every method takes and gives JSON."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf

    def prepare_commands(self, data: dict[str, Any]) -> dict[str, Any]:
        """The command lines for this dataset and model, as the Train page's form has the rest."""
        opened = self.shelf.get(data)
        draft = self.shelf.train_draft()
        model = str(data.get("model") or draft.get(_MODEL) or "").strip()
        models = list(dict.fromkeys([model, *self.shelf.context.drafts.recent(TRAIN).get(_MODEL, [])]))
        settings = opened.settings.replace(**{_MODEL: model or "MODEL"})
        words = " ".join(to_command_line(settings))
        return {
            "model": model,
            "models": [name for name in models if name],
            "commands": [
                {"title": t(key), "command": f"python tools/{tool}.py {words}"} for key, tool in _TOOLS
            ],
        }

    def start_prepare(self, data: dict[str, Any]) -> dict[str, Any]:
        """Start the job, or find the one that is at work."""
        opened = self.shelf.get(data)
        run = self._last(opened)
        if run is None or not state(run).active:
            run = self._start(opened, data)
        return _progress(run)

    def prepare_state(self, data: dict[str, Any]) -> dict[str, Any]:
        """How far the last preparation of this dataset is."""
        return _progress(self._last(self.shelf.get(data)))

    def stop_prepare(self, data: dict[str, Any]) -> dict[str, Any]:
        """Ask the job to end; what was encoded is kept."""
        run = self._last(self.shelf.get(data))
        if run is not None and state(run).active:
            control.stop(run)
        return _progress(run)

    def _start(self, opened: Opened, data: dict[str, Any]) -> Run:
        settings = _settings(opened, data)
        problems = check_files(settings)
        if problems:
            raise InputError(problems)
        context = self.shelf.context
        training = process.running_training(context.runs)
        if training:
            raise InputError(t("data.prepare_training", name=training.name))
        name = t("data.prepare_name", name=opened.path.stem)
        run = create_run(context.runs, name, to_toml(settings), kind="tool")
        process.start(run, command=[sys.executable, "-m", "backend.train.prepare", str(run.path)])
        self._remember(opened, run)
        return run

    def _remember(self, opened: Opened, run: Run) -> None:
        drafts = self.shelf.context.drafts
        older = {key: value for key, value in self._runs().items() if key != str(opened.path)}
        kept = {**dict(list(older.items())[1 - _KEPT :]), str(opened.path): run.id}
        drafts.save(FORM, drafts.load(FORM) or {}, prepared=kept)

    def _runs(self) -> dict[str, str]:
        found = self.shelf.context.drafts.get(FORM, "prepared")
        return found if isinstance(found, dict) else {}

    def _last(self, opened: Opened) -> Run | None:
        id = self._runs().get(str(opened.path))
        return find_run(self.shelf.context.runs, id) if isinstance(id, str) else None


def _settings(opened: Opened, data: dict[str, Any]) -> Settings:
    """Raises InputError: no model was chosen, or nothing is to be cached."""
    model = str(data.get("model") or "").strip()
    if not model:
        raise InputError(t("data.choose_model"))
    latents, texts = bool(data.get("latents")), bool(data.get("texts"))
    if not latents and not texts:
        raise InputError(t("data.prepare_nothing"))
    return opened.settings.replace(
        **{_MODEL: model},
        cache_latents_to_disk=latents,
        cache_latents=latents,
        cache_text_encoder_outputs=texts,
        cache_text_encoder_outputs_to_disk=texts,
        **({"network_train_unet_only": True, "network_train_text_encoder_only": False} if texts else {}),
    )


def _progress(run: Run | None) -> dict[str, Any]:
    """The job as the page shows it."""
    if run is None:
        return {"state": "none", "active": False, "line": ""}
    now = state(run)
    phase, done, total, notes = "", 0, 0, list[str]()
    for record in read_events(run.events)[0]:
        if record["type"] == "phase":
            phase, done, total = said(str(record.get("title") or record.get("name") or "")), 0, 0
        elif record["type"] == "progress":
            done, total = int(record["done"]), int(record["total"])
            notes.clear()  # those after the last are what was done
        elif record["type"] == "note":
            notes.append(said(str(record.get("text", ""))))
    ended = {"finished": "data.prepare_finished", "stopped": "data.prepare_stopped"}.get(now.state, "")
    return {
        "problems": [said_problem(problem) for problem in now.problems],
        "state": now.state,
        "active": now.active,
        "done": done,
        "total": total,
        "line": t(ended) if ended else phase if now.active else "",
        "notes": notes if not now.active else [],
    }
