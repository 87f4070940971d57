"""The Train page: the form, what was found, presets, and start, stop, resume."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import gradio as gr

from backend.errors import InputError, Problem
from backend.jobs import control, process
from backend.jobs import queue as waiting
from backend.jobs.runs import Run, create_run, find_run, list_runs
from backend.jobs.state import RunState, state
from backend.settings import Settings, to_toml
from backend.settings.secrets import environment_of, public_values
from backend.system.paths import presets_root
from ui.bind import Values, command_line, settings_of, wire_values
from ui.calls import Call, problem_dicts
from ui.context import Context
from ui.files import FileBrowser
from ui.form import filled, settings_page
from ui.found import Finder, card
from ui.i18n import t
from ui.live import build_live
from ui.offers import offered
from ui.plan_calls import PlanCalls
from ui.preset_calls import PresetCalls
from ui.presets import PresetShelf
from ui.resuming import accept_other_pictures, other_pictures
from ui.run_calls import RunCalls
from ui.tabs.generate.using import UseCalls

FORM = "train"
SCRIPTS = ("files.js", "train.js", "train-presets.js", "train-import.js", "train-plan.js", "train-run.js")
ESSENTIALS = (
    "training_method",
    "pretrained_model_name_or_path",
    "train_data_dir",
    "conditioning_data_dir",
    "token_string",
    "init_word",
    "num_vectors_per_token",
    "use_object_template",
    "use_style_template",
    "output_name",
    "class_tokens",
    "max_train_epochs",
    "learning_rate",
    "network_dim",
    "resolution",
    "sample_prompt_text",
)
"""The basic view: what a person must decide for a first LoRA (or word, or guide), and nothing else."""
_REMEMBERED = (
    "pretrained_model_name_or_path",
    "train_data_dir",
    "dataset_config",
    "network_weights",
    "weights",
    "conditioning_data_dir",
    "vae",
    "output_dir",
)
"""Options whose values of past runs are offered again."""


class TrainPage:
    """What the server does for the Train page. Every method takes and gives JSON."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.finder = Finder()
        self.presets = PresetShelf(presets_root() / "own")

    def open_page(self, data: dict[str, Any]) -> dict[str, Any]:
        """Everything a page that was just opened needs: the draft, presets, the run to show."""
        drafts = self.context.drafts
        values = drafts.load(FORM)  # which puts a damaged file aside, see _recovered
        preset = drafts.get(FORM, "preset") or ""
        if values is None:
            values, preset = self.presets.first()
        run = self._find(data.get("run")) or self._latest()
        return {
            "message": self._recovered(),
            "values": wire_values(values),
            "preset": preset,
            "base": self._preset_values(preset),
            "presets": self.presets.listing(),
            "recent": drafts.recent(FORM),
            "run": run.id if run else None,
        }

    def _recovered(self) -> str:
        """What is said when the saved form was damaged; nothing when it was not."""
        found = self.context.drafts.recovered(FORM)
        if found is None:
            return ""
        if found.saved is None:
            return t("train.draft_lost", name=found.kept)
        moment = time.strftime("%Y-%m-%d %H:%M", time.localtime(found.saved))
        return t("train.draft_restored", time=moment, name=found.kept)

    def _preset_values(self, id: str) -> Values | None:
        """What the form's preset says, so that the form can mark what was changed since."""
        try:
            return self.presets.read(id) if id else None
        except InputError:
            return None

    def look(self, data: dict[str, Any]) -> dict[str, Any]:
        """Keep the draft and tell what was found."""
        self.context.drafts.save(FORM, public_values(data["values"]), preset=data.get("preset") or "")
        return card(
            self.finder.look(data["values"], again=bool(data.get("again")), files=bool(data.get("files")))
        )

    def status(self, data: dict[str, Any]) -> dict[str, Any]:
        """The state of the run shown. Unless it is pinned, one that was started elsewhere takes its place."""
        run = self._find(data.get("run"))
        if run is None or not (data.get("pinned") or state(run).active):
            run = process.running_training(self.context.runs) or run or self._latest()
        return describe(run)

    def start(self, data: dict[str, Any]) -> dict[str, Any]:
        """Check everything, then make a run and start it. A second click finds the first one's run."""
        settings, problems = self._checked(data)
        if problems:
            return {"problems": problems}
        run = process.create_and_start(
            self.context.runs, _name(settings), to_toml(settings), secrets=environment_of(settings)
        )
        return {"run": run.id, "message": t("train.started"), "recent": self.context.drafts.recent(FORM)}

    def queue(self, data: dict[str, Any]) -> dict[str, Any]:
        """Check everything, then make a run that waits for its turn."""
        settings, problems = self._checked(data)
        if problems:
            return {"problems": problems}
        run = create_run(self.context.runs, _name(settings), to_toml(settings))
        self.context.queue.secrets[run.id] = environment_of(settings)
        waiting.add(self.context.runs, run.id)
        place = len(waiting.read(self.context.runs).waiting)
        return {"message": t("train.queued", place=place), "recent": self.context.drafts.recent(FORM)}

    def _checked(self, data: dict[str, Any]) -> tuple[Settings, list[dict[str, str | None]]]:
        """The form's settings, and what is wrong with them. When nothing is, its values are remembered."""
        values = data["values"]
        self.context.drafts.save(FORM, public_values(values), preset=data.get("preset") or "")
        found = self.finder.look(values, again=True, files=True)
        if found.problems:
            return found.settings, problem_dicts(found.problems)
        for dataset in found.plan.datasets if found.plan else ():
            for subset in dataset.subsets:
                self.context.allow(subset.image_dir)
        recent = {key: str(values[key]) for key in _REMEMBERED if values.get(key)}
        self.context.drafts.remember(FORM, recent)
        return found.settings, []

    def stop(self, data: dict[str, Any]) -> dict[str, Any]:
        """Ask the run to finish its step, save and end."""
        run = self._find(data.get("run"))
        if run is None or not state(run).active:
            raise InputError(t("train.not_running"))
        control.stop(run)
        return {"run": run.id, "message": t("train.stop_note")}

    def resume(self, data: dict[str, Any]) -> dict[str, Any]:
        """Go on with a run that was stopped, failed or interrupted.

        When its pictures are others now, ``ask`` says which, and nothing is started until
        ``other_pictures`` answers it.
        """
        run = self._find(data.get("run"))
        if run is None:
            raise InputError(t("train.nothing_to_resume"))
        if state(run).state == "paused":
            control.send(run, "resume")
            return {"run": run.id, "message": t("train.resumed")}
        changed = other_pictures(run)
        if changed and not data.get("other_pictures"):
            return {"ask": changed.as_dict()}
        if changed:
            accept_other_pictures(run)
        process.start(run, resume=True)
        return {"run": run.id, "message": t("train.resumed")}

    def read_preset(self, data: dict[str, Any]) -> dict[str, Any]:
        """A preset's values."""
        return {"values": self.presets.read(str(data["id"]))}

    def save_preset(self, data: dict[str, Any]) -> dict[str, Any]:
        """Keep the form's settings as a preset of the user's own."""
        settings = settings_of(data["values"])
        about, family = str(data.get("about") or ""), self.finder.look(data["values"]).family or ""
        replace, name = bool(data.get("replace")), str(data["name"])
        if not replace and self.presets.has(name):
            problem = Problem(t("train.preset_taken", name=name))
            return {"problems": problem_dicts([problem]), "taken": True}
        kept = self.presets.save(name, about, settings, family, replace)
        return {"id": kept, "presets": self.presets.listing()}

    def texts(self, data: dict[str, Any]) -> dict[str, Any]:
        """The settings as TOML, and the command line that does the same."""
        found = self.finder.look(data["values"])
        wrong = [problem for problem in found.problems if problem.key in data["values"]]
        return {
            "toml": to_toml(found.settings),
            "command": command_line(found.settings, found.family),
            "problems": problem_dicts(wrong),
        }

    def _find(self, id: Any) -> Run | None:
        return find_run(self.context.runs, id) if isinstance(id, str) else None

    def _latest(self) -> Run | None:
        """The training that runs, or else the last one."""
        running = process.running_training(self.context.runs)
        if running:
            return running
        return next((run for run in list_runs(self.context.runs) if run.kind == "train"), None)


