"""The Models page: merge, extract, resize, convert and look inside, each as a job of its own."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr

from backend.errors import AtelierError, InputError, Problem
from backend.jobs import control, process
from backend.jobs.events import read_events
from backend.jobs.runs import Run, create_run, find_run, list_runs
from backend.jobs.state import state
from backend.settings import Settings
from backend.system.identify import identify
from backend.wholefile import write_text
from ui.context import Context
from ui.docs.library import title
from ui.form import asset, filled
from ui.i18n import said, said_problem, t, texts
from ui.offers import offered
from ui.scripted import BASE, FIELDS, field_words, path_methods
from ui.tabs.generate import trained_files
from ui.tabs.merge_forms import BY_KIND, FORMS, Field, Form

NAME = "models"
TRAIN = "train"
_DOCS = "merge-and-convert"
"""The page of the docs that tells more."""
_RUNS = 12
_TAGS = 60
_LAYERS = 1500
"""Rows that a page can show at once."""


class ModelsPage:
    """What the server does for the Models page. Every method takes and gives JSON."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def open_page(self, data: dict[str, Any]) -> dict[str, Any]:
        """Forms, what they held, files to choose from, and the job that is at work."""
        draft = self.context.drafts.load(NAME) or {}
        run = self._last()
        return {
            "forms": [_described(form) for form in FORMS],
            "values": draft.get("forms", {}),
            "kind": draft.get("kind", FORMS[0].kind),
            "files": self._files(),
            "job": progress(run) if run else None,
        }

    def command(self, data: dict[str, Any]) -> dict[str, Any]:
        """The command line that does the same."""
        form = _form(data)
        return {"command": command_line(form, job_of(form, data.get("values") or {}))}

    def start(self, data: dict[str, Any]) -> dict[str, Any]:
        """Start a job, unless one is at work."""
        form, values = _form(data), dict(data.get("values") or {})
        job = job_of(form, values)
        missing = [field for field in form.fields if field.required and not job.get(field.name)]
        if missing:
            raise InputError([_missing(field) for field in missing])
        last = self._last()
        if last is not None and state(last).active:
            raise InputError(t("models.busy"))
        run = create_run(self.context.runs, t(f"models.{form.kind}"), "", kind="tool")
        write_text(run.path / "weights.json", json.dumps(job, ensure_ascii=False, indent=1))
        process.start(run, command=[sys.executable, "-m", "backend.weights", str(run.path)])
        self._remember(form, values, run)
        return {"job": progress(run)}

    def look(self, data: dict[str, Any]) -> dict[str, Any]:
        """How far the job is, and what came of it."""
        run = self._last()
        return {"job": progress(run) if run else None}

    def stop(self, data: dict[str, Any]) -> dict[str, Any]:
        """End the job; it removes what it had begun to write."""
        run = self._last()
        if run is not None and state(run).active:
            control.stop_now(run)
        return {"job": progress(run) if run else None}

    def train_again(self, data: dict[str, Any]) -> dict[str, Any]:
        """Put the settings that were read back into the Train page's form."""
        found = _result(self._last())
        values = found.get("training") or {}
        if not values:
            raise InputError(t("models.no_settings"))
        settings = Settings.from_flat({k: v for k, v in values.items() if k not in ("sample_prompts",)})
        self.context.drafts.save(TRAIN, settings.changed())
        return {"message": t("models.in_train")}

    def _files(self) -> list[str]:
        """Files used before, and what runs made."""
        recent = self.context.drafts.recent(NAME).get("file", [])
        models = self.context.drafts.recent(TRAIN).get("pretrained_model_name_or_path", [])
        made = [str(path) for run in list_runs(self.context.runs)[:_RUNS] for path in trained_files(run)]
        return list(dict.fromkeys([*recent, *made, *models]))

    def _last(self) -> Run | None:
        id = self.context.drafts.get(NAME, "run")
        return find_run(self.context.runs, id) if isinstance(id, str) else None

    def _remember(self, form: Form, values: dict[str, Any], run: Run) -> None:
        drafts = self.context.drafts
        kept = (drafts.load(NAME) or {}).get("forms", {})
        drafts.save(NAME, {"kind": form.kind, "forms": {**kept, form.kind: values}}, run=run.id)
        for field in form.fields:
            if field.kind == "file" and values.get(field.name):
                drafts.remember(NAME, {"file": _path(values[field.name])})


def _described(form: Form) -> dict[str, Any]:
    """A form for the script, each field with the name of its option."""
    renamed = form.renamed or {}
    fields = [{**asdict(field), "option": renamed.get(field.name, field.name)} for field in form.fields]
    return {**asdict(form), "fields": fields}


def _form(data: dict[str, Any]) -> Form:
    form = BY_KIND.get(str(data.get("kind")))
    if form is None:
        raise InputError(t("models.unknown_job"))
    return form


def _missing(field: Field) -> Problem:
    return Problem(t("models.missing", label=t(f"models.f.{field.name}")), key=field.name)


def _path(value: object) -> str:
    """A path as people paste it: quotes and spaces around it do not count."""
    text = str(value or "").strip().strip("\"'").strip()
    return str(Path(text).expanduser()) if text else ""


