"""What the Captioning and the Tagging page have in common: forms, one job at a time, its result, undo."""

from __future__ import annotations

import copy
import html
import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from backend.annotate import cleanrules, folders, models, options
from backend.annotate.settings import PictureSettings
from backend.data.edit import thumbnail
from backend.errors import AtelierError, InputError, Problem
from backend.jobs import control, process
from backend.jobs.runs import Run, create_run, find_run
from backend.jobs.state import state
from backend.settings.option import Section
from backend.wholefile import write_text
from ui.calls import problem_dicts
from ui.context import Context
from ui.docs.library import title
from ui.form import asset, filled
from ui.i18n import said, said_problem, t, texts
from ui.offers import offered
from ui.scripted import BASE, FIELDS, field_words, path_methods
from ui.tabs.dataset.sight import address
from ui.tabs.job_news import Newsroom

SCRIPTS = ("annotate-1-form.js", "annotate-2-rules.js", "annotate-3-preview.js", "annotate-4-result.js")
SHOWN = 200
"""Rows of a list that are sent to a page."""
_SIDE = 320
"""Longest side of a picture in a trial, in pixels."""
_SAVED = "annotate.json"
_NEWS = Newsroom()
_DOCS = "caption-and-tag"
"""The page of the docs that tells more."""


@dataclass(frozen=True)
class Task:
    """One thing a page does."""

    kind: str
    """Of ``backend.annotate.jobs``."""
    section: type[Section]
    tool: str
    """The command line that does the same."""
    positional: tuple[str, ...] = ("train_data_dir",)
    trial: str = ""
    """Kind of the job that shows it on a few pictures; '' when it has none."""
    model: str = ""
    """The option that names the model."""
    model_kind: models.Kind = "tagger"
    start: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the form holds at first, where that is not the option's default."""
    hidden: tuple[str, ...] = ()
    """Options that are for command lines."""
    rules: bool = False
    """The job takes rules for cleaning."""

    def lines(self, values: Mapping[str, Any]) -> list[str]:
        """The command lines that do the same."""
        if self.kind == "clean":
            positional = () if values.get("train_data_dir") else ("in_json", "out_json")
            return [options.command(self.tool, self.section, values, positional)]
        if self.kind == "merge":
            return _merge_lines(self, values)
        return [options.command(self.tool, self.section, values, self.positional)]


def _merge_lines(task: Task, values: Mapping[str, Any]) -> list[str]:
    """One command for captions, and one that adds tags to what the first wrote."""
    found: list[str] = []
    rest = {key: value for key, value in values.items() if key not in ("caption_extension", "tags_extension")}
    tools = (
        ("caption_extension", task.tool, ".caption"),
        ("tags_extension", "merge_dd_tags_to_metadata.py", ".txt"),
    )
    for key, tool, usual in tools:
        ending = values.get(key, usual)
        if ending:
            words = shlex.split(options.command(tool, task.section, rest, task.positional))
            words += [] if ending == usual else ["--caption_extension", str(ending)]
            found.append(shlex.join(words))
            rest.pop("in_json", None)
    return found


