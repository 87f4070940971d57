"""Makes the fix of a finding: one function for each kind of cure, used by the table of rules."""

from __future__ import annotations

import io
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from backend.data import caption_files, images
from backend.data.headers import ENDINGS, HeaderError, sniff
from backend.data.lint.fixes import EXCLUDED, Fix, Kind, Make, Move, Rewrite, Step, backup_name, free_name
from backend.data.lint.names import clean_name
from backend.data.lint.rule import Cure, Hit
from backend.data.lint.survey import Item, Survey
from backend.data.report import count

ENCODINGS = {"Shift-JIS": "cp932", "GBK": "gbk", "Latin-1": "cp1252"}
CONVERTIBLE = frozenset((".jp2", ".psd"))
"""Kinds that are not trained on but can be opened."""


def fix(kind: Kind, description: str, steps: Iterable[Step], survey: Survey) -> Fix | None:
    """A fix within the dataset's folders; None when there is nothing to do."""
    found = tuple(steps)
    return Fix(kind, description, found, survey.roots) if found else None


def exclude(survey: Survey, hits: list[Hit]) -> Fix | None:
    """Pictures with their captions and masks into ``_excluded`` beside them."""
    items = _items(hits)
    leaving = {item.path for item in items}
    staying = [item for item in survey.items if item.path not in leaving]
    needed = {path for item in staying for path in (item.caption_path, item.mask)}
    moved: dict[Path, None] = {}
    for item in items:
        for path in (item.path, item.caption_path, item.mask):
            if path is not None and path not in needed:
                moved[path] = None
    return fix(
        "exclude",
        f"Move {count(len(items), 'picture')}, with captions and masks, to {EXCLUDED} beside them.",
        _moves(moved),
        survey,
    )


def exclude_files(survey: Survey, hits: list[Hit]) -> Fix | None:
    """The files themselves, which are no pictures, into ``_excluded``."""
    moved = dict.fromkeys(hit.path for hit in hits)
    return fix("exclude", f"Move {count(len(moved), 'file')} to {EXCLUDED}.", _moves(moved), survey)


def convert(what: str) -> Cure:
    """Pictures written anew as 8-bit sRGB PNG, the originals kept beside as .bak."""

    def cure(survey: Survey, hits: list[Hit]) -> Fix | None:
        taken: set[Path] = set()
        steps: list[Step] = []
        for path in dict.fromkeys(hit.path for hit in hits):
            kept = backup_name(path, taken)
            target = path.with_suffix(".png")
            if target != path:
                target = free_name(target, taken)
            steps.append(Rewrite(path, target, png_bytes, kept))
        text = f"Write {count(len(steps), 'picture')} anew as PNG {what}; the originals stay beside as .bak."
        return fix("convert", text, steps, survey)

    return cure


def convert_unsupported(survey: Survey, hits: list[Hit]) -> Fix | None:
    """As ``convert``, for the kinds that are not trained on but can be opened."""
    able = [hit for hit in hits if hit.path.suffix.lower() in CONVERTIBLE]
    return convert("in sRGB")(survey, able)


def right_ending(survey: Survey, hits: list[Hit]) -> Fix | None:
    taken: set[Path] = set()
    steps: list[Step] = []
    for item in _items(hits):
        if item.header is not None:
            target = free_name(item.path.with_suffix(ENDINGS[item.header.kind][0]), taken)
            steps += _renames(item, target, taken)
    return fix("rename", f"Give {count(len(_items(hits)), 'picture')} the right ending.", steps, survey)


def clean_names(survey: Survey, hits: list[Hit]) -> Fix | None:
    taken: set[Path] = set()
    steps: list[Step] = []
    for item in _items(hits):
        steps += _renames(item, free_name(item.path.with_name(clean_name(item.path.name)), taken), taken)
    text = f"Rename {count(len(_items(hits)), 'picture')}, with captions and masks."
    return fix("rename", text, steps, survey)


def part_twins(survey: Survey, hits: list[Hit]) -> Fix | None:
    """Twins get a number, in the composed form."""
    taken: set[Path] = set()
    steps: list[Step] = []
    for item in _items(hits):
        name = Path(unicodedata.normalize("NFC", item.path.name))
        target = free_name(item.path.with_name(f"{name.stem}_2{name.suffix}"), taken)
        steps += _renames(item, target, taken)
    text = f"Rename {count(len(_items(hits)), 'picture')}, with captions and masks."
    return fix("rename", text, steps, survey)


def captions(description: str, make: Callable[[Survey, Hit], Make]) -> Cure:
    """Caption files written anew, the originals kept beside as .bak."""

    def cure(survey: Survey, hits: list[Hit]) -> Fix | None:
        taken: set[Path] = set()
        steps: dict[Path, Step] = {}
        for found in hits:
            if found.item is not None and (path := found.item.caption_path) and path not in steps:
                steps[path] = Rewrite(path, path, make(survey, found), backup_name(path, taken))
        text = description.format(count(len(steps), "caption"))
        return fix("caption", text, steps.values(), survey)

    return cure


def to_utf8(survey: Survey, found: Hit) -> Make:
    def make(data: bytes) -> bytes:
        guessed = caption_files.guess(data)
        encoding = ENCODINGS.get(guessed) or ("utf-16" if "cut off" in guessed else "utf-16-le")
        return data.decode(encoding, "replace").lstrip("\ufeff").encode("utf-8")

    return make


