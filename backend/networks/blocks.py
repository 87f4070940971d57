"""Ranks and learning rates for each block of a U-Net, by the tables that sd-scripts uses.

SD has 25 blocks: 0 unused, 1 to 11 down, 12 mid, 13 to 24 up. SDXL has 23: 0 the time embedding,
1 to 9 down, 10 to 12 mid, 13 to 21 up, 22 the output.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from backend.networks.spec import refuse


@dataclass(frozen=True)
class Table:
    """How the modules of a line of models fall into blocks."""

    title: str
    count: int
    down: int
    """Values of ``down_lr_weight``; ``up_lr_weight`` has as many."""
    mid: int
    rules: tuple[tuple[str, int, int], ...]
    """(pattern with up to two numbers i and j, first block, blocks for each i)."""

    @property
    def before(self) -> int:
        """Blocks in front of those that the three lists speak of."""
        return (self.count - 2 * self.down - self.mid) // 2

    def index(self, name: str) -> int | None:
        """Block of a module of the U-Net (name without ``lora_``), or None."""
        for pattern, first, each in self.rules:
            match = re.match(pattern, name)
            if match:
                numbers = [int(text) for text in match.groups()]
                return first + (each * numbers[0] if numbers else 0) + sum(numbers[1:])
        return None


TABLES = (
    Table(
        "SDXL", 23, 9, 3,
        (
            (r"unet_input_blocks_(\d+)_", 1, 1),
            (r"unet_middle_block_(\d+)_", 10, 1),
            (r"unet_output_blocks_(\d+)_", 13, 1),
            (r"unet_(?:time_embed|label_emb)_", 0, 0),
            (r"unet_out_", 22, 0),
        ),
    ),
    Table(
        "SD 1.x and 2.x", 25, 12, 1,
        (
            (r"unet_down_blocks_(\d+)_(?:attentions|resnets)_(\d+)_", 1, 3),
            (r"unet_down_blocks_(\d+)_downsamplers_", 3, 3),
            (r"unet_mid_block_", 12, 0),
            (r"unet_up_blocks_(\d+)_(?:attentions|resnets)_(\d+)_", 13, 3),
            (r"unet_up_blocks_(\d+)_upsamplers_", 15, 3),
        ),
    ),
)  # fmt: skip

ARGUMENTS = (
    "block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas",
    "down_lr_weight", "mid_lr_weight", "up_lr_weight", "block_lr_zero_threshold",
)  # fmt: skip


def table_of(names: Iterable[str]) -> Table:
    """The table that fits the modules.

    Raises:
        InputError: a model without blocks of this sort.
    """
    names = list(names)
    for table in TABLES:
        if any(table.index(name) is not None for name in names):
            return table
    raise refuse(
        "blocks cannot have values of their own here",
        why="the model's layers are not those of an SD or SDXL U-Net, or the U-Net is not trained",
        next="leave out the arguments for blocks",
    )


@dataclass(frozen=True)
class Blocks:
    """What each block has: None where the arguments leave it to the network's own values."""

    table: Table
    dims: tuple[int, ...] | None
    alphas: tuple[float, ...] | None
    conv_dims: tuple[int, ...] | None
    conv_alphas: tuple[float, ...] | None
    rates: tuple[float, ...] | None

    @classmethod
    def read(cls, arguments: dict[str, Any], names: Iterable[str]) -> Blocks | None:
        """From the arguments' texts; None when there are none.

        Raises:
            InputError: a list of another length, or values that cannot be read.
        """
        if not any(name in arguments for name in ARGUMENTS):
            return None
        table = table_of(names)
        dims, alphas, conv_dims, conv_alphas = (
            _numbers(name, arguments.get(name), table) for name in ARGUMENTS[:4]
        )
        if conv_alphas and not conv_dims:
            raise refuse("conv_block_alphas needs conv_block_dims", next="give the ranks as well")
        for name, values in (("block_dims", dims), ("conv_block_dims", conv_dims)):
            if values and any(value != int(value) for value in values):
                raise refuse(f"network argument {name}: expected whole numbers")
        return cls(table, _whole(dims), alphas, _whole(conv_dims), conv_alphas, _rates(arguments, table))


def _numbers(name: str, text: str | None, table: Table) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        values = tuple(float(item) for item in text.strip("[] ").split(","))
    except ValueError:
        raise refuse(f"network argument {name}: expected numbers with commas between, got '{text}'") from None
    if any(not math.isfinite(value) or value < 0 for value in values):
        raise refuse(f"network argument {name}: expected numbers from 0")
    if len(values) != table.count:
        raise refuse(
            f"{name} has {len(values)} values; {table.title} has {table.count} blocks",
            next=f"give {table.count} values, one for each block",
        )
    return values


def _whole(values: tuple[float, ...] | None) -> tuple[int, ...] | None:
    return None if values is None else tuple(map(int, values))


def _rates(arguments: dict[str, Any], table: Table) -> tuple[float, ...] | None:
    counts = {"down_lr_weight": table.down, "mid_lr_weight": table.mid, "up_lr_weight": table.down}
    threshold = arguments.get("block_lr_zero_threshold", 0.0)
    if not any(name in arguments for name in counts):
        if "block_lr_zero_threshold" in arguments and threshold:
            raise refuse(
                "block_lr_zero_threshold has nothing to act on",
                next="give down_lr_weight, mid_lr_weight or up_lr_weight, or leave it out",
            )
        return None
    lists = [weights(name, arguments.get(name), count) for name, count in counts.items()]
    inner = [value if value > threshold else 0.0 for values in lists for value in values]
    ends = [1.0] * table.before
    return (*ends, *inner, *ends)


def weights(name: str, text: str | None, count: int) -> list[float]:
    """A list of factors: numbers (missing ones 1, blanks 0) or a curve such as ``sine+.5``.

    Curves over i = 0 .. n-1: ``sine`` sin(pi/2 * i/(n-1)), ``linear`` i/(n-1), ``cosine`` and
    ``reverse_linear`` the same from high to low, ``zeros`` 0; ``+x`` adds x to all.

    Raises:
        InputError: more than ``count`` values, or text that is neither.
    """
    if text is None:
        return [1.0] * count
    curve = re.fullmatch(r"\s*(cosine|sine|linear|reverse_linear|zeros)\s*(?:\+\s*([\d.]+))?\s*", text)
    if curve:
        return _curve(name, curve[1], float(curve[2] or 0), count)
    try:
        values = [float(item) if item.strip() else 0.0 for item in text.strip("[] ").split(",")]
    except ValueError:
        raise refuse(
            f"network argument {name}: expected numbers or a curve, got '{text}'",
            next="curves are cosine, sine, linear, reverse_linear and zeros, with +number after them",
        ) from None
    if len(values) > count:
        raise refuse(f"{name} has {len(values)} values; there are {count} blocks", next="leave some out")
    if any(not math.isfinite(value) or value < 0 for value in values):
        raise refuse(f"network argument {name}: expected numbers from 0")
    return values + [1.0] * (count - len(values))


def _curve(name: str, kind: str, base: float, count: int) -> list[float]:
    if kind == "zeros":
        return [base] * count
    if count == 1:
        raise refuse(f"{name} is one value, a curve needs several", next="give a number")
    ramp = [index / (count - 1) for index in range(count)]
    if kind in ("cosine", "sine"):
        ramp = [math.sin(math.pi / 2 * value) for value in ramp]
    if kind in ("cosine", "reverse_linear"):
        ramp.reverse()
    return [value + base for value in ramp]
