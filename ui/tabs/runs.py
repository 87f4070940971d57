"""The Runs page: every run, newest first, to open or resume."""

from __future__ import annotations

import json
import time
from typing import Any

import gradio as gr

from backend.errors import InputError
from backend.jobs import process
from backend.jobs.runs import Run, find_run, list_runs
from backend.jobs.state import state
from ui.calls import callable_from_page
from ui.context import Context
from ui.form import asset, filled
from ui.i18n import t, texts

_SHOWN = 200


class RunsPage:
    """What the server does for the Runs page."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def list_all(self, data: dict[str, Any]) -> dict[str, Any]:
        """The newest runs with their states."""
        return {"runs": [facts(run) for run in list_runs(self.context.runs)[:_SHOWN]]}

    def resume(self, data: dict[str, Any]) -> dict[str, Any]:
        """Go on with a run."""
        run = find_run(self.context.runs, str(data.get("run")))
        if run is None:
            raise InputError(t("train.nothing_to_resume"))
        process.start(run, resume=True)
        return {"run": run.id}


def facts(run: Run) -> dict[str, Any]:
    """What a list says of a run."""
    now = state(run)
    created = run.facts().get("created")
    when = (
        time.strftime("%Y-%m-%d %H:%M", time.localtime(created)) if isinstance(created, (int, float)) else ""
    )
    return {
        "id": run.id,
        "name": run.name,
        "detail": t("runs.started", time=when) if when else run.id,
        "state": now.state,
        "progress": f"{now.step:,} / {now.total:,}" if now.total else "",
        "resumable": now.resumable,
    }


def build(context: Context) -> gr.HTML:
    """Draw the page."""
    page = RunsPage(context)
    return gr.HTML(
        value="",
        html_template=filled("runs.html"),
        js_on_load=asset("runs.js"),
        server_functions=[callable_from_page(page.list_all), callable_from_page(page.resume)],
        elem_id="runs",
        apply_default_css=False,
        texts=json.dumps(texts("runs."), ensure_ascii=False),
    )
