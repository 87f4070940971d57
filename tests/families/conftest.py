"""Fixtures of the family tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from backend import families
from backend.families.sd1.model import StableDiffusion1


@pytest.fixture(scope="session")
def tiny(tiny_sd15: Path) -> StableDiffusion1:
    """The narrow model in float32. Tests that change its weights load their own."""
    torch.set_num_threads(1)
    model = families.load(tiny_sd15)
    assert isinstance(model, StableDiffusion1)
    return model


@pytest.fixture(scope="session")
def tiny_golden(golden_dir: Path) -> Path:
    """The narrow checkpoint that the reference numbers were made with."""
    return golden_dir / "in" / "tiny_sd15_fp16.safetensors"
