"""Logs for Weights & Biases; with ``WANDB_MODE=offline`` they stay in a folder."""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_OFFLINE = ("offline", "disabled", "dryrun")


class WandbTracker:
    """One run of a project there."""

    title = "Weights & Biases"

    def __init__(
        self,
        folder: Path,
        project: str,
        name: str | None,
        settings: Mapping[str, Any] | None,
        arguments: Mapping[str, Any],
    ) -> None:
        """``name``: of the run; ``settings``: kept with it; ``arguments``: further ones of ``wandb.init``."""
        import wandb  # type: ignore[import-not-found]

        folder.mkdir(parents=True, exist_ok=True)
        self._wandb: Any = wandb
        given = {
            "project": project,
            "dir": str(folder),
            "config": dict(settings) if settings is not None else None,
            **arguments,
            **({"name": name} if name else {}),
        }
        self._run: Any = self._wandb.init(**given)

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, tag: str, path: Path, caption: str, step: int) -> None:
        self._run.log({tag: self._wandb.Image(str(path), caption=caption)}, step=step)

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=1 if failed else 0)


def has_key() -> bool:
    """Whether wandb can log in without asking, or need not."""
    if os.environ.get("WANDB_MODE", "").lower() in _OFFLINE or os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("://")[-1].split("/")[0]
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