class AnnotatePage:
    """What the server does for one of the pages. Every method takes and gives JSON."""

    def __init__(self, context: Context, name: str, tasks: tuple[Task, ...]) -> None:
        self.context, self.name = context, name
        self.tasks = {task.kind: task for task in tasks}

    def open_page(self, data: dict[str, Any]) -> dict[str, Any]:
        """Forms, what they held, the models there are, and the job that is at work."""
        draft = self.context.drafts.load(self.name) or {}
        run = self._last()
        return {
            "tasks": [_form(task) for task in self.tasks.values()],
            "values": {kind: {**task.start, **self._kept(kind)} for kind, task in self.tasks.items()},
            "rules": draft.get("rules") or cleanrules.as_dicts(cleanrules.RULES),
            "titles": {rule.title: said(rule.title) for rule in cleanrules.RULES},
            "kind": draft.get("kind") if draft.get("kind") in self.tasks else next(iter(self.tasks)),
            "folders": self.context.drafts.recent(self.name).get("folder", []),
            "job": progress(run, full=True) if run else None,
        }

    def command(self, data: dict[str, Any]) -> dict[str, Any]:
        """The command line that does the same."""
        task = self._task(data)
        return {"command": "\n".join(task.lines(self._values(task, data)))}

    def usual_rules(self, data: dict[str, Any]) -> dict[str, Any]:
        """The rules that Atelier comes with."""
        return {"rules": cleanrules.as_dicts(cleanrules.RULES)}

    def about_model(self, data: dict[str, Any]) -> dict[str, Any]:
        """Whether a model is here, and what its download would be."""
        task, name = self._task(data), str(data.get("model") or "").strip()
        return {"there": models.is_there(task.model_kind, name), "size": models.about(name)}

    def start(self, data: dict[str, Any]) -> dict[str, Any]:
        """Start the job, or its trial, unless one is at work."""
        task, trial = self._task(data), bool(data.get("try"))
        values = self._values(task, data)
        settings = options.read(task.section, values)
        if not str(values.get("train_data_dir") or values.get("in_json") or "").strip():
            raise InputError(Problem(t("annotate.no_folder"), key="train_data_dir"))
        last = self._last()
        if last is not None and state(last).active:
            raise InputError(t("annotate.busy"))
        job = {
            "kind": task.trial if trial and task.trial else task.kind,
            "settings": values,
            "task": task.kind,
        }
        job |= {"download": bool(data.get("download"))} if task.model else {}
        if task.model and process.running_training(self.context.runs):
            job["device"] = "cpu"
        job |= {"rules": data.get("rules"), "try": trial} if task.rules else {}
        if task.rules:
            cleanrules.from_dicts(data.get("rules"))
        run = create_run(self.context.runs, t(f"annotate.{task.kind}"), "", kind="tool")
        write_text(run.path / _SAVED, json.dumps(job, ensure_ascii=False, indent=1))
        process.start(run, command=[sys.executable, "-m", "backend.annotate", str(run.path)])
        self._remember(data, task, run)
        if isinstance(settings, PictureSettings):
            self.context.drafts.remember(self.name, {"folder": str(settings.train_data_dir).strip()})
        return {"job": progress(run)}

    def look(self, data: dict[str, Any]) -> dict[str, Any]:
        """How far the job is; what came of it, when the page asks or it has ended."""
        run = self._last()
        return {"job": progress(run, full=bool(data.get("full")) or not state(run).active) if run else None}

    def stop(self, data: dict[str, Any]) -> dict[str, Any]:
        """End the job at once; the texts it has made are kept."""
        run = self._last()
        if run is not None and state(run).active:
            control.stop_now(run)
        return {"job": progress(run) if run else None}

    def undo(self, data: dict[str, Any]) -> dict[str, Any]:
        """Take back what the last job wrote."""
        run = self._last()
        job, found = _job(run), _result(run)
        given = job.get("settings") or {}
        if run is None or found.get("edit") is None:
            raise InputError(t("annotate.nothing_to_undo"))
        extension = str(given.get("caption_extension") or _default(self.tasks, job, "caption_extension"))
        done = folders.undo(Path(str(given["train_data_dir"])), extension, int(found["edit"]))
        written = len(done.written) if done else 0
        left = [f"{one.path.name}" for one in done.conflicts] if done else []
        message = t("annotate.undone", n=written)
        return {
            "problems": problem_dicts(done.failed) if done else [],
            "message": f"{message} {t('annotate.undo_left', names=', '.join(left[:5]))}" if left else message,
        }

    def save(self, data: dict[str, Any]) -> dict[str, Any]:
        """Keep the forms as they are now."""
        self._remember(data, self._task(data), None)
        return {}

    def _task(self, data: Mapping[str, Any]) -> Task:
        found = self.tasks.get(str(data.get("kind")))
        if found is None:
            raise InputError(t("annotate.unknown"))
        return found

    def _values(self, task: Task, data: Mapping[str, Any]) -> dict[str, Any]:
        """The form's values; empty fields stand for the default, and a pasted path loses its quotes."""
        known = options.form(task.section)
        paths = {option["key"] for option in known if option.get("path")} | {task.model}
        found: dict[str, Any] = {}
        for key, value in dict(data.get("values") or {}).items():
            given = value.strip().strip("\"'").strip() if key in paths and isinstance(value, str) else value
            if given is not None and not (given == "" and key not in _MAY_BE_EMPTY):
                found[key] = given
        return found

    def _kept(self, kind: str) -> dict[str, Any]:
        values = ((self.context.drafts.load(self.name) or {}).get("forms") or {}).get(kind)
        known = {option["key"] for option in options.form(self.tasks[kind].section)}
        return (
            {key: value for key, value in values.items() if key in known} if isinstance(values, dict) else {}
        )

    def _last(self) -> Run | None:
        id = self.context.drafts.get(self.name, "run")
        return find_run(self.context.runs, id) if isinstance(id, str) else None

    def _remember(self, data: Mapping[str, Any], task: Task, run: Run | None) -> None:
        drafts = self.context.drafts
        kept = (drafts.load(self.name) or {}).get("forms", {})
        forms = {**kept, task.kind: dict(data.get("values") or {})}
        stored: dict[str, Any] = {"kind": task.kind, "forms": forms}
        rules = data.get("rules")
        stored |= {"rules": rules} if rules else {}
        drafts.save(self.name, stored, **({"run": run.id} if run else {}))


