"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
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


@pytest.fixture(scope="session")
def tiny_sd15(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow SD 1.x checkpoint with random weights (fp16, 15 MB, every tensor of the real one)."""
    from backend.demo.tiny import build_tiny_sd15

    path = tmp_path_factory.mktemp("models") / "tiny_sd15.safetensors"
    build_tiny_sd15(path)
    return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, where there is one; one for all tests of a process, as its driver wants it."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium on this machine")
    api.expect.set_options(timeout=30_000)  # the machine may be busy with trainings of other tests
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield found
        found.close()
