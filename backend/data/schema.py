"""The keys of a dataset file: where they may stand, what they hold, and what they fall back to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

Kind = Literal["int", "float", "bool", "str", "resolution", "floats", "table"]
FILTERS = ("lanczos", "nearest", "bilinear", "linear", "bicubic", "cubic", "area", "box")

EXPECTED: Mapping[str, str] = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text in quotes",
    "resolution": "a whole number or [width, height]",
    "floats": "two numbers in brackets",
    "table": "a table",
}


@dataclass(frozen=True)
class Key:
    """One key. ``levels``: g in [general], d in [[datasets]], s in [[datasets.subsets]]."""

    kind: Kind
    levels: str
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    setting: str = ""
    """Option of the dataset settings that stands in when the file is silent."""


def _own(kind: Kind, levels: str, name: str, low: float = -math.inf, high: float = math.inf) -> Key:
    return Key(kind, levels, low, high, setting=name)


KEYS: Mapping[str, Key] = {
    "resolution": Key("resolution", "gd", 64, 16_384, setting="resolution"),
    "batch_size": Key("int", "gd", 1, 4096, setting="train_batch_size"),
    "enable_bucket": _own("bool", "gd", "enable_bucket"),
    "min_bucket_reso": _own("int", "gd", "min_bucket_reso", 8, 16_384),
    "max_bucket_reso": _own("int", "gd", "max_bucket_reso", 8, 16_384),
    "bucket_reso_steps": _own("int", "gd", "bucket_reso_steps", 8, 1024),
    "bucket_no_upscale": _own("bool", "gd", "bucket_no_upscale"),
    "prior_loss_weight": Key("float", "gds", 0, 1000),
    "validation_split": _own("float", "gd", "validation_split", 0, 1),
    "validation_seed": _own("int", "gd", "validation_seed", 0),
    "network_multiplier": Key("float", "gd", -100, 100),
    "resize_interpolation": Key("str", "gds", choices=FILTERS, setting="resize_interpolation"),
    "num_repeats": Key("int", "gds", high=100_000, setting="dataset_repeats"),
    "shuffle_caption": _own("bool", "gds", "shuffle_caption"),
    "caption_separator": _own("str", "gds", "caption_separator"),
    "keep_tokens": _own("int", "gds", "keep_tokens", 0, 255),
    "keep_tokens_separator": _own("str", "gds", "keep_tokens_separator"),
    "secondary_separator": _own("str", "gds", "secondary_separator"),
    "enable_wildcard": _own("bool", "gds", "enable_wildcard"),
    "caption_prefix": _own("str", "gds", "caption_prefix"),
    "caption_suffix": _own("str", "gds", "caption_suffix"),
    "caption_dropout_rate": _own("float", "gds", "caption_dropout_rate", 0, 1),
    "caption_dropout_every_n_epochs": _own("int", "gds", "caption_dropout_every_n_epochs", 0),
    "caption_tag_dropout_rate": _own("float", "gds", "caption_tag_dropout_rate", 0, 1),
    "token_warmup_min": _own("int", "gds", "token_warmup_min", 0),
    "token_warmup_step": _own("float", "gds", "token_warmup_step", 0),
    "flip_aug": _own("bool", "gds", "flip_aug"),
    "color_aug": _own("bool", "gds", "color_aug"),
    "random_crop": _own("bool", "gds", "random_crop"),
    "face_crop_aug_range": _own("floats", "gds", "face_crop_aug_range", 1, 100),
    "custom_attributes": Key("table", "gds"),
    "class_tokens": _own("str", "gds", "class_tokens"),
    "caption_extension": _own("str", "gds", "caption_extension"),
    "cache_info": Key("bool", "gds"),
    "image_dir": Key("str", "s"),
    "conditioning_data_dir": Key("str", "s"),
    "is_reg": Key("bool", "s"),
    "alpha_mask": _own("bool", "s", "alpha_mask"),
    "metadata_file": Key("str", "s"),
}
"""Names, levels and meanings as sd-scripts has them; defaults are those of the dataset settings."""

ATTRIBUTES = ("diff_output_preservation",)
"""What may stand in custom_attributes, true or false."""

LEVEL_NAMES: Mapping[str, str] = {"g": "[general]", "d": "[[datasets]]", "s": "[[datasets.subsets]]"}


def levels_text(key: Key) -> str:
    """'[general] or [[datasets]]'."""
    return " or ".join(LEVEL_NAMES[level] for level in key.levels)


class ValueProblem(ValueError):
    """A value that does not fit its key; the text says what was expected and found."""


def read_value(key: Key, value: Any) -> Any:
    """``value`` as its key wants it. Raises :class:`ValueProblem`.

    A whole number is taken where a number is meant, and one number for a square resolution.
    """
    if key.kind == "resolution":
        sides = value if isinstance(value, list) else [value]
        checked = [_checked(side, key, "int", "resolution") for side in cast(list[Any], sides)]
        if len(checked) not in (1, 2):
            raise ValueProblem(f"expected {EXPECTED['resolution']}, got {_found(value)}")
        return checked[0], checked[-1]
    if key.kind == "floats":
        return _floats(key, value)
    return _checked(value, key, key.kind, key.kind)


def _floats(key: Key, value: Any) -> tuple[float, float]:
    """Two numbers, the smaller first."""
    items = cast(list[Any], value) if isinstance(value, list) else []
    if len(items) != 2:
        raise ValueProblem(f"expected {EXPECTED['floats']}, got {_found(value)}")
    low, high = (float(_checked(item, key, "float", "float")) for item in items)
    if low > high:
        raise ValueProblem(f"the first number is larger than the second ({low:g}, {high:g})")
    return low, high


def _checked(value: Any, key: Key, kind: Kind, said: Kind) -> Any:
    types: dict[str, tuple[type, ...]] = {
        "int": (int,),
        "float": (int, float),
        "bool": (bool,),
        "str": (str,),
        "table": (dict,),
        "floats": (list,),
    }
    wrong = not isinstance(value, types[kind]) or (isinstance(value, bool) and kind != "bool")
    if wrong:
        raise ValueProblem(f"expected {EXPECTED[said]}, got {_found(value)}")
    if kind in ("int", "float") and not key.low <= value <= key.high:
        raise ValueProblem(f"{value} is out of range: {_range(key)}")
    if key.choices and value not in key.choices:
        raise ValueProblem(f"expected one of {', '.join(key.choices)}, got '{value}'")
    return float(value) if kind == "float" else value


def _range(key: Key) -> str:
    if key.high == math.inf:
        return f"at least {key.low:g}"
    return f"at most {key.high:g}" if key.low == -math.inf else f"from {key.low:g} to {key.high:g}"


def _found(value: Any) -> str:
    names = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "a table",
    }
    name = next((name for kind, name in names.items() if isinstance(value, kind)), type(value).__name__)
    return f"{name} ({value!r})" if not isinstance(value, (list, dict)) else name
