"""The card of a run: what was trained, on what, what came out, and how it changed on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from backend.jobs.follow import Follower, RunView, Sample
from backend.jobs.remarks import read_remarks
from backend.jobs.runs import Run
from backend.system.headers import readable_size
from ui.i18n import said
from ui.thumbnails import thumbnail

_FIRST = ("title", "base", "kind", "steps", "epochs", "average_loss", "validation_loss", "seed")
"""Facts of a result in the order in which they are told."""
_APART = frozenset({"usage", "losses", "fault", "notes", "size", "file", "last_good"})


def card(run: Run) -> dict[str, Any]:
    """All facts of a run, as JSON. Reads its events whole."""
    follower = Follower(run)
    view = follower.update()
    while view.catching_up:
        view = follower.update()
    remarks = read_remarks(run)
    result = view.result or {}
    told = dict(result.get("facts") or {})
    return {
        "id": run.id,
        "folder": str(run.path),
        "facts": _facts({**view.plan, **told}),
        "usage": str(told.get("usage") or ""),
        "fault": str(told.get("fault") or ""),
        "messages": _messages(view),
        "result": str(result.get("path") or ""),
        "files": [_file(saved.path, saved.kind, saved.step) for saved in view.saved],
        "pictures": before_and_after(run, view),
        "tags": list(remarks.tags),
        "note": remarks.note,
    }


def _messages(view: RunView) -> list[dict[str, str]]:
    """What was left out, changed or replaced, and what else the run said; warnings first."""
    found = [
        {"kind": message.kind, "text": said(message.text)}
        for message in view.messages
        if message.kind in ("warning", "note") and message.text
    ]
    return sorted(found, key=lambda message: message["kind"] != "warning")


def before_and_after(run: Run, view: RunView) -> list[dict[str, Any]]:
    """The first and the last picture of every prompt."""
    found: dict[tuple[str, int], list[Sample]] = {}
    for sample in sorted(view.samples, key=lambda sample: sample.step):
        found.setdefault((sample.prompt, sample.index), []).append(sample)
    return [
        {"prompt": prompt, "ends": [picture(run, sample) for sample in [*samples[:1], *samples[1:][-1:]]]}
        for (prompt, _), samples in found.items()
    ]


def picture(run: Run, sample: Sample) -> dict[str, Any]:
    """Addresses of a sample and its small copy, with its step."""
    small = run.path / sample.thumb if sample.thumb else None
    if small is None or not small.is_file():
        small = thumbnail(run.path / sample.path) or run.path / sample.path
    return {"url": address(run.path / sample.path), "small": address(small), "step": sample.step}


def address(path: Path) -> str:
    """Where the page finds a file, below Gradio's root."""
    return "/gradio_api/file=" + quote(path.resolve().as_posix(), safe="/:")


def _file(path: str, kind: str, step: int) -> dict[str, Any]:
    file = Path(path)
    there = file.exists()
    size = readable_size(_size(file)) if there else ""
    return {"path": path, "name": file.name, "kind": kind, "step": step, "there": there, "size": size}


def _size(file: Path) -> int:
    """Bytes of a file, or of a model's folder."""
    parts = file.rglob("*") if file.is_dir() else [file]
    return sum(part.stat().st_size for part in parts if part.is_file())


def _facts(told: dict[str, Any]) -> list[list[str]]:
    """Pairs of a name and what is known, the important ones first."""
    names = [*(name for name in _FIRST if name in told), *(name for name in told if name not in _FIRST)]
    rows = [[name, _text(told[name])] for name in names if name not in _APART]
    return [row for row in rows if row[1] not in ("", "0")]


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return f"{len(value)}" if value and isinstance(value[0], dict) else ", ".join(map(_text, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 10_000:
        return f"{value:,}"
    return "" if value is None else said(value) if isinstance(value, str) else str(value)
