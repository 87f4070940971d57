"""Tiny taggers as ONNX files, written byte by byte so that tests need no library for it.

A model is: mean over the picture's two sides -> matrix (3, tags) -> bias -> sigmoid or nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path


def _varint(number: int) -> bytes:
    found = b""
    while True:
        number, low = number >> 7, number & 0x7F
        found += bytes([low | (0x80 if number else 0)])
        if not number:
            return found


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _tensor(name: str, shape: Sequence[int], values: Sequence[float]) -> bytes:
    sizes = b"".join(_number(1, size) for size in shape)
    return sizes + _number(2, 1) + _bytes(8, name) + _bytes(9, struct.pack(f"<{len(values)}f", *values))


def _value(name: str, shape: Sequence[int | str]) -> bytes:
    sides = b"".join(
        _bytes(1, _bytes(2, side) if isinstance(side, str) else _number(1, side)) for side in shape
    )
    return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, 1) + _bytes(2, sides)))


def _node(kind: str, inputs: Sequence[str], output: str, attributes: bytes = b"") -> bytes:
    return b"".join(_bytes(1, name) for name in inputs) + _bytes(2, output) + _bytes(4, kind) + attributes


def _means(axes: Sequence[int]) -> bytes:
    listed = _bytes(1, "axes") + b"".join(_number(8, axis) for axis in axes) + _number(20, 7)
    return _bytes(5, listed) + _bytes(5, _bytes(1, "keepdims") + _number(3, 0) + _number(20, 2))


def write_tagger(
    folder: Path,
    rows: Sequence[tuple[str, int]],
    weights: Sequence[Sequence[float]],
    bias: Sequence[float],
    *,
    channels_first: bool = False,
    size: int = 8,
    batch: int | str = "N",
    sigmoid: bool = True,
) -> Path:
    """``folder`` with model.onnx and selected_tags.csv of (tag, category number) in ``rows``.

    ``weights`` has three rows (blue, green, red) with a number for each tag.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shape = (batch, 3, size, size) if channels_first else (batch, size, size, 3)
    last = "logits" if sigmoid else "tags"
    nodes = [
        _node("ReduceMean", ["picture"], "colour", _means((2, 3) if channels_first else (1, 2))),
        _node("MatMul", ["colour", "weights"], "sums"),
        _node("Add", ["sums", "bias"], last),
        *([_node("Sigmoid", ["logits"], "tags")] if sigmoid else []),
    ]
    graph = b"".join(_bytes(1, node) for node in nodes) + _bytes(2, "tagger")
    graph += _bytes(5, _tensor("weights", (3, len(rows)), [value for row in weights for value in row]))
    graph += _bytes(5, _tensor("bias", (len(rows),), bias))
    graph += _bytes(11, _value("picture", shape)) + _bytes(12, _value("tags", (batch, len(rows))))
    model = _number(1, 8) + _bytes(7, graph) + _bytes(8, _bytes(1, "") + _number(2, 13))
    (folder / "model.onnx").write_bytes(model)
    lines = ["tag_id,name,category,count", *(f"{n},{tag},{kind},1" for n, (tag, kind) in enumerate(rows))]
    (folder / "selected_tags.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
