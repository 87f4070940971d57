"""Textual inversion and ControlNet-LLLite."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from backend.settings.conditions import Values
from backend.settings.rules.rule import Rule
from backend.settings.rules.terms import FOLDERS, LLLITE, WORD

TEMPLATES = ("any", ("use_object_template", "set"), ("use_style_template", "set"))


def _named_after_the_word(values: Values) -> Mapping[str, Any]:
    name = re.sub(r'[<>:"/\\|?*\x00-\x1f]', "", str(values["token_string"])).strip(" .")
    return {"output_name": name} if name else {}


RULES: tuple[Rule, ...] = (
    Rule(
        "word-is-missing",
        "error",
        ("all", WORD, ("token_string", "unset")),
        "no word to teach is given",
        "give it as token_string: a word that means nothing yet, such as mycat",
        key="token_string",
        complete=True,
    ),
    Rule(
        "named-after-the-word",
        "change",
        ("all", WORD, ("token_string", "set"), ("output_name", "unset")),
        "the result is named after the word {token_string}",
        key="output_name",
        change=_named_after_the_word,
    ),
    Rule(
        "two-kinds-of-captions",
        "error",
        ("all", ("use_object_template", "set"), ("use_style_template", "set")),
        "use_object_template and use_style_template exclude each other",
        "keep the one that fits what is taught",
        key="use_style_template",
    ),
    Rule(
        "captions-not-read",
        "note",
        (
            "all",
            WORD,
            TEMPLATES,
            ("any", ("shuffle_caption", "set"), ("caption_prefix", "set"), ("caption_suffix", "set")),
        ),
        "captions are made from sentences, so what is said of caption files has no effect",
        key="use_object_template",
    ),
    Rule(
        "begins-as-its-file",
        "note",
        ("all", ("weights", "set"), ("init_word", "set")),
        "init_word is not used, as the word goes on from a file",
        key="init_word",
    ),
    Rule(
        "word-not-trained",
        "error",
        ("all", WORD, ("learning_rate", "=", 0)),
        "nothing would be trained: the learning rate is 0",
        "give a learning rate; 5e-3 is usual for a word",
        key="learning_rate",
    ),
    Rule(
        "guides-are-missing",
        "error",
        ("all", LLLITE, FOLDERS, ("conditioning_data_dir", "unset")),
        "no guide pictures are given",
        "give their folder as conditioning_data_dir, or a dataset file whose subsets name it; "
        "tools/make_canny.py makes outlines",
        key="conditioning_data_dir",
        complete=True,
    ),
    Rule(
        "guide-folder-idle",
        "note",
        ("all", ("conditioning_data_dir", "set"), ("dataset_config", "set")),
        "conditioning_data_dir is not used, as there is a dataset file",
        "name it in the subsets of that file",
        key="conditioning_data_dir",
    ),
)
