"""Weights for blocks (``--lbws``): how much of a LoRA each block of the model takes.

The full list has 26 slots: BASE (text encoders), IN00 to IN11, MID, OUT00 to OUT11. Shorter lists name
those that have something in a LoRA: 17 for SD 1.x and 2.x, 12 for SDXL, and 20 for all of SDXL. Slots
that a list does not name get nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from backend.errors import InputError

_IN, _MID, _OUT = 1, 13, 14
_SLOTS: Mapping[int, tuple[int, ...]] = {
    26: tuple(range(26)),
    17: (0, *(_IN + n for n in (1, 2, 4, 5, 7, 8)), _MID, *(_OUT + n for n in range(3, 12))),
    12: (0, *(_IN + n for n in (4, 5, 7, 8)), _MID, *(_OUT + n for n in range(6))),
    20: (0, *(_IN + n for n in range(9)), _MID, *(_OUT + n for n in range(9))),
}
"""Length of a list -> the slots it names."""
_SDXL_LENGTHS = (12, 20)
_RULES: tuple[tuple[str, int, int], ...] = (
    (r"unet_down_blocks_(\d+)_(?:attentions|resnets)_(\d+)_", _IN + 1, 3),
    (r"unet_down_blocks_(\d+)_downsamplers_", _IN + 3, 3),
    (r"unet_conv_in$", _IN, 0),
    (r"unet_mid_block_", _MID, 0),
    (r"unet_up_blocks_(\d+)_(?:attentions|resnets)_(\d+)_", _OUT, 3),
    (r"unet_up_blocks_(\d+)_upsamplers_", _OUT + 2, 3),
    (r"unet_input_blocks_(\d+)_", _IN, 1),
    (r"unet_middle_block_", _MID, 0),
    (r"unet_output_blocks_(\d+)_", _OUT, 1),
)
"""(pattern of a module's name, first slot, slots for each first number)."""


def slot_of(name: str) -> int:
    """The slot of a module (name without ``lora_``); what lies in no block is BASE."""
    for pattern, first, each in _RULES:
        match = re.match(pattern, name)
        if match:
            numbers = [int(text) for text in match.groups()]
            return first + (each * numbers[0] if numbers else 0) + sum(numbers[1:])
    return 0


def read_lbws(texts: Sequence[str], count: int, family: str) -> list[list[float]] | None:
    """26 weights for each of ``count`` files, from JSON lists; None when there are none.

    Raises:
        InputError: not a list of numbers, of a length that is not known, or for another family.
    """
    if not texts:
        return None
    if len(texts) != count:
        raise InputError(f"{len(texts)} --lbws for {count} models", next="give one list a model", key="lbws")
    if family == "sd3":
        raise InputError("--lbws is for U-Nets; SD 3.x has none", next="leave --lbws out", key="lbws")
    return [_expanded(_numbers(text), family) for text in texts]


def _numbers(text: str) -> list[float]:
    try:
        found: Any = json.loads(text)
        return [float(value) for value in cast("list[Any]", found)]
    except (ValueError, TypeError):
        raise InputError(
            f"--lbws: '{text}' is no list of numbers", next='write "[1,0.5,...]" in quotes', key="lbws"
        ) from None


def _expanded(values: Sequence[float], family: str) -> list[float]:
    slots = _SLOTS.get(len(values))
    wrong = family != "unknown" and len(values) != 26 and (len(values) in _SDXL_LENGTHS) != (family == "sdxl")
    if slots is None or wrong:
        fitting = "12, 20 or 26" if family == "sdxl" else "17 or 26"
        raise InputError(
            f"--lbws has {len(values)} values; this model needs {fitting}",
            why="12 and 20 are for SDXL, 17 for SD 1.x and 2.x",
            key="lbws",
        )
    full = [0.0] * 26
    for slot, value in zip(slots, values, strict=True):
        full[slot] = value
    return full


def weight_of(name: str, weights: Sequence[float] | None) -> float:
    """The factor of a module by its block; 1 without block weights."""
    return 1.0 if weights is None else weights[slot_of(name)]