def describe(run: Run | None) -> dict[str, Any]:
    """A run's state for buttons and the status line."""
    if run is None:
        return {"run": None, "state": "none", "text": t("train.state.none"), "active": False}
    now = state(run)
    return {
        "run": run.id,
        "state": now.state,
        "text": t(_state_text(now), name=run.name, step=f"{now.step:,}", total=f"{now.total:,}"),
        "step": now.step,
        "total": now.total,
        "active": now.active,
        "can_stop": now.state in ("starting", "running", "paused"),
        "can_tell": now.state == "running" and now.step > 0,
        "resumable": now.resumable or now.state == "paused",
    }


def _state_text(now: RunState) -> str:
    if now.state == "running" and now.step:
        return "train.state.running_step"
    if now.state == "interrupted" and not now.resumable:
        return "train.state.interrupted_lost"
    return f"train.state.{now.state}"


def _name(settings: Settings) -> str:
    """The run's name: as the result is called, or as the folder of pictures."""
    data = settings.dataset
    folder = data.train_data_dir or data.dataset_config or ""
    return settings.saving.output_name or Path(folder).stem or "lora"


def methods_of(page: TrainPage) -> tuple[Call, ...]:
    """Everything that the page's scripts may call."""
    return (
        page.open_page,
        page.look,
        page.status,
        page.start,
        page.queue,
        page.stop,
        page.resume,
        page.read_preset,
        page.save_preset,
        page.texts,
        *PresetCalls(page.presets).methods(),
        *PlanCalls(page.context, page.finder).methods(),
        *RunCalls(page.context).methods(),
        *FileBrowser(page.context.roots, page.context.drafts).methods(),
    )


def build(context: Context) -> None:
    """Draw the page. The scripts in it call :func:`methods_of` by name."""
    page = TrainPage(context)
    calls = offered(context, "train", methods_of(page))
    words = ("form.", "train.", "files.")
    form = settings_page(filled("train.html"), SCRIPTS, ESSENTIALS, calls, "train", words)
    shown = gr.Textbox("", visible=False, show_label=False)
    build_live(offered(context, "train", (UseCalls(context).use,))).attach(shown)
    form.follow(_followed, outputs=[shown], show_progress="hidden", queue=False, api_visibility="private")


def _followed(event: gr.EventData) -> str:
    """The id of the run that the page shows from now on."""
    return str(event.run or "")
