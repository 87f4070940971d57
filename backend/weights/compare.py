"""Two LoRAs side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from backend.errors import InputError
from backend.networks.delta import Factors
from backend.weights.inspect import block_of, place_of_block
from backend.weights.networkfile import NetworkFile, open_network


@dataclass(frozen=True)
class Likeness:
    """Two networks side by side."""

    shared: int
    only_first: list[str]
    only_second: list[str]
    cosine: float
    """Of all changes together: 1 the same direction, 0 nothing in common."""
    distance: float
    """Norm of the difference over the norm of the first."""
    blocks: dict[str, dict[str, float]]
    """Block -> norm of the first, of the second, cosine."""
    settings: dict[str, tuple[str, str]]
    """Metadata that differs."""


def compare(first: Path, second: Path) -> Likeness:
    """Compare two LoRAs of plain pairs, by what they add to the weights.

    Raises:
        InputError: other kinds, or nothing in common.
    """
    one, two = open_network(first), open_network(second)
    pairs, others = one.pairs(), two.pairs()
    shared = [name for name in pairs if name in others]
    if not shared:
        raise InputError(
            f"{first.name} ({one.kind} for {one.title}) and {second.name} ({two.kind} for {two.title}) "
            "have no plain LoRA layer in common",
            next="compare two LoRAs of one family",
        )
    sums: dict[str, list[float]] = {}
    for name in shared:
        total = sums.setdefault(block_of(name), [0.0, 0.0, 0.0])
        for place, value in enumerate(_products(pairs[name], others[name])):
            total[place] += value
    whole = [sum(values[place] for values in sums.values()) for place in range(3)]
    return Likeness(
        len(shared),
        [name for name in one.modules if name not in two.modules],
        [name for name in two.modules if name not in one.modules],
        _cosine(whole),
        math.sqrt(max(whole[0] + whole[1] - 2 * whole[2], 0.0) / whole[0]) if whole[0] else 0.0,
        {block: _side_by_side(sums[block]) for block in sorted(sums, key=place_of_block)},
        _differing(one, two),
    )


def _products(first: Factors, second: Factors) -> tuple[float, float, float]:
    """Squared norms of both changes and their inner product, from the factors alone."""
    a = [t.double().flatten(1) for t in (first.up, first.down)]
    b = [t.double().flatten(1) for t in (second.up, second.down)]

    def inner(x: list[Tensor], y: list[Tensor]) -> float:
        return float(((x[0].T @ y[0]) * (x[1] @ y[1].T)).sum())

    s, t = first.scale, second.scale
    return inner(a, a) * s * s, inner(b, b) * t * t, inner(a, b) * s * t


def _cosine(values: Sequence[float]) -> float:
    size = math.sqrt(values[0] * values[1])
    return values[2] / size if size else 0.0


def _side_by_side(values: Sequence[float]) -> dict[str, float]:
    return {"first": math.sqrt(values[0]), "second": math.sqrt(values[1]), "cosine": _cosine(values)}


def _differing(one: NetworkFile, two: NetworkFile) -> dict[str, tuple[str, str]]:
    keys = sorted(key for key in one.metadata.keys() | two.metadata.keys() if key.startswith("ss_"))
    pairs = {key: (one.metadata.get(key, ""), two.metadata.get(key, "")) for key in keys}
    return {key: values for key, values in pairs.items() if values[0] != values[1] and len(values[0]) < 200}
