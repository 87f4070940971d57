"""Hashes of model files."""

from __future__ import annotations

import hashlib
import os
import threading

import pytest

from backend.system import paths
from backend.weights import hashes


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """A cache of its own, and a process that knows nothing yet."""
    monkeypatch.setattr(paths, "cache_root", lambda: tmp_path / "cache")
    monkeypatch.setattr(hashes, "_running", {})


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(os.urandom(0x100000 + 5000))
    return path


@pytest.fixture
def counted(monkeypatch):
    """Files that were really read, in order."""
    read = []
    compute = hashes._compute
    monkeypatch.setattr(hashes, "_compute", lambda path: (read.append(path), compute(path))[1])
    return read


def forget(monkeypatch):
    monkeypatch.setattr(hashes, "_running", {})


def test_sha256(file):
    assert hashes.sha256(file) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_it_is_kept_on_disk_and_found_by_another_process(file, counted, monkeypatch, tmp_path):
    first = hashes.sha256(file)
    forget(monkeypatch)
    assert hashes.sha256(file) == first
    assert len(counted) == 1
    assert str(tmp_path) not in (tmp_path / "cache" / "sha256.json").read_text()


def test_a_changed_file_is_read_again(file, counted):
    first = hashes.sha256(file)
    file.write_bytes(b"other")
    assert hashes.sha256(file) == hashlib.sha256(b"other").hexdigest() != first
    assert len(counted) == 2


def test_a_damaged_or_unwritable_cache_is_no_fault(file, tmp_path, monkeypatch):
    store = tmp_path / "cache" / "sha256.json"
    store.parent.mkdir()
    store.write_text("{broken")
    expected = hashlib.sha256(file.read_bytes()).hexdigest()
    assert hashes.sha256(file) == expected
    forget(monkeypatch)
    monkeypatch.setattr(paths, "cache_root", lambda: file)
    assert hashes.sha256(file) == expected


def test_prefetch_reads_in_the_background_and_once(file, counted, monkeypatch):
    gate, compute = threading.Event(), hashes._compute

    def slow(path):
        gate.wait(10)
        return compute(path)

    monkeypatch.setattr(hashes, "_compute", slow)
    hashes.prefetch(file)
    assert counted == []
    gate.set()
    assert hashes.sha256(file) == hashlib.sha256(file.read_bytes()).hexdigest()
    assert len(counted) == 1


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(OSError):
        hashes.sha256(tmp_path / "gone")
    with pytest.raises(OSError):
        hashes.legacy_hash(tmp_path / "gone")


def test_legacy_hash(file, tmp_path):
    content = file.read_bytes()
    assert hashes.legacy_hash(file) == hashlib.sha256(content[0x100000:]).hexdigest()[:8]
    (tmp_path / "small").write_bytes(b"x")
    assert hashes.legacy_hash(tmp_path / "small") == "e3b0c442"


@pytest.mark.parametrize("piece", [1000, 0x100000 - 1, 0x100000, 2_000_000])
def test_legacy_hash_of_pieces(piece):
    content = os.urandom(0x100000 + 0x10000 + 777)
    window = hashes.LegacyWindow()
    for start in range(0, len(content), piece):
        window.update(content[start : start + piece])
    assert window.value() == hashlib.sha256(content[0x100000:0x110000]).hexdigest()[:8]
