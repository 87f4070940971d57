"""The file of exact versions."""

from __future__ import annotations

import re
from pathlib import Path

from tools.make_constraints import FILE, HEADER, kept


def test_torchs_own_are_left_to_torch() -> None:
    text = "# made by uv\nnumpy==2.4.6\n\ntorch==2.13.0\nnvidia-nccl-cu13==2.29.7 ; sys_platform == 'linux'\n"
    text += "torchsde==0.2\nhttpx2-jsfetch==1.0 ; sys_platform == 'emscripten'\ntriton==3.7.1\n"
    assert kept(text) == ["numpy==2.4.6", "torchsde==0.2"]


def test_the_file_is_what_the_tool_makes(root: Path) -> None:
    text = FILE.read_text(encoding="utf-8")
    lines = text.removeprefix(HEADER).splitlines()
    assert text.startswith(HEADER) and kept(text) == lines
    names = [line.split("==")[0] for line in lines]
    assert names == sorted(names), "in uv's order"
    wanted = (root / "requirements.txt").read_text() + (root / "requirements" / "dev.txt").read_text()
    for name in re.findall(r"^([\w-]+)(?:\[\w+\])?==", wanted, re.MULTILINE):
        assert name in names or name == "torch", f"{name} is asked for and has no version"
