"""Size and kind of a picture from its first bytes, without decoding it.

Reads PNG, JPEG, WebP, BMP, GIF, TIFF and (where Pillow can) AVIF, whatever the file's name says, and
names other kinds. Sizes are those of the upright picture: EXIF orientation is applied.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

READ = ("png", "jpeg", "webp", "bmp", "gif", "tiff", "avif")
"""Kinds that can be trained on."""

ENDINGS = {
    "png": (".png",),
    "jpeg": (".jpg", ".jpeg", ".jfif"),
    "webp": (".webp",),
    "bmp": (".bmp",),
    "gif": (".gif",),
    "tiff": (".tif", ".tiff"),
    "avif": (".avif",),
}
EXTENSIONS = frozenset(ending for endings in ENDINGS.values() for ending in endings)
UNSUPPORTED = frozenset((".heic", ".heif", ".jxl", ".psd", ".jp2", ".svg"))
"""Endings of pictures that are named, with a count, and not used."""

_HEAD = 64 * 1024
_MOST_PAGES = 10_000


class HeaderError(ValueError):
    """The file is not a picture that can be read; the text completes 'name ...'."""


@dataclass(frozen=True)
class Header:
    """What the first bytes say."""

    kind: str
    size: tuple[int, int]
    """(width, height) upright."""
    orientation: int = 1
    """EXIF orientation, 1 (as stored) to 8."""
    frames: int = 1
    cmyk: bool = False
    deep: bool = False
    """More than 8 bits a channel."""


def read_header(path: str | os.PathLike[str]) -> Header:
    """Kind and size of a picture file. Raises HeaderError, or OSError when it cannot be opened."""
    with open(path, "rb", buffering=4096) as file:  # noqa: PTH123 (called for every picture)
        return parse_header(file)


def parse_header(file: BinaryIO) -> Header:
    """As :func:`read_header`, of a file that is open at its start."""
    head = file.read(32)
    kind = sniff(head)
    if kind not in READ:
        raise HeaderError(_not_a_picture(head, kind))
    try:
        header = _READERS[kind](file, head)
    except (struct.error, IndexError):
        raise HeaderError("is cut off (the file ends inside its header)") from None
    except ValueError as error:
        if isinstance(error, HeaderError):
            raise
        raise HeaderError("is damaged (its header makes no sense)") from None
    if min(header.size) < 1:
        raise HeaderError("says that it has no pixels")
    return header


def sniff(head: bytes) -> str:
    """The kind of file that starts with these bytes; '' when unknown."""
    for kind, found in _SIGNATURES:
        if head.startswith(found):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        return "avif" if brand in (b"avif", b"avis") else "HEIC" if brand[:2] in (b"he", b"mi") else "video"
    return ""


_SIGNATURES = (
    ("png", b"\x89PNG\r\n\x1a\n"),
    ("jpeg", b"\xff\xd8\xff"),
    ("bmp", b"BM"),
    ("gif", b"GIF8"),
    ("tiff", b"II*\x00"),
    ("tiff", b"MM\x00*"),
    ("BigTIFF", b"II+\x00"),
    ("BigTIFF", b"MM\x00+"),
    ("JPEG XL", b"\xff\x0a"),
    ("JPEG XL", b"\x00\x00\x00\x0cJXL "),
    ("JPEG 2000", b"\x00\x00\x00\x0cjP"),
    ("Photoshop file", b"8BPS"),
    ("PDF", b"%PDF"),
    ("ZIP archive", b"PK\x03\x04"),
    ("Git LFS pointer", b"version https://git-lfs"),
)


def _not_a_picture(head: bytes, kind: str) -> str:
    if not head:
        return "is empty (0 bytes)"
    if kind in ("BigTIFF", "HEIC", "JPEG XL", "JPEG 2000", "Photoshop file"):
        return f"is a {kind} inside, which cannot be read here"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<svg", b"<!--")):
        return (
            "is not an image (looks like HTML)" if b"svg" not in start else "is not an image (looks like SVG)"
        )
    if kind:
        return f"is not an image (it is a {kind})"
    text = all(byte >= 32 or byte in b"\t\r\n" for byte in head)
    return f"is not an image (looks like {'text' if text else 'something else'})"


def _png(file: BinaryIO, head: bytes) -> Header:
    width, height, depth = struct.unpack(">IIB", head[16:25])
    frames, orientation = 1, 1
    file.seek(33)
    for name, length in _chunks(file, ">I4s", 4):
        if name in (b"IDAT", b"IEND"):
            break
        if name == b"acTL":
            frames = struct.unpack(">I", file.read(4))[0]
        elif name == b"eXIf":
            orientation = _orientation(file.read(min(length, _HEAD)))
    return Header("png", _upright(width, height, orientation), orientation, frames, deep=depth > 8)


def _chunks(file: BinaryIO, layout: str, trailer: int) -> Iterator[tuple[bytes, int]]:
    """(name, length) of each chunk; the file stands at the chunk's data meanwhile."""
    while True:
        head = file.read(8)
        if len(head) < 8:
            return
        parts = struct.unpack(layout, head)
        name, length = (parts[1], parts[0]) if layout.startswith(">") else parts
        start = file.tell()
        yield name, length
        file.seek(start + length + trailer + (length & 1 if not trailer else 0))


