"""Captions and tags of many pictures in one file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.annotate import metadata
from backend.errors import InputError


def test_texts_are_merged_into_what_is_there(folder: Path) -> None:
    (folder / "img_00.caption").write_text("a dog\non grass\n")
    (folder / "img_01.caption").write_bytes(b"\xef\xbb\xbfa cat\r\n")
    (folder / "img_02.caption").mkdir()
    (folder / "img_03.caption").write_bytes("犬の絵です".encode("shift-jis"))
    (folder / "img_00.txt").write_text("dog, grass,, dog\n")
    start = {"img_00": {"tags": "old", "train_resolution": [64, 64]}, "gone.png": {"caption": "kept"}}
    done = metadata.merge(folder, start, "caption", ".caption")
    assert done.entries["img_00"] == {
        "tags": "old",
        "train_resolution": [64, 64],
        "caption": "a dog on grass",
    }
    assert done.entries["img_01.png"] == {"caption": "a cat"} and done.entries["gone.png"] == {
        "caption": "kept"
    }
    assert (done.texts, done.pictures, done.missing) == (2, 6, ["img_04.png", "img_05.png"])
    assert [name for name, _ in done.failed] == [
        "img_02.caption",
        "img_03.caption",
    ] and "Shift-JIS" in done.failed[1][1]
    tags = metadata.merge(folder, done.entries, "tags", "txt", full_path=True)
    assert tags.entries["img_00"]["tags"] == "dog, grass" and tags.texts == 1


@pytest.mark.parametrize("full_path", [False, True])
def test_names_of_pictures(folder: Path, full_path: bool) -> None:
    inside = folder / "in side"
    inside.mkdir()
    (inside / "img_00.png").write_bytes((folder / "img_00.png").read_bytes())
    for place in (folder, inside):
        (place / "img_00.txt").write_text(f"of {place.name}")
    found = metadata.merge(folder, {}, "tags", ".txt", full_path=full_path, recursive=True).entries
    names = {"img_00.png": folder, "in side/img_00.png": inside}
    wanted = {
        str(folder / name) if full_path else name: {"tags": f"of {place.name}"}
        for name, place in names.items()
    }
    assert found == wanted
    again = metadata.merge(folder, found, "caption", ".txt", full_path=not full_path, recursive=True).entries
    assert again.keys() == found.keys()


def test_files_are_read_and_written_whole_and_the_old_is_kept(tmp_path: Path) -> None:
    entries = {"a.png": {"caption": "日本", "tags": "x"}, "b.png": {}}
    for name in ("m.json", "m.jsonl"):
        path = tmp_path / "new" / name
        assert metadata.write(path, entries) is None and metadata.read(path) == entries
        kept = metadata.write(path, {})
        assert kept is not None and metadata.read(kept) == entries and metadata.read(path) == {}
    assert json.loads((tmp_path / "new" / "m.json").read_text(encoding="utf-8")) == {}
    with pytest.raises(InputError, match="cannot be written"):
        metadata.write(tmp_path / "new", entries)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("m.jsonl", b'{"image_path": "a", "caption": "x"}\n\n{"image_path": "b",,}\n', r"m\.jsonl line 3"),
        ("m.jsonl", b'{"image_path": "a"}\n{"caption": "b"}\n', "line 2 names no picture"),
        ("m.json", b'{"a": {},\n"b": {\n}', r"m\.json line 3"),
        ("m.json", b'{"a": 5}', "under a is no table"),
        ("m.json", b"[]", "no table of pictures"),
        ("m.json", b'{"a":\n "\xff"}', "line 2 is not UTF-8"),
        ("none.json", None, "cannot be read"),
    ],
)
def test_broken_files_are_named_with_their_line(
    tmp_path: Path, name: str, data: bytes | None, said: str
) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=said):
        metadata.read(tmp_path / name)
    assert data is None or (tmp_path / name).read_bytes() == data
