"""Reading caption files: encodings, line ends, and tags written untidily. Files are never changed."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

LIMIT = 1_000_000
"""Bytes of a caption file that are read; a longer one is not a caption."""

USUAL = (".txt", ".caption")
"""Endings of caption files that are looked for whatever is asked for."""

_FACE_CROP = re.compile(r"^(.+)_(\d+)_(\d+)_(\d+)_(\d+)$")
_SMALLEST_FACE = 8
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_BREAKS = re.compile(r"\r\n?|[\u2028\u2029\x85]")


@dataclass(frozen=True)
class CaptionText:
    """The text of one caption file."""

    text: str
    """Non-blank lines, tidied; '' when the file holds none."""
    lines: int = 0
    problem: str = ""
    """Why the file cannot be used, without its name; '' when it can."""
    fatal: bool = False
    """The file holds a text that cannot be read, so that going on would lose it."""
    control: bool = False
    """Control characters were left out."""
    doubled: bool = False
    """A tag stood there twice; it is used once."""


def find(stem: str, extension: str, size: tuple[int, int], names: Collection[str]) -> str | None:
    """Name of a picture's caption file among the ``names`` of its folder.

    Looks for ``extension``, then for the other of .txt and .caption, then for the same two without
    the face that face detection puts at the end of a name: ``photo_320_240_64_64`` for one of
    64x64 px around (320, 240). Numbers that are no face in a picture of ``size`` are just a name.
    """
    extensions = [extension, *(other for other in USUAL if other != extension)]
    for base in (stem, *_without_face(stem, size)):
        for ending in extensions:
            if base + ending in names:
                return base + ending
    return None


def beside(stem: str, used: str, names: Collection[str]) -> str | None:
    """Name of a picture's second caption file, which is not read since ``used`` is."""
    others = (stem + ending for ending in USUAL if stem + ending != used)
    return next((name for name in others if used and name in names), None)


def _without_face(stem: str, size: tuple[int, int]) -> tuple[str, ...]:
    match = _FACE_CROP.match(stem)
    if not match:
        return ()
    x, y, width, height = map(int, match.groups()[1:])
    inside = x < size[0] and y < size[1]
    face = _SMALLEST_FACE <= width <= size[0] and _SMALLEST_FACE <= height <= size[1]
    return (match[1],) if inside and face else ()


def read(path: Path | str, separator: str = ",", wildcards: bool = False) -> CaptionText:
    """The text of a caption file. What is wrong with it is told in the result."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 (called for every picture)
            data = file.read(LIMIT + 1)
    except IsADirectoryError:
        return CaptionText("", problem="is a folder, not a caption file")
    except OSError as error:
        if Path(path).is_dir():
            return CaptionText("", problem="is a folder, not a caption file")
        return CaptionText(
            "", problem=f"cannot be read ({(error.strerror or str(error)).lower()})", fatal=True
        )
    if len(data) > LIMIT:
        megabytes = os.stat(path).st_size / 1e6  # noqa: PTH116
        return CaptionText("", problem=f"is too large for a caption ({megabytes:.1f} MB)")
    try:
        text = decode(data)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return CaptionText("", problem=f"is not UTF-8 (looks like {guess(data)}, line {line})", fatal=True)
    return tidy(text, separator, wildcards)


def decode(data: bytes) -> str:
    """UTF-8 with or without a byte order mark, UTF-16 with one. Raises UnicodeDecodeError."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    return data.decode("utf-8-sig")


def guess(data: bytes) -> str:
    """The likely name of an encoding that is not UTF-8.

    Two-byte codes of simplified Chinese are pairs of bytes from A1 on; Japanese text has bytes
    from 81 to 9F, which western text has not.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16 that is cut off"
    if b"\x00" in data:
        return "UTF-16 without a byte order mark"
    runs = re.findall(rb"[\x80-\xff]+", data)
    pairs = all(len(run) % 2 == 0 and min(run) >= 0xA1 for run in runs)
    if not pairs and any(0x81 <= byte <= 0x9F for run in runs for byte in run) and _fits(data, "cp932"):
        return "Shift-JIS"
    if pairs and _fits(data, "gbk"):
        return "GBK"
    return "Latin-1"


def tidy(text: str, separator: str = ",", wildcards: bool = False) -> CaptionText:
    """Line ends, tabs, control characters, empty and doubled tags brought in order."""
    plain = _CONTROL.sub("", text)
    tidied = [_tidy_line(line, separator, wildcards) for line in _BREAKS.sub("\n", plain).split("\n")]
    kept = [line for line, _ in tidied if line]
    doubled = any(doubled for _, doubled in tidied)
    return CaptionText("\n".join(kept), lines=len(kept), control=len(plain) != len(text), doubled=doubled)


def _tidy_line(line: str, separator: str, wildcards: bool) -> tuple[str, bool]:
    """A line without empty tags and without tags it already has, and whether it had such.

    Braces can stand for different words each time, so doubled tags stay where they are replaced.
    """
    line = re.sub(r"[ \t\u3000]*\t[ \t\u3000]*", " ", line).strip()
    tags = [tag.strip() for tag in line.split(separator)]
    filled = [tag for tag in tags if tag]
    kept = filled if wildcards else list(dict.fromkeys(filled))
    if len(kept) == len(tags):
        return line, False
    spaced = separator == "," or f"{separator} " in line
    joiner = f"{separator} " if spaced and not separator.endswith(" ") else separator
    return joiner.join(kept), len(kept) < len(filled)


def _fits(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
