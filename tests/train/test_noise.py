"""Keyed noise: the same numbers for a picture's visit, wherever and whenever it is drawn."""

from __future__ import annotations

import torch

from backend.train.noise import NoiseRules, draw_noise, draw_timesteps

KEYS = [("0/a.png", 0), ("0/b.png", 0), ("0/a.png", 1)]
SHAPE = (4, 8, 8)


def test_a_visit_has_the_same_numbers_in_any_batch() -> None:
    rules = NoiseRules(seed=7, noise_offset=0.1)
    together = draw_noise(rules, KEYS, SHAPE)
    alone = draw_noise(rules, [KEYS[1]], SHAPE)
    assert torch.equal(together[1:2], alone)
    assert torch.equal(draw_timesteps(rules, KEYS)[2:], draw_timesteps(rules, [KEYS[2]]))


def test_visits_pictures_and_seeds_differ() -> None:
    noise = draw_noise(NoiseRules(seed=7), KEYS, SHAPE)
    assert not torch.equal(noise[0], noise[1])
    assert not torch.equal(noise[0], noise[2])
    assert not torch.equal(noise[0], draw_noise(NoiseRules(seed=8), KEYS, SHAPE)[0])


def test_offset_shifts_whole_channels() -> None:
    plain = draw_noise(NoiseRules(seed=7), KEYS, SHAPE)
    shifted = draw_noise(NoiseRules(seed=7, noise_offset=0.5), KEYS, SHAPE)
    shift = shifted - plain
    assert torch.allclose(shift, shift[:, :, :1, :1].expand_as(shift), atol=1e-6)
    assert shift.abs().max() > 0.05


def test_timesteps_stay_in_range_and_are_uniform() -> None:
    keys = [(f"0/{n}.png", 0) for n in range(4000)]
    steps = draw_timesteps(NoiseRules(seed=1, min_timestep=200, max_timestep=400), keys)
    assert steps.min() >= 200 and steps.max() < 400
    assert abs(steps.float().mean().item() - 299.5) < 5
    everywhere = draw_timesteps(NoiseRules(seed=1), keys)
    assert everywhere.min() < 5 and everywhere.max() > 994


def test_noise_is_standard_normal() -> None:
    noise = draw_noise(NoiseRules(seed=3), [(f"{n}", 0) for n in range(200)], SHAPE)
    assert abs(noise.mean().item()) < 0.01 and abs(noise.std().item() - 1) < 0.01
