"""Reading what a model file holds without loading it: names, shapes, types, metadata.

Only the header of a safetensors file is read, and only the opcodes of a pickle: nothing of a
``.ckpt`` is ever executed here. No torch, so the page and the checks before start can use it.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from backend.errors import InputError, Problem
from backend.system import pickles

DTYPE_BITS: Mapping[str, int] = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "BOOL"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
"""Bits of one element, by the format's own names."""

MAX_HEADER = 100_000_000
"""Longest header the format allows, bytes."""

PICKLE_SUFFIXES = frozenset({".ckpt", ".pt", ".pth", ".bin"})


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file."""

    dtype: str
    """By safetensors' names: F32, F16, BF16, I64, ..."""
    shape: tuple[int, ...]
    start: int = 0
    """First byte in the file (0 in pickles, where it is not known)."""
    end: int = 0
    """One past the last byte."""

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """What a model file says about itself."""

    path: Path
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str] = field(default_factory=lambda: dict[str, str]())
    size: int = 0
    """Bytes of the whole file."""
    is_pickle: bool = False

    @property
    def dtype(self) -> str:
        """The type that most elements have, '' when there are no tensors."""
        counts: dict[str, int] = {}
        for tensor in self.tensors.values():
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.elements
        return max(counts, key=lambda name: counts[name]) if counts else ""


def read_header(path: Path) -> Header:
    """The header of a safetensors file or the tensor list of a torch pickle.

    Raises:
        InputError: the file is missing, damaged, cut short, not a model, or a pickle with code.
    """
    size = file_size(path)
    with path.open("rb") as file:
        start = file.read(512)
    if pickles.looks_like_pickle(start):
        return _pickle_header(path, size)
    other = _other_content(start)
    if other:
        raise _not_a_model(path, other)
    if path.suffix.lower() in PICKLE_SUFFIXES and start[8:9] != b"{":
        raise _not_a_model(path, "neither a torch checkpoint nor a safetensors file")
    return read_safetensors(path)


def file_size(path: Path) -> int:
    """Bytes of a file; raises InputError where there is no readable file."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; a model file is needed here", where=str(path))
    try:
        with path.open("rb"):
            return path.stat().st_size
    except FileNotFoundError:
        raise missing(path) from None
    except OSError as error:
        raise InputError(
            f"{path.name} cannot be read ({(error.strerror or str(error)).lower()})",
            where=str(path),
            next="give this user the right to read it, or copy it elsewhere",
        ) from error


def missing(path: Path) -> InputError:
    """The error for a path that is not there, with the nearest name beside it."""
    import difflib

    names: list[str] = []
    if path.parent.is_dir():
        names = [entry.name for entry in path.parent.iterdir()]
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    return InputError(
        f"Model not found: {path}",
        why="" if path.parent.is_dir() else f"the folder {path.parent} does not exist either",
        next=f"Did you mean {near[0]}?" if near else "check the path",
    )


def read_safetensors(path: Path) -> Header:
    """Read and check a safetensors header: bounded, valid JSON, offsets inside the file, no overlap."""
    size = file_size(path)
    with path.open("rb") as file:
        prefix = file.read(8)
        if size < 8:
            raise _not_a_model(path, "an empty file" if size == 0 else f"a file of only {size} bytes")
        (length,) = struct.unpack("<Q", prefix)
        if length > MAX_HEADER:
            raise _damaged(path, f"it claims a header of {length} bytes")
        if length > size - 8:
            raise _cut_short(path, size, length + 8)
        raw = file.read(length)
    table = _parse_table(path, raw)
    metadata = _metadata(path, table.pop("__metadata__", None))
    tensors = {name: _tensor(path, name, entry, length + 8) for name, entry in table.items()}
    _check_layout(path, tensors, length + 8, size)
    return Header(path, tensors, metadata, size)


def readable_size(count: int) -> str:
    """Bytes as people write them: ``6.9 GB``, decimal units."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def _parse_table(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        table = json.loads(raw.decode("utf-8"), object_pairs_hook=_no_twins)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its table of contents is not valid JSON: {error}") from None
    if not isinstance(table, dict):
        raise _damaged(path, "its table of contents is not a JSON object")
    return cast("dict[str, Any]", table)


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name stands in it twice")
    return table


