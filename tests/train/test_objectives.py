"""Noise schedule arithmetic and loss weights against reference numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from backend.train.objectives import (
    Objective,
    add_noise,
    mask_to_latents,
    min_snr_weight,
    signal_to_noise,
    velocity,
)

REFERENCE = load_file(Path(__file__).parent.parent / "golden" / "loss_functions.safetensors")


def alphas(prefix: str = "") -> torch.Tensor:
    return REFERENCE[f"{prefix}alphas_cumprod"][REFERENCE["timesteps"]].view(-1, 1, 1, 1)


def test_signal_to_noise_is_the_reference_table() -> None:
    torch.testing.assert_close(
        signal_to_noise(REFERENCE["alphas_cumprod"]), REFERENCE["all_snr"], rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("prefix", ["", "zt_"])
def test_noisy_latents_and_velocity(prefix: str) -> None:
    latents, noise = REFERENCE["latents"], REFERENCE["noise"]
    torch.testing.assert_close(add_noise(latents, noise, alphas(prefix)), REFERENCE[f"{prefix}add_noise"])
    torch.testing.assert_close(velocity(latents, noise, alphas(prefix)), REFERENCE[f"{prefix}velocity"])


@pytest.mark.parametrize("gamma", [1, 5, 20])
@pytest.mark.parametrize("kind", ["eps", "v"])
def test_min_snr_weights(gamma: int, kind: str) -> None:
    snr = REFERENCE["all_snr"][REFERENCE["timesteps"]]
    weighted = REFERENCE["loss_in"] * min_snr_weight(snr, gamma, kind == "v")
    torch.testing.assert_close(weighted, REFERENCE[f"min_snr_g{gamma}_{kind}"], rtol=1e-5, atol=0)


def test_masked_loss_counts_masked_positions_in_the_mean() -> None:
    mask = REFERENCE["mask"][:, None]
    small = mask_to_latents(mask, (6, 8))
    torch.testing.assert_close(
        REFERENCE["masked_loss_in"] * small, REFERENCE["masked_loss_alpha"], rtol=1e-5, atol=1e-6
    )


def test_losses_follow_the_documented_order() -> None:
    objective = Objective(REFERENCE["alphas_cumprod"], min_snr_gamma=5.0)
    steps = REFERENCE["timesteps"]
    weights = torch.linspace(0.5, 2.0, len(steps))
    plain = Objective(REFERENCE["alphas_cumprod"]).losses(REFERENCE["pred"], REFERENCE["target"], steps)
    torch.testing.assert_close(plain, REFERENCE["cond_loss_l2"], rtol=1e-5, atol=1e-6)
    expected = plain * weights * min_snr_weight(REFERENCE["all_snr"][steps], 5.0, False)
    found = objective.losses(REFERENCE["pred"], REFERENCE["target"], steps, weights)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_black_mask_leaves_no_loss() -> None:
    objective = Objective(REFERENCE["alphas_cumprod"])
    masks = torch.zeros(10, 1, 48, 64)
    loss = objective.losses(REFERENCE["pred"], REFERENCE["target"], REFERENCE["timesteps"], masks=masks)
    assert loss.abs().sum() == 0
