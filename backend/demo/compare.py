"""Pictures of the same prompts and seeds without and with a LoRA, side by side on one sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from backend.generate.request import Request

_MARGIN = 12
_LABEL = 15
"""Height of letters in pixels."""
_PAPER = (250, 250, 247)
_INK = (40, 42, 48)
_QUIET = (110, 114, 124)


@dataclass(frozen=True)
class Pair:
    """One prompt's picture before and after."""

    prompt: str
    before: Image.Image
    after: Image.Image


def draw_pairs(
    model_path: Path,
    lora_path: Path,
    requests: Sequence[Request],
    on_picture: Callable[[int, int], None] = lambda done, total: None,
) -> list[Pair]:
    """Draw every request with the LoRA switched off and on.

    ``on_picture`` is told (pictures drawn, pictures in all).

    :raises InputError: when a file cannot be read, or the LoRA is for another family.
    """
    from backend.generate.engine import draw
    from backend.generate.request import LoraUse
    from backend.generate.warm import Warm

    drawn = list[Image.Image]()
    model, attachments = Warm().use(model_path, lambda **_: None)
    for strength in (0.0, 1.0):
        loras = (LoraUse(str(lora_path), strength),)
        wanted = [replace(request, loras=loras) for request in requests]
        for picture in draw(model, wanted, attachments=attachments):
            drawn.append(picture.image)
            on_picture(len(drawn), 2 * len(requests))
    halves = zip(drawn[: len(requests)], drawn[len(requests) :], strict=True)
    return [Pair(request.prompt, *half) for request, half in zip(requests, halves, strict=True)]


def sheet(pairs: Sequence[Pair], references: Sequence[Image.Image] = (), side: int = 192) -> Image.Image:
    """The pairs as rows "before, after" under their prompts; above them a row of reference pictures."""
    small = (2 * side - _MARGIN * max(0, len(references) - 1)) // max(1, len(references))
    top = small + _LABEL + 3 * _MARGIN if references else 0
    row = side + _LABEL + 2 * _MARGIN
    width = 2 * side + 3 * _MARGIN
    paper = Image.new("RGB", (width, _MARGIN + top + _LABEL + _MARGIN + row * len(pairs)), _PAPER)
    pen = ImageDraw.Draw(paper)
    if references:
        _label(pen, (_MARGIN, _MARGIN), "learnt from pictures like these", _QUIET)
    for index, picture in enumerate(references):
        place = (_MARGIN + index * (small + _MARGIN), 2 * _MARGIN + _LABEL)
        paper.paste(picture.resize((small, small), Image.Resampling.LANCZOS), place)
    for column, title in enumerate(("before", "after")):
        _label(pen, (_MARGIN + column * (side + _MARGIN), top + _MARGIN), title, _INK)
    for index, pair in enumerate(pairs):
        _row(paper, pair, top + 2 * _MARGIN + _LABEL + index * row, side)
    return paper


def _row(paper: Image.Image, pair: Pair, top: int, side: int) -> None:
    pen = ImageDraw.Draw(paper)
    for column, picture in enumerate((pair.before, pair.after)):
        resized = picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
        paper.paste(resized, (_MARGIN + column * (side + _MARGIN), top))
    _label(pen, (_MARGIN, top + side + _MARGIN // 3), pair.prompt, _QUIET)


def _label(pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str, colour: tuple[int, int, int]) -> None:
    pen.text(place, text, fill=colour, font=ImageFont.load_default(_LABEL))
