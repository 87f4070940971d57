"""Keyed noise: the same numbers for a picture's visit, wherever and whenever it is drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from backend.settings import Settings
from backend.train.noise import (
    NoiseRules,
    draw_input_noise,
    draw_noise,
    draw_timesteps,
    multires,
    multires_sizes,
)

KEYS = [("0/a.png", 0), ("0/b.png", 0), ("0/a.png", 1)]
SHAPE = (4, 8, 8)
LATENTS = torch.linspace(-2, 2, 3 * 4 * 64).view(3, *SHAPE)
REFERENCE = load_file(Path(__file__).parent.parent / "golden" / "loss_functions.safetensors")


def test_a_visit_has_the_same_numbers_in_any_batch() -> None:
    rules = NoiseRules(seed=7, noise_offset=0.1)
    together = draw_noise(rules, KEYS, LATENTS)
    alone = draw_noise(rules, [KEYS[1]], LATENTS[1:2])
    assert torch.equal(together[1:2], alone)
    assert torch.equal(draw_timesteps(rules, KEYS)[2:], draw_timesteps(rules, [KEYS[2]]))


def test_visits_pictures_and_seeds_differ() -> None:
    noise = draw_noise(NoiseRules(seed=7), KEYS, LATENTS)
    assert not torch.equal(noise[0], noise[1])
    assert not torch.equal(noise[0], noise[2])
    assert not torch.equal(noise[0], draw_noise(NoiseRules(seed=8), KEYS, LATENTS)[0])


def test_offset_shifts_whole_channels() -> None:
    plain = draw_noise(NoiseRules(seed=7), KEYS, LATENTS)
    shifted = draw_noise(NoiseRules(seed=7, noise_offset=0.5), KEYS, LATENTS)
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
    noise = draw_noise(NoiseRules(seed=3), [(f"{n}", 0) for n in range(200)], torch.zeros(200, *SHAPE))
    assert abs(noise.mean().item()) < 0.01 and abs(noise.std().item() - 1) < 0.01


def test_a_range_of_one_timestep_is_a_constant() -> None:
    assert set(draw_timesteps(NoiseRules(1, min_timestep=300, max_timestep=300), KEYS).tolist()) == {300}


VARIANTS = {
    "offset": NoiseRules(7, noise_offset=0.3),
    "random strength": NoiseRules(7, noise_offset=0.3, noise_offset_random_strength=True),
    "adaptive": NoiseRules(7, noise_offset=0.3, adaptive_noise_scale=0.5),
    "multires": NoiseRules(7, multires_noise_iterations=6, multires_noise_discount=0.5),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_kind_of_noise_differs_and_belongs_to_the_visit(name: str) -> None:
    rules = VARIANTS[name]
    together = draw_noise(rules, KEYS, LATENTS)
    plain = draw_noise(NoiseRules(7), KEYS, LATENTS)
    assert (together - plain).abs().max() > 0.01
    torch.testing.assert_close(together[1:2], draw_noise(rules, [KEYS[1]], LATENTS[1:2]))
    others = [draw_noise(other, KEYS, LATENTS) for key, other in VARIANTS.items() if key != name]
    assert all((together - other).abs().max() > 0.01 for other in others)


def test_random_strength_is_between_nothing_and_all() -> None:
    rules = VARIANTS["random strength"]
    plain = draw_noise(NoiseRules(7), KEYS, LATENTS)
    whole = (draw_noise(VARIANTS["offset"], KEYS, LATENTS) - plain)[:, 0, 0, 0]
    part = (draw_noise(rules, KEYS, LATENTS) - plain)[:, 0, 0, 0]
    assert ((part / whole) > 0).all() and ((part / whole) < 1).all()


def test_adaptive_offset_is_the_documented_formula() -> None:
    for name, offset, scale in (
        ("noise_offset_0.1_adaptive_0.05", 0.1, 0.05),
        ("noise_offset_0.02_adaptive_-1", 0.02, -1.0),
    ):
        draw = "noise_offset_adaptive_neg_draw" if scale < 0 else "noise_offset_adaptive_draw"
        means = REFERENCE["latents"].mean(dim=(2, 3), keepdim=True).abs()
        expected = REFERENCE["noise"] + (offset + scale * means).clamp(min=0) * REFERENCE[draw]
        torch.testing.assert_close(expected, REFERENCE[name])
    keys = [(f"{n}", 0) for n in range(10)]
    adaptive = NoiseRules(1, noise_offset=0.1, adaptive_noise_scale=0.05)
    fixed = replace(adaptive, adaptive_noise_scale=None)
    plain = draw_noise(NoiseRules(1), keys, REFERENCE["latents"])
    shift = draw_noise(adaptive, keys, REFERENCE["latents"]) - plain
    base = draw_noise(fixed, keys, REFERENCE["latents"]) - plain
    means = REFERENCE["latents"].mean(dim=(2, 3), keepdim=True).abs()
    torch.testing.assert_close(shift, base * (0.1 + 0.05 * means) / 0.1, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "discount", "count"), [("multires_i6_d0.4", 0.4, 3), ("multires_i8_d0.3", 0.3, 4)]
)
def test_multi_resolution_noise_equals_the_reference(name: str, discount: float, count: int) -> None:
    draws = [REFERENCE[f"{name}_draw{level}"] for level in range(count)]
    found = multires(REFERENCE[f"{name}_in"], draws, discount=discount)
    torch.testing.assert_close(found, REFERENCE[name], rtol=1e-5, atol=1e-5)


def test_sizes_of_multi_resolution_noise_equal_the_reference() -> None:
    draws = [0.46300735781502145, 0.37331193139504204, 0.13853941251445523, 0.8665618499863413]
    assert multires_sizes((32, 24), draws) == [(32, 24), (11, 8), (6, 4), (1, 1)]
    assert multires_sizes((6, 8), draws) == [(6, 8), (2, 2), (1, 1)]


def test_input_perturbation_changes_the_input_and_not_the_target() -> None:
    rules = NoiseRules(7, ip_noise_gamma=0.1)
    noise = draw_noise(rules, KEYS, LATENTS)
    assert torch.equal(noise, draw_noise(NoiseRules(7), KEYS, LATENTS))
    extra = draw_input_noise(rules, KEYS, noise) - noise
    assert 0.08 < extra.std().item() < 0.12
    weaker = draw_input_noise(replace(rules, ip_noise_gamma_random_strength=True), KEYS, noise) - noise
    ratio = (weaker / extra).flatten(1)
    assert (ratio.std(dim=1) < 1e-3).all() and (ratio.mean(dim=1) < 1).all()
    assert draw_input_noise(NoiseRules(7), KEYS, noise) is noise


@pytest.mark.parametrize(
    ("key", "value", "base"),
    [
        ("noise_offset", 0.1, {}),
        ("noise_offset_random_strength", True, {"noise_offset": 0.1}),
        ("adaptive_noise_scale", 0.1, {"noise_offset": 0.1}),
        ("multires_noise_iterations", 4, {}),
        ("multires_noise_discount", 0.6, {"multires_noise_iterations": 4}),
        ("ip_noise_gamma", 0.1, {}),
        ("ip_noise_gamma_random_strength", True, {"ip_noise_gamma": 0.1}),
        ("min_timestep", 900, {}),
        ("max_timestep", 100, {}),
    ],
)
def test_every_noise_option_changes_what_is_drawn(key: str, value: object, base: dict[str, object]) -> None:
    def drawn(**options: object) -> list[torch.Tensor]:
        rules = NoiseRules.of(Settings.from_flat(options).loss, seed=3)
        noise = draw_noise(rules, KEYS, LATENTS)
        return [noise, draw_input_noise(rules, KEYS, noise), draw_timesteps(rules, KEYS)]

    before, after = drawn(**base), drawn(**{**base, key: value})
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
