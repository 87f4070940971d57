"""The doctor's lines, from facts that are put in."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from backend.system import devices, doctor, probe
from backend.system.devices import Card, TorchBuild

GIB = 2**30
VERSIONS = dict.fromkeys((*doctor.BASE, *doctor.OPTIONAL), "1.0")  # fmt: skip
MODERN = Card("RTX 4070", 12 * GIB, 11 * GIB, "581.29", (8, 9))


def facts(**changes: Any) -> doctor.Facts:
    """A machine on which all is well, without a card."""
    values: dict[str, Any] = {
        "versions": dict(VERSIONS), "torch": TorchBuild("2.13.0+cpu", None), "free_disk": 80 * 10**9,
        "memory": devices.Memory(32 * GIB, 20 * GIB), "processor": "a processor", **changes,
    }  # fmt: skip
    return doctor.Facts(**values)


def with_card(card: Card = MODERN, cuda: str | None = "13.0", **changes: Any) -> doctor.Facts:
    build = TorchBuild("2.13.0", cuda)
    seen = {"available": True, "architectures": ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]}
    return facts(cards=(card,), torch=build, **{"torch_facts": seen, **changes})


def lines(found: doctor.Facts, level: str | None = None) -> str:
    return "\n".join(finding.line() for finding in doctor.examine(found) if level in (None, finding.level))


def test_a_machine_without_a_card_works_and_says_so() -> None:
    assert "No GPU found (driver: none)" in lines(facts(), "note")
    assert "on the processor" in lines(facts(), "note")
    assert lines(facts(), "bad") == ""
    assert doctor.base_works(doctor.examine(facts()))


def test_a_good_card_is_named_with_memory_and_bf16() -> None:
    text = lines(with_card(), "ok")
    assert "RTX 4070, 11.0 of 12.0 GB free, driver 581.29, bf16" in text
    assert lines(with_card(), "bad") == ""


def test_an_older_card_has_no_bf16() -> None:
    card = Card("RTX 2070", 8 * GIB, 8 * GIB, "581.29", (7, 5))
    assert "no bf16: use fp16" in lines(with_card(card), "ok")


def test_torch_for_the_processor_beside_a_card_is_named_with_the_fix() -> None:
    text = lines(with_card(cuda=None, torch_facts={}), "bad")
    assert "built for the processor only" in text
    assert "launch.sh update" in text


def test_an_old_driver_is_named_with_the_version_needed() -> None:
    card = Card("RTX 3060", 12 * GIB, 12 * GIB, "535.104", (8, 6))
    text = lines(with_card(card), "bad")
    assert "driver is too old" in text
    assert "580.65" in text
    assert lines(with_card(card, cuda="12.8"), "bad") == ""


@pytest.mark.parametrize(
    ("capability", "architectures", "unknown"),
    [
        ((6, 1), ["sm_75", "sm_80"], True),
        ((8, 9), ["sm_75", "sm_86"], False),
        ((12, 1), ["sm_120"], False),
        ((12, 0), ["sm_90"], True),
        ((12, 0), ["sm_90", "compute_90"], False),
        ((9, 0), ["sm_90a"], False),
        ((8, 6), [], False),
    ],
)
def test_a_card_unknown_to_torch_is_named_before_anything_starts(
    capability: tuple[int, int], architectures: list[str], unknown: bool
) -> None:
    card = Card("a card", 8 * GIB, 8 * GIB, "590.10", capability)
    text = lines(with_card(card, torch_facts={"available": True, "architectures": architectures}), "bad")
    assert ("was not built for compute capability" in text) == unknown


def test_a_card_that_torch_does_not_see_is_bad() -> None:
    found = with_card(torch_facts={"available": False, "architectures": ["sm_89"]})
    assert "only on the processor: torch does not see the card" in lines(found, "bad")


def test_missing_and_broken_packages_are_named_and_end_with_a_failure() -> None:
    versions = {name: version for name, version in VERSIONS.items() if name != "gradio"}
    missing = doctor.examine(facts(versions=versions))
    assert any(finding.level == "bad" and "not installed: gradio" in finding.text for finding in missing)
    assert not doctor.base_works(missing)
    broken = doctor.examine(facts(broken={"cv2": "ImportError: libGL"}))
    assert any("libGL" in finding.text and finding.name == "opencv-python-headless" for finding in broken)
    assert not doctor.base_works(broken)


def test_a_missing_or_broken_extra_leaves_the_base_working() -> None:
    versions = {name: version for name, version in VERSIONS.items() if name != "bitsandbytes"}
    found = facts(versions=versions, broken={"xformers": "OSError: no library"})
    assert "no 8-bit optimizers" in lines(found, "note")
    assert "no xformers attention" in lines(found, "note")
    assert doctor.base_works(doctor.examine(found))


def test_both_onnx_runtimes_at_once_are_named() -> None:
    assert "exclude each other" in lines(facts(versions={**VERSIONS, "onnxruntime-gpu": "1.0"}), "bad")


def test_wrong_python_and_foreign_libraries_come_first() -> None:
    first = doctor.examine(facts(python=(3, 9, 1)))[0]
    assert first.level == "bad"
    assert "3.9.1 is too old" in first.text
    assert "32-bit" in doctor.examine(facts(python_64_bit=False))[0].text
    assert "PYTHONPATH" in lines(facts(environment={"PYTHONPATH": "/elsewhere"}), "note")


def test_a_hub_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    assert "names a file" in lines(facts(environment={"HF_HOME": str(file)}), "note")


def test_folders_space_and_port() -> None:
    found = facts(unwritable={"/runs": "Permission denied"}, free_disk=10**9, port_owner="pid 77 (nc)")
    text = lines(found)
    assert "cannot write into /runs: Permission denied" in text
    assert "1.0 GB free" in text
    assert "7860 is in use by pid 77 (nc)" in text
    assert not doctor.base_works(doctor.examine(found))


def test_the_owner_of_a_port_is_found() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        assert doctor.port_owner(port) is None
        server.listen()
        assert doctor.port_owner(port) is not None
    assert doctor.port_owner(port) is None


def test_this_machine_can_be_looked_at() -> None:
    found = doctor.gather()
    assert found.versions["torch"].startswith("2.")
    assert found.broken == {}
    assert found.torch is not None
    assert found.memory is not None
    assert found.memory.total > GIB
    assert doctor.base_works(doctor.examine(found))


def test_a_library_that_ends_python_costs_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "crashing.py").write_text("import os; os._exit(9)")
    (tmp_path / "failing.py").write_text("raise OSError('no such library')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    tried = doctor._try_imports(["json", "crashing", "failing"])["imports"]
    assert tried["json"] == ""
    assert "ends Python" in tried["crashing"]
    assert tried["failing"] == "OSError: no such library"


def test_cards_are_read_from_nvidia_smi() -> None:
    text = "NVIDIA GeForce RTX 4090, 24564, 23001, 580.95.05, 8.9\nSome, card, 8192, [N/A], 470.1, [N/A]\nnonsense\n"
    first, second = devices.parse_cards(text)
    assert (first.name, first.memory_total, first.capability) == (
        "NVIDIA GeForce RTX 4090",
        24564 * 2**20,
        (8, 9),
    )
    assert (second.name, second.memory_free, second.capability) == ("Some, card", 0, None)


def test_what_cards_are_doing_is_read_from_nvidia_smi() -> None:
    busy, silent = devices.parse_load("87, 9318, 24564\n[N/A], 12, 8192\nnonsense\n")
    assert (busy.busy, busy.memory_used, busy.memory_total) == (87, 9318 * 2**20, 24564 * 2**20)
    assert silent.busy is None


def test_hidden_cards_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.shutil, "which", lambda _: "/bin/true")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(devices.subprocess, "run", lambda *_, **__: pytest.fail("asked all the same"))
    assert devices.cards() == ()


@pytest.mark.parametrize(
    ("version", "is_64_bit", "has_venv", "expected"),
    [
        ((3, 11, 2), True, True, ""),
        ((3, 13, 0), True, True, ""),
        ((3, 9, 18), True, True, "3.9.18 is too old"),
        ((2, 7, 18), True, True, "too old"),
        ((3, 14, 0), True, True, "too new"),
        ((3, 12, 1), False, True, "32-bit"),
        ((3, 12, 1), True, False, "python3.12-venv"),
    ],
)
def test_which_python_fits(
    version: tuple[int, int, int], is_64_bit: bool, has_venv: bool, expected: str
) -> None:
    found = probe.reason(version, is_64_bit, has_venv)
    assert expected in found
    assert bool(found) == bool(expected)


@pytest.mark.parametrize(
    ("cards", "build", "expected"),
    [
        ((), None, "No GPU found (driver: none)"),
        ((MODERN,), None, "PyTorch is not installed"),
        ((MODERN,), TorchBuild("2.13.0+cpu", None), "built for the processor only"),
        ((Card("old", GIB, GIB, "400.1", (8, 6)),), TorchBuild("2.13.0", "12.6"), "needs 525.60"),
        ((MODERN,), TorchBuild("2.13.0", "13.0"), "RTX 4070, 12 GB"),
    ],
)
def test_the_pages_one_line(cards: tuple[Card, ...], build: TorchBuild | None, expected: str) -> None:
    assert expected in devices.summary(cards, build)
