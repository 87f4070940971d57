"""One training step against the numbers of another trainer, on its own tensors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.settings import parse_command_line
from backend.train.probe import probe

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden"
CASES = sorted((GOLDEN / "loss_parity").glob("*.json")) if GOLDEN.is_dir() else []


def test_the_reference_cases_are_at_hand(golden_dir: Path) -> None:
    assert CASES, golden_dir


@pytest.mark.parametrize("noisy", [False, True], ids=["made", "given"])
@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_loss_and_gradients_of_one_step(case: Path, noisy: bool) -> None:
    expected = json.loads(case.read_text(encoding="utf-8"))
    argv = [str(GOLDEN / word) if word.startswith("in/") else word for word in expected["argv"]]
    settings = parse_command_line(argv, prog="probe", complete=False).settings
    found = probe(settings, case.with_suffix(".safetensors"), case, use_noisy_latents=noisy)
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    for key in ("total_grad_norm", "te_grad_norm", "unet_grad_norm"):
        assert found[key] == pytest.approx(expected[key], rel=1e-4)
    assert found["grad_norms"].keys() == expected["grad_norms"].keys()
    for name, norm in expected["grad_norms"].items():
        assert found["grad_norms"][name] == pytest.approx(norm, rel=1e-3, abs=1e-6), name
