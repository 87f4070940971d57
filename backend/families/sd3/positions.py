"""Where the patches of a picture lie: sines and cosines of their rows and columns.

A model carries a table for a large square grid; a picture gets the cut from its middle. While it is
trained the cut may be somewhere else, so that patches far from the middle are learnt as well. With
scaled positions a picture of any size covers what one of the family's own size covers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from backend.errors import InputError

NATIVE = 64
"""Patches of a side at 1024 px, and the extent of every model's table in its own units."""


@dataclass(frozen=True)
class Positions:
    """How positions are chosen out of a table (1, grid * grid, D)."""

    grid: int
    sizes: tuple[int, ...] = ()
    """Square sides in patches to which positions are scaled, rising; empty: not scaled."""

    def of(self, table: Tensor, rows: int, columns: int, crops: Tensor | None = None) -> Tensor:
        """Positions (1 or B, rows * columns, D) in the table's type.

        Args:
            crops: (B, 2) float: how far down and right in the room there is a picture's cut begins,
                0..1; below 0: in the middle.

        Raises:
            InputError: the picture is larger than the grid.
        """
        if self.sizes:
            return self._scaled(table, rows, columns, crops)
        if max(rows, columns) > self.grid:
            limit = self.grid * 16
            raise InputError(
                f"pictures of {columns * 16}x{rows * 16} px are too large for this model",
                why=f"its positions reach to {limit} px",
                next=f"keep both sides at {limit} px or less",
                key="resolution",
            )
        square = table.view(self.grid, self.grid, -1)
        if crops is None:
            top, left = (self.grid - rows) // 2, (self.grid - columns) // 2
            return square[top : top + rows, left : left + columns].reshape(1, rows * columns, -1)
        down = _starts(crops[:, 0], self.grid - rows) + torch.arange(rows, device=crops.device)
        right = _starts(crops[:, 1], self.grid - columns) + torch.arange(columns, device=crops.device)
        return square[down[:, :, None], right[:, None, :]].flatten(1, 2)

    def _scaled(self, table: Tensor, rows: int, columns: int, crops: Tensor | None) -> Tensor:
        """Positions on a grid half as large again as the nearest size, that size as wide as 64 patches
        are in the table."""
        size = self._nearest(rows * columns)
        grid = max(int(size * 1.5), rows, columns)
        step = NATIVE / self.grid * NATIVE / size
        if crops is None:
            crops = torch.full((1, 2), -1.0, device=table.device)
        starts = [
            _starts(crops[:, axis], grid - count) + torch.arange(count, device=table.device)
            for axis, count in ((0, rows), (1, columns))
        ]
        y, x = (NATIVE / 2 + (indices - grid // 2) * step for indices in starts)
        return sincos(y, x, table.shape[-1]).to(table.dtype)

    def _nearest(self, area: int) -> int:
        """The first size whose area, or the middle between it and the next one's, is not below ``area``."""
        for size, larger in zip(self.sizes, self.sizes[1:], strict=False):
            if area <= (size**2 + larger**2) / 2:
                return size
        return self.sizes[-1]


def _starts(shares: Tensor, room: int) -> Tensor:
    """(B, 1) first index of each picture's cut, of 0..room; int64."""
    anywhere = (shares * (room + 1)).long().clamp(0, room)
    return torch.where(shares < 0, room // 2, anywhere)[:, None]


def sincos(y: Tensor, x: Tensor, width: int) -> Tensor:
    """Positions (B, rows * columns, width) float32 of coordinates (B, rows) and (B, columns).

    The first half tells the column, the second the row; each sines, then cosines, with periods that
    rise to 10000 (Vaswani et al. 2017, in two dimensions).
    """
    count = width // 4
    rates = torch.exp(-math.log(10000.0) * torch.arange(count, dtype=torch.float64, device=y.device) / count)
    halves: list[Tensor] = []
    for coordinates in (x[:, None, :].expand(-1, y.shape[1], -1), y[:, :, None].expand(-1, -1, x.shape[1])):
        angles = coordinates.double().flatten(1)[..., None] * rates
        halves += [angles.sin(), angles.cos()]
    return torch.cat(halves, dim=-1).float()


def training_sizes(resolutions: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    """Sides in patches of squares as large as the training sizes (width, height) px, rising."""
    return tuple(sorted({max(1, round(math.sqrt(w * h)) // 16) for w, h in resolutions}))
