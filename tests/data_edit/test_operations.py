"""What bulk operations make of one caption."""

from __future__ import annotations

import pytest

from backend.data.edit import OPERATIONS, operations
from backend.errors import InputError


@pytest.mark.parametrize(
    ("name", "values", "before", "after"),
    [
        ("add_front", {"tag": "sks"}, "a, b", "sks, a, b"),
        ("add_front", {"tag": "B"}, "a, b", "a, b"),
        ("add_front", {"tag": "x, y"}, "", "x, y"),
        ("add_back", {"tag": "c"}, "a, b", "a, b, c"),
        ("add_back", {"tag": "c"}, "a, b,", "a, b, c"),
        ("add_back", {"tag": "c"}, "a\nb\n", "a, c\nb, c\n"),
        ("remove", {"tag": "B"}, "a, b, c", "a, c"),
        ("remove", {"tag": "z"}, "a,b ,c", "a,b ,c"),
        ("remove", {"tag": "a, c"}, "a, b, c", "b"),
        ("replace", {"tag": "a", "with": "x"}, "a, b, ab", "x, b, ab"),
        ("replace", {"tag": "a", "with": "b"}, "a, b", "b"),
        ("replace_text", {"text": "cat", "with": "dog"}, "cats, a cat", "dogs, a dog"),
        ("replace_text", {"text": " (photo)"}, "a (photo), b", "a, b"),
        ("regex", {"pattern": r"(\d)girls?", "with": r"\1 girl"}, "1girl, 2girls", "1 girl, 2 girl"),
        ("sort", {}, "c, A, b", "A, b, c"),
        ("deduplicate", {}, "a, b, A, c, b", "a, b, c"),
        ("trigger_first", {"tag": "SKS"}, "a, sks, b", "sks, a, b"),
        ("trigger_first", {"tag": "sks"}, "a, b", "a, b"),
        ("change_separator", {"to": ";"}, "a, b,c", "a; b; c"),
        ("change_separator", {"to": "; "}, "a, b", "a; b"),
        ("lower_case", {}, "A Dog, ÜBER", "a dog, über"),
        ("underscores", {}, "long_hair, ^_^, o_o, >_<, a_b_c", "long hair, ^_^, o_o, >_<, a_b_c"),
        ("fill", {"text": "sks dog"}, "", "sks dog"),
        ("fill", {"text": "sks dog"}, " \n", "sks dog"),
        ("fill", {"text": "sks dog"}, "a", "a"),
        ("sort", {}, "", ""),
        ("sort", {}, "b, a\r\nd, c\r\n", "a, b\r\nc, d\r\n"),
        ("remove", {"tag": "猫"}, "犬, 猫", "犬"),
    ],
)
def test_an_operation_on_a_caption(name: str, values: dict[str, str], before: str, after: str) -> None:
    assert operations.run(name, before, values) == after


def test_another_separator() -> None:
    assert operations.run("sort", "b; a", {}, ";") == "a; b"
    assert operations.run("add_back", "b | a", {"tag": "c"}, "|") == "b | a| c"


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_doing_it_again_changes_nothing_more(name: str) -> None:
    values = {"tag": "zz", "with": "q", "text": "x y", "pattern": "b+", "to": ","}
    once = operations.run(name, "c, a_b_c, B, a, b, zz", values)
    assert operations.run(name, once, values) == once


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("add_front", {"tag": " "}, "the field 'Tag' is empty"),
        ("regex", {"pattern": "("}, "not a regular expression.*at character 1"),
        ("regex", {"pattern": "a", "with": r"\2"}, "cannot be used"),
        ("explode", {}, "there is no operation 'explode'"),
    ],
)
def test_values_that_cannot_be_used_are_refused(name: str, values: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        operations.run(name, "a", values)
