"""``launch.bat`` as Windows' command processor reads it: Wine's, with a program that stands in for Python.

Needs ``apt-get install wine wine64 gcc-mingw-w64-x86-64``; it ran last on 2026-11-22 with Wine 8.0, and passed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

COMPILER = "x86_64-w64-mingw32-gcc"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform == "win32" or not (shutil.which("wine") and shutil.which(COMPILER)),
        reason="needs Wine and MinGW",
    ),
]
Said = tuple[int, str, list[list[str]]]
"""Exit code, what was printed, and how Python was called each time."""
FOUND = ["python", "-E", "-s", r"backend\system\probe.py"]
CHECKED = [r".venv\Scripts\python.exe", "-I", r"backend\system\install.py", "check"]


def windows(path: Path) -> str:
    return "Z:" + str(path).replace("/", "\\")


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bin") / "python.exe"
    source = Path(__file__).with_name("python_stub.c")
    subprocess.run([COMPILER, "-municode", "-O1", "-o", str(path), str(source)], check=True)
    return path


@pytest.fixture(scope="module")
def wine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A Windows of its own."""
    named = {"WINEPREFIX": str(tmp_path_factory.mktemp("wine")), "WINEDEBUG": "-all", "WINEARCH": "win64"}
    environment = {**os.environ, **named, "CI": "1"}
    subprocess.run(["wine", "wineboot", "-i"], env=environment, check=True, capture_output=True, timeout=300)
    return environment


@pytest.fixture
def launch(root: Path, tmp_path: Path, stub: Path, wine: dict[str, str]) -> Callable[..., Said]:
    folder = tmp_path / "año (ä) 漢字 & so on!"
    (folder / "backend" / "system").mkdir(parents=True)
    for name in ("backend/system/install.py", "backend/system/probe.py", "app.py"):
        (folder / name).touch()
    shutil.copy2(root / "launch.bat", folder)
    log = tmp_path / "log.txt"

    def run(*arguments: str, **more: str) -> Said:
        log.write_bytes(b"")
        named = {"STUB_LOG": windows(log), "WINEPATH": windows(stub.parent), **more}
        done = subprocess.run(
            ["wine", "cmd", "/c", "launch.bat", *arguments], cwd=folder, env={**wine, **named}, timeout=120,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        calls = [line.split("\t") for line in log.read_text(encoding="utf-8").splitlines()]
        assert all(call.pop() == "PYTHONPATH=" for call in calls), "our Python meets no foreign libraries"
        return done.returncode, done.stdout.decode("utf-8", "replace"), calls

    return run


def test_the_first_start_installs_and_the_next_does_not(launch: Callable[..., Said]) -> None:
    code, _, calls = launch()
    page = [r".venv\Scripts\python.exe", "app.py"]
    assert (code, calls) == (0, [FOUND, ["python", "-I", r"backend\system\install.py", "install"], page])
    code, _, calls = launch("--port", "8000", "--no-browser", PYTHONPATH="elsewhere")
    assert (code, calls) == (0, [CHECKED, [*page, "--port", "8000", "--no-browser"]])


@pytest.mark.parametrize(
    ("words", "calls"),
    [
        (("demo", "--steps", "5"), ["-m", "backend.demo", "--steps", "5"]),
        (("page", "--port", "1"), ["app.py", "--port", "1"]),
        (("test", "-k", "a b"), [r"tools\run_tests.py", "-k", "a b"]),
        (("doctor",), ["-m", "backend.system.doctor"]),
    ],
    ids=lambda case: case[0],
)
def test_each_verb_starts_its_own(
    launch: Callable[..., Said], words: tuple[str, ...], calls: list[str]
) -> None:
    launch()
    code, _, found = launch(*words)
    assert (code, found[-1][1:]) == (0, calls)


def test_an_update_asks_the_python_outside_of_venv(launch: Callable[..., Said]) -> None:
    launch()
    assert launch("update")[2] == [FOUND, ["python", "-I", r"backend\system\install.py", "update"]]


def test_codes_of_failures_reach_whoever_called(launch: Callable[..., Said]) -> None:
    code, said, calls = launch(STUB_PROBE="1")
    assert code == 3 and "no Python was found" in said and FOUND in calls
    assert launch(STUB_INSTALL="1")[0] == 3
    assert launch(STUB_CODE="4")[0] == 4
    code, said, calls = launch("nonsense")
    assert code == 2 and '"nonsense"' in said and not calls


def test_a_python_can_be_named(launch: Callable[..., Said], stub: Path, tmp_path: Path) -> None:
    mine = tmp_path / "my python" / "python.exe"
    mine.parent.mkdir()
    shutil.copy2(stub, mine)
    code, _, calls = launch(ATELIER_PYTHON=windows(mine))
    assert code == 0 and calls[0][0] == calls[1][0] == windows(mine)