def _jpeg(file: BinaryIO, head: bytes) -> Header:
    orientation = 1
    file.seek(2)
    while True:
        marker = _next_marker(file)
        if marker in (0xD9, 0xDA):
            raise HeaderError("is damaged (a JPEG without a size)")
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            continue
        (length,) = struct.unpack(">H", file.read(2))
        start = file.tell()
        if marker == 0xE1 and file.read(6) == b"Exif\x00\x00":
            orientation = _orientation(file.read(max(0, length - 8)))
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            file.seek(start)
            depth, height, width, channels = struct.unpack(">BHHB", file.read(6))
            size = _upright(width, height, orientation)
            return Header("jpeg", size, orientation, cmyk=channels == 4, deep=depth > 8)
        file.seek(start + length - 2)


def _next_marker(file: BinaryIO) -> int:
    """The next marker's code; padding before it is allowed."""
    byte = file.read(1)
    while byte and byte != b"\xff":
        byte = file.read(1)
    while byte == b"\xff":
        byte = file.read(1)
    if not byte:
        raise HeaderError("is cut off (the file ends inside its header)")
    return byte[0]


def _webp(file: BinaryIO, head: bytes) -> Header:
    kind = head[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", head[26:30])
        return Header("webp", (width & 0x3FFF, height & 0x3FFF))
    if kind == b"VP8L":
        bits = struct.unpack("<I", head[21:25])[0]
        return Header("webp", ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1))
    flags = head[20]
    width = int.from_bytes(head[24:27], "little") + 1
    height = int.from_bytes(head[27:30], "little") + 1
    frames, orientation = 0, 1
    if flags & 0b1010:  # Exif or animation: only then is more of the file looked at
        file.seek(12)
        for name, length in _chunks(file, "<4sI", 0):
            if name == b"ANMF":
                frames += 1
            elif name == b"EXIF":
                data = file.read(min(length, _HEAD))
                orientation = _orientation(data[6:] if data.startswith(b"Exif\x00\x00") else data)
    return Header("webp", _upright(width, height, orientation), orientation, max(frames, 1))


def _bmp(file: BinaryIO, head: bytes) -> Header:
    if struct.unpack("<I", head[14:18])[0] == 12:
        width, height = struct.unpack("<HH", head[18:22])
    else:
        width, height = struct.unpack("<ii", head[18:26])
    return Header("bmp", (abs(width), abs(height)))


