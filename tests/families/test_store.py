"""Reading and writing tensors one at a time."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from backend.families import store
from backend.families.store import Entry, open_tensors, write_tensors

TENSORS = {
    "half": torch.randn(33, 7, generator=torch.Generator().manual_seed(0)).half(),
    "brain": torch.randn(5, generator=torch.Generator().manual_seed(1)).bfloat16(),
    "single": torch.randn(3, 1, 2, generator=torch.Generator().manual_seed(2)),
    "scalar": torch.tensor(2.5),
    "ids": torch.arange(9),
    "flags": torch.tensor([True, False, True]),
    "none": torch.zeros(0, 3),
}


@pytest.mark.parametrize("piece", [16, 8 << 20])
@pytest.mark.parametrize("dtype", [None, torch.float32, torch.float16, torch.bfloat16])
def test_reading_equals_safetensors(
    tmp_path: Path, monkeypatch, dtype: torch.dtype | None, piece: int
) -> None:
    monkeypatch.setattr(store, "_PIECE", piece)
    save_file(TENSORS, tmp_path / "a.safetensors")
    source = open_tensors(tmp_path / "a.safetensors")
    for name, wanted in TENSORS.items():
        if dtype is not None and wanted.is_floating_point() and wanted.numel():
            wanted = wanted.to(dtype)
        found = source.read(name, dtype)
        assert found.dtype == wanted.dtype
        assert torch.equal(found, wanted)


def test_unaligned_tensors(tmp_path: Path) -> None:
    table = {
        "flag": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "x": {"dtype": "F32", "shape": [2], "data_offsets": [1, 9]},
    }
    raw = json.dumps(table).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + b"\x07" + struct.pack("<2f", 1.5, -2.0))
    assert open_tensors(path).read("x").tolist() == [1.5, -2.0]


def test_writing_is_read_by_safetensors(tmp_path: Path) -> None:
    entries = [
        Entry(name, tensor.shape, tensor.dtype, lambda t=tensor: t) for name, tensor in TENSORS.items()
    ]
    write_tensors(tmp_path / "b.safetensors", entries, {"title": "für 猫"})
    found = load_file(tmp_path / "b.safetensors")
    assert set(found) == set(TENSORS)
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    source = open_tensors(tmp_path / "b.safetensors")
    assert source.header.metadata == {"title": "für 猫"}
    aligned = {"I64": 8, "F32": 4, "F16": 2, "BF16": 2, "BOOL": 1}
    assert all(info.start % aligned[info.dtype] == 0 for info in source.header.tensors.values())


def test_writing_converts(tmp_path: Path) -> None:
    write_tensors(
        tmp_path / "c.safetensors", [Entry("a", (2,), torch.float16, lambda: torch.tensor([0.1, 3.0]))], {}
    )
    assert torch.equal(load_file(tmp_path / "c.safetensors")["a"], torch.tensor([0.1, 3.0]).half())


def test_one_tensor_at_a_time(tmp_path: Path) -> None:
    import weakref

    alive: list[weakref.ref[torch.Tensor]] = []

    def make() -> torch.Tensor:
        assert sum(reference() is not None for reference in alive) <= 1, (
            "more than the one just written is held"
        )
        tensor = torch.zeros(1000)
        alive.append(weakref.ref(tensor))
        return tensor

    write_tensors(
        tmp_path / "d.safetensors", [Entry(str(i), (1000,), torch.float32, make) for i in range(5)], {}
    )
    assert len(alive) == 5
