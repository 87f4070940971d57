"""Gradio is imported without its writing of type stubs, and works all the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import ast
seen, parse = [], ast.parse
def watched(source, *rest, **more):
    seen.append(str(source))
    return parse(source, *rest, **more)
ast.parse = watched
import ui
import gradio
with gradio.Blocks() as blocks:
    box = gradio.Textbox()
    box.change(lambda text: text, box, box)
print(sum("class Textbox" in source for source in seen), len(blocks.fns), "torch" in __import__("sys").modules)
"""


def test_no_stub_is_made_of_a_component() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["0", "1", "False"], done.stderr
