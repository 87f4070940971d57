"""How a command line ends."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from backend.errors import Problem
from tests.conftest import ROOT


@pytest.mark.parametrize("lines", [1, 100_000])
def test_nobody_reading_any_more_is_no_fault(lines: int) -> None:
    """One line is still in the buffer when ``main`` ends, many are written before."""
    code = (
        "import sys, time; from backend.errors import run_main\n"
        "sys.stdin.read()\n"
        f"sys.exit(run_main(lambda: [print('x' * 80) for _ in range({lines})] and 0))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin and process.stdout and process.stderr
    process.stdout.close()  # as head does once it has its lines
    process.stdin.close()
    assert process.wait(60) == 141
    assert process.stderr.read() == ""
    process.stderr.close()


def _ended(body: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command line whose ``main`` is ``body``."""
    code = (
        f"import sys; from backend.errors import run_main\ndef main():\n    {body}\nsys.exit(run_main(main))"
    )
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, env={**os.environ, **environment},
        encoding="utf-8", timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("open('n' * 300)", 2, "file name too long"),
        ("open('.')", 2, "is a directory"),
        ("open('nowhere/file.txt')", 2, "nowhere/file.txt: "),
        ("raise PermissionError(13, 'Permission denied', 'secret.bin')", 3, "secret.bin: "),
        ("raise OSError(28, 'No space left on device')", 3, "no space left"),
        ("raise OSError(28, 'No space left on device', 'a.toml')", 3, "a.toml: the disk is full"),
        ("raise MemoryError", 3, "memory (RAM)"),
    ],
)
def test_what_the_system_refuses_is_told_without_a_traceback(body: str, code: int, said: str) -> None:
    done = _ended(body)
    assert done.returncode == code and said in done.stderr and "-> " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_fault_of_ours_is_told_with_its_details() -> None:
    done = _ended("raise KeyError('x')")
    assert done.returncode == 4 and "This is a fault in Atelier" in done.stderr
    assert "Traceback" in done.stderr


def test_names_of_files_cannot_steer_a_terminal() -> None:
    problem = Problem("a\x1b[2J\x07b.png is empty", where="folder\u202e", next="look\tat\nit")
    assert problem.text() == "folder\\u202e: a\\x1b[2J\\x07b.png is empty\n   -> look\tat\nit"
    assert problem.as_dict()["what"] == "a\x1b[2J\x07b.png is empty", "a page shows it as text in any case"


def test_letters_that_a_terminal_lacks_end_nothing() -> None:
    done = _ended("print('日本 \\udcff')", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0 and done.stdout == "\\u65e5\\u672c \\udcff\n"
