"""Files are whole or not there."""

from __future__ import annotations

import errno
import shutil
import struct
from collections import namedtuple

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from backend.errors import EnvironmentFault, RunFault
from backend.weights import safefile
from backend.weights.safefile import write_safetensors, write_text_atomic, write_torch

Usage = namedtuple("Usage", "total used free")


def every_dtype() -> dict[str, torch.Tensor]:
    names = ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]
    names += ["int64", "int32", "int16", "int8", "uint8", "bool"]
    found = {
        f"{place}.{name}": torch.arange(6).to(getattr(torch, name)).reshape(2, 3)
        for place, name in enumerate(names)
    }
    return {**found, "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4)}


def test_equal_to_the_reference_writer(tmp_path):
    tensors = every_dtype()
    write_safetensors(tmp_path / "a.safetensors", tensors, {"k": "v"})
    ours, theirs = (tmp_path / "a.safetensors").read_bytes(), save(tensors, {"k": "v"})
    (length,) = struct.unpack("<Q", theirs[:8])
    assert ours[:8] == theirs[:8]
    assert ours[8 + length :] == theirs[8 + length :]
    found = load_file(tmp_path / "a.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name].double(), tensors[name].double()) for name in found)


def test_equal_content_gives_equal_bytes(tmp_path):
    tensors, metadata = {"b": torch.ones(2), "a": torch.zeros(3)}, {"y": "ü", "x": "1"}
    write_safetensors(tmp_path / "a", tensors, metadata)
    write_safetensors(tmp_path / "b", dict(reversed(tensors.items())), dict(reversed(metadata.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with safe_open(tmp_path / "a", "pt") as file:
        assert file.metadata() == metadata


def test_views_and_transposed_tensors_are_written_as_they_look(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    write_safetensors(tmp_path / "a", {"t": base.T, "row": base[1], "shared": base})
    found = load_file(tmp_path / "a")
    assert torch.equal(found["t"], base.T)
    assert torch.equal(found["row"], base[1])
    assert torch.equal(found["shared"], base)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e5m2])
@pytest.mark.parametrize("write", [write_safetensors, write_torch])
def test_non_finite_tensors_are_refused_by_name_and_the_old_file_stays(tmp_path, value, dtype, write):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(RunFault, match=r"1 of 2 values in lora\.weight"):
        write(path, {"fine": torch.ones(2), "lora.weight": torch.tensor([1.0, value]).to(dtype)})
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_is_told_with_both_numbers_before_writing(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100, 0, 1_100_000))
    with pytest.raises(RunFault) as caught:
        write_safetensors(tmp_path / "a.safetensors", {"x": torch.zeros(1_550_000)})
    text = caught.value.text()
    assert "6.2 MB" in text
    assert "1.1 MB" in text
    assert "6200000 bytes are needed, 1100000 are free" in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moment", ["write", "sync"])
def test_a_disk_that_fills_up_while_writing_leaves_the_old_file(tmp_path, monkeypatch, moment):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"x": torch.ones(3)})
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    if moment == "sync":
        monkeypatch.setattr(safefile.os, "fsync", full)
    else:
        monkeypatch.setattr(safefile, "raw_bytes", full)
    with pytest.raises(RunFault, match="disk is full"):
        write_safetensors(path, {"x": torch.zeros(3)})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(EnvironmentFault, match="cannot write to") as caught:
        write_text_atomic(tmp_path / "file" / "a.txt", "x")
    assert str(tmp_path / "file") in caught.value.text()


def test_a_fault_of_ours_while_writing_leaves_nothing(tmp_path, monkeypatch):
    def broken(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("backend.wholefile.NewFile.settle", broken)
    with pytest.raises(KeyboardInterrupt):
        write_text_atomic(tmp_path / "a.txt", "x")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_arrived_otherwise_is_not_taken(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"x": torch.ones(3)})
    before = path.read_bytes()
    good = safefile.serialised

    def lossy(tensors, metadata):
        return list(good(tensors, metadata))[:-1]

    monkeypatch.setattr(safefile, "serialised", lossy)
    with pytest.raises(RunFault, match="not written as it should be"):
        write_safetensors(path, {"x": torch.zeros(3), "y": torch.zeros(3)})
    assert path.read_bytes() == before


def test_missing_folders_are_made(tmp_path):
    write_text_atomic(tmp_path / "a" / "b" / "c.toml", "x = 'ü'\n")
    assert (tmp_path / "a" / "b" / "c.toml").read_bytes() == "x = 'ü'\n".encode()


def test_long_and_foreign_names(tmp_path):
    path = tmp_path / ("日本 ü [x] %&'#" + "n" * 200 + ".safetensors")
    write_safetensors(path, {"x": torch.ones(2)})
    assert torch.equal(load_file(path)["x"], torch.ones(2))


def test_pickled_files_are_read_back(tmp_path):
    write_torch(tmp_path / "a.pt", {"x": torch.ones(2, dtype=torch.float16)})
    assert torch.load(tmp_path / "a.pt", weights_only=True)["x"].dtype == torch.float16
