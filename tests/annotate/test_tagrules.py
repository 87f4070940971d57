"""From scores to the text of a caption file."""

from __future__ import annotations

from typing import Any

import pytest

from backend.annotate.settings import TaggingSettings, existing_of
from backend.annotate.tagrules import appended, replacements, rules_of, text_of
from backend.errors import InputError

SCORES = [
    ("general", "rating", 0.2),
    ("sensitive", "rating", 0.7),
    ("best_quality", "quality", 0.6),
    ("worst_quality", "quality", 0.1),
    ("1girl", "general", 0.99),
    ("long_hair", "general", 0.5),
    (">_<", "general", 0.4),
    ("hat", "general", 0.3),
    ("miku_(summer)_(vocaloid)", "character", 0.9),
    ("teto", "character", 0.36),
    ("vocaloid", "copyright", 0.8),
    ("someone", "artist", 0.8),
    ("highres", "meta", 0.8),
    ("sd_xl", "model", 0.5),
]
PLAIN = "1girl, long_hair, >_<, miku_(summer)_(vocaloid), teto, vocaloid, someone, highres, sd_xl"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, PLAIN),
        ({"thresh": 0.45}, "1girl, long_hair, miku_(summer)_(vocaloid), vocaloid, someone, highres, sd_xl"),
        ({"general_threshold": 0.6}, "1girl, miku_(summer)_(vocaloid), teto, vocaloid, someone, highres, sd_xl"),
        ({"character_threshold": 0.95}, "1girl, long_hair, >_<, vocaloid, someone, highres, sd_xl"),
        (
            {"copyright_threshold": 0.9, "artist_threshold": 0.9, "meta_threshold": 0.9, "model_threshold": 0.6},
            "1girl, long_hair, >_<, miku_(summer)_(vocaloid), teto",
        ),
        ({"remove_underscore": True, "thresh": 0.85}, "1girl, miku (summer) (vocaloid)"),
        ({"remove_underscore": True, "thresh": 0.4, "undesired_tags": "vocaloid, Miku (summer) (vocaloid)"}, "1girl, long hair, >_<, someone, highres, sd xl"),
        ({"thresh": 0.85, "character_tag_expand": True}, "1girl, miku_(summer), vocaloid"),
        ({"thresh": 0.85, "character_tag_expand": True, "remove_underscore": True}, "1girl, miku (summer), vocaloid"),
        ({"thresh": 0.85, "character_tags_first": True}, "miku_(summer)_(vocaloid), 1girl"),
        ({"thresh": 0.5, "always_first_tags": "long_hair,1girl"}, "long_hair, 1girl, miku_(summer)_(vocaloid), vocaloid, someone, highres, sd_xl"),
        ({"thresh": 0.85, "use_rating_tags": True}, "sensitive, 1girl, miku_(summer)_(vocaloid)"),
        ({"thresh": 0.85, "use_rating_tags_as_last_tag": True}, "1girl, miku_(summer)_(vocaloid), sensitive"),
        ({"thresh": 0.85, "use_quality_tags": True}, "best_quality, 1girl, miku_(summer)_(vocaloid)"),
        ({"thresh": 0.85, "use_quality_tags_as_last_tag": True, "remove_underscore": True}, "1girl, miku (summer) (vocaloid), best quality"),
        ({"thresh": 0.85, "caption_separator": " | ", "undesired_tags": "1girl | x"}, "miku_(summer)_(vocaloid)"),
        ({"thresh": 0.85, "tag_replacement": r"1girl,woman;miku_(summer)_(vocaloid),miku\, summer"}, "woman, miku, summer"),
        ({"thresh": 1.0}, ""),
    ],
)  # fmt: skip
def test_rules(options: dict[str, Any], text: str) -> None:
    assert text_of(SCORES, rules_of(TaggingSettings(**options))) == text


def test_a_replacement_that_cannot_be_read_is_refused() -> None:
    assert replacements(r"a,b; c , d ;") == {"a": "b", "c": "d"}
    for wrong in ("a", "a,b,c", ",b"):
        with pytest.raises(InputError, match="tag_replacement"):
            rules_of(TaggingSettings(tag_replacement=wrong))


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("my words, Long hair", "my words, Long hair, 1girl"),
        ("my words,", "my words, long_hair, 1girl"),
        ("", "long_hair, 1girl"),
        ("1girl\nlong_hair", "1girl\nlong_hair"),
    ],
)
def test_only_new_tags_are_appended(text: str, after: str) -> None:
    assert appended(text, ["long_hair", "1girl"], ", ") == after


def test_append_tags_is_another_name_for_append() -> None:
    assert existing_of(TaggingSettings(append_tags=True)) == "append"
    assert existing_of(TaggingSettings(append_tags=True, existing="replace")) == "replace"
