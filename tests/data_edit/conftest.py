"""Fixtures of the tests of building and editing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data.data_kit import add_picture


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is written of one's own accord stays in the test's folder."""
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


Facts = dict[str, tuple[bytes, int]]


def facts_of(folder: Path) -> Facts:
    """Bytes and time of change of every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.fixture
def originals(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of pictures; all of its files must be as they were when the test ends."""
    made: dict[Path, Facts] = {}

    def make(count: int = 6, name: str = "my pictures", caption: str | None = "a dog, on grass") -> Path:
        folder = tmp_path / name
        for i in range(count):
            size = ((96, 64), (64, 96), (80, 80))[i % 3]
            add_picture(folder, f"img_{i:02d}.png", size, caption)
        for path in folder.iterdir():
            os.utime(path, ns=(10**18, 10**18 + 7))
        made[folder] = facts_of(folder)
        return folder

    yield make  # type: ignore[misc]
    for folder, before in made.items():
        assert facts_of(folder) == before, f"the originals in {folder.name} were changed"
