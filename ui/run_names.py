"""How runs are called: by their own name, or as a job of another page is called in the reader's language."""

from __future__ import annotations

from backend.jobs.runs import Run
from ui.i18n import retold
from ui.tabs.merge_forms import FORMS

_JOBS = (
    *(f"annotate.{kind}" for kind in ("caption", "tag", "clean", "merge")),
    *(f"models.{form.kind}" for form in FORMS),
)
"""Texts that jobs are named by when they begin."""


def title(run: Run) -> str:
    """The name to show. What people called a training stays as it is."""
    return retold(run.name, _JOBS) if run.facts().get("kind") == "tool" else run.name
