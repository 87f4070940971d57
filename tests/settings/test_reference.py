"""What must follow from the declarations: the reference page, and an import that stays light."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from backend.settings import declarations


def test_the_reference_page_is_up_to_date(root: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_reference", root / "tools" / "make_reference.py")
    assert spec and spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    page = (root / "docs" / "options.md").read_text(encoding="utf-8")
    assert page == tool.reference(), "run: python tools/make_reference.py"
    assert all(f"| `{key}` |" in page for key in declarations())


def test_settings_load_nothing_heavy() -> None:
    code = "import sys, backend.settings; print([m for m in ('torch', 'numpy', 'gradio', 'transformers') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
