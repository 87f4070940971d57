"""The small JSON files of run folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from backend.errors import InputError
from backend.wholefile import write_text


def write_json(path: Path, value: dict[str, Any]) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file, or None when it is missing, empty, damaged or not an object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def read_job(path: Path) -> dict[str, Any]:
    """The job that a file describes.

    Raises:
        InputError: the file cannot be read, is no JSON, or holds something else than an object.
    """
    try:
        found: object = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path} ({(error.strerror or str(error)).lower()})") from None
    except ValueError as error:
        raise InputError(f"{path.name} is not valid JSON", where=str(path), why=str(error)) from None
    if not isinstance(found, dict):
        raise InputError(f"{path.name} holds no job", where=str(path), why="a table is needed")
    return cast("dict[str, Any]", found)
