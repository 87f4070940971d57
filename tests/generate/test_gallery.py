"""The gallery: what was made is found again by its words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from backend.generate import pictures
from backend.generate.gallery import Gallery


def paint(path: Path, text: str, when: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures.save(Image.new("RGB", (24, 16)), path, text)
    os.utime(path, (when, when))


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    root = tmp_path / "outputs"
    paint(root / "2026-01-01" / "a.png", "a red Fox, 100% real\nSteps: 20, Seed: 7", 1000)
    paint(root / "2026-01-02" / "b.png", "a red dog\nSteps: 30, Seed: 8", 3000)
    paint(root / "grids" / "g1" / "cells" / "0-0.png", "ÜBER a fox\nSteps: 4", 2000)
    paint(root / "grids" / "g1" / "sheet.png", "", 2500)
    paint(root / "grids" / "g1" / "inputs" / "image.png", "", 2500)
    paint(root / "2026-01-01" / ".thumbs" / "a.png", "", 2600)
    (root / "broken.png").write_bytes(b"no picture")
    os.utime(root / "broken.png", (1, 1))
    return Gallery(root, tmp_path / "index" / "gallery.sqlite")


def names(found) -> list[str]:
    return [entry.path for entry in found.entries]


def test_the_newest_come_first_and_words_find_them(gallery):
    assert gallery.refresh() == 4
    found = gallery.search()
    assert names(found) == ["2026-01-02/b.png", "grids/g1/cells/0-0.png", "2026-01-01/a.png", "broken.png"]
    assert (found.entries[0].width, found.entries[0].height) == (24, 16)
    assert "Seed: 8" in found.entries[0].text
    assert names(gallery.search("RED fox")) == ["2026-01-01/a.png"]
    assert names(gallery.search("seed: 8 dog")) == ["2026-01-02/b.png"]
    assert names(gallery.search("über")) == ["grids/g1/cells/0-0.png"]
    assert names(gallery.search("fox", kind="picture")) == ["2026-01-01/a.png"]
    assert names(gallery.search(kind="cell")) == ["grids/g1/cells/0-0.png"]


def test_signs_that_mean_something_to_the_index_are_only_letters(gallery):
    gallery.refresh()
    assert names(gallery.search("100%")) == ["2026-01-01/a.png"]
    assert gallery.search("1_0").total == gallery.search("'; drop table pictures --").total == 0
    assert gallery.search().total == 4


def test_pages(gallery):
    gallery.refresh()
    found = gallery.search(first=1, count=2)
    assert (len(found.entries), found.total) == (2, 4)
    assert found.entries[0].path == "grids/g1/cells/0-0.png"


def test_changes_are_taken_in_and_only_they_are_read(gallery, monkeypatch):
    gallery.refresh()
    read = []
    header = "backend.generate.gallery._header"
    monkeypatch.setattr(header, lambda path: (read.append(path.name), (1, 1, "new words"))[1])
    paint(gallery.root / "2026-01-03" / "c.png", "x", 4000)
    (gallery.root / "2026-01-01" / "a.png").unlink()
    os.utime(gallery.root / "2026-01-02" / "b.png", (5000, 5000))
    assert gallery.refresh() == 4
    assert sorted(read) == ["b.png", "c.png"]
    assert names(gallery.search("new words")) == ["2026-01-02/b.png", "2026-01-03/c.png"]
    assert gallery.search("fox").total == 1


def test_a_damaged_index_is_made_anew(gallery, tmp_path):
    gallery.refresh()
    (tmp_path / "index" / "gallery.sqlite").write_bytes(b"no database at all" * 100)
    assert gallery.refresh() == 4 and gallery.search("fox").total == 2


def test_only_pictures_inside_are_given(gallery, tmp_path):
    paint(tmp_path / "secret.png", "", 1)
    assert gallery.file("2026-01-01/a.png") == (gallery.root / "2026-01-01" / "a.png").resolve()
    assert gallery.file("../secret.png") is None and gallery.file(str(tmp_path / "secret.png")) is None
    assert gallery.file("2026-01-01/gone.png") is None and gallery.file("2026-01-01") is None


def test_an_empty_place_is_no_fault(tmp_path):
    empty = Gallery(tmp_path / "none", tmp_path / "i.sqlite")
    assert empty.refresh() == 0 and empty.search("x").entries == ()