_MAY_BE_EMPTY = ("caption_extension", "tags_extension", "caption_separator")


def _default(tasks: Mapping[str, Task], job: Mapping[str, Any], key: str) -> str:
    section = tasks[str(job.get("task"))].section
    return str(next((one["default"] for one in options.form(section) if one["key"] == key), ""))


def _form(task: Task) -> dict[str, Any]:
    shown = [_in_words(option) for option in options.form(task.section) if option["key"] not in task.hidden]
    known = [
        {"name": one.name, "title": one.title, "size": models.about(one.name), "note": said(one.note)}
        for one in (models.known(task.model_kind) if task.model else ())
    ]
    return {
        "kind": task.kind, "options": shown, "model": task.model, "models": known, "rules": task.rules,
        "trial": bool(task.trial) or task.rules, "live": task.kind == "tag",
    }  # fmt: skip


def _in_words(option: dict[str, Any]) -> dict[str, Any]:
    """An option with its texts in the reader's language."""
    titles = [said(title) for title in option.get("choice_titles", ())]
    return {**option, "label": said(option["label"]), "help": said(option["help"]), "choice_titles": titles}


def progress(run: Run, full: bool = False) -> dict[str, Any]:
    """A job as a page shows it; ``full`` with what came of it and its pictures."""
    now, news = state(run), _NEWS.of(run)
    found: dict[str, Any] = {"done": news.done, "total": news.total, "rate": news.rate}
    found |= {"note": said(news.note), "errors": [said_problem(problem) for problem in news.errors]}
    job = _job(run)
    found |= {"state": now.state, "active": now.active, "id": run.id}
    found |= {
        "task": job.get("task"),
        "trial": str(job.get("kind", "")).startswith("try_") or bool(job.get("try")),
    }
    return {**found, "result": _shown(_result(run)) if full else None}


def _result(run: Run | None) -> dict[str, Any]:
    """What came of a job, as a copy that may be changed."""
    return copy.deepcopy(_NEWS.of(run).result) if run else {}


def _job(run: Run | None) -> dict[str, Any]:
    try:
        return json.loads((run.path / _SAVED).read_text(encoding="utf-8")) if run else {}
    except (OSError, ValueError):
        return {}


def _shown(result: dict[str, Any]) -> dict[str, Any] | None:
    """A result with as many rows as a page can show, and small copies of the pictures of a trial."""
    for key in ("failed", "changes", "empty"):
        if isinstance(result.get(key), list):
            result[f"{key}_total"] = len(result[key])
            result[key] = result[key][:SHOWN]
    if result.get("failed"):
        result["failed"] = [[name, said(why)] for name, why in result["failed"]]
    if result.get("notes"):
        result["notes"] = [said(note) for note in result["notes"]]
    if isinstance(result.get("counts"), dict):
        result["counts"] = list(result["counts"].items())[:SHOWN]
    for picture in result.get("pictures", []):
        picture["shown"] = _small(Path(picture["path"]))
    return result or None


def _small(path: Path) -> str:
    try:
        return address(thumbnail(path, _SIDE, as_trained=False))
    except (AtelierError, OSError):
        return ""


def draw(page: AnnotatePage, extra: tuple[Any, ...] = ()) -> gr.HTML:
    """The page as a component; ``extra`` are further functions that its script may call."""
    own = (
        page.open_page,
        page.command,
        page.about_model,
        page.start,
        page.look,
        page.stop,
        page.undo,
        page.save,
        page.usual_rules,
    )
    return gr.HTML(
        value="",
        html_template=filled("annotate.html")
        .replace("{{title}}", html.escape(t(f"annotate.{page.name}_title")))
        .replace("{{lead}}", html.escape(t(f"annotate.{page.name}_lead"))),
        head=f"<style>.gradio-container.gradio-container {{ {asset('annotate.css')} }}</style>",
        js_on_load="\n".join(asset(name) for name in (BASE, *FIELDS, *SCRIPTS)),
        server_functions=offered(page.context, page.name, (*own, *extra, *path_methods(page.context))),
        fields=field_words(),
        read=json.dumps([_DOCS, title(_DOCS)], ensure_ascii=False),
        elem_id=page.name,
        elem_classes=["at-annotate"],
        apply_default_css=False,
        texts=json.dumps(texts("annotate."), ensure_ascii=False),
    )
