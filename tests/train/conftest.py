"""Fixtures of the trainer's tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches and runs of a test stay in the test's own folder."""
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))
