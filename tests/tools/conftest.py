"""Command lines run as processes of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import World, draw_pictures


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("pictures") / "train", count=6)


@pytest.fixture
def make_world(tiny_sd15: Path, tmp_path: Path, pictures: Path) -> Callable[[], World]:
    return lambda: World(tmp_path / "home", tiny_sd15, pictures)


@pytest.fixture
def world(make_world: Callable[[], World]) -> World:
    return make_world()
