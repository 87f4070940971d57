"""The Runs page: the queue, every run with its card, two runs side by side, and the trash."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import gradio as gr

from backend.errors import InputError
from backend.jobs import comparison, process, queue, trash
from backend.jobs.curve import Bucket
from backend.jobs.follow import Sample
from backend.jobs.remarks import read_remarks, write_remarks
from backend.jobs.runs import Run, find_run, list_runs
from backend.jobs.state import ACTIVE, state
from backend.settings import read_toml
from backend.system.identify import identify
from ui.context import Context
from ui.form import asset, filled
from ui.i18n import language, said, t, texts
from ui.i18n.options import option_texts
from ui.offers import offered
from ui.resuming import other_pictures
from ui.run_card import card, picture
from ui.run_names import title
from ui.scripted import BASE
from ui.tabs.generate.using import UseCalls

_SHOWN = 500
_TRAIN = "train"
"""The Train page's form."""
_TELLING = ("job.json", "events.jsonl", "control.jsonl", "remarks.json")
"""Files of a run that change what the list says of it."""


class RunsPage:
    """What the server does for the Runs page. Every method takes and gives JSON."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._known: dict[str, tuple[Any, dict[str, Any]]] = {}

    def list_all(self, data: dict[str, Any]) -> dict[str, Any]:
        """The newest runs with their states, the queue, and what is in the trash."""
        root = self.context.runs
        waiting = queue.read(root)
        return {
            "runs": [self._line(run) for run in list_runs(root)[:_SHOWN]],
            "queue": {**waiting.as_dict(), "held": said(waiting.held)},
            "trash": [{"id": item.id, "name": item.name, "size": item.size} for item in trash.deleted(root)],
        }

    def card(self, data: dict[str, Any]) -> dict[str, Any]:
        """Everything that is known of one run."""
        return {"card": card(self._run(data))}

    def remark(self, data: dict[str, Any]) -> dict[str, Any]:
        """Keep tags and a note."""
        kept = write_remarks(self._run(data), map(str, data.get("tags") or []), str(data.get("note") or ""))
        return {"tags": list(kept.tags), "note": kept.note}

    def resume(self, data: dict[str, Any]) -> dict[str, Any]:
        """Go on with a run; with other pictures than it was stopped with, only the Train page does."""
        run = self._run(data)
        changed = other_pictures(run)
        if changed:
            what = t("train.other_title", **changed.as_dict())
            raise InputError(what, next=t("runs.resume_there"))
        process.start(run, resume=True)
        return {"run": run.id}

    def again(self, data: dict[str, Any]) -> dict[str, Any]:
        """The same training once more, as a new run; it waits in the queue when another is at work."""
        run = self._run(data)
        config = run.config.read_text(encoding="utf-8")
        dataset = run.path / "dataset.toml"
        pictures = dataset.read_text(encoding="utf-8") if dataset.is_file() else None
        new = queue.enqueue(self.context.runs, run.name, config, pictures)
        queue.turn(self.context.runs)
        return {"run": new.id, "waiting": new.id in queue.read(self.context.runs).waiting}

    def fork(self, data: dict[str, Any]) -> dict[str, Any]:
        """Put a run's settings into the Train page's form, to train on from one of its files."""
        run = self._run(data)
        values = read_toml(run.config).changed()
        file = str(data.get("file") or "")
        if file:
            values |= _from_file(Path(file), values)
        self.context.drafts.save(_TRAIN, values, preset="")
        return {"message": t("runs.in_train")}

    def wait(self, data: dict[str, Any]) -> dict[str, Any]:
        """Change the queue: ``act`` is add, remove, move (to ``place``), go_on, hold or release."""
        root, act, id = self.context.runs, data.get("act"), str(data.get("run") or "")
        if act == "add":
            queue.add(root, id)
        elif act == "remove":
            queue.remove(root, id)
        elif act == "move":
            queue.move(root, id, int(data.get("place") or 0))
        elif act == "go_on":
            queue.go_on_after_failure(root, bool(data.get("value")))
        elif act == "hold":
            queue.hold(root, t("runs.held_by_you"))
        elif act == "release":
            queue.release(root)
        else:
            raise InputError(f"unknown change of the queue: {act!r}")
        now = queue.read(root)
        return {"queue": {**now.as_dict(), "held": said(now.held)}}

    def throw_away(self, data: dict[str, Any]) -> dict[str, Any]:
        """Move a run to the trash."""
        trash.throw_away(self.context.runs, self._run(data))
        return {}

    def bring_back(self, data: dict[str, Any]) -> dict[str, Any]:
        """Take a run out of the trash."""
        return {"run": trash.bring_back(self.context.runs, str(data.get("run"))).id}

    def empty_trash(self, data: dict[str, Any]) -> dict[str, Any]:
        """Destroy what is in the trash."""
        return {"freed": trash.empty(self.context.runs)}

    def compare(self, data: dict[str, Any]) -> dict[str, Any]:
        """Two runs side by side."""
        first, second = (self._run({"run": data.get(which)}) for which in ("first", "second"))
        found = comparison.compare(first, second)
        return {
            "names": _names(first, second),
            "labels": _labels(row.key for row in found.settings),
            "settings": [[row.key, _plain(row.first), _plain(row.second)] for row in found.settings],
            "data": [[row.key, _plain(row.first), _plain(row.second)] for row in found.data],
            "curves": [_curve(curve) for curve in found.curves],
            "pictures": [
                {"prompt": pair.prompt, "runs": [_row(first, pair.first), _row(second, pair.second)]}
                for pair in found.pictures
            ],
        }

    def _run(self, data: dict[str, Any]) -> Run:
        run = find_run(self.context.runs, str(data.get("run")))
        if run is None:
            raise InputError(t("runs.gone"), next=t("runs.gone_next"))
        return run

    def _line(self, run: Run) -> dict[str, Any]:
        """What the list says of a run; read again when a file of it has changed, or for another reader."""
        stamp = [language(), *(_stamp(run.path / name) for name in _TELLING)]
        known = self._known.get(run.id)
        if known and known[0] == stamp and known[1]["state"] not in ACTIVE:
            return known[1]
        remarks = read_remarks(run)
        line = facts(run) | {"tags": list(remarks.tags), "note": remarks.note[:300], "base": _base(run)}
        self._known[run.id] = (stamp, line)
        return line


def facts(run: Run) -> dict[str, Any]:
    """What a list says of a run."""
    now = state(run)
    created = run.facts().get("created")
    when = (
        time.strftime("%Y-%m-%d %H:%M", time.localtime(created)) if isinstance(created, (int, float)) else ""
    )
    return {
        "id": run.id,
        "name": title(run),
        "detail": t("runs.started", time=when) if when else run.id,
        "state": now.state,
        "progress": f"{now.step:,} / {now.total:,}" if now.total else "",
        "resumable": now.resumable,
    }


def _labels(keys: Iterable[str]) -> dict[str, str]:
    """Option -> its label in the reader's language."""
    texts = option_texts(language())
    return {key: texts[place] for key in keys if (place := f"option.{key}.label") in texts}


