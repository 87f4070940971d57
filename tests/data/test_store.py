"""The tensor store: sound, shared, and healing itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from backend.data.store import FolderStore, MemoryStore, TensorStore


@pytest.fixture(params=["memory", "folder"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], TensorStore]:
    return MemoryStore if request.param == "memory" else lambda: FolderStore(tmp_path / "store")


def entry(value: float) -> dict[str, torch.Tensor]:
    return {
        "latents": torch.full((4, 8, 8), float(value)),
        "mask": torch.full((3,), int(value), dtype=torch.uint8),
    }


def assert_same(found: object, wanted: dict[str, torch.Tensor]) -> None:
    assert isinstance(found, dict)
    assert found.keys() == wanted.keys()
    assert all(
        torch.equal(found[name], wanted[name]) and found[name].dtype == wanted[name].dtype for name in wanted
    )


def test_what_is_put_is_got(make: Callable[[], TensorStore]) -> None:
    store = make()
    store.put({"a": entry(1), "b": entry(2)})
    store.put({"c": {"x": torch.randn(2, 3).bfloat16()}})
    assert_same(store.get("a"), entry(1))
    assert_same(store.get("b"), entry(2))
    assert store.get("c")["x"].dtype == torch.bfloat16
    assert store.get("d") is None and not store.has("d")
    assert store.damaged == 0


def test_the_last_entry_of_a_key_counts(make: Callable[[], TensorStore], tmp_path: Path) -> None:
    store = make()
    store.put({"a": entry(1)})
    store.put({"a": entry(2)})
    assert_same(store.get("a"), entry(2))
    if isinstance(store, FolderStore):
        assert_same(FolderStore(store.folder).get("a"), entry(2))


def test_a_second_store_sees_later_additions(tmp_path: Path) -> None:
    first, second = FolderStore(tmp_path), FolderStore(tmp_path)
    first.put({"a": entry(1)})
    assert_same(second.get("a"), entry(1))
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".part")]


def test_a_flipped_byte_is_noticed_and_only_there(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put({"a": entry(1), "b": entry(2)})
    (pack,) = tmp_path.iterdir()
    data = bytearray(pack.read_bytes())
    data[data.rindex(torch.full((1,), 2.0).numpy().tobytes())] ^= 1
    pack.write_bytes(data)
    again = FolderStore(tmp_path)
    assert again.get("b") is None and again.damaged == 1
    assert_same(again.get("a"), entry(1))
    again.put({"b": entry(2)})
    assert_same(FolderStore(tmp_path).get("b"), entry(2))


@pytest.mark.parametrize("length", [0, 5, 200, -10])
def test_a_cut_off_pack_is_noticed(tmp_path: Path, length: int) -> None:
    FolderStore(tmp_path).put({"a": entry(1)})
    (pack,) = tmp_path.iterdir()
    pack.write_bytes(pack.read_bytes()[:length])
    store = FolderStore(tmp_path)
    assert store.get("a") is None
    assert store.damaged >= 1
    store.put({"a": entry(1)})
    assert_same(FolderStore(tmp_path).get("a"), entry(1))


def test_several_processes_write_at_once(tmp_path: Path, root: Path) -> None:
    code = (
        "import sys, torch; from pathlib import Path; from backend.data.store import FolderStore; "
        "s = FolderStore(Path(sys.argv[1])); n = int(sys.argv[2]); "
        "[s.put({f'{n}-{i}': {'x': torch.full((5,), float(i))}}) for i in range(20)]"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(n)], cwd=root) for n in range(2)
    ]
    assert [process.wait(120) for process in running] == [0, 0]
    store = FolderStore(tmp_path)
    assert all(store.get(f"{n}-{i}")["x"][0] == i for n in range(2) for i in range(20))
    assert store.damaged == 0
