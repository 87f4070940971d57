"""Caption files in every state people leave them in."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.data import caption_files
from backend.data.caption_files import find, read


@pytest.mark.parametrize(
    "data",
    [
        "häuser, 猫, 😀".encode(),
        b"\xef\xbb\xbf" + "häuser, 猫, 😀".encode(),
        b"\xff\xfe" + "häuser, 猫, 😀".encode("utf-16-le"),
        b"\xfe\xff" + "häuser, 猫, 😀".encode("utf-16-be"),
    ],
    ids=["utf-8", "bom", "utf-16-le", "utf-16-be"],
)
def test_unicode_is_read(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    assert read(path).text == "häuser, 猫, 😀"


@pytest.mark.parametrize(
    ("text", "encoding", "name"),
    [
        ("赤い花、猫", "cp932", "Shift-JIS"),
        ("日本", "cp932", "Shift-JIS"),
        ("红色的花，猫", "gbk", "GBK"),
        ("un café noir", "latin-1", "Latin-1"),
        ("naïve, Björk", "latin-1", "Latin-1"),
    ],
)
def test_other_encodings_are_named_with_the_line(tmp_path: Path, text: str, encoding: str, name: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"first line\n" + text.encode(encoding))
    result = read(path)
    assert result.fatal
    assert f"looks like {name}, line 2" in result.problem


@pytest.mark.parametrize(
    "text", ["a, b c, d\r\n", "a,\tb c,\td", "a, b c, d,", "a,, b c, , d, ,", " a, b c, d, b c"]
)
def test_untidy_tags_are_the_tags_of_the_clean_form(text: str) -> None:
    assert [tag.strip() for tag in caption_files.tidy(text).text.split(",")] == ["a", "b c", "d"]


def test_a_clean_line_is_left_as_written() -> None:
    assert caption_files.tidy("a,b,  c").text == "a,b,  c"


def test_doubled_wildcards_stay() -> None:
    assert caption_files.tidy("{a|b}, {a|b}", wildcards=True).text == "{a|b}, {a|b}"


def test_control_characters_go_with_word() -> None:
    result = caption_files.tidy("a\x00b, c\x1b")
    assert result.text == "ab, c"
    assert result.control


def test_a_folder_or_a_huge_file_is_no_caption(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    assert "is a folder" in read(tmp_path / "a.txt").problem
    (tmp_path / "b.txt").write_bytes(b"x" * 3_000_000)
    assert "too large" in read(tmp_path / "b.txt").problem


SIZE = (640, 480)


def test_which_file_belongs_to_a_picture() -> None:
    assert find("a", ".caption", SIZE, {"a.caption", "a.txt"}) == "a.caption"
    assert find("a", ".caption", SIZE, {"a.txt"}) == "a.txt"
    assert find("a", ".txt", SIZE, {"a.caption"}) == "a.caption"
    assert find("a.b", ".txt", SIZE, {"a.b.txt", "a.txt", "a.c.txt"}) == "a.b.txt"
    assert find("photo_0320_0240_0064_0064", ".txt", SIZE, {"photo.txt"}) == "photo.txt"


@pytest.mark.parametrize(
    "stem", ["my_photo_of_a_cat", "x_1_2_3", "x_1_2_3_4", "x_900_20_64_64", "x_2024_01_02_0003"]
)
def test_an_underscored_name_does_not_borrow_a_caption(stem: str) -> None:
    assert find(stem, ".txt", SIZE, {f"{stem.split('_')[0]}.txt"}) is None
