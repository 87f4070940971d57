"""Keeps Gradio from writing type stubs into its own folder each time it is imported.

They are of use to editors of Gradio, and take nearly half of the time that importing it takes; a folder
that is read-only, or two starts at once, are spared the writing too.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_WRITER = "gradio.component_meta"


class _WithoutStubs(importlib.abc.MetaPathFinder):
    """Imports one module as ever, then takes from it what writes the stubs."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _WRITER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_without(module: ModuleType) -> None:
                load(module)
                if hasattr(module, "create_or_modify_pyi"):
                    module.create_or_modify_pyi = lambda *_: None  # pyright: ignore[reportAttributeAccessIssue]

            spec.loader.exec_module = load_without
        return spec


def leave_out() -> None:
    """From now on. To be called before Gradio is imported; later it does nothing."""
    if _WRITER not in sys.modules:
        sys.meta_path.insert(0, _WithoutStubs())
