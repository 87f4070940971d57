"""The dataset with planted faults: made from a seed, whole, without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from backend.demo.planted import files, plant, plant_nothing


def test_a_seed_gives_the_same_files(tmp_path: Path) -> None:
    one, other = plant(tmp_path / "one", 3), plant(tmp_path / "other", 3)
    assert one.faults == other.faults
    assert dict(files(tmp_path / "one")) == dict(files(tmp_path / "other"))
    assert dict(files(tmp_path / "one")) != dict(files(plant(tmp_path / "third", 4).config.parent))


def test_what_is_named_is_there(tmp_path: Path) -> None:
    planted = plant(tmp_path / "set")
    names = {path.name for path in (tmp_path / "set").rglob("*")}
    assert set().union(*planted.faults.values()) <= names
    assert len(planted.faults) > 30


def test_the_clean_one_has_no_faults(tmp_path: Path) -> None:
    clean = plant_nothing(tmp_path / "set")
    assert clean.faults == {} and clean.config.is_file()


def test_a_folder_that_is_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError):
        plant(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_no_torch() -> None:
    code = "import sys, backend.demo.planted, backend.data.lint; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