def _metadata(path: Path, found: object) -> dict[str, str]:
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise _damaged(path, "its metadata is not a table of texts")
    items = cast("dict[str, object]", found)
    if not all(isinstance(value, str) for value in items.values()):
        raise _damaged(path, "its metadata is not a table of texts")
    return {name: str(value) for name, value in items.items()}


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _tensor(path: Path, name: str, entry: object, base: int) -> TensorInfo:
    fields = cast("dict[str, object]", entry) if isinstance(entry, dict) else {}
    dtype, shape, span = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise _damaged(path, f"tensor {name} has the unknown type {dtype!r}")
    counts = cast("list[int]", shape) if isinstance(shape, list) else None
    if counts is None or not all(map(_is_count, counts)):
        raise _damaged(path, f"tensor {name} has the impossible shape {shape!r}")
    offsets = cast("list[int]", span) if isinstance(span, list) else []
    if len(offsets) != 2 or not all(map(_is_count, offsets)) or offsets[0] > offsets[1]:
        raise _damaged(path, f"tensor {name} has the impossible position {span!r}")
    tensor = TensorInfo(dtype, tuple(counts), base + offsets[0], base + offsets[1])
    if tensor.elements * DTYPE_BITS[dtype] != (tensor.end - tensor.start) * 8:
        raise _damaged(path, f"tensor {name} {list(tensor.shape)} {dtype} does not fill its place")
    return tensor


def _check_layout(path: Path, tensors: Mapping[str, TensorInfo], base: int, size: int) -> None:
    """Tensors follow each other without hole or overlap and end where the file ends."""
    end = base
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if tensor.start < end:
            raise _damaged(path, f"tensor {name} overlaps another one")
        if tensor.start > end:
            raise _damaged(path, f"nothing is said of the bytes before tensor {name}")
        end = tensor.end
    if end > size:
        raise _cut_short(path, size, end)
    if end < size:
        raise _damaged(path, f"the file is {size} bytes long, its table ends at {end}")


def _damaged(path: Path, detail: str) -> InputError:
    return InputError(
        f"{path.name} is damaged (header)",
        where=str(path),
        why=detail,
        next="Download it again and compare its size with the one the source names",
    )


def _cut_short(path: Path, size: int, needed: int) -> InputError:
    return InputError(
        f"{path.name} is cut short: file ends at {readable_size(size)}, header needs {readable_size(needed)}",
        where=str(path),
        why=f"{size} of {needed} bytes are there: a download or copy that did not finish",
        next=f"Download it again; expected size {readable_size(needed)}",
    )


def _not_a_model(path: Path, what: str) -> InputError:
    return InputError(
        f"{path.name} is not a model file: this is {what}",
        where=str(path),
        next="Download the model file itself again",
    )


def _other_content(start: bytes) -> str:
    """What the first bytes of a file are when they are no model's, '' when they may be one."""
    if not start:
        return "an empty file"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, a few lines that stand for the real file (run `git lfs pull`)"
    if text[:200].lower().startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        return "an HTML page, most likely an error or login page saved under this name"
    signatures = {b"\x89PNG": "a PNG picture", b"\xff\xd8\xff": "a JPEG picture", b"GGUF": "a GGUF file"}
    for signature, name in signatures.items():
        if start.startswith(signature):
            return f"{name}"
    if start.startswith(b"PK\x03\x04"):
        return "a zip archive that is no torch checkpoint"
    return "a text file" if _is_text(start) else ""


def _is_text(start: bytes) -> bool:
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:  # not merely a letter cut in two by the end of the sample
            return False
        text = start[: error.start].decode("utf-8")
    return all(char >= " " or char in "\t\r\n" for char in text)


def _pickle_header(path: Path, size: int) -> Header:
    refused = [name for name in pickles.globals_in(path) if not pickles.is_harmless(name)]
    if refused:
        raise InputError(
            Problem(
                f"Refused: contains {refused[0]}; use a safetensors file",
                where=str(path),
                why="a .ckpt is a program; this one would run more than it takes to rebuild tensors. "
                "Nothing of it was run",
                next="get the same model as .safetensors",
                detail="\n".join(refused),
            )
        )
    found = pickles.tensors_in(path)
    tensors = {name: TensorInfo(dtype, shape) for name, (dtype, shape) in found.items()}
    return Header(path, tensors, {}, size, is_pickle=True)
