"""What Atelier keeps only because it can be computed again: how much there is, and letting go of it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from backend.errors import EnvironmentFault, InputError
from ui.i18n import t

KINDS = ("latents", "texts", "thumbnails", "doctor", "folders", "hub", "files.tsv", "sha256.json")
"""Folders and files of the cache that are known. Others in the same place are not touched."""


@dataclass(frozen=True)
class Cache:
    """One kind of cache."""

    kind: str
    bytes: int
    files: int


def caches(root: Path) -> list[Cache]:
    """Every kind that holds something, with its size."""
    return [Cache(kind, *_size(root / kind)) for kind in KINDS if (root / kind).exists()]


def clear(root: Path, kind: str) -> int:
    """Remove one kind of cache. Returns the bytes that became free.

    Raises:
        InputError: there is no such kind.
        EnvironmentFault: it cannot be removed.
    """
    if kind not in KINDS:
        raise InputError(t("system.no_cache", kind=kind))
    place = root / kind
    size, _ = _size(place)
    try:
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
    except OSError as error:
        raise EnvironmentFault(t("system.not_cleared", kind=kind), why=error.strerror or str(error)) from None
    return size


def _size(place: Path) -> tuple[int, int]:
    """Bytes and number of files below a place, links not followed."""
    if place.is_file():
        return place.stat().st_size, 1
    total = count = 0
    for folder, _, names in os.walk(place):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118 - many files
                count += 1
            except OSError:
                continue
    return total, count
