"""The doctor's panel: an examination that runs beside the page, findings, fixes and taking them back."""

from __future__ import annotations

import contextlib
import threading
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend.data.lint import Finding, Findings, lint, pending
from backend.errors import AtelierError, InputError, Problem
from ui.calls import problem_dicts
from ui.i18n import said, said_problem, t
from ui.tabs.dataset.opened import Opened, changed_at
from ui.tabs.dataset.shelf import Shelf

_EXAMPLES = 8
_LINES = 200
"""Lines of a preview that are shown."""


@dataclass
class Examination:
    """One look at a whole dataset, going on or done."""

    done: int = 0
    total: int = 0
    found: Findings | None = None
    problems: list[dict[str, str | None]] = field(default_factory=list[dict[str, "str | None"]])

    @property
    def running(self) -> bool:
        return self.found is None and not self.problems

    def run(self, opened: Opened) -> None:
        """Look at everything; faults are kept for the page that asks next."""
        try:
            self.found = lint(opened.settings, progress=self._progress)
        except AtelierError as error:
            self.problems = problem_dicts(error.problems)
        except Exception as error:
            traceback.print_exc()
            problem = Problem(t("app.fault", error=repr(error)), next=t("app.fault_next"))
            self.problems = [problem.as_dict()]

    def _progress(self, phase: str, done: int, total: int) -> None:
        self.done, self.total = done, total


class DoctorCalls:
    """What the server does for the doctor's panel. Every method takes and gives JSON."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self._examinations: dict[str, Examination] = {}
        self._lock = threading.Lock()

    def examine(self, data: dict[str, Any]) -> dict[str, Any]:
        """Begin to examine the dataset, unless that is going on. Returns at once."""
        opened = self.shelf.get(data)
        key = str(opened.path)
        with self._lock:
            current = self._examinations.get(key)
            if current is None or not current.running:
                current = self._examinations[key] = Examination()
                threading.Thread(target=current.run, args=(opened,), name="doctor", daemon=True).start()
        return {"running": True}

    def examined(self, data: dict[str, Any]) -> dict[str, Any]:
        """How far the examination is, or what it found."""
        opened = self.shelf.get(data)
        current = self._examinations.get(str(opened.path))
        if current is None:
            return self._told(opened, None)
        if current.running:
            return {"running": True, "done": current.done, "total": current.total}
        problems = [said_problem(problem) for problem in current.problems]
        return {**self._told(opened, current.found), "problems": problems}

    def preview_fix(self, data: dict[str, Any]) -> dict[str, Any]:
        """What a fix would do, file by file."""
        opened = self.shelf.get(data)
        fix = self._finding(opened, data).fix
        if fix is None:
            raise InputError(t("data.no_finding"))
        changes = fix.preview()
        lines = [_line(opened, change) for change in changes[:_LINES]]
        if len(changes) > _LINES:
            lines.append(t("data.fix_more", n=f"{len(changes) - _LINES:,}"))
        return {"help": said(fix.description), "lines": lines}

    def apply_fix(self, data: dict[str, Any]) -> dict[str, Any]:
        """Make a fix whole or not at all, then examine again."""
        opened = self.shelf.get(data)
        fix = self._finding(opened, data).fix
        if fix is None:
            raise InputError(t("data.no_finding"))
        fix.apply()
        return self._again(opened, t("data.fix_made", title=said(fix.description)))

    def undo_fix(self, data: dict[str, Any]) -> dict[str, Any]:
        """Take the newest fix back, then examine again."""
        opened = self.shelf.get(data)
        last = next(iter(pending(roots(opened))), None)
        if last is None:
            raise InputError(t("data.nothing_to_undo"))
        left = last.apply()
        reply = self._again(opened, t("data.fix_undone", title=said(last.description)))
        return {**reply, "problems": problem_dicts(Problem(sentence) for sentence in left)}

    def _again(self, opened: Opened, message: str) -> dict[str, Any]:
        # A fix may leave nothing to open, say because every picture was moved aside; it can still be undone.
        with contextlib.suppress(InputError):
            self.shelf.open(str(opened.path), again=True)
        return {**self.examine({"path": str(opened.path)}), "message": message}

    def _finding(self, opened: Opened, data: dict[str, Any]) -> Finding:
        current = self._examinations.get(str(opened.path))
        found = current.found.get(str(data["rule"])) if current and current.found else None
        if found is None:
            raise InputError(t("data.no_finding"))
        return found

    def _told(self, opened: Opened, found: Findings | None) -> dict[str, Any]:
        ids = _ids(opened) if found else {}
        last = next(iter(pending(roots(opened))), None)
        return {
            "findings": [_as_dict(opened, one, ids) for one in found.findings] if found else None,
            "pictures": found.pictures if found else 0,
            "undo": t("data.fix_last", title=said(last.description)) if last else "",
        }


def roots(opened: Opened) -> list[Path]:
    """Folders that the dataset's fixes may touch."""
    folders = [subset.image_dir for dataset in opened.plan.datasets for subset in dataset.subsets]
    return [*dict.fromkeys(folders), opened.path]


def _ids(opened: Opened) -> dict[Path, str]:
    """Pictures, and captions that belong to one, by their files."""
    captions = {id: opened.store.get(id) for id in opened.pictures}
    found = {caption.path: id for id, caption in captions.items()}
    return found | {caption.picture: id for id, caption in captions.items()}


def _as_dict(opened: Opened, finding: Finding, ids: dict[Path, str]) -> dict[str, Any]:
    fix = finding.fix
    return {
        "rule": finding.rule,
        "severity": finding.severity,
        "title": t("data.finding", n=f"{finding.count:,}", title=said(finding.title)),
        "meaning": t(f"data.rule_{finding.rule}"),
        "fix": {"title": t(f"data.fix_{fix.kind}"), "help": said(fix.description)} if fix else None,
        "examples": [_example(opened, one.path, one.detail, ids) for one in finding.examples[:_EXAMPLES]],
        "more": max(0, finding.count - _EXAMPLES),
    }


def _example(opened: Opened, path: Path, detail: str, ids: dict[Path, str]) -> dict[str, Any]:
    id = ids.get(path) or ids.get(path.resolve()) or ""
    mark = changed_at(opened.pictures[id]) if id else ""
    return {
        "id": id,
        "mark": mark,
        "name": path.name,
        "detail": said(detail),
        "folder": not id and path.is_dir(),
    }


def _line(opened: Opened, change: Any) -> str:
    source, target = (_short(opened, path) for path in (change.source, change.target))
    what = said(change.what)
    return f"{what}: {source}" if source == target else f"{what}: {source} → {target}"


def _short(opened: Opened, path: Path) -> str:
    base = opened.path if opened.path.is_dir() else opened.path.parent
    return str(path.relative_to(base)) if path.is_relative_to(base) else str(path)
