"""Counting CLIP tokens, and what a limit cuts off, without torch."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from backend.data import tokens


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", 0),
        ("a photo of a cat", 5),
        ("A  Photo\tof a CAT", 5),
        ("(masterpiece:1.2)", 7),
        ("cat, dog", 3),
    ],
)
def test_counts(text: str, number: int) -> None:
    assert tokens.count(text) == number
    assert tokens.counts([text, "a cat"]) == [number, 2]


def test_cut_shows_what_the_limit_takes() -> None:
    assert tokens.cut("red cat and blue dog", 3) == ("red cat and ", "blue dog")
    assert tokens.cut("red cat", 2) == ("red cat", "")
    assert tokens.cut("red cat", 75) == ("red cat", "")


@pytest.mark.parametrize("text", ["日本語 の テスト", "sks🎨🎨 dog", "cafe\u0301 au  lait\n!", "x" * 500])
def test_both_parts_together_are_the_text(text: str) -> None:
    for limit in range(tokens.count(text) + 1):
        kept, lost = tokens.cut(text, limit)
        assert kept + lost == text
        assert (lost == "") == (limit == tokens.count(text))


@pytest.mark.parametrize(("asked", "room"), [(None, 75), (75, 75), (76, 150), (150, 150), (225, 225)])
def test_room_is_whole_chunks(asked: int | None, room: int) -> None:
    assert tokens.room(asked) == room


def test_fast_enough_for_every_key_that_is_pressed() -> None:
    text = "a photo of a cat, sitting on a mat, " * 10
    tokens.count(text)
    start = time.perf_counter()
    for _ in range(100):
        tokens.count(text)
    assert (time.perf_counter() - start) / 100 < 0.01


def test_no_torch_and_no_transformers() -> None:
    code = "import sys; from backend.data import tokens; tokens.count('a'); print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
