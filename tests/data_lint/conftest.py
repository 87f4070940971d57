"""Fixtures of the dataset doctor's tests."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from backend.demo.planted import Planted, plant, plant_nothing


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches and journals of a test stay in the test's own folder."""
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="session")
def _models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Planted, Planted]:
    folder = tmp_path_factory.mktemp("planted")
    return plant(folder / "planted"), plant_nothing(folder / "clean")


def _copy(of: Planted, folder: Path) -> Planted:
    shutil.copytree(of.config.parent, folder, symlinks=True)
    return replace(of, config=folder / of.config.name)


@pytest.fixture
def planted(_models: tuple[Planted, Planted], tmp_path: Path) -> Planted:
    """The dataset with every fault, a copy of the test's own."""
    return _copy(_models[0], tmp_path / "planted")


@pytest.fixture
def clean(_models: tuple[Planted, Planted], tmp_path: Path) -> Planted:
    """The dataset without a fault."""
    return _copy(_models[1], tmp_path / "clean")
