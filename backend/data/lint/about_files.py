"""Rules about picture files: what they are, how they are named, which are the same."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path

from backend.data.headers import Header
from backend.data.lint.names import bad_letters, clean_name
from backend.data.lint.rule import Hit, hit
from backend.data.lint.survey import Item, Survey
from backend.data.scan import MAX_PIXELS

_TURNS = {
    2: "mirrored", 3: "upside down", 4: "mirrored, upside down", 5: "mirrored, on its side", 6: "on its side",
    7: "mirrored, on its side", 8: "on its side",
}  # fmt: skip


def unreadable(survey: Survey) -> Iterator[Hit]:
    for item in survey.items:
        if item.look.wrong:
            yield hit(item, item.look.wrong)


def unsupported(survey: Survey) -> Iterator[Hit]:
    """Kinds that are not read, unless a picture of the same name that is read lies beside."""
    for folder in survey.folders:
        stems = {item.path.stem for item in folder.items}
        for name in folder.scan.unsupported:
            path = folder.scan.folder / name
            if path.stem not in stems:
                yield Hit(path, f"{path.suffix} files are not read")


def wrong_ending(survey: Survey) -> Iterator[Hit]:
    for item in survey.sound:
        if item.misnamed and item.header is not None:
            yield hit(item, f"is a {item.header.kind.upper()} inside; it is read by its content")


def rotated(survey: Survey) -> Iterator[Hit]:
    for item, header in _headers(survey):
        if header.orientation != 1:
            turn = _TURNS[header.orientation]
            yield hit(item, f"stored {turn} (EXIF orientation {header.orientation}); it is turned upright")


def cmyk(survey: Survey) -> Iterator[Hit]:
    return (hit(item, "CMYK; converted to sRGB") for item, header in _headers(survey) if header.cmyk)


def broken_profiles(survey: Survey) -> Iterator[Hit]:
    for item in survey.sound:
        if item.look.broken_profile:
            yield hit(item, "its colour profile cannot be read; the colours count as sRGB")


def deep(survey: Survey) -> Iterator[Hit]:
    return (
        hit(item, "more than 8 bits a channel; scaled to 8")
        for item, header in _headers(survey)
        if header.deep
    )


def animated(survey: Survey) -> Iterator[Hit]:
    for item, header in _headers(survey):
        if header.frames > 1:
            yield hit(item, f"an animation ({header.frames} frames); only the first frame is used")


def transparent(survey: Survey) -> Iterator[Hit]:
    """Pictures one can see through where transparency is no mask."""
    for item in survey.sound:
        if item.look.seen_through and not item.subset.alpha_mask:
            yield hit(item, f"{item.look.clear:.0%} is transparent; shown on white")


def exact_copies(survey: Survey) -> Iterator[Hit]:
    for group in _inside_one_part(survey):
        by_digest: dict[str, list[Item]] = {}
        for item in group:
            by_digest.setdefault(item.look.digest, []).append(item)
        for same in by_digest.values():
            kept = _best(same)
            yield from (
                hit(item, f"the same file as {_name(kept, item)}") for item in same if item is not kept
            )


def near_copies(survey: Survey) -> Iterator[Hit]:
    for group in _inside_one_part(survey):
        by_digest = {item.look.digest: item for item in reversed(group)}
        differing = sorted(by_digest.values(), key=lambda item: item.path)
        kept = _best(differing)
        yield from (hit(item, f"nearly {_name(kept, item)}") for item in differing if item is not kept)


def in_both_parts(survey: Survey) -> Iterator[Hit]:
    """Regularisation pictures that are training pictures too."""
    for group in survey.alike:
        training = next((item for item in group if not item.subset.is_reg), None)
        if training is not None:
            for item in group:
                if item.subset.is_reg:
                    yield hit(item, f"is the training picture {_name(training, item)} as well")


def held_out_and_trained(survey: Survey) -> Iterator[Hit]:
    """Pictures kept for validation that are trained on as well, in another file."""
    for group in survey.alike:
        trained = next((item for item in group if _part(survey, item) == "training"), None)
        if trained is not None:
            for item in group:
                if _part(survey, item) == "validation":
                    yield hit(item, f"is the training picture {_name(trained, item)} as well")


def one_caption_for_two(survey: Survey) -> Iterator[Hit]:
    for folder in survey.folders:
        by_name = {item.path.name: item for item in folder.items}
        for names in folder.scan.shared_stems:
            items = [by_name[name] for name in names if name in by_name]
            shared = next((item.caption_path for item in items if item.caption_path), None)
            if shared is None or len(items) < 2:
                continue
            kept = _best(items)
            for item in items:
                if item is not kept:
                    yield hit(item, f"shares the caption {shared.name} with {kept.path.name}")


def odd_names(survey: Survey) -> Iterator[Hit]:
    for item in survey.items:
        if bad := bad_letters(item.path.name):
            yield hit(
                item,
                f"{', '.join(dict.fromkeys(bad))} in the name; {clean_name(item.path.name)} reads the same",
            )


def twins(survey: Survey) -> Iterator[Hit]:
    """Names that look the same and are not: one with composed letters, one with letter and accent apart."""
    for folder in survey.folders:
        by_name: dict[str, list[Item]] = {}
        for item in folder.items:
            by_name.setdefault(unicodedata.normalize("NFC", item.path.name), []).append(item)
        for items in by_name.values():
            for item in items[1:]:
                yield hit(item, "another file has the same name with its accents written otherwise")


def _headers(survey: Survey) -> Iterator[tuple[Item, Header]]:
    return ((item, item.header) for item in survey.sound if item.header is not None)


def _inside_one_part(survey: Survey) -> Iterator[list[Item]]:
    """Groups of like pictures: training, validation and regularisation apart."""
    for group in survey.alike:
        for name in ("training", "validation", "regularisation"):
            part = [item for item in group if _part(survey, item) == name]
            if len(part) > 1:
                yield part


def _part(survey: Survey, item: Item) -> str:
    if item.subset.is_reg:
        return "regularisation"
    return "validation" if item.path in survey.held_out else "training"


def _best(items: list[Item]) -> Item:
    """The one to keep: the largest, of these one with a caption, of these the first."""
    return min(items, key=lambda item: (-_pixels(item), item.caption_path is None, item.path))


def _pixels(item: Item) -> int:
    width, height = item.header.size if item.header else (0, 0)
    return min(width * height, MAX_PIXELS)


def _name(other: Item, item: Item) -> str:
    """The other's name, with its folder where that is another."""
    same: Path = item.path.parent
    return other.path.name if other.path.parent == same else f"{other.path.parent.name}/{other.path.name}"
