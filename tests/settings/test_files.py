"""Checks of files and folders that settings name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from backend.settings import Settings, check_files, paths


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a model, pictures and a few files."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "base v1.safetensors").write_bytes(b"x")
    (tmp_path / "pictures" / "10_sks dog").mkdir(parents=True)
    (tmp_path / "prompts.txt").write_text("a cat", encoding="utf-8")
    return tmp_path


def said(**values: Any) -> str:
    problems = check_files(Settings.from_flat({key: str(value) for key, value in values.items()}))
    assert all(problem.key for problem in problems)
    return "\n".join(problem.text() for problem in problems)


def test_nothing_is_said_of_what_is_there(place: Path) -> None:
    before = sorted(place.rglob("*"))
    values = {
        "pretrained_model_name_or_path": place / "models" / "base v1.safetensors",
        "train_data_dir": place / "pictures",
        "sample_prompts": place / "prompts.txt",
        "output_dir": place / "new" / "deep" / "日本語",
        "logging_dir": place,
    }
    del values["logging_dir"]
    assert said(**values) == ""
    assert sorted(place.rglob("*")) == before


def test_a_missing_model_and_the_nearest_name(place: Path) -> None:
    wrong = place / "models" / "base_v1.safetensor"
    text = said(pretrained_model_name_or_path=wrong)
    assert text.startswith(f"Base model not found: {wrong}")
    assert f"Did you mean {place / 'models' / 'base v1.safetensors'}?" in text


def test_a_wrong_folder_on_the_way(place: Path) -> None:
    text = said(pretrained_model_name_or_path=place / "model" / "base v1.safetensors")
    assert f"Did you mean {place / 'models' / 'base v1.safetensors'}?" in text


def test_a_name_from_a_model_site() -> None:
    assert "downloads nothing" in said(pretrained_model_name_or_path="someone/some-model")


def test_files_for_folders_and_folders_for_files(place: Path) -> None:
    assert "is a file, and a folder is needed" in said(train_data_dir=place / "prompts.txt")
    assert "is a folder, and a file is needed" in said(sample_prompts=place / "pictures")
    assert "not of the diffusers kind" in said(pretrained_model_name_or_path=place / "models")
    (place / "models" / "model_index.json").write_text("{}", encoding="utf-8")
    assert said(pretrained_model_name_or_path=place / "models") == ""


def test_folders_are_not_looked_at_when_a_dataset_file_is_used(place: Path) -> None:
    assert said(train_data_dir=place / "none", dataset_config=place / "prompts.txt") == ""


@pytest.mark.parametrize("output", ["pictures", ".", "link", "pictures/../pictures/"])
def test_results_among_the_pictures(place: Path, output: str) -> None:
    (place / "link").symlink_to(place / "pictures")
    text = said(train_data_dir=place / "pictures", output_dir=place / output)
    assert str((place / output).resolve()) in text and str((place / "pictures").resolve()) in text


def test_results_beside_the_pictures(place: Path) -> None:
    assert said(train_data_dir=place / "pictures", output_dir=place / "pictures-out") == ""
    assert said(train_data_dir=place / "pictures", output_dir=place / "pictures" / "results") == ""


def test_an_output_folder_under_a_file(place: Path) -> None:
    text = said(output_dir=place / "prompts.txt" / "out")
    assert f"cannot write to {place / 'prompts.txt' / 'out'}" in text


def test_an_output_folder_that_may_not_be_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = place / "closed"
    closed.mkdir()
    closed.chmod(0o555)
    if os.access(closed, os.W_OK):  # an administrator may write everywhere, so the system's refusal is played

        def refuse(**_: Any) -> Any:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("tempfile.mkstemp", refuse)
    assert f"cannot write to {closed} (permission denied)" in said(output_dir=closed)


def test_an_empty_output_folder_is_the_default() -> None:
    assert Settings.from_flat({"output_dir": "  "}).saving.output_dir is None


def test_a_path_too_long_for_the_system() -> None:
    assert "is too long" in said(pretrained_model_name_or_path="/" + "x" * 5000)


def test_a_deep_folder_in_which_a_result_would_have_no_name(tmp_path: Path) -> None:
    levels = ["d" * 200] * (paths.LONGEST_PATH // 200)
    deep = tmp_path.joinpath(*levels)
    told = said(output_dir=deep)
    assert f"it has {len(str(deep))} bytes" in told and "choose a folder nearer to the top" in told
    assert "too long" not in said(output_dir=tmp_path.joinpath("o" * 150, "p" * 150)), "300 letters are fine"
