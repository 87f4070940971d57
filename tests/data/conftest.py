"""Fixtures of the dataset engine's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.data.data_kit import add_picture


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches of a test stay in the test's own folder."""
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of pictures with captions: pictures('name', count, size)."""

    def make(name: str = "set", count: int = 4, size: tuple[int, int] = (96, 64), **options: Any) -> Path:
        folder = tmp_path / name
        for i in range(count):
            add_picture(folder, f"img_{i:02d}.png", size, **options)
        return folder

    return make
