"""Rules about masks: each picture's own, of its shape, with something white where it matters."""

from __future__ import annotations

from collections.abc import Iterator

from backend.data.headers import HeaderError, read_header
from backend.data.lint.rule import Hit
from backend.data.lint.survey import Item, Survey

DARK = 8
"""A mask without a brighter spot counts as black."""
_RIM_BRIGHT, _MIDDLE_DARK = 200, 55


def missing(survey: Survey) -> Iterator[Hit]:
    for folder in survey.folders:
        masks = folder.subset.conditioning_data_dir
        if masks is not None:
            for item in folder.items:
                if item.mask is None:
                    word = "guiding picture" if folder.subset.control else "mask"
                    yield Hit(item.path, f"has no {word} in {masks.name}", item)


def spare(survey: Survey) -> Iterator[Hit]:
    for folder in survey.folders:
        for path in folder.spare_masks:
            yield Hit(path, "no picture has this name")


def unreadable(survey: Survey) -> Iterator[Hit]:
    for item in survey.items:
        if item.mask is not None and item.mask_look.wrong:
            yield _hit(item, item.mask_look.wrong)


def other_shape(survey: Survey) -> Iterator[Hit]:
    for item, mask, picture in _sizes(survey):
        if not _same_shape(mask, picture):
            yield _hit(item, f"is {_size(mask)} px, {item.path.name} {_size(picture)} px")


def other_size(survey: Survey) -> Iterator[Hit]:
    for item, mask, picture in _sizes(survey):
        if mask != picture and _same_shape(mask, picture):
            yield _hit(item, f"is {_size(mask)} px and is scaled to the picture's {_size(picture)} px")


def black(survey: Survey) -> Iterator[Hit]:
    """Masks that leave nothing to learn, transparency used as a mask included."""
    for item in survey.sound:
        if _is_mask(item) and item.mask_look.brightest < DARK:
            yield _hit(item, "is all black: nothing of the picture would be learnt")
        elif item.subset.alpha_mask and item.look.clear == 1:
            yield Hit(item.path, "is transparent all over: nothing of it would be learnt", item)


def inverted(survey: Survey) -> Iterator[Hit]:
    for item in survey.sound:
        look = item.mask_look
        if _is_mask(item) and look.rim > _RIM_BRIGHT and look.middle < _MIDDLE_DARK:
            yield _hit(item, "is white at the rim and dark in the middle; white is what is learnt")


def _hit(item: Item, detail: str) -> Hit:
    assert item.mask is not None
    return Hit(item.mask, detail, item)


def _is_mask(item: Item) -> bool:
    """It has a mask that can be read; pictures that guide are none."""
    return item.mask is not None and not item.subset.control and not item.mask_look.wrong


def _sizes(survey: Survey) -> Iterator[tuple[Item, tuple[int, int], tuple[int, int]]]:
    """(picture, size of its mask, its size) of those whose mask can be read."""
    for item in survey.sound:
        if item.mask is not None and item.header is not None and _is_mask(item):
            try:
                yield item, read_header(item.mask).size, item.header.size
            except (HeaderError, OSError):
                continue


def _same_shape(mask: tuple[int, int], picture: tuple[int, int]) -> bool:
    return abs(mask[0] * picture[1] - mask[1] * picture[0]) <= max(picture)


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
