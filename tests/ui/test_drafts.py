"""Drafts survive, and damage to them is no error."""

from __future__ import annotations

from pathlib import Path

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


def test_a_damaged_file_counts_as_none(tmp_path: Path):
    (tmp_path / "train.json").write_text('{"values": {"a": 1', encoding="utf-8")
    drafts = Drafts(tmp_path)
    assert drafts.load("train") is None
    drafts.save("train", {"a": 2})
    assert drafts.load("train") == {"a": 2}


def test_recent_values_come_newest_first_and_once(tmp_path: Path):
    drafts = Drafts(tmp_path)
    for value in [*map(str, range(20)), "3"]:
        drafts.remember("train", {"vae": value})
    recent = drafts.recent("train")["vae"]
    assert recent[:2] == ["3", "19"]
    assert len(recent) == RECENT_KEPT == len(set(recent))
