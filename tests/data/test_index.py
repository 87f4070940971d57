"""The index of a folder: nothing is opened twice, and nothing stale is believed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backend.data import caption_files, headers, index
from backend.data.index import FolderIndex, stamp_of
from backend.system import paths
from tests.data.data_kit import add_picture, plan_of


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are opened for a header or a caption."""
    names: list[str] = []

    def header(path: Path) -> headers.Header:
        names.append(path.name)
        return headers.read_header(path)

    real = caption_files.read

    def caption(path: Path, *args: object) -> caption_files.CaptionText:
        names.append(path.name)
        return real(path, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(index, "read_header", header)
    monkeypatch.setattr(caption_files, "read", caption)
    return names


def test_a_second_start_opens_only_what_changed(pictures: Callable[..., Path], opened: list[str]) -> None:
    folder = pictures(count=3)
    first = plan_of(folder)
    assert len(opened) == 6
    opened.clear()
    assert plan_of(folder) == first
    assert opened == []
    add_picture(folder, "img_01.png", (80, 80), "new words")
    again = plan_of(folder)
    assert sorted(opened) == ["img_01.png", "img_01.txt"]
    assert again.datasets[0].pictures[1].geometry.original == (80, 80)
    assert again.datasets[0].pictures[1].caption == "new words"


def test_captions_are_remembered_by_how_they_are_read(
    pictures: Callable[..., Path], opened: list[str]
) -> None:
    folder = pictures(count=1)
    (folder / "img_00.txt").write_text("a, b, a")
    assert plan_of(folder).datasets[0].pictures[0].caption == "a, b"
    assert plan_of(folder, enable_wildcard=True).datasets[0].pictures[0].caption == "a, b, a"
    opened.clear()
    assert plan_of(folder, enable_wildcard=True).datasets[0].pictures[0].caption == "a, b, a"
    assert "img_00.png" not in opened


@pytest.mark.parametrize(
    "damage", [b"", b"\xff\xfe garbage", b'[2, {"img_00.png": [1]}, []]', b"[99, {}, []]", b"7"]
)
def test_a_damaged_index_is_made_anew(pictures: Callable[..., Path], damage: bytes) -> None:
    folder = pictures(count=2)
    first = plan_of(folder)
    (file,) = (paths.cache_root() / "folders").iterdir()
    file.write_bytes(damage)
    assert plan_of(folder) == first
    assert FolderIndex(folder).header(folder / "img_00.png", stamp_of(folder / "img_00.png")).size == (96, 64)


def test_a_cache_that_cannot_be_written_costs_nothing(pictures: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".cache").write_text("a file where a folder should be")
    assert plan_of(pictures(count=2)).image_count == 2
