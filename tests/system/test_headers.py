"""Damaged and foreign files are named for what they are, without reading or running them."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.errors import InputError
from backend.system import pickles
from backend.system.headers import read_header, readable_size


def safetensors(table: object, data: bytes = b"") -> bytes:
    raw = json.dumps(table).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


GOOD = {
    "__metadata__": {"format": "pt"},
    "a": entry("F16", [2, 3], 0, 12),
    "b": entry("F32", [], 12, 16),
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(content: bytes, name: str = "model.safetensors") -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def message(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_header(path)
    assert caught.value.exit_code == 2
    return caught.value.text()


def test_good_file(write) -> None:
    header = read_header(write(safetensors(GOOD, bytes(16))))
    assert header.metadata == {"format": "pt"}
    assert header.tensors["a"].shape == (2, 3)
    assert header.tensors["b"].shape == ()
    assert header.dtype == "F16"
    assert header.size == (header.path).stat().st_size
    assert header.tensors["a"].end - header.tensors["a"].start == 12


@pytest.mark.parametrize(
    "table",
    [
        {"a": entry("F16", [2, 3], 0, 10)},
        {"a": entry("F16", [2, 3], 12, 0)},
        {"a": entry("F16", [2, 3], -12, 0)},
        {"a": entry("F17", [2, 3], 0, 12)},
        {"a": entry("F16", [-2, -3], 0, 12)},
        {"a": entry("F16", [True, 6], 0, 12)},
        {"a": entry("F16", [2**62, 2**62], 0, 12)},
        {"a": entry("F16", [2, 3], 0, 12), "b": entry("F16", [2, 3], 6, 18)},
        {"a": entry("F16", [2, 3], 0, 12), "b": entry("F16", [3], 18, 24)},
        {"a": {"dtype": "F16"}},
        {"a": 3},
        {"__metadata__": {"x": 1}, "a": entry("F16", [2, 3], 0, 12)},
        [1, 2],
    ],
    ids=str,
)
def test_damaged_table(write, table: object) -> None:
    text = message(write(safetensors(table, bytes(24))))
    assert "model.safetensors is damaged (header)" in text
    assert "Download it again" in text


@pytest.mark.parametrize(
    "content",
    [
        b"\xff" * 8 + b"{}",
        struct.pack("<Q", 2**40) + b"{}",
        struct.pack("<Q", 4) + b"}{}{" + bytes(20),
        struct.pack("<Q", 4) + b"\xff\xfe\xfd\xfc" + bytes(20),
        struct.pack("<Q", 60000) + b"[" * 60000,
        safetensors(GOOD, bytes(16)) + b"more",
        safetensors({}).replace(b"{}", b"{}") + b"x",
    ],
)
def test_damaged_bytes(write, content: bytes) -> None:
    assert "is damaged (header)" in message(write(content))


def test_the_same_name_twice(write) -> None:
    raw = b'{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}'
    assert "twice" in message(write(struct.pack("<Q", len(raw)) + raw + bytes(2)))


def test_a_giant_header_length_allocates_nothing(write) -> None:
    path = write(struct.pack("<Q", 99_000_000) + b"{" + bytes(100))
    import tracemalloc

    tracemalloc.start()
    message(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize(("cut", "size"), [(70, "70 B"), (4_000, "4.0 kB"), (1_000_100, "1.0 MB")])
def test_cut_short(write, cut: int, size: str) -> None:
    table = {
        f"t{index}": entry("F16", [50_000], index * 100_000, (index + 1) * 100_000) for index in range(69)
    }
    text = message(write(safetensors(table, bytes(6_900_000))[:cut]))
    assert f"file ends at {size}" in text
    assert ("header needs 6.9 MB" in text) == (cut > 5_000), "the whole need is known once the table is there"


def test_sizes_for_people() -> None:
    assert [readable_size(count) for count in (0, 999, 1500, 3_100_000_000)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "3.1 GB",
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty file"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 2132696762\n",
            "Git LFS pointer",
        ),
        (b"\n <!DOCTYPE html><html><body>403</body></html>", "HTML page"),
        (b"<html>", "HTML page"),
        ("a cat, ein Bär, 猫\n".encode() * 60, "text file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "a PNG picture"),
        (b"PK\x03\x04" + bytes(50), "zip archive"),
    ],
)
@pytest.mark.parametrize("name", ["model.safetensors", "model.ckpt"])
def test_other_files_are_named(write, content: bytes, words: str, name: str) -> None:
    text = message(write(content, name))
    assert words in text
    assert f"{name}" in text


def test_missing_file_names_the_nearest(write, tmp_path: Path) -> None:
    write(b"", "dreamlike-v2.safetensors")
    text = message(tmp_path / "dreamlike_v2.safetensors")
    assert f"not found: {tmp_path / 'dreamlike_v2.safetensors'}" in text
    assert "Did you mean dreamlike-v2.safetensors?" in text


def test_folder_instead_of_file(tmp_path: Path) -> None:
    assert "is a folder" in message(tmp_path)


class Call:
    """Pickles as a call of ``function(argument)``."""

    def __init__(self, function: Callable[..., object], argument: object) -> None:
        self.call = (function, (argument,))

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    ("function", "named"),
    [(os.system, "os.system"), (eval, "builtins.eval"), (subprocess.call, "subprocess.call")],
)
def test_pickle_with_code_is_refused_and_not_run(
    write, tmp_path: Path, protocol: int, function, named: str
) -> None:
    mark = tmp_path / "ran"
    argument = f"__import__('pathlib').Path({str(mark)!r}).touch()" if function is eval else f"touch {mark}"
    content = pickle.dumps({"state_dict": {}, "x": Call(function, argument)}, protocol)
    text = message(write(content, "model.ckpt"))
    assert f"Refused: contains {named}; use a safetensors file" in text
    assert not mark.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_checkpoint(tmp_path: Path, zipped: bool) -> None:
    import torch

    path = tmp_path / "model.ckpt"
    content = {
        "state_dict": {
            "a": torch.zeros(2, 3).half(),
            "b": torch.nn.Parameter(torch.zeros(4)),
            "c": torch.zeros(1, 0),
        },
        "epoch": 3,
    }
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    header = read_header(path)
    assert header.is_pickle
    found = {name: (tensor.dtype, tensor.shape) for name, tensor in header.tensors.items()}
    assert found == {"a": ("F16", (2, 3)), "b": ("F32", (4,)), "c": ("F32", (1, 0))}
    torch.save({**content, "x": Call(os.system, "true")}, path, _use_new_zipfile_serialization=zipped)
    assert "os.system" in message(path)


def test_the_shape_reader_runs_nothing_even_when_asked(write, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    path = write(pickle.dumps({"a": Call(os.system, f"touch {mark}")}), "model.ckpt")
    assert pickles.tensors_in(path) == {}
    assert not mark.exists()


@pytest.mark.parametrize("cut", [3, 40, 200])
def test_damaged_pickle(write, cut: int) -> None:
    content = pickle.dumps({"state_dict": {str(index): index for index in range(100)}})[:cut]
    assert "is damaged" in message(write(content, "model.ckpt"))


def test_headers_need_no_torch(root: Path) -> None:
    code = "import sys, backend.system.identify; print(any(m in sys.modules for m in ('torch', 'numpy')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
