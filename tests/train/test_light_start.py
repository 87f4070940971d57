"""A training on one card does not load what only several need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import sys, torch
from backend.train.idle import IdleWatch
from backend.train.sharding import gathered, norm_of
import backend.train.loop
assert norm_of(torch.ones(())) == 1 and gathered({"a": [torch.ones(2)]})["a"][0].sum() == 2
print([name for name in ("torch.distributed.tensor", "torch.distributed.fsdp", "sympy") if name in sys.modules])
"""


def test_a_norm_does_not_load_the_tensors_of_many_processes() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
