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


def fill_packs(store: FolderStore, count: int) -> None:
    for i in range(count):
        store.put({f"k{i}": entry(i), "again": entry(i)})


def test_many_packs_become_few(tmp_path: Path) -> None:
    store, other = FolderStore(tmp_path), FolderStore(tmp_path)
    fill_packs(store, 20)
    assert store.compact() == 0
    fill_packs(store, 40)
    assert other.get("k1") is not None
    assert store.compact() == 60
    assert len(list(tmp_path.iterdir())) == 1
    for each in (store, other, FolderStore(tmp_path)):
        assert all(each.has(f"k{i}") for i in range(40))
        assert_same(each.get("k39"), entry(39))
        assert_same(each.get("again"), entry(39))
        assert each.damaged == 0
    store.put({"again": entry(77)})
    assert_same(FolderStore(tmp_path).get("again"), entry(77))


def test_a_merged_pack_is_a_safetensors_file_like_the_others(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    store = FolderStore(tmp_path)
    fill_packs(store, 40)
    store.compact()
    (pack,) = tmp_path.iterdir()
    tensors = load_file(pack)
    assert torch.equal(tensors["k7/latents"], entry(7)["latents"])
    assert tensors["k7/mask"].dtype == torch.uint8


def test_damage_does_not_spread_when_packs_are_merged(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    fill_packs(store, 40)
    first = min(tmp_path.iterdir())
    data = bytearray(first.read_bytes())
    data[-40] ^= 255
    first.write_bytes(data)
    store.compact()
    again = FolderStore(tmp_path)
    assert sum(again.has(f"k{i}") for i in range(40)) == 39
    assert again.damaged == 1


def test_several_processes_merge_at_once(tmp_path: Path, root: Path) -> None:
    fill_packs(FolderStore(tmp_path), 40)
    code = (
        "import sys, torch; from pathlib import Path; from backend.data.store import FolderStore\n"
        "store = FolderStore(Path(sys.argv[1])); store.compact()\n"
        "store.put({'new' + sys.argv[2]: {'latents': torch.zeros(2)}})\n"
        "assert all(store.has(f'k{i}') for i in range(40)), store.damaged\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    running = [subprocess.Popen([*command, str(n)], cwd=root) for n in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    store = FolderStore(tmp_path)
    assert all(store.has(f"k{i}") for i in range(40)) and all(store.has(f"new{n}") for n in range(3))