def without_control(survey: Survey, found: Hit) -> Make:
    return lambda data: re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", "", caption_files.decode(data)).encode(
        "utf-8"
    )


def with_trigger(survey: Survey, found: Hit) -> Make:
    """The trigger word in front of every line."""
    assert found.item is not None
    word, rules = survey.trigger(found.item.subset), found.item.subset.captions

    def make(data: bytes) -> bytes:
        lines = caption_files.decode(data).splitlines(keepends=True)
        joiner = f"{rules.caption_separator} "
        return "".join(f"{word}{joiner}{line}" if line.strip() else line for line in lines).encode("utf-8")

    return make


def one_spelling(survey: Survey, found: Hit) -> Make:
    """What was found instead of the trigger word, replaced by it."""
    assert found.item is not None
    word = survey.trigger(found.item.subset) or ""
    pattern = re.compile(rf"(?<!\w){re.escape(found.found)}(?!\w)")
    return lambda data: pattern.sub(lambda _: word, caption_files.decode(data)).encode("utf-8")


def invert_masks(survey: Survey, hits: list[Hit]) -> Fix | None:
    """Masks written anew with black and white exchanged."""
    taken: set[Path] = set()
    steps: list[Step] = []
    for path in dict.fromkeys(hit.path for hit in hits):
        target = path.with_suffix(".png")
        target = target if target == path else free_name(target, taken)
        steps.append(Rewrite(path, target, _inverted, backup_name(path, taken)))
    text = f"Exchange black and white in {count(len(steps), 'mask')}; the originals stay beside as .bak."
    return fix("convert", text, steps, survey)


def setting(**values: Any) -> Cure:
    """The dataset file with these values for all its datasets; nothing where there is no such file."""

    def cure(survey: Survey, hits: list[Hit]) -> Fix | None:
        path = survey.config
        if path is None:
            return None
        text = changed_config(path, values)
        kept = backup_name(path, set())
        said = ", ".join(f"{name} = {json.dumps(value)}" for name, value in values.items())
        step = Rewrite(path, path, lambda _: text.encode("utf-8"), kept)
        return Fix("config", f"Set {said} in {path.name}.", (step,), (path, kept), text=text)

    return cure


def changed_config(path: Path, values: dict[str, Any]) -> str:
    """The text of a dataset file with ``values`` in every dataset; comments and layout stay (TOML)."""
    import tomlkit

    text = path.read_bytes().decode("utf-8-sig")
    is_json = path.suffix.lower() == ".json"
    data: Any = json.loads(text) if is_json else tomlkit.parse(text)
    for table in data["datasets"]:
        for holder in (table, *table.get("subsets", [])):
            for name in values.keys() & holder.keys():
                del holder[name]
    general = data.setdefault("general", {} if is_json else tomlkit.table())
    general.update(values)
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n" if is_json else tomlkit.dumps(data)


def first_of(*cures: Cure) -> Cure:
    """The first cure that has something to offer."""

    def cure(survey: Survey, hits: list[Hit]) -> Fix | None:
        return next((found for make in cures if (found := make(survey, hits))), None)

    return cure


def png_bytes(data: bytes) -> bytes:
    """A picture of any kind that can be opened, as 8-bit sRGB PNG: upright, first frame, on white."""
    from PIL import Image

    try:
        pixels = images.decode(data)
    except images.DecodeError:
        if sniff(data[:32]) in ENDINGS:
            raise
        pixels = _other_kind(data)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _other_kind(data: bytes) -> images.Array:
    """A picture of a kind the trainer does not read, by way of a PNG."""
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(data)) as picture:
            if picture.width * picture.height > images.MAX_PIXELS:
                raise HeaderError("a picture has too many pixels to be opened")
            upright = ImageOps.exif_transpose(picture)
            as_png = ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16")
            kept = upright if upright.mode in as_png else upright.convert("RGB")
            kept = kept.convert("RGBA") if "transparency" in upright.info else kept
            file = io.BytesIO()
            kept.save(file, "PNG")
    except OSError as error:
        raise HeaderError(f"a picture cannot be opened ({error})") from None
    return images.decode(file.getvalue())


def _inverted(data: bytes) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.uint8(255) - images.decode_mask(data)).save(file, "PNG")
    return file.getvalue()


def _items(hits: Iterable[Hit]) -> list[Item]:
    found = {hit.item.path: hit.item for hit in hits if hit.item is not None}
    return list(found.values())


def _moves(paths: Iterable[Path]) -> list[Step]:
    taken: set[Path] = set()
    return [
        Move(path, free_name(path.parent / EXCLUDED / path.name, taken))
        for path in paths
        if os.path.lexists(path)
    ]


def _renames(item: Item, target: Path, taken: set[Path]) -> list[Step]:
    """A picture's new name, and its caption's and mask's where the stem is another."""
    steps: list[Step] = [Move(item.path, target)]
    if target.stem != item.path.stem:
        for path in (item.caption_path, item.mask):
            if path is not None and path.stem == item.path.stem:
                steps.append(Move(path, free_name(path.with_name(f"{target.stem}{path.suffix}"), taken)))
    return steps
