"""Noise schedule arithmetic and loss weights against reference numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from backend.settings import Settings
from backend.train.objectives import (
    Distance,
    Objective,
    add_noise,
    mask_to_latents,
    min_snr_weight,
    signal_to_noise,
    velocity,
    zero_terminal,
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


def test_a_normalised_masked_loss_is_the_mean_over_the_mask() -> None:
    """Half a mask halves the loss; normalised, the same half counts in full. Black stays 0."""
    steps, (prediction, target) = REFERENCE["timesteps"], (REFERENCE["pred"], REFERENCE["target"])
    masks = torch.ones(10, 1, 48, 64)
    masks[:, :, :, 32:] = 0
    masks[0] = 0
    plain = objective().losses(prediction, target, steps, masks=masks)
    found = objective(masked_loss_normalize=True).losses(prediction, target, steps, masks=masks)
    left = objective().losses(prediction[..., :4], target[..., :4], steps)
    torch.testing.assert_close(found[1:], left[1:])
    torch.testing.assert_close(found, plain * 2)
    assert found[0] == 0
    whole = objective(masked_loss_normalize=True).losses(
        prediction, target, steps, masks=torch.ones_like(masks)
    )
    torch.testing.assert_close(whole, objective().losses(prediction, target, steps))


def objective(prefix: str = "", v: bool = False, **options: object) -> Objective:
    return Objective(REFERENCE[f"{prefix}alphas_cumprod"], v, **options)  # type: ignore[arg-type]


def weighted(built: Objective) -> torch.Tensor:
    return REFERENCE["loss_in"] * built.timestep_weights(REFERENCE["timesteps"])


@pytest.mark.parametrize(
    ("built", "name"),
    [
        (objective(v=True, scale_v_pred_loss_like_noise_pred=True), "scale_v_pred_like_noise"),
        (objective(v_pred_like_loss=0.5), "v_pred_like_0.5"),
        (objective(debiased_estimation_loss=True), "debiased_eps"),
        (objective(v=True, debiased_estimation_loss=True), "debiased_v"),
    ],
)
def test_weights_of_noise_levels(built: Objective, name: str) -> None:
    torch.testing.assert_close(weighted(built), REFERENCE[name], rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", ["eps", "v"])
@pytest.mark.parametrize("gamma", [1, 5, 20])
def test_weights_follow_the_zero_terminal_schedule(gamma: int, kind: str) -> None:
    """At the last step SNR is 0, where the reference divides 0 by 0 and the limit is 1."""
    found = weighted(objective("zt_", kind == "v", min_snr_gamma=float(gamma)))
    expected = REFERENCE[f"zt_min_snr_g{gamma}_{kind}"].nan_to_num(nan=1.0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_zero_terminal_schedule_is_the_reference_table() -> None:
    found = zero_terminal(REFERENCE["alphas_cumprod"])
    torch.testing.assert_close(found, REFERENCE["zt_alphas_cumprod"], rtol=1e-5, atol=1e-6)
    assert found[-1] == 0


@pytest.mark.parametrize(
    ("name", "distance"),
    [
        ("exp", Distance("huber", "exponential")),
        ("exp_s", Distance("huber", "exponential", huber_scale=2.0)),
        ("snr", Distance("huber", "snr")),
        ("const", Distance("huber", "constant")),
    ],
)
def test_huber_bounds(name: str, distance: Distance) -> None:
    found = distance.bound(REFERENCE["timesteps"], REFERENCE["alphas_cumprod"])
    torch.testing.assert_close(found, REFERENCE[f"huber_c_{name}"], rtol=1e-5, atol=1e-7)


def test_the_huber_scale_counts_in_the_snr_schedule_too() -> None:
    """sd-scripts ignores it there; its table for scale 2 equals the one for scale 1."""
    plain, scaled = (Distance("huber", huber_scale=scale) for scale in (1.0, 2.0))
    tables = [d.bound(REFERENCE["timesteps"], REFERENCE["alphas_cumprod"]) for d in (plain, scaled)]
    torch.testing.assert_close(tables[1], 2 * tables[0])
    torch.testing.assert_close(REFERENCE["huber_c_snr_s"], REFERENCE["huber_c_snr"])


@pytest.mark.parametrize("kind", ["l1", "l2", "huber", "smooth_l1"])
def test_losses_of_every_kind(kind: str) -> None:
    built = Objective(REFERENCE["alphas_cumprod"], distance=Distance(kind))  # type: ignore[arg-type]
    found = built.losses(REFERENCE["pred"], REFERENCE["target"], REFERENCE["timesteps"])
    torch.testing.assert_close(found, REFERENCE[f"cond_loss_{kind}"], rtol=1e-5, atol=1e-6)


CHANGES = {
    "loss_type": "huber",
    "huber_schedule": "constant",
    "huber_c": 0.5,
    "huber_scale": 2.0,
    "min_snr_gamma": 5.0,
    "scale_v_pred_loss_like_noise_pred": True,
    "v_pred_like_loss": 0.5,
    "debiased_estimation_loss": True,
    "zero_terminal_snr": True,
    "masked_loss_normalize": True,
}


@pytest.mark.parametrize("key", CHANGES)
def test_every_loss_option_changes_the_loss(key: str) -> None:
    masks = torch.ones(10, 1, 48, 64).tril()
    base = {"loss_type": "huber"} if key.startswith("huber") else {}
    v_prediction = key.startswith("scale_v")

    def losses(**options: object) -> torch.Tensor:
        settings = Settings.from_flat(options).loss
        built = Objective.of(settings, REFERENCE["alphas_cumprod"], v_prediction)
        return built.losses(REFERENCE["pred"], REFERENCE["target"], REFERENCE["timesteps"] // 2, masks=masks)

    if key == "zero_terminal_snr":  # changes what is put in, and weights
        base = {"min_snr_gamma": 5.0}
    assert (losses(**{**base, key: CHANGES[key]}) - losses(**base)).abs().max() > 1e-6
