"""The contact sheet of a grid: one PNG with every finished cell and the labels of its axes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from backend.generate.grid import SHEET, Axis, GridFolder, Place
from backend.wholefile import replacing

LONGEST = 12_000
"""Pixels of the sheet's longer side; larger grids are scaled down."""
_GAP = 8
_GROUND, _INK, _EMPTY = "#ffffff", "#25221d", "#ece8e1"
_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKjp-Regular.otf",
    "YuGothR.ttc",
    "msyh.ttc",
    "msgothic.ttc",
    "Hiragino Sans GB.ttc",
    "PingFang.ttc",
    "NotoSans-Regular.ttf",
    "DejaVuSans.ttf",
    "segoeui.ttf",
    "arial.ttf",
)
"""Fonts of systems; those that write Japanese and Chinese come first."""


def write_sheet(folder: GridFolder) -> Path:
    """Write ``sheet.png`` anew and return where it is. Raises OSError, InputError as reading cells does."""
    path = folder.path / SHEET
    with replacing(path) as new:
        sheet(folder).save(new.file, "PNG")
    return path


def sheet(folder: GridFolder) -> Image.Image:
    """The picture: columns are the first axis, rows the second, blocks below each other the third."""
    axes = folder.grid.axes
    columns, rows, blocks = (_labels(axes, index) for index in range(3))
    width, height = _cell_size(folder)
    scale = min(1.0, LONGEST / max(width * len(columns), height * len(rows) * len(blocks)))
    layout = _Layout(max(int(width * scale), 16), max(int(height * scale), 16), columns, rows)
    image = Image.new("RGB", (layout.width, layout.height * len(blocks)), _GROUND)
    draw = ImageDraw.Draw(image)
    for block, title in enumerate(blocks):
        top = block * layout.height
        _draw_labels(draw, layout, top, title)
        for column in range(len(columns)):
            for row in range(len(rows)):
                place = (column, row, block)[: len(axes)]
                _draw_cell(image, draw, folder, place, layout.box(column, row, top))
    return image


class _Layout:
    """Where things stand in one block of the sheet, in pixels."""

    def __init__(self, cell: int, tall: int, columns: list[str], rows: list[str]) -> None:
        self.cell, self.tall, self.columns, self.rows = cell, tall, columns, rows
        size = min(max(cell // 16, 12), 40)
        self.font = _font(size)
        self.line = math.ceil(size * 1.3)
        self.head = self.line * max(_lines(text, cell, self.font) for text in columns) + 2 * _GAP
        widest = max((self.font.getlength(text) for text in rows), default=0)
        self.side = min(int(widest), cell) + 2 * _GAP if any(rows) else _GAP
        self.title = self.line + _GAP
        self.width = self.side + len(columns) * (cell + _GAP)
        self.height = self.title + self.head + len(rows) * (tall + _GAP) + _GAP

    def box(self, column: int, row: int, top: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of a cell."""
        x = self.side + column * (self.cell + _GAP)
        y = top + self.title + self.head + row * (self.tall + _GAP)
        return x, y, x + self.cell, y + self.tall


def _labels(axes: Sequence[Axis], index: int) -> list[str]:
    return axes[index].labels() if index < len(axes) else [""]


def _cell_size(folder: GridFolder) -> tuple[int, int]:
    """The largest sides among the finished cells; a square when there is none."""
    sizes: list[tuple[int, int]] = []
    for place in folder.finished():
        try:
            with Image.open(folder.picture(place)) as image:
                sizes.append(image.size)
        except OSError:
            continue
    if not sizes:
        return 256, 256
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def _draw_labels(draw: ImageDraw.ImageDraw, layout: _Layout, top: int, title: str) -> None:
    if title:
        draw.text((layout.side, top + _GAP), _short(title, layout.width - layout.side, layout.font),
                  fill=_INK, font=layout.font)  # fmt: skip
    for column, text in enumerate(layout.columns):
        x, y = layout.side + column * (layout.cell + _GAP), top + layout.title
        lines = _wrapped(text, layout.cell, layout.font)
        draw.multiline_text((x, y), "\n".join(lines), fill=_INK, font=layout.font, spacing=layout.line // 6)
    for row, text in enumerate(layout.rows):
        _, y, _, bottom = layout.box(0, row, top)
        lines = _wrapped(text, layout.side - 2 * _GAP, layout.font)
        draw.multiline_text(
            (_GAP, (y + bottom) // 2), "\n".join(lines), fill=_INK, font=layout.font, anchor="lm"
        )


def _draw_cell(
    image: Image.Image,
    draw: ImageDraw.ImageDraw,
    folder: GridFolder,
    place: Place,
    box: tuple[int, int, int, int],
) -> None:
    left, top, right, bottom = box
    try:
        with Image.open(folder.picture(place)) as found:
            small = found.convert("RGB")
    except OSError:
        draw.rectangle(box, fill=_EMPTY)
        return
    if small.width > right - left or small.height > bottom - top:
        small.thumbnail((right - left, bottom - top), Image.Resampling.LANCZOS)
    image.paste(small, (left + (right - left - small.width) // 2, top + (bottom - top - small.height) // 2))


def _font(size: int) -> Any:
    for name in _FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def _wrapped(text: str, width: int, font: Any) -> list[str]:
    """The text in lines that fit, four at most."""
    letters = max(int(width / max(font.getlength("n"), 1)), 4)
    lines = textwrap.wrap(text, letters) or [""]
    return [*lines[:3], _short(lines[3] + "\u2026", width, font)] if len(lines) > 4 else lines


def _lines(text: str, width: int, font: Any) -> int:
    return len(_wrapped(text, width, font))


def _short(text: str, width: int, font: Any) -> str:
    """The text, cut at its end when it is wider."""
    while text and font.getlength(text) > width:
        text = text[:-2].rstrip("\u2026") + "\u2026" if len(text) > 2 else ""
    return text
