"""What the server answers about a run before it starts: its plan, its pace, the machine's health."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from backend.settings import Settings, to_toml
from backend.settings.secrets import environment_of
from backend.system.doctor import OPTIONAL, Finding
from ui.calls import Call, problem_dicts
from ui.context import Context
from ui.found import Finder
from ui.i18n import said
from ui.pace import pace
from ui.plan import DoctorReport, Planner


class PlanCalls:
    """The plan of the form's settings. The page asks until it is done."""

    def __init__(
        self,
        context: Context,
        finder: Finder,
        planner: Planner | None = None,
        doctor: DoctorReport | None = None,
    ) -> None:
        self.context = context
        self.finder = finder
        self.planner = planner or Planner()
        self.doctor = doctor or DoctorReport()

    def methods(self) -> tuple[Call, ...]:
        """What the script of the page may call."""
        return (self.plan,)

    def plan(self, data: dict[str, Any]) -> dict[str, Any]:
        """Problems at once where there are some; else how far the plan is, or the plan."""
        found = self.finder.look(data["values"], again=bool(data.get("again")), files=True)
        if found.problems:
            return {"state": "problems", "problems": problem_dicts(found.problems)}
        settings = found.settings
        toml = to_toml(settings)
        images = found.plan.summary() if found.plan else {}
        # Other pictures under the same settings are another question.
        key = f"{toml}\n{images}\n{found.model}"
        answer = self.planner.ask(key, toml, environment_of(settings))
        findings = self.doctor.look()
        if answer["state"] == "working":
            return {"state": "working", "seconds": answer.get("seconds", 0)}
        card = answer["card"]
        return {
            "state": "done",
            "card": card,
            "time": self._time(settings, card),
            "doctor": None
            if findings is None  # libraries are still being tried
            else [_told(finding) for finding in findings if _matters(finding)],
            "problems": card.get("problems") or [],
        }

    def _time(self, settings: Settings, card: dict[str, Any]) -> dict[str, Any] | None:
        found = pace(self.context.runs, settings)
        steps = int(card.get("steps") or 0) - int(card.get("start") or 0)
        if found is None or steps <= 0:
            return None
        return {**asdict(found), "total": found.seconds * steps}


def _matters(finding: Finding) -> bool:
    """Of what is not installed and not needed, only the choice of it tells."""
    return finding.level == "bad" or (finding.level == "note" and finding.name not in OPTIONAL)


def _told(finding: Finding) -> dict[str, str]:
    return {
        "level": finding.level,
        "name": finding.name,
        "text": said(finding.text),
        "fix": said(finding.fix) if finding.fix else "",
    }
