"""One training step against the numbers of another trainer, on its own tensors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.settings import parse_command_line
from backend.train.probe import probe

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden"
FOLDERS = ("loss_parity", "sdxl")
CASES = [path for folder in FOLDERS for path in sorted((GOLDEN / folder).glob("*.json"))]
ROUNDING = 1.5e-7
"""Gradients below this are rounding noise, where a norm takes away what a layer adds."""


def test_the_reference_cases_are_at_hand(golden_dir: Path) -> None:
    assert {path.parent.name for path in CASES} == set(FOLDERS), golden_dir


@pytest.mark.parametrize(
    ("words", "loss", "norm"),
    [
        (["--v_parameterization", "--min_snr_gamma", "5"], 0.1968319, 0.073468),
        (["--max_token_length", "225"], 1.0167506, 0.304440),
        (["--cache_text_encoder_outputs", "--network_train_unet_only"], 1.0235194, 0.296183),
    ],
    ids=["v_minsnr5", "maxtok225", "cached_te"],
)
def test_sdxl_with_other_options(golden_dir: Path, words: list[str], loss: float, norm: float) -> None:
    case = golden_dir / "sdxl" / "xl_eps.json"
    given = json.loads(case.read_text(encoding="utf-8"))["argv"]
    argv = [str(GOLDEN / word) if word.startswith("in/") else word for word in given]
    settings = parse_command_line([*argv, *words], prog="probe", complete=False).settings
    found = probe(settings, case.with_suffix(".safetensors"), case, use_noisy_latents=False)
    assert found["loss"] == pytest.approx(loss, rel=1e-5)
    assert found["total_grad_norm"] == pytest.approx(norm, rel=1e-4)


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
        if norm > ROUNDING:
            assert found["grad_norms"][name] == pytest.approx(norm, rel=1e-3, abs=1e-6), name
