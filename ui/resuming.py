"""What has to be asked before a run goes on: its pictures may not be those it was stopped with."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from backend.data.plan import build_plan, picture_ids
from backend.errors import AtelierError
from backend.jobs.runs import Run
from backend.settings import Settings, read_toml, write_toml

_NAMED = 8
"""Pictures named on each side."""


@dataclass(frozen=True)
class OtherPictures:
    """How the pictures of now differ from those of the restore point."""

    step: int
    """Of the restore point."""
    added: tuple[str, ...]
    removed: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For the page: numbers, and the first names."""
        return {
            "step": self.step,
            "added": len(self.added),
            "removed": len(self.removed),
            "added_names": self.added[:_NAMED],
            "removed_names": self.removed[:_NAMED],
        }


def other_pictures(run: Run) -> OtherPictures | None:
    """What changed since the newest restore point; None when nothing did, or it cannot be told from here.

    What else may stand against going on is found by the trainer itself.
    """
    manifest = _newest(run.path / "state")
    if manifest is None:
        return None
    try:
        settings = _settings(run)
        if settings.saving.resume_changed_dataset:
            return None
        now = set(picture_ids(build_plan(settings, verify=False)))
    except AtelierError:
        return None
    facts = manifest.get("facts") or {}
    before = set(cast("list[str]", facts.get("pictures") or now))
    if before == now:
        return None
    step = int((manifest.get("position") or {}).get("step", 0))
    return OtherPictures(step, _names(now - before), _names(before - now))


def accept_other_pictures(run: Run) -> None:
    """Write into the run's settings that it may go on with other pictures."""
    write_toml(read_toml(run.config).replace(resume_changed_dataset=True), run.config)


def _settings(run: Run) -> Settings:
    settings = read_toml(run.config)
    dataset = run.path / "dataset.toml"
    if not dataset.is_file():
        return settings
    return settings.replace(dataset_config=str(dataset), train_data_dir=None, reg_data_dir=None, in_json=None)


def _newest(folder: Path) -> dict[str, Any] | None:
    """The restore point's own account of the highest step."""
    found: list[dict[str, Any]] = []
    for path in folder.glob("*/state.json"):
        try:
            manifest: Any = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(manifest, dict) and not path.parent.name.startswith("."):
            found.append(cast("dict[str, Any]", manifest))
    return max(found, key=lambda one: (one.get("position") or {}).get("step", 0), default=None)


def _names(ids: Iterable[str]) -> tuple[str, ...]:
    """File names out of picture identities with their repeats."""
    return tuple(sorted(one.rpartition(" x")[0].rpartition("/")[2] or one for one in ids))
