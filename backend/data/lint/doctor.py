"""Runs the table of rules over a dataset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from backend.data.lint.examine import Progress, Watch
from backend.data.lint.rule import Hit, Rule
from backend.data.lint.rules import RULES
from backend.data.lint.survey import Survey, survey
from backend.data.lint.types import MOST_EXAMPLES, SEVERITIES, Example, Finding, Findings, gravest
from backend.settings import Settings


def lint(
    source: Settings | Path | str,
    *,
    trigger: str | None = None,
    control: bool = False,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Findings:
    """Everything that is wrong, or worth knowing, about a dataset.

    ``source`` is a dataset file, a training config, a folder or settings. ``trigger`` is the word that
    stands for the subject; without it the first of several class tokens is taken. With ``control``,
    conditioning_data_dir holds pictures that guide, not masks. ``progress`` is told a phase, files done
    and files in all. When ``should_stop`` says so, what was seen so far is judged.

    Raises :class:`~backend.errors.InputError` when the source itself cannot be read.
    """
    watch = Watch(progress or _silent, should_stop or _never)
    seen = survey(source, trigger, control, watch)
    findings = [found for rule in RULES if (found := judge(rule, seen))]
    findings.sort(key=lambda finding: -SEVERITIES.index(finding.severity))
    return Findings(seen.source, sum(1 for _ in seen.items), tuple(findings), seen.complete)


def judge(rule: Rule, seen: Survey) -> Finding | None:
    """What one rule finds; None for nothing."""
    hits = list(rule.find(seen))
    if not hits:
        return None
    # Moving or renaming what a metadata file names would break that file.
    curable = [hit for hit in hits if hit.item is None or hit.item.subset.metadata_file is None]
    fix = rule.cure(seen, curable) if rule.cure else None
    return Finding(
        rule=rule.id,
        severity=gravest([hit.severity or rule.severity for hit in hits]),
        title=rule.one if len(hits) == 1 else rule.many,
        count=len(hits),
        examples=tuple(Example(hit.path, hit.detail) for hit in _worst_first(rule, hits)[:MOST_EXAMPLES]),
        fix=replace(fix, rule=rule.id) if fix else None,
        keys=rule.keys,
    )


def _worst_first(rule: Rule, hits: list[Hit]) -> list[Hit]:
    return sorted(hits, key=lambda hit: -SEVERITIES.index(hit.severity or rule.severity))


def _silent(phase: str, done: int, total: int) -> None:
    return


def _never() -> bool:
    return False
