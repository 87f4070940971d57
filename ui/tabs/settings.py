"""The System page: what this machine is and lacks, where things lie, and what can be let go of."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr

from backend.errors import InputError
from backend.jobs.process import running_training
from backend.system.doctor import Finding
from backend.system.paths import cache_root, presets_root
from ui.caches import caches, clear
from ui.calls import Call
from ui.context import Context
from ui.form import asset, filled
from ui.i18n import said, t, texts
from ui.offers import offered
from ui.plan import DoctorReport
from ui.scripted import BASE


class SystemPage:
    """What the server does for the System page. Every method takes and gives JSON."""

    def __init__(self, context: Context, doctor: DoctorReport | None = None) -> None:
        self.context = context
        self.doctor = doctor or DoctorReport()

    def methods(self) -> tuple[Call, ...]:
        """What the script of the page may call."""
        return (self.health, self.places, self.clear_cache, self.unload)

    def health(self, data: dict[str, Any]) -> dict[str, Any]:
        """The doctor's findings; asked again and again until they are there."""
        findings = self.doctor.look(again=bool(data.get("again")))
        if findings is None:
            return {"state": "working"}
        return {
            "state": "done",
            "findings": [_told(finding) for finding in findings],
            "text": "\n".join(finding.line() for finding in findings),
        }

    def places(self, data: dict[str, Any]) -> dict[str, Any]:
        """Folders with their free space, sizes of caches, and the programs that hold a model."""
        folders = {
            "home": self.context.home, "runs": self.context.runs, "outputs": self.context.home / "outputs",
            "presets": presets_root() / "own", "caches": cache_root(),
        }  # fmt: skip
        return {
            "folders": [
                {"name": t(f"system.folder_{name}"), "path": str(path), "free": _free(path)}
                for name, path in folders.items()
            ],
            "roots": [str(root) for root in self.context.roots],
            "caches": [
                {**asdict(cache), "name": t(f"system.cache_{cache.kind.partition('.')[0]}")}
                for cache in caches(cache_root())
            ],
            "helpers": sorted(self.context.helpers),
        }

    def clear_cache(self, data: dict[str, Any]) -> dict[str, Any]:
        """Let go of one kind of cache, unless a training may be reading it."""
        training = running_training(self.context.runs)
        if training is not None:
            raise InputError(t("system.training", name=training.name))
        return {"freed": clear(cache_root(), str(data["kind"]))}

    def unload(self, data: dict[str, Any]) -> dict[str, Any]:
        """End the programs that keep a model in memory, where they are not at work."""
        ended = [release() for release in list(self.context.helpers.values())]
        return {"message": t("system.unloaded" if any(ended) else "system.nothing_loaded")}


def _told(finding: Finding) -> dict[str, str]:
    fix = said(finding.fix) if finding.fix else ""
    return {**asdict(finding), "name": said(finding.name), "text": said(finding.text), "fix": fix}


def _free(path: Path) -> int | None:
    """Free bytes of the disk that a folder is, or would be, on."""
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None


def build(context: Context) -> gr.HTML:
    """Draw the page."""
    return gr.HTML(
        value="",
        html_template=filled("settings.html"),
        js_on_load=asset(BASE) + asset("settings.js"),
        head=f"<style>.gradio-container.gradio-container {{ {asset('settings.css')} }}</style>",
        server_functions=offered(context, "system", SystemPage(context).methods()),
        elem_id="system",
        apply_default_css=False,
        texts=json.dumps(texts("system."), ensure_ascii=False),
    )
