"""What the doctor finds: findings with examples, and what can be done about each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from backend.data.lint.fixes import Fix

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("note", "warning", "error")
"""From the mildest: a note is handled by the trainer, a warning makes a worse result, an error stops it."""

MOST_EXAMPLES = 100


@dataclass(frozen=True)
class Example:
    """One file that a finding is about."""

    path: Path
    detail: str = ""

    def as_dict(self) -> dict[str, str]:
        return {"path": str(self.path), "detail": self.detail}


@dataclass(frozen=True)
class Finding:
    """What one rule found in a dataset."""

    rule: str
    severity: Severity
    title: str
    count: int
    examples: tuple[Example, ...]
    """At most :data:`MOST_EXAMPLES` of ``count``."""
    fix: Fix | None = None
    keys: tuple[str, ...] = ()
    """Options it has to do with."""

    def as_dict(self) -> dict[str, object]:
        return {
            "rule": self.rule,
            "severity": self.severity,
            "title": self.title,
            "count": self.count,
            "examples": [example.as_dict() for example in self.examples],
            "keys": list(self.keys),
            "fix": self.fix.as_dict() if self.fix else None,
        }


@dataclass(frozen=True)
class Findings:
    """All findings about one dataset, the gravest first."""

    source: str
    pictures: int
    """Picture files that were looked at."""
    findings: tuple[Finding, ...]
    complete: bool = True
    """False when it was stopped before the last picture; only what was seen is told."""

    @property
    def exit_code(self) -> int:
        """0 for nothing or notes only, 1 for warnings, 2 for errors."""
        return max((SEVERITIES.index(finding.severity) for finding in self.findings), default=0)

    def get(self, rule: str) -> Finding | None:
        return next((finding for finding in self.findings if finding.rule == rule), None)

    def as_dict(self) -> dict[str, object]:
        return {
            "source": self.source,
            "pictures": self.pictures,
            "complete": self.complete,
            "exit_code": self.exit_code,
            "findings": [finding.as_dict() for finding in self.findings],
        }


def gravest(severities: Sequence[Severity]) -> Severity:
    return max(severities, key=SEVERITIES.index)