def _gif(file: BinaryIO, head: bytes) -> Header:
    size = struct.unpack("<HH", head[6:10])
    flags, frames = head[10], 0
    file.seek(13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0))
    while mark := file.read(1):
        if mark == b"!":
            file.seek(1, os.SEEK_CUR)
        elif mark == b",":
            frames += 1
            local = file.read(9)[8]
            file.seek((3 << ((local & 7) + 1) if local & 0x80 else 0) + 1, os.SEEK_CUR)
        else:
            break
        while length := file.read(1)[0]:
            file.seek(length, os.SEEK_CUR)
    return Header("gif", (size[0], size[1]), frames=max(frames, 1))


def _tiff(file: BinaryIO, head: bytes) -> Header:
    order = "<" if head[:2] == b"II" else ">"
    (place,) = struct.unpack_from(order + "I", head, 4)
    tags: dict[int, int] = {}
    pages = 0
    seen: set[int] = set()
    while place and place not in seen and pages < _MOST_PAGES:
        seen.add(place)
        file.seek(place)
        (entries,) = struct.unpack(order + "H", file.read(2))
        block = file.read(12 * entries)
        if not pages:
            tags = _tiff_tags(block, order, file)
        file.seek(place + 2 + 12 * entries)
        (place,) = struct.unpack(order + "I", file.read(4))
        pages += 1
    orientation = tags.get(0x0112, 1)
    orientation = orientation if 1 <= orientation <= 8 else 1
    size = _upright(tags.get(0x0100, 0), tags.get(0x0101, 0), orientation)
    deep, cmyk = tags.get(0x0102, 1) > 8, tags.get(0x0106) == 5
    return Header("tiff", size, orientation, max(pages, 1), cmyk=cmyk, deep=deep)


def _tiff_tags(block: bytes, order: str, file: BinaryIO) -> dict[int, int]:
    """Tag -> its first whole number."""
    found: dict[int, int] = {}
    for start in range(0, len(block) - 11, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", block, start)
        if kind not in (3, 4):
            continue
        layout, width = (order + "H", 2) if kind == 3 else (order + "I", 4)
        if number * width <= 4:
            (found[tag],) = struct.unpack_from(layout, block, start + 8)
        elif tag == 0x0102:  # bits of each channel, kept elsewhere
            file.seek(struct.unpack_from(order + "I", block, start + 8)[0])
            (found[tag],) = struct.unpack(layout, file.read(width))
    return found


def _avif(file: BinaryIO, head: bytes) -> Header:
    """Pillow reads the boxes; the picture itself is not decoded."""
    from PIL import Image, UnidentifiedImageError, features

    if not features.check("avif"):
        raise HeaderError("is an AVIF, which the Pillow of this installation cannot read")
    file.seek(0)
    try:
        image = Image.open(file, formats=["AVIF"])
    except (UnidentifiedImageError, OSError, RuntimeError, SyntaxError):
        raise HeaderError("is damaged or cut off (an AVIF that cannot be read)") from None
    orientation = image.getexif().get(0x0112, 1)
    orientation = orientation if orientation in range(1, 9) else 1
    frames = int(getattr(image, "n_frames", 1))
    return Header("avif", _upright(*image.size, orientation), orientation, frames)


_READERS = {
    "png": _png,
    "jpeg": _jpeg,
    "webp": _webp,
    "bmp": _bmp,
    "gif": _gif,
    "tiff": _tiff,
    "avif": _avif,
}


def _upright(width: int, height: int, orientation: int) -> tuple[int, int]:
    return (height, width) if orientation >= 5 else (width, height)


def _orientation(exif: bytes) -> int:
    """Orientation 1 to 8 of an EXIF block (a TIFF structure); 1 when it says nothing sensible."""
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (offset,) = struct.unpack_from(order + "I", exif, 4)
        (entries,) = struct.unpack_from(order + "H", exif, offset)
        for index in range(entries):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", exif, offset + 2 + 12 * index)
            if tag == 0x0112 and kind == 3:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1
