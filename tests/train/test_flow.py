"""The flow objective: noise levels, weights, losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from backend.settings import Settings
from backend.train.flow import FlowObjective, FlowTimes, shifted, velocity_weight
from backend.train.noise import NoiseRules, draw_timesteps

KEYS = [(f"p{i}", i % 3) for i in range(2000)]


@pytest.fixture(scope="module")
def golden(golden_dir: Path) -> dict[str, Tensor]:
    return load_file(golden_dir / "out" / "sd3_weighting.safetensors")


def times(**options: Any) -> FlowTimes:
    return FlowTimes.of(Settings.from_flat(options))


def drawn(low: int = 0, high: int = 1000, keys: list[tuple[str, int]] = KEYS, **options: Any) -> Tensor:
    rules = NoiseRules(5, min_timestep=low, max_timestep=high, flow=times(**options))
    return draw_timesteps(rules, keys)


def test_weights_are_the_reference_on_the_velocity(golden: dict[str, Tensor]) -> None:
    """The reference weighs the error of clean pictures, which is sigma^2 times the velocity's."""
    sigmas = golden["sigmas"]
    restored = velocity_weight("sigma_sqrt", sigmas) / sigmas.square()
    torch.testing.assert_close(restored, golden["sd3_weight_sigma_sqrt"], rtol=1e-5, atol=0)
    torch.testing.assert_close(velocity_weight("cosmap", sigmas), golden["sd3_weight_cosmap"])
    for scheme in ("none", "mode"):
        torch.testing.assert_close(velocity_weight(scheme, sigmas), golden[f"sd3_weight_{scheme}"])  # type: ignore[arg-type]
    torch.testing.assert_close(velocity_weight("x0", sigmas), sigmas.square())
    assert bool(torch.isfinite(velocity_weight("sigma_sqrt", torch.zeros(1))))


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_shifted_levels_are_the_schedulers(shift: float, golden: dict[str, Tensor]) -> None:
    plain = torch.arange(1000, 0, -1) / 1000
    torch.testing.assert_close(shifted(plain, shift), golden[f"sd3_sched_sigmas_shift{shift}"])
    torch.testing.assert_close(shifted(plain, shift) * 1000, golden[f"sd3_sched_timesteps_shift{shift}"])


def test_timesteps_are_float32_and_belong_to_their_picture() -> None:
    found = drawn()
    assert found.dtype == torch.float32 and found.min() >= 0 and found.max() < 1000
    assert len(found.unique()) > 1900  # no rounding to whole or coarser numbers
    assert torch.equal(drawn(keys=KEYS[70:73]), found[70:73])
    assert 450 < found.mean() < 550


def test_schemes_prefer_what_they_say() -> None:
    middle = lambda t: ((t > 250) & (t < 750)).float().mean()  # noqa: E731
    assert middle(drawn()) < 0.55
    assert middle(drawn(weighting_scheme="logit_normal")) > 0.65
    assert middle(drawn(weighting_scheme="logit_normal", logit_std=0.3)) > 0.95
    assert drawn(weighting_scheme="logit_normal", logit_mean=1.0).mean() > 650
    mode = drawn(weighting_scheme="mode")
    assert middle(mode) > 0.6 and mode.min() >= 0 and mode.max() <= 1000
    assert drawn(training_shift=3.0).mean() > 600


def test_mode_is_the_papers_formula() -> None:
    u = torch.linspace(0, 1, 11)
    expected = [1 - x - 0.8 * (torch.cos(torch.pi / 2 * x) ** 2 - 1 + x) for x in u]
    torch.testing.assert_close(
        times(weighting_scheme="mode", mode_scale=0.8).shares(u), torch.stack(expected)
    )


def test_bounds_scale_the_levels() -> None:
    found = drawn(200, 400)
    assert found.min() >= 200 and found.max() < 400 and 290 < found.mean() < 310
    assert bool((drawn(700, 700) == 700).all())


def objective(**options: Any) -> FlowObjective:
    return FlowObjective.of(Settings.from_flat(options))


def test_the_target_is_the_way_to_the_noise() -> None:
    latents, noise = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    steps = torch.tensor([0.0, 250.0, 1000.0])
    flow = objective()
    noisy = flow.noisy(latents, noise, steps)
    torch.testing.assert_close(noisy[0], latents[0])
    torch.testing.assert_close(noisy[1], 0.75 * latents[1] + 0.25 * noise[1])
    torch.testing.assert_close(noisy[2], noise[2])
    velocity = flow.target(latents, noise, steps)
    sigma = (steps / 1000).view(-1, 1, 1, 1)
    torch.testing.assert_close(noisy - sigma * velocity, latents)


def test_each_picture_is_weighed_by_itself() -> None:
    prediction, target = (
        torch.zeros(2, 4, 2, 2),
        torch.stack([torch.full((4, 2, 2), 1.0), torch.full((4, 2, 2), 2.0)]),
    )
    steps = torch.tensor([100.0, 800.0])
    plain = objective().losses(prediction, target, steps)
    torch.testing.assert_close(plain, torch.tensor([1.0, 4.0]))
    for scheme in ("cosmap", "x0"):
        weights = velocity_weight(scheme, steps / 1000)  # type: ignore[arg-type]
        torch.testing.assert_close(
            objective(weighting_scheme=scheme).losses(prediction, target, steps), plain * weights
        )
    both = objective().losses(
        prediction, target, steps, torch.tensor([0.5, 1.0]), torch.full((2, 1, 16, 16), 0.5)
    )
    torch.testing.assert_close(both, plain * torch.tensor([0.25, 0.5]))


@pytest.mark.parametrize(
    ("schedule", "bounds"),
    [
        ("constant", (0.1, 0.1)),
        ("exponential", (0.1**0.2, 0.1**0.9)),
        ("snr", (0.9 * 0.64 + 0.1, 0.9 * 0.01 + 0.1)),
    ],
)
def test_huber_bounds_follow_the_level(schedule: str, bounds: tuple[float, float]) -> None:
    flow = objective(loss_type="huber", huber_schedule=schedule)
    steps = torch.tensor([200.0, 900.0])
    torch.testing.assert_close(flow.distance.bound(steps, steps), torch.tensor(bounds))
    error = torch.full((2, 4, 2, 2), 0.3)
    c = torch.tensor(bounds)
    torch.testing.assert_close(
        flow.losses(error, torch.zeros_like(error), steps), 2 * c * ((0.09 + c**2).sqrt() - c)
    )


def test_a_normalised_masked_loss_counts_a_small_mask_in_full() -> None:
    masks = torch.zeros(2, 1, 64, 64)
    masks[:, :, :16] = 1
    arguments = torch.ones(2, 4, 8, 8), torch.zeros(2, 4, 8, 8), torch.tensor([100.0, 900.0])
    plain = FlowObjective().losses(*arguments, masks=masks)
    found = FlowObjective(masked_loss_normalize=True).losses(*arguments, masks=masks)
    assert plain.tolist() == [0.25, 0.25] and found.tolist() == [1.0, 1.0]