def _names(first: Run, second: Run) -> list[str]:
    """How to call two runs: by their names, or by their folders when those are the same."""
    return [first.name, second.name] if first.name != second.name else [first.id, second.id]


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def _base(run: Run) -> str:
    """The name of the model that a run teaches."""
    path = str(comparison.settings_of(run).get("pretrained_model_name_or_path") or "")
    return path.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]


def _from_file(file: Path, values: dict[str, Any]) -> dict[str, Any]:
    """What to set to go on from a file that a run wrote."""
    name = {"output_name": f"{values.get('output_name') or file.stem}-on"}
    kind = identify(file).kind
    if kind == "base":
        return {**name, "pretrained_model_name_or_path": str(file)}
    if kind == "embedding":
        return {**name, "weights": str(file)}
    return {**name, "network_weights": str(file)}


def _plain(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(_is_size(item) for item in cast("list[Any]", value)):
        return ", ".join(f"{width}\u00d7{height}" for width, height in cast("list[list[int]]", value))
    return json.dumps(value, ensure_ascii=False)


def _is_size(value: Any) -> bool:
    """[width, height], as plans have them."""
    return isinstance(value, list) and len(cast("list[Any]", value)) == 2


def _curve(buckets: list[Bucket]) -> list[list[float]]:
    return [[bucket.last, round(bucket.smooth, 6)] for bucket in buckets if bucket.smooth == bucket.smooth]


def _row(run: Run, samples: tuple[Sample, ...]) -> list[dict[str, Any]]:
    return [picture(run, sample) for sample in samples]


def build(context: Context) -> gr.HTML:
    """Draw the page. The script in it calls the methods of :class:`RunsPage` by name."""
    page = RunsPage(context)
    methods = (
        page.list_all, page.card, page.remark, page.resume, page.again, page.fork, page.wait,
        page.throw_away, page.bring_back, page.empty_trash, page.compare, UseCalls(context).use,
    )  # fmt: skip
    return gr.HTML(
        value="",
        html_template=filled("runs.html"),
        js_on_load="".join(map(asset, (BASE, "runs-1-list.js", "runs-2-card.js", "runs-3-compare.js"))),
        head=f"<style>.gradio-container.gradio-container {{ {asset('runs.css')} }}</style>",
        server_functions=offered(context, "runs", methods),
        elem_id="runs",
        apply_default_css=False,
        texts=json.dumps(texts("runs."), ensure_ascii=False),
    )
