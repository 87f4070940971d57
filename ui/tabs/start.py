"""The Start page: what a person can do here, the demo in one click, and the newest runs."""

from __future__ import annotations

import html
import json
from typing import Any

import gradio as gr

from backend.jobs import process
from backend.jobs.runs import list_runs
from backend.settings import read_preset, to_toml
from backend.system.paths import REPOSITORY
from ui.context import Context
from ui.docs.library import title
from ui.form import asset, filled
from ui.header import HELP_WINDOW
from ui.i18n import t, texts
from ui.offers import offered
from ui.scripted import BASE
from ui.tabs.runs import facts

_NEWEST = 5
_DEMO = "demo-creature"
_TASKS = (
    "train-a-lora",
    "prepare-a-dataset",
    "caption-and-tag",
    "learn-well",
    "dreambooth-and-fine-tuning",
    "textual-inversion",
    "generate",
    "merge-and-convert",
    "memory-and-speed",
    "command-line",
    "troubleshooting",
    "options",
)
"""Pages of the docs that are offered here."""


class StartPage:
    """What the server does for the Start page."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def newest(self, data: dict[str, Any]) -> dict[str, Any]:
        """The newest runs with their states."""
        return {"runs": [facts(run) for run in list_runs(self.context.runs)[:_NEWEST]]}

    def demo(self, data: dict[str, Any]) -> dict[str, Any]:
        """Start the demo, or find the one that is at work."""
        preset = read_preset(REPOSITORY / "presets" / "sd15" / "demo.toml").settings
        config = to_toml(preset.replace(output_name=_DEMO))
        run = process.create_and_start(self.context.runs, _DEMO, config, module="backend.demo.job")
        return {"run": run.id}


def _how_to() -> str:
    """Links to the docs, one a task."""
    return "".join(
        f'<li><a href="./docs/{name}" target="{HELP_WINDOW}">{html.escape(title(name))}</a></li>'
        for name in _TASKS
    )


def build(context: Context) -> gr.HTML:
    """Draw the page."""
    page = StartPage(context)
    return gr.HTML(
        value="",
        html_template=filled("start.html").replace("[[HOWTO]]", _how_to()),
        js_on_load=asset(BASE) + asset("start.js"),
        head=f"<style>.gradio-container.gradio-container {{ {asset('start.css')} }}</style>",
        server_functions=offered(context, "start", (page.newest, page.demo)),
        elem_id="start",
        apply_default_css=False,
        texts=json.dumps({**texts("runs.state."), "open": t("runs.open")}, ensure_ascii=False),
    )
