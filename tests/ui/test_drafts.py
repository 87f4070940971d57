"""Drafts survive, and damage to them is no error."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import pytest

from ui.drafts import RECENT_KEPT, Drafts


def test_a_draft_comes_back_from_another_process(tmp_path: Path):
    Drafts(tmp_path).save("train", {"output_name": "猫"}, preset="sd15/style")
    again = Drafts(tmp_path)
    assert again.load("train") == {"output_name": "猫"}
    assert again.get("train", "preset") == "sd15/style"


def test_no_draft_is_not_an_empty_draft(tmp_path: Path):
    drafts = Drafts(tmp_path)
    assert drafts.load("train") is None
    drafts.save("train", {})
    assert drafts.load("train") == {}


@pytest.mark.parametrize("damaged", ['{"values": {"a": 1', "", "[]", "\x00\x00\x00"])
def test_a_damaged_file_is_kept_and_the_one_before_takes_its_place(tmp_path: Path, damaged: str):
    drafts = Drafts(tmp_path)
    drafts.save("train", {"a": 1}, preset="sd15/style")
    drafts.save("train", {"a": 2})
    (tmp_path / "train.json").write_text(damaged, encoding="utf-8")
    before = datetime(2026, 3, 4, 14, 2).timestamp()
    os.utime(tmp_path / "train.before.json", (before, before))
    again = Drafts(tmp_path)
    assert again.load("train") == {"a": 1} and again.get("train", "preset") == "sd15/style"
    told = again.recovered("train")
    assert told is not None and told.saved == before
    assert (tmp_path / told.kept).read_text(encoding="utf-8") == damaged
    assert again.recovered("train") is None, "told once"
    assert Drafts(tmp_path).load("train") == {"a": 1}


def test_a_damaged_file_without_one_before_it_is_kept_too(tmp_path: Path):
    (tmp_path / "train.json").write_text('{"values": {"a": 1', encoding="utf-8")
    drafts = Drafts(tmp_path)
    drafts.save("train", {"a": 2})
    assert drafts.load("train") == {"a": 2}
    told = drafts.recovered("train")
    assert told is not None and told.saved is None
    assert (tmp_path / told.kept).read_text(encoding="utf-8") == '{"values": {"a": 1'


def test_recent_values_come_newest_first_and_once(tmp_path: Path):
    drafts = Drafts(tmp_path)
    for value in [*map(str, range(20)), "3"]:
        drafts.remember("train", {"vae": value})
    recent = drafts.recent("train")["vae"]
    assert recent[:2] == ["3", "19"]
    assert len(recent) == RECENT_KEPT == len(set(recent))
