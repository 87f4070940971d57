"""Run folders: made, named, found again, whatever the disk did to them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from backend.errors import InputError
from backend.jobs.runs import create_run, find_run, list_runs, open_run, slug
from backend.wholefile import write_text


def test_a_new_run_has_all_its_parts(tmp_path: Path) -> None:
    run = create_run(tmp_path, "my cat", "a = 1\n", "b = 2\n")
    assert re.fullmatch(r"\d{8}-\d{6}-my-cat", run.id)
    assert run.config.read_text() == "a = 1\n"
    assert (run.path / "dataset.toml").read_text() == "b = 2\n"
    names = {path.name for path in run.path.iterdir()}
    assert names >= {
        "job.json",
        "events.jsonl",
        "log.txt",
        "control.jsonl",
        "samples",
        "checkpoints",
        "state",
    }


def test_the_name_keeps_all_its_characters_and_the_folder_only_safe_ones(tmp_path: Path) -> None:
    name = 'うちの猫: "Mimi" <b>|?*\\/ é'
    run = create_run(tmp_path, name, "")
    assert open_run(run.path).name == name
    assert not re.search(r'[<>:"/\\|?*\s]', run.id)
    assert "うちの猫" in run.id


@pytest.mark.parametrize(("name", "expected"), [("", "run"), ("...", "run"), ("a  b", "a-b"), ("CON", "CON")])
def test_slug(name: str, expected: str) -> None:
    assert slug(name) == expected


def test_equal_names_in_one_second_get_folders_of_their_own(tmp_path: Path) -> None:
    runs = [create_run(tmp_path, "same", str(number)) for number in range(5)]
    assert len({run.path for run in runs}) == 5
    assert [run.config.read_text() for run in runs] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("name", ["x" * 300, "猫" * 100, "two\nlines", "nul\0"])
def test_names_that_cannot_be_file_names_are_refused_before_anything_is_made(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(InputError) as caught:
        create_run(tmp_path / "runs", name, "")
    assert caught.value.problems[0].key == "output_name"
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(InputError, match="cannot be made"):
        create_run(tmp_path / "runs", "x", "")


def test_listing_is_newest_first_and_passes_over_what_is_no_run(tmp_path: Path) -> None:
    for id in ("20250101-000000-old", "20260101-000000-new", "20251231-235959-mid"):
        (tmp_path / id).mkdir()
        (tmp_path / id / "job.json").write_text(json.dumps({"name": id[16:]}))
    (tmp_path / "empty").mkdir()
    (tmp_path / ".start.lock").touch()
    assert [run.name for run in list_runs(tmp_path)] == ["new", "mid", "old"]
    assert list_runs(tmp_path / "missing") == []


@pytest.mark.parametrize("damage", [b"", b'{"name": "my c', b"[1, 2]", b"\xff\xfe\x00"])
def test_a_damaged_job_file_does_not_hide_a_run(tmp_path: Path, damage: bytes) -> None:
    run = create_run(tmp_path, "my cat", "a = 1\n")
    run.events.write_text('{"t": 1, "type": "note", "text": "hello"}\n')
    run.job.write_bytes(damage)
    assert [found.name for found in list_runs(tmp_path)] == ["my-cat"]


def test_only_names_inside_the_root_are_found(tmp_path: Path) -> None:
    run = create_run(tmp_path / "runs", "x", "")
    create_run(tmp_path, "outside", "")
    assert find_run(tmp_path / "runs", run.id) == run
    for id in ("", ".", "..", "../" + run.id, f"..{os.sep}x", "C:x", "a\0b", "no such"):
        assert find_run(tmp_path / "runs", id) is None


def test_a_failed_write_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f.json"
    write_text(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
