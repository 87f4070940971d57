"""What must not leave this machine with settings: tokens, and folders that tell who somebody is.

A secret is an option declared with ``secret=True``. It travels in an environment variable, never in
a file: settings files, presets, command lines that are shown, metadata, logs and restore points are
all made without it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from backend.settings.declare import declarations

if TYPE_CHECKING:
    from backend.settings.settings import Settings

ENVIRONMENT: Mapping[str, str] = {"wandb_api_key": "WANDB_API_KEY", "huggingface_token": "HF_TOKEN"}
"""Secret option -> the variable in which its own library looks for it."""


def is_secret(key: str) -> bool:
    declared = declarations().get(key)
    return declared is not None and declared.info.secret


def without_secrets(settings: Settings) -> Settings:
    """The same settings, tokens taken out."""
    given = {key: None for key in ENVIRONMENT if settings.flat()[key]}
    return settings.replace(**given) if given else settings


def public_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a form without the secret ones."""
    return {key: value for key, value in values.items() if not is_secret(key)}


def environment_of(settings: Settings) -> dict[str, str]:
    """Environment variables for a process that is to know the settings' secrets."""
    values = settings.flat()
    return {variable: str(values[key]) for key, variable in ENVIRONMENT.items() if values[key]}


def hand_over(settings: Settings) -> Settings:
    """Move secrets into this process's environment, for itself and those it starts."""
    os.environ.update(environment_of(settings))
    return without_secrets(settings)


def shareable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Flat settings for eyes elsewhere: no secrets, of paths the last part, no home folder in texts."""
    return {key: _without_folders(key, value) for key, value in values.items() if not is_secret(key)}


def _without_folders(key: str, value: Any) -> Any:
    declared = declarations().get(key)
    if isinstance(value, str):
        if declared is not None and declared.info.path:
            return Path(value).name
        return value.replace(str(Path.home()), "~")
    if isinstance(value, list):
        return [_without_folders("", Path(item).name if _is_path(item) else item) for item in _texts(value)]
    return value


def _texts(value: Any) -> list[str]:
    return [str(item) for item in cast("list[Any]", value)]


def _is_path(item: str) -> bool:
    return "=" not in item and ("/" in item or "\\" in item)
