"""One training step against the numbers of another trainer, on its own tensors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

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


def loss_of(tensors: Path, captions: Path, *words: str) -> float:
    """Loss of the case ``eps`` with further options, on other tensors or captions."""
    case = GOLDEN / "loss_parity" / "eps.json"
    given = json.loads(case.read_text(encoding="utf-8"))["argv"]
    argv = [str(GOLDEN / word) if word.startswith("in/") else word for word in given]
    settings = parse_command_line([*argv, *words], prog="probe", complete=False).settings
    return probe(settings, tensors, captions, use_noisy_latents=False)["loss"]


def test_emphasis_counts_where_it_is_asked_for(golden_dir: Path, tmp_path: Path) -> None:
    tensors = golden_dir / "loss_parity" / "eps.safetensors"
    losses: dict[str, float] = {}
    for text in ("a red cat", "a (red:1.0) cat", "a (red:1.5) cat"):
        captions = tmp_path / "captions.json"
        captions.write_text(json.dumps({"captions": [text, text]}), encoding="utf-8")
        losses[text] = loss_of(tensors, captions, "--weighted_captions")
    plain, one, more = losses.values()
    assert one == pytest.approx(plain, rel=1e-6) and more != pytest.approx(plain, rel=1e-5)


def test_transparency_that_is_given_is_a_mask(golden_dir: Path, tmp_path: Path) -> None:
    case = golden_dir / "loss_parity" / "masked.json"
    given = load_file(case.with_suffix(".safetensors"))
    given["batch_alpha_masks"] = (given.pop("batch_conditioning_images")[:, 0] + 1) / 2
    save_file(given, tmp_path / "alpha.safetensors")
    expected = json.loads(case.read_text(encoding="utf-8"))["loss"]
    assert loss_of(tmp_path / "alpha.safetensors", case) == pytest.approx(expected, rel=1e-5)


def test_noise_on_the_input_is_in_the_noisy_latents_alone(golden_dir: Path, tmp_path: Path) -> None:
    case = golden_dir / "loss_parity" / "eps.json"
    given = load_file(case.with_suffix(".safetensors"))
    given["noisy_latents"] += 0.1
    save_file(given, tmp_path / "input.safetensors")
    expected = json.loads(case.read_text(encoding="utf-8"))["loss"]
    assert loss_of(tmp_path / "input.safetensors", case) == pytest.approx(expected, rel=1e-5)
    found = loss_of(tmp_path / "input.safetensors", case, "--ip_noise_gamma", "0.1")
    assert found != pytest.approx(expected, rel=1e-4)


def test_a_text_encoder_with_a_rate_of_0_acts_without_learning(golden_dir: Path) -> None:
    """sd-scripts leaves such a part out of the optimizer, and keeps it in the model and in the file."""
    case = golden_dir / "loss_parity" / "eps.json"
    expected = json.loads(case.read_text(encoding="utf-8"))["loss"]
    tensors = case.with_suffix(".safetensors")
    assert loss_of(tensors, case, "--text_encoder_lr", "0") == pytest.approx(expected, rel=1e-5)
    alone = loss_of(tensors, case, "--network_train_unet_only")
    assert alone != pytest.approx(expected, rel=1e-4)
