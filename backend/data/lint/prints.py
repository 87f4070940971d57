"""Which pictures are the same, or nearly: perceptual hashes and small colour patches.

A near duplicate is the same picture saved anew, resized, lightly edited or cut by a few pixels. Two hashes
must agree (of low frequencies and of slopes, both 64 bits, by the imagehash library) and the colours of a
4x4 patch as well, since hashes see brightness only: a red star is no copy of a blue one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_LOW_BITS = 6
MOST_SLOPE_BITS = 10
MOST_COLOUR = 30
"""Largest difference of a colour value (0 to 255) anywhere in the patch."""

_BLOCK = 1024


class Prints(NamedTuple):
    """What a picture looks like, in 64 bytes."""

    low: int
    slope: int
    colours: bytes
    """4x4 RGB."""


def prints(pixels: NDArray[np.uint8]) -> Prints:
    """The prints of (height, width, 3) pixels."""
    import cv2
    import imagehash
    from PIL import Image

    small = np.asarray(cv2.resize(pixels, (64, 64), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    picture = Image.fromarray(small)
    patch = np.asarray(cv2.resize(small, (4, 4), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return Prints(_bits(imagehash.phash(picture).hash), _bits(imagehash.dhash(picture).hash), patch.tobytes())


def groups(digests: Sequence[str], looks: Sequence[Prints]) -> list[list[int]]:
    """Indices of pictures that belong together, each group of two or more in order.

    Compares all with all, a block at a time: 10,000 pictures take a fraction of a second.
    """
    parent = list(range(len(digests)))
    for one, other in (*_same(digests), *_alike(looks)):
        parent[_root(parent, other)] = _root(parent, one)
    found: dict[int, list[int]] = {}
    for index in range(len(parent)):
        found.setdefault(_root(parent, index), []).append(index)
    return sorted(group for group in found.values() if len(group) > 1)


def _same(digests: Sequence[str]) -> Iterator[tuple[int, int]]:
    first: dict[str, int] = {}
    for index, digest in enumerate(digests):
        if first.setdefault(digest, index) != index:
            yield first[digest], index


def _alike(looks: Sequence[Prints]) -> Iterator[tuple[int, int]]:
    low = np.array([look.low for look in looks], dtype=np.uint64)
    slope = np.array([look.slope for look in looks], dtype=np.uint64)
    colours = np.array([list(look.colours) for look in looks], dtype=np.int16)
    for start in range(0, len(looks), _BLOCK):
        block = slice(start, start + _BLOCK)
        near = np.bitwise_count(low[block, None] ^ low[None, start:]) <= MOST_LOW_BITS
        for one, other in np.argwhere(near):
            i, j = start + int(one), start + int(other)
            if i < j and int(slope[i] ^ slope[j]).bit_count() <= MOST_SLOPE_BITS:
                apart = np.abs(colours[i] - colours[j]).max()
                if apart <= MOST_COLOUR:
                    yield i, j


def _root(parent: list[int], index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = parent[index]
    return index


def _bits(hash: NDArray[np.bool_]) -> int:
    return int.from_bytes(np.packbits(hash).tobytes(), "big")
