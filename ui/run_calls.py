"""What the page can tell a training that is at work. Methods take and give JSON."""

from __future__ import annotations

from typing import Any

from backend.errors import AtelierError, InputError
from backend.generate.prompts import parse_lines
from backend.jobs import control
from backend.jobs.control import Command
from backend.jobs.runs import Run, find_run
from backend.jobs.state import state
from backend.settings import read_toml, write_toml
from ui.calls import Call
from ui.context import Context
from ui.i18n import t


class RunCalls:
    """Sample now, save now, pause, stop at once, other prompts."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def methods(self) -> tuple[Call, ...]:
        """What the script of the page may call."""
        return (
            self.sample_now,
            self.save_now,
            self.pause,
            self.stop_now,
            self.sample_prompts,
            self.change_prompts,
        )

    def sample_now(self, data: dict[str, Any]) -> dict[str, Any]:
        """Draw the sample prompts after this step."""
        run = self._at_work(data)
        if not self._prompts(run)["any"]:
            raise InputError(t("train.no_prompts"), next=t("train.no_prompts_next"))
        return self._tell(run, "sample", t("train.sample_note"))

    def save_now(self, data: dict[str, Any]) -> dict[str, Any]:
        """Write the result so far, and a restore point, after this step."""
        return self._tell(self._at_work(data), "save", t("train.save_note"))

    def pause(self, data: dict[str, Any]) -> dict[str, Any]:
        """Wait after this step and free the card meanwhile."""
        return self._tell(self._at_work(data), "pause", t("train.pause_note"))

    def stop_now(self, data: dict[str, Any]) -> dict[str, Any]:
        """End the processes of the run, whatever they are at. What was saved stays."""
        run = self._run(data)
        if run is None or not state(run).active:
            raise InputError(t("train.not_running"))
        control.stop_now(run)
        return {"run": run.id, "message": t("train.stop_now_note")}

    def sample_prompts(self, data: dict[str, Any]) -> dict[str, Any]:
        """The prompts of a run, for changing them."""
        run = self._run(data)
        if run is None:
            raise InputError(t("train.not_running"))
        return self._prompts(run)

    def change_prompts(self, data: dict[str, Any]) -> dict[str, Any]:
        """Other prompts from the next sample on, and after a resume."""
        run, text = self._at_work(data), str(data.get("text") or "").strip()
        try:
            parse_lines(text)
        except ValueError as error:
            raise InputError(str(error), key="sample_prompt_text") from None
        control.send(run, "prompts", text=text)
        write_toml(read_toml(run.config).replace(sample_prompt_text=text), run.config)
        return {"run": run.id, "message": t("train.prompts_note")}

    def _prompts(self, run: Run) -> dict[str, Any]:
        try:
            wanted = read_toml(run.config).sampling
        except AtelierError:
            return {"text": "", "file": "", "any": True}
        file = wanted.sample_prompts or ""
        text = wanted.sample_prompt_text
        return {"text": text, "file": file, "any": bool(text.strip() or file)}

    def _tell(self, run: Run, command: Command, message: str) -> dict[str, Any]:
        control.send(run, command)
        return {"run": run.id, "message": message}

    def _at_work(self, data: dict[str, Any]) -> Run:
        run = self._run(data)
        if run is None or state(run).state not in ("starting", "running", "paused"):
            raise InputError(t("train.not_running"))
        return run

    def _run(self, data: dict[str, Any]) -> Run | None:
        id = data.get("run")
        return find_run(self.context.runs, id) if isinstance(id, str) else None
