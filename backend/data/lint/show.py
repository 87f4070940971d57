"""Findings as text for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from backend.data.lint.fixes import Change
from backend.data.lint.names import shown
from backend.data.lint.types import Finding, Findings
from backend.data.report import count

MARKS = {"error": "[!!]", "warning": "[! ]", "note": "[i ]"}
_SHOWN = 5


def report(found: Findings, command: Callable[[Finding], str]) -> Iterator[str]:
    """The lines of a report. ``command`` gives the command line that shows and makes a finding's fix."""
    stopped = "" if found.complete else ", stopped before the end"
    yield f"{found.source}: {count(found.pictures, 'picture')}{stopped}"
    if not found.findings:
        yield "Nothing found."
    for finding in found.findings:
        yield ""
        yield f"{MARKS[finding.severity]} {finding.count} {finding.title}  ({finding.rule})"
        for example in finding.examples[:_SHOWN]:
            yield f"       {shown(example.path.name)}: {shown(example.detail)}"
        if finding.count > _SHOWN:
            yield f"       and {finding.count - _SHOWN} more"
        if finding.keys:
            yield f"     options: {', '.join(finding.keys)}"
        if finding.fix is not None:
            yield f"     fix: {finding.fix.description}"
            yield f"          {command(finding)}"
    if found.findings:
        yield ""
        yield summary(found)


def summary(found: Findings) -> str:
    """``2 errors, 1 warning, 3 notes``."""
    numbers = [
        (sum(finding.severity == severity for finding in found.findings), severity)
        for severity in ("error", "warning", "note")
    ]
    return ", ".join(count(number, severity) for number, severity in numbers)


def changes(found: list[Change], limit: int = 20) -> Iterator[str]:
    """The lines of a preview."""
    for change in found[:limit]:
        yield f"  {change.what}: {shown(str(change.source))} -> {shown(str(change.target))}"
    if len(found) > limit:
        yield f"  and {len(found) - limit} more"
