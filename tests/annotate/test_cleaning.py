"""Cleaning captions and tags by rules that people can edit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend.annotate import cleaning, cleanrules, folders
from backend.annotate.cleanrules import RULES, Rule
from backend.errors import InputError


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a dog with the word stop on it", "a dog"),
        ("a sign that says stop in a street", "a sign"),
        ("a man holding a box with the words 'fresh milk' on the front", "a man holding a box"),
        ("there is a cat sitting on a mat", "a cat sitting on a mat"),
        ("there is araffe standing in a field", "standing in a field"),
        ("arafed dog on a bed", "dog on a bed"),
        ("a a red red car", "a red car"),
        ("a  dog ,  on grass .", "a dog, on grass."),
        ("a photo of a dog", "a photo of a dog"),
        ("the words of the wise", "the words of the wise"),
        ("one\nthere is two", "one\ntwo"),
        ("", ""),
    ],
)
def test_captions(before: str, after: str) -> None:
    assert cleaning.clean_caption(before, RULES) == after
    assert cleaning.clean_caption(after, RULES) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("1girl, long_hair, short hair, smile", "1girl, smile"),
        ("1girl, long hair, smile", "1girl, long hair, smile"),
        ("2girls, solo, blue_eyes, red hair, hat", "2girls, hat"),
        ("1girl, solo, blue_eyes", "1girl, solo, blue_eyes"),
        ("a, B, b, a ,,", "a, B"),
        ("from_above, from below, x", "x"),
        ("signature, x", "signature, x"),
    ],
)
def test_tags(before: str, after: str) -> None:
    assert cleaning.clean_tags(before, RULES) == after
    assert cleaning.clean_tags(after, RULES) == after


def test_rules_are_data_that_can_be_edited_and_read_back(tmp_path: Path) -> None:
    rows = cleanrules.as_dicts(RULES)
    assert cleanrules.from_dicts(rows) == RULES and len({rule.id for rule in RULES}) == len(RULES)
    own = next(row for row in rows if row["id"] == "marks") | {"enabled": True}
    assert cleaning.clean_tags("signature, x, twitter_username", cleanrules.from_dicts([own])) == "x"
    given = [{"on": "caption", "kind": "replace", "pattern": "(cat) (dog)", "with": r"\2 \1"}]
    assert cleaning.clean_caption("a Cat dog", cleanrules.from_dicts(given)) == "a dog Cat"
    off = [{**given[0], "enabled": False}]
    assert cleaning.clean_caption("a cat dog", cleanrules.from_dicts(off)) == "a cat dog"
    (tmp_path / "broken.json").write_text("[{]")
    with pytest.raises(InputError, match=r"broken\.json is not valid JSON"):
        cleanrules.read_rules(tmp_path / "broken.json")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"on": "caption", "kind": "replace", "pattern": "("}, "not a regular expression"),
        ({"on": "caption", "kind": "replace", "pattern": "a", "with": r"\1"}, "cannot be used"),
        ({"on": "caption", "kind": "drop", "pattern": "a"}, "does not fit"),
        ({"on": "tags", "kind": "replace", "pattern": "a"}, "does not fit"),
        ({"on": "sky", "kind": "drop", "pattern": "a"}, "known are"),
        ({"on": "tags", "kind": "drop", "pattern": " "}, "has no expression"),
        ({"on": "tags", "kind": "drop", "pattern": "a", "when": "["}, "not a regular expression"),
        ({"on": "tags", "kind": "drop", "pattern": 5}, "wrong kind"),
        ({"on": "tags", "kind": "drop", "pattern": "a", "enabled": "yes"}, "wrong kind"),
        ({"on": "tags", "kind": "drop", "expression": "a"}, "unknown key expression"),
        ({"on": "tags", "kind": "drop"}, "are needed"),
        ("x", "is no table"),
    ],
)
def test_rules_that_cannot_be_used_are_named(row: Any, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        cleanrules.from_dicts([{"on": "tags", "kind": "drop", "pattern": "a"}, row])
    assert caught.value.problems[0].where == "rule 2"


def test_both_fields_of_metadata_are_cleaned() -> None:
    entries = {
        "a.png": {"caption": "there is a dog", "tags": "a, a", "image_size": [1, 2]},
        "b.png": {"tags": "x"},
    }
    found, changes = cleaning.clean_entries(entries, RULES)
    assert found == {"a.png": {"caption": "a dog", "tags": "a", "image_size": [1, 2]}, "b.png": {"tags": "x"}}
    assert changes == [("a.png", "caption", "there is a dog", "a dog"), ("a.png", "tags", "a, a", "a")]
    assert entries["a.png"]["caption"] == "there is a dog"


def test_texts_beside_pictures_are_shown_first_cleaned_and_undone(
    folder: Path, texts: Callable[..., dict[str, str]]
) -> None:
    (folder / "img_00.txt").write_text("there is a dog, which sleeps on a very old sofa")
    (folder / "img_01.txt").write_text("2girls, solo, hat")
    (folder / "img_02.txt").write_text("fine, as it is\n")
    before = texts()
    foreign = "there is 犬の絵".encode("shift-jis")
    (folder / "img_03.caption").write_bytes(foreign)
    tried = folders.try_cleaning(folder, ".txt", RULES, recursive=False)
    assert texts() == before and tried.preview.unchanged == 1
    assert {change.path.name for change in tried.preview.changes} == {"img_00.txt", "img_01.txt"}
    done, left = folders.clean_folder(
        folder, ".txt", RULES, recursive=False, progress=lambda done, total: None
    )
    assert texts() == before | {"img_00": "a dog, which sleeps on a very old sofa", "img_01": "2girls, hat"}
    assert left == [] and folders.undo(folder, ".txt", done.edit) and texts() == before
    other = folders.try_cleaning(folder, "caption", RULES, recursive=False)
    assert other.preview.changes == () and "looks like Shift-JIS" in dict(other.left)["img_03.caption"]
    assert (folder / "img_03.caption").read_bytes() == foreign


def test_a_rule_names_itself_when_made_wrongly() -> None:
    with pytest.raises(InputError, match="'mine'"):
        Rule("x", "mine", "tags", "drop", "")
