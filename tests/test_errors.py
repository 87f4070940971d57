"""How a command line ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
