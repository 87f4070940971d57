"""A Generate page with files to choose from."""

from __future__ import annotations

import pytest

from ui.context import Context
from ui.drafts import Drafts
from ui.tabs.generate.drawing import Desk, DrawCalls


@pytest.fixture
def context(tmp_path) -> Context:
    (tmp_path / "runs").mkdir()
    for name in ("base.safetensors", "my lora.safetensors", "other.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    return Context(tmp_path, tmp_path / "runs", Drafts(tmp_path / "drafts"))


@pytest.fixture
def desk(context) -> Desk:
    return Desk(context)


@pytest.fixture
def calls(desk) -> DrawCalls:
    return DrawCalls(desk)
