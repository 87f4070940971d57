"""Choosing files of the server: only inside allowed places, links followed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from backend.errors import InputError
from ui.drafts import Drafts
from ui.files import VARIABLE, FileBrowser, endings, usual_roots


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("models", "models/.hidden", "pictures 10", "pictures 2"):
        (tmp_path / "root" / name).mkdir(parents=True, exist_ok=True)
    for name in (
        "models/a.safetensors",
        "models/notes.txt",
        "models/b.ckpt",
        "pictures 2/x.png",
        "pictures 2/y.JPG",
    ):
        (tmp_path / "root" / name).write_bytes(b"123")
    (tmp_path / "outside").mkdir()
    return tmp_path / "root"


@pytest.fixture
def files(root: Path, tmp_path: Path) -> FileBrowser:
    return FileBrowser([root], Drafts(tmp_path / "drafts"))


def names(reply: dict[str, Any]) -> list[str]:
    return [entry["name"] for entry in reply["entries"]]


def test_a_folder_shows_folders_and_the_files_that_an_option_takes(files: FileBrowser, root: Path):
    assert names(files.browse({"path": str(root)})) == ["models", "pictures 2", "pictures 10"]
    models = files.browse({"path": str(root / "models"), "key": "pretrained_model_name_or_path"})
    assert names(models) == ["a.safetensors", "b.ckpt"]
    assert models["parent"] == str(root) and models["entries"][0]["size"] == 3
    assert names(files.browse({"path": str(root / "models"), "key": "sample_prompts"})) == ["notes.txt"]
    assert files.browse({"path": str(root / "pictures 2")})["pictures"] == 2


def test_a_path_that_is_not_there_leads_to_the_nearest_folder(files: FileBrowser, root: Path):
    reply = files.browse({"path": f' "{root / "models" / "gone" / "x.safetensors"}" '})
    assert reply["path"] == str(root / "models")
    assert files.browse({"path": "relative"})["path"] == str(root)


@pytest.mark.parametrize("path", ["..", "/", "/etc", "{root}/../outside", "{root}/link"])
def test_nothing_outside_the_places_is_shown(files: FileBrowser, root: Path, path: str):
    (root / "link").symlink_to(root.parent / "outside")
    reply = files.browse({"path": path.format(root=root)})
    assert reply["path"] == str(root)
    assert reply["parent"] is None


def test_chosen_places_are_offered_again(files: FileBrowser, root: Path):
    files.browsed({"path": str(root / "models" / "a.safetensors")})
    files.browsed({"path": str(root.parent / "outside")})
    assert files.browse({})["recent"] == [str(root / "models")]
    assert files.browse({})["path"] == str(root / "models")


def test_places_are_fewer_when_others_reach_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    (tmp_path / "runs").mkdir()
    assert usual_roots(tmp_path, tmp_path / "runs", local=False) == (tmp_path, tmp_path / "runs")
    assert Path.home().resolve() in usual_roots(tmp_path, tmp_path / "runs", local=True)
    monkeypatch.setenv(VARIABLE, os.pathsep.join([str(tmp_path / "runs"), str(tmp_path / "none")]))
    assert usual_roots(tmp_path, tmp_path, local=True) == (tmp_path / "runs",)


def test_without_a_place_it_is_said(tmp_path: Path):
    with pytest.raises(InputError, match="no folder"):
        FileBrowser([], Drafts(tmp_path)).browse({})


def test_folders_take_no_files():
    assert endings("train_data_dir") == () and endings("no_option") == ()
    assert ".safetensors" in endings("vae")
