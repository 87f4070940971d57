"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The large reference files; tests that need them are skipped where they are missing."""
    path = ROOT.parent / "shared" / "golden"
    if not path.is_dir():
        pytest.skip("the large reference files are not at hand")
    return path