def job_of(form: Form, values: dict[str, Any]) -> dict[str, Any]:
    """The form's values as a job.

    Raises:
        InputError: a number that is none, or a line that is no entry.
    """
    job: dict[str, Any] = {"kind": form.kind}
    for field in form.fields:
        value = values.get(field.name, field.default)
        if field.kind == "parts":
            rows = [row for row in value or [] if _path(row.get("path"))]
            job["models"] = [_path(row["path"]) for row in rows]
            job["ratios"] = [_number(field, row.get("ratio", 1)) for row in rows]
            continue
        found = _value(form, field, value)
        if found not in (None, ""):
            job[field.name] = found
    if values.get("mode") == "add_difference" and job.get("ratios"):
        job["ratios"] = job["ratios"][1:2]
    if job.get("mbw"):
        job.pop("ratios", None)
    return job


def _value(form: Form, field: Field, value: Any) -> Any:
    if field.kind in ("file", "output"):
        return _path(value)
    if field.kind == "whole":
        return None if value in (None, "") else int(_number(field, value))
    if field.kind == "number":
        return None if value in (None, "") else _number(field, value)
    if field.kind == "flag":
        return bool(value)
    text = str(value or "").strip()
    if form.kind == "edit_metadata" and field.kind == "words":
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return dict(map(_entry, lines)) if field.name == "set" else lines
    return text


def _number(field: Field, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        label = t(f"models.f.{field.name}")
        raise InputError(Problem(t("models.no_number", label=label, value=value), key=field.name)) from None


def _entry(line: str) -> tuple[str, str]:
    key, sign, value = line.partition("=")
    if not sign:
        raise InputError(Problem(t("models.no_entry", line=line), key="set"))
    return key.strip(), value.strip()


def command_line(form: Form, job: dict[str, Any]) -> str:
    """The job as people type it."""
    words = ["python", f"tools/{_tool(form, job)}", *(str(job.get(name, "")) for name in form.positional)]
    for key, value in job.items():
        if key == "kind" or key in form.positional:
            continue
        option = f"--{(form.renamed or {}).get(key, key)}"
        if value is True:
            words.append(option)
        elif isinstance(value, dict):
            words += [option, *(f"{k}={v}" for k, v in value.items())]
        elif isinstance(value, list):
            words += [option, *(f"{item:g}" if isinstance(item, float) else str(item) for item in value)]
        elif value is not False:
            words += [option, f"{value:g}" if isinstance(value, float) else str(value)]
    if form.kind == "inspect":
        words.append("--json")
    return " ".join(shlex.quote(word) for word in words)


_MERGES = {"sdxl": "sdxl_merge_lora.py", "sd3": "sd3_merge_lora.py"}


def _tool(form: Form, job: dict[str, Any]) -> str:
    """The command line's name; merging has one for each line of models."""
    if form.kind not in ("merge_into", "merge_networks"):
        return form.tool
    try:
        family = identify(job.get("sd_model") or job["models"][0]).family
    except (AtelierError, IndexError):
        return form.tool  # what is wrong with the file is said at the start
    return _MERGES.get(family, form.tool)


def _result(run: Run | None) -> dict[str, Any]:
    records = read_events(run.events)[0] if run else []
    return next((dict(r.get("facts") or {}) for r in reversed(records) if r["type"] == "result"), {})


def progress(run: Run) -> dict[str, Any]:
    """A job as the page shows it."""
    now = state(run)
    found: dict[str, Any] = {"doing": "", "done": 0, "total": 0, "errors": [], "result": None}
    for record in read_events(run.events)[0]:
        if record["type"] == "progress":
            found |= {"doing": record["phase"], "done": record["done"], "total": record["total"]}
        elif record["type"] == "error":
            found["errors"] = [said_problem(problem) for problem in record["problems"]]
        elif record["type"] == "result":
            found["result"] = _shown(dict(record.get("facts") or {}))
    job = _job(run)
    return {**found, "state": now.state, "active": now.active, "kind": job.get("kind"), "job": job}


def _job(run: Run) -> dict[str, Any]:
    try:
        return json.loads((run.path / "weights.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _shown(facts: dict[str, Any]) -> dict[str, Any]:
    """A result with as many rows as a page can show, in the reader's language."""
    for key, most in (("tags", _TAGS), ("layers", _LAYERS), ("kept", _LAYERS), ("dropped", _LAYERS)):
        if isinstance(facts.get(key), list):
            facts[key] = facts[key][:most]
    if isinstance(facts.get("title"), str):
        facts["title"] = said(facts["title"])
    facts |= {"notes": [said(note) for note in facts["notes"]]} if facts.get("notes") else {}
    facts |= (
        {"dropped": [{**row, "why": said(row["why"])} for row in facts["dropped"]]}
        if facts.get("dropped")
        else {}
    )
    return facts


def build(context: Context) -> gr.HTML:
    """Draw the page."""
    page = ModelsPage(context)
    methods = (page.open_page, page.command, page.start, page.look, page.stop, page.train_again)
    return gr.HTML(
        value="",
        html_template=filled("models.html"),
        head=f"<style>.gradio-container.gradio-container {{ {asset('models.css')} }}</style>",
        js_on_load="\n".join(
            asset(name) for name in (BASE, *FIELDS, "models-1-form.js", "models-2-result.js")
        ),
        server_functions=offered(context, "models", (*methods, *path_methods(context))),
        fields=field_words(),
        read=json.dumps([_DOCS, title(_DOCS)], ensure_ascii=False),
        elem_id="models",
        apply_default_css=False,
        texts=json.dumps(texts("models."), ensure_ascii=False),
    )
