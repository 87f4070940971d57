"""The installer's decisions, with pip and the network left out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.system import install, installation, packages, pip_runner
from backend.system.installation import InstallError, Place


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A checkout with small requirement files and a ``.venv`` that looks installed."""
    monkeypatch.delenv("ATELIER_TORCH", raising=False)
    monkeypatch.setattr(installation.shutil, "which", lambda _: None)
    root = tmp_path / "año, 漢字!"
    (root / "requirements").mkdir(parents=True)
    (root / "requirements.txt").write_text('onnxruntime==1.0; python_version >= "3.11"\ntorch==2.13.0\n')
    (root / "requirements" / "cuda.txt").write_text("# extras\nbitsandbytes==1.0\nonnxruntime-gpu==1.0\n")
    (root / "requirements" / "dev.txt").write_text("pytest\n")
    (root / "requirements" / "constraints.txt").write_text("")
    (root / ".venv").mkdir()
    (root / ".venv" / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.2\n")
    return Place(root)


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Calls of pip, which all succeed."""
    calls: list[tuple[str, ...]] = []

    def record(place: Place, *arguments: str, show: bool = True) -> list[str]:
        calls.append(arguments)
        return []

    monkeypatch.setattr(packages, "pip", record)
    return calls


def fail(output: str) -> Callable[..., list[str]]:
    def run(*_: object, **__: object) -> list[str]:
        raise subprocess.CalledProcessError(1, ["pip"], output=output)

    return run


def give_torch(place: Place, cuda: str) -> None:
    folder = place.venv / "lib" / "python3.11" / "site-packages" / "torch"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "version.py").write_text(f"__version__ = '2.13.0+x'\ncuda: Optional[str] = {cuda}\n")


def test_the_stamp_holds_until_something_changes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not installation.is_current(place, dev=False)
    installation.write_stamp(place, "cpu", dev=False, missing=[])
    assert installation.is_current(place, dev=False)
    assert not installation.is_current(place, dev=True)
    installation.write_stamp(place, "cpu", dev=True, missing=[])
    assert installation.is_current(place, dev=False)
    assert installation.is_current(place, dev=True)
    (place.root / "requirements.txt").write_text("torch==2.13.0\n")
    assert not installation.is_current(place, dev=False)


def test_another_python_or_a_new_card_is_noticed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    installation.write_stamp(place, "cpu", dev=False, missing=[])
    monkeypatch.setattr(installation.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    assert not installation.is_current(place, dev=False)
    monkeypatch.setattr(installation.shutil, "which", lambda _: None)
    assert installation.is_current(place, dev=False)
    (place.venv / "pyvenv.cfg").write_text("version_info = 3.12.1.final.0\n")
    assert not installation.is_current(place, dev=False)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"installed": 3}'])
def test_a_damaged_stamp_counts_as_none(place: Place, content: str) -> None:
    place.stamp.write_text(content)
    assert not installation.is_current(place, dev=False)


@pytest.mark.parametrize(
    ("code", "output", "expected"),
    [(0, "GPU 0: NVIDIA H200", "cuda"), (0, "No devices", "cpu"), (9, "GPU", "cpu")],
)
def test_the_card_decides_the_variant(
    monkeypatch: pytest.MonkeyPatch, code: int, output: str, expected: str
) -> None:
    monkeypatch.delenv("ATELIER_TORCH", raising=False)
    monkeypatch.setattr(installation.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    done = subprocess.CompletedProcess(["nvidia-smi"], code, output, "")
    monkeypatch.setattr(installation.subprocess, "run", lambda *_, **__: done)
    monkeypatch.setattr(installation.platform, "system", lambda: "Linux")
    assert installation.find_variant() == expected
    monkeypatch.setenv("ATELIER_TORCH", "cpu")
    assert installation.find_variant() == "cpu"
    monkeypatch.setenv("ATELIER_TORCH", "rocm")
    with pytest.raises(InstallError, match="'cpu' or 'cuda'"):
        installation.find_variant()


def test_the_card_variant_takes_the_other_onnxruntime(place: Place, pip: list[tuple[str, ...]]) -> None:
    (place.venv / "lib" / "python3.11" / "site-packages" / "onnxruntime-1.0.dist-info").mkdir(parents=True)
    packages.install_base(place, "cuda")
    assert pip[0] == ("uninstall", "-y", "onnxruntime", "onnxruntime-gpu")
    written = Path(pip[1][-1]).read_text()
    assert "onnxruntime" not in written
    assert "torch==2.13.0" in written


def test_an_extra_that_fails_is_left_out_and_the_plain_onnxruntime_comes_back(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: list[str] = []

    def refuse_gpu(place: Place, *arguments: str, show: bool = True) -> list[str]:
        tried.append(arguments[-1])
        if "gpu" in arguments[-1]:
            raise subprocess.CalledProcessError(
                1, ["pip"], output="ERROR: No matching distribution found for onnxruntime-gpu==1.0"
            )
        return []

    monkeypatch.setattr(packages, "pip", refuse_gpu)
    assert packages.install_extras(place) == ["onnxruntime-gpu"]
    assert tried == [
        "bitsandbytes==1.0",
        "onnxruntime-gpu==1.0",
        'onnxruntime==1.0; python_version >= "3.11"',
    ]
    assert "left out: onnxruntime-gpu==1.0" in capsys.readouterr().out


def test_torch_that_is_there_is_left_alone(place: Place, pip: list[tuple[str, ...]]) -> None:
    give_torch(place, "None")
    assert packages.torch_build(place) == "cpu"
    packages.install_torch(place, "cpu")
    assert pip == []


def test_torch_comes_from_a_file_at_hand_first(place: Place, pip: list[tuple[str, ...]]) -> None:
    packages.install_torch(place, "cpu")
    assert pip == [("install", "--no-index", "--no-deps", installation.TORCH)]


def test_torch_for_another_device_is_replaced_by_way_of_uv(
    place: Place, pip: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(packages.platform, "system", lambda: "Linux")
    monkeypatch.setattr(packages, "run_logged", lambda _, command, show=True: commands.append(command) or [])
    give_torch(place, "None")
    packages.install_torch(place, "cuda")
    assert pip == [("install", "--only-binary", ":all:", packages.UV)]
    assert commands[0][-5:] == ["--torch-backend", "auto", "--reinstall-package", "torch", installation.TORCH]


def test_torch_falls_back_to_plain_pip_and_a_failure_is_explained(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = "Collecting torch==2.13.0\n  NewConnectionError: Name or service not known\nlast words"
    monkeypatch.setattr(packages, "pip", fail(output))
    with pytest.raises(InstallError) as caught:
        packages.install_torch(place, "cpu")
    text = str(caught.value)
    assert "Could not install torch==2.13.0: the network cannot be reached (at torch==2.13.0)" in text
    assert "last words" in text
    assert "already installed is kept" in text


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (
            "ERROR: No matching distribution found for gradio==6.31.0",
            "gradio==6.31.0: no file fits this Python",
        ),
        ("ERROR: Failed building wheel for grpcio", "grpcio could not be built"),
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("ERROR: ResolutionImpossible: for help visit", "exclude each other"),
        ("Collecting numpy==2.4.6\nboom", "pip gave no reason (at numpy==2.4.6)"),
    ],
)
def test_pips_reasons_are_told(output: str, expected: str) -> None:
    assert expected in pip_runner.explain(output)


def test_a_failed_installation_leaves_no_stamp(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    installation.write_stamp(place, "cpu", dev=False, missing=[])
    (place.root / "requirements.txt").write_text("something==1\n")
    monkeypatch.setattr(install, "ensure_venv", lambda _: None)
    monkeypatch.setattr(packages, "pip", fail("ERROR: No matching distribution found for something==1"))
    assert install.main(["install", "--root", str(place.root)]) == 3
    assert not place.stamp.exists()
    assert install.main(["check", "--root", str(place.root)]) == 1


def test_a_successful_installation_is_not_repeated(
    place: Place, pip: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "ensure_venv", lambda _: None)
    monkeypatch.setattr(install, "check_imports", lambda _: None)
    assert install.main(["install", "--root", str(place.root)]) == 0
    assert pip
    pip.clear()
    assert install.main(["install", "--root", str(place.root)]) == 0
    assert pip == []
    assert install.main(["check", "--root", str(place.root)]) == 0


def test_a_strange_folder_named_venv_is_left_alone(place: Place) -> None:
    (place.venv / "diary.txt").write_text("mine")
    with pytest.raises(InstallError, match=r"diary\.txt"):
        install.ensure_venv(place)
    assert (place.venv / "diary.txt").read_text() == "mine"


def test_a_venv_that_does_not_run_is_made_anew(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(install, "run_logged", lambda _, command, show=True: commands.append(command) or [])
    install.ensure_venv(place)
    assert commands == [[sys.executable, "-I", "-m", "venv", "--clear", str(place.venv)]]


def test_too_little_space_is_said_before_anything_is_fetched(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place.venv / "pyvenv.cfg").unlink()
    usage = type("Usage", (), {"free": 10**9})
    monkeypatch.setattr(install.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InstallError, match=r"1\.0 GB free"):
        install.check_space(place, "cpu")


def test_two_installations_do_not_run_at_once(place: Place) -> None:
    with install.lock(place):
        code = (
            "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; from backend.system import install\n"
            "try: install.lock(install.Place(Path(sys.argv[2])))\nexcept install.InstallError: sys.exit(7)"
        )
        root = Path(install.__file__).resolve().parents[2]
        done = subprocess.run([sys.executable, "-c", code, str(root), str(place.root)])
    assert done.returncode == 7


def test_output_of_a_command_is_kept_and_misleading_settings_are_left_out(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("PIP_TARGET", "/elsewhere")
    code = "import os, json; print(json.dumps([os.environ.get('PYTHONPATH'), os.environ.get('PIP_TARGET')]))"
    lines = pip_runner.run_logged(place, [sys.executable, "-c", code])
    assert json.loads(lines[0]) == [None, None]
    assert lines[0] in place.log.read_text(encoding="utf-8")


def test_the_real_requirements_pin_what_they_name(root: Path) -> None:
    for name in ("requirements.txt", "requirements/cuda.txt", "requirements/dev.txt"):
        lines = [line for line in (root / name).read_text().splitlines() if line and not line.startswith("#")]
        assert lines
        assert all("==" in line.split(";")[0] for line in lines), name
    assert installation.TORCH in (root / "requirements.txt").read_text().splitlines()
