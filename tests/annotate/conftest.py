"""Fixtures of captioning and tagging: pictures of the demo's world, and a home of the test's own."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.demo.world import Scene, random_scene, render


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is written of one's own accord stays in the test's folder; nothing is fetched."""
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path / "home"


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Scene]:
    """Pictures of the demo's world, which the bundled models know: file -> what it shows."""
    folder, rng = tmp_path_factory.mktemp("drawn"), random.Random(11)
    scenes = {folder / f"img_{number:02d}.png": random_scene(rng) for number in range(6)}
    for number, (path, scene) in enumerate(scenes.items()):
        render(scene, number, 96).save(path)
    return scenes


@pytest.fixture
def folder(tmp_path: Path, drawn: dict[Path, Scene]) -> Path:
    """A copy of the pictures to write beside."""
    place = tmp_path / "my pictures"
    place.mkdir()
    for path in drawn:
        (place / path.name).write_bytes(path.read_bytes())
    return place


@pytest.fixture
def texts(folder: Path) -> Callable[..., dict[str, str]]:
    """What stands beside the pictures: name without ending -> text."""

    def read(extension: str = ".txt") -> dict[str, str]:
        found = sorted(path for path in folder.rglob(f"*{extension}") if path.is_file())
        return {path.name.removesuffix(extension): path.read_text(encoding="utf-8") for path in found}

    return read
