from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from backend.errors import InputError
from backend.generate import engine, pixels, samplers, sampling, vae
from backend.generate.guidance import Guidance
from backend.generate.noise import Noise
from backend.generate.request import Request

SMALL = Request("a cat", "blurry", width=64, height=64, steps=4, seed=5)


def latents_of(model, request: Request) -> torch.Tensor:
    return sampling.sample(model, engine.resolve(model, request)).final


@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
@pytest.mark.parametrize("steps", [1, 4, 7, 1000])
def test_every_sampler_gives_finite_latents(fake, sampler, steps):
    calls = []
    request = Request("a cat", seed=1, steps=steps, sampler=sampler)
    watch = engine.Watch(on_step=lambda *step: calls.append(step))
    latents = sampling.sample(fake, engine.resolve(fake, request), watch).final
    assert latents.shape == (1, 4, 8, 8)
    assert bool(torch.isfinite(latents).all())
    assert calls[-1] == (steps, steps)
    assert calls == sorted(calls)


@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_a_picture_is_the_same_alone_and_in_a_batch(fake, sampler):
    request = Request("a cat", seed=7, count=4, batch=4, steps=4, sampler=sampler)
    together = latents_of(fake, request)
    for index in range(4):
        alone = latents_of(fake, Request("a cat", seed=7 + index, steps=4, sampler=sampler))
        assert torch.allclose(together[index], alone[0], atol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_noise_is_the_one_of_a_cpu_generator(fake):
    request = engine.resolve(fake, SMALL)[0]
    noise = Noise(fake, [request]).draw((8, 8))
    assert torch.equal(noise, torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(5)))


def test_the_global_random_stream_is_not_used(fake):
    before = torch.get_rng_state()
    first = engine.generate(fake, [SMALL])[0]
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(999)
    assert engine.generate(fake, [SMALL])[0].tobytes() == first.tobytes()


def test_prompts_of_one_batch_keep_their_own_text(fake):
    cat, dog = (Request(text, seed=3, steps=4, batch=2) for text in ("a cat", "a dog"))
    both = [np.asarray(image) for image in engine.generate(fake, [cat, dog])]
    alone = [np.asarray(engine.generate(fake, [request])[0]) for request in (cat, dog)]
    for left, right in zip(both, alone, strict=True):
        assert np.abs(left.astype(int) - right.astype(int)).max() <= 1
    assert not np.array_equal(both[0], both[1])


def test_guidance_of_one_is_the_plain_prediction(fake):
    seen = []
    predict = fake.predict
    fake.predict = lambda noisy, *rest: seen.append(len(noisy)) or predict(noisy, *rest)
    latents_of(fake, Request("a cat", seed=3, steps=2, scale=1.0))
    latents_of(fake, Request("a cat", seed=3, steps=2, scale=2.0))
    assert seen == [1, 1, 2, 2]


def test_guidance_is_the_documented_arithmetic(fake):
    request = engine.resolve(fake, Request("a cat", "a dog", seed=3, steps=2, scale=3.5))
    noisy, time = torch.randn(1, 4, 8, 8), torch.tensor(500)
    with torch.no_grad():
        got = Guidance(fake, request).predict(noisy, time)
        cat, dog = (
            fake.predict(noisy, time[None], fake.encode_text(fake.tokenize([t]))) for t in ("a cat", "a dog")
        )
    assert torch.allclose(got, dog + 3.5 * (cat - dog), atol=1e-5)


def test_training_mode_is_off_meanwhile_and_back_afterwards(fake):
    fake.denoiser.train()
    fake.denoiser.conv.eval()
    trained = [engine.generate(fake, [SMALL])[0].tobytes() for _ in range(2)]
    assert trained[0] == trained[1], "dropout was active"
    assert fake.denoiser.training and fake.denoiser.dropout.training and not fake.denoiser.conv.training


def test_stop_ends_within_a_step_and_restores_the_model(fake):
    fake.denoiser.train()
    steps = []
    with pytest.raises(engine.Stopped):
        engine.generate(
            fake, [SMALL], on_step=lambda *s: steps.append(s), should_stop=lambda: len(steps) == 2
        )
    assert steps == [(1, 4), (2, 4)]
    assert fake.denoiser.training


def test_odd_sizes_and_long_prompts_are_changed_with_a_note(fake):
    request = engine.resolve(fake, Request("word " * 5000, width=513, height=700, steps=0, seed=-1))[0]
    assert (request.width, request.height, request.steps) == (512, 696, 1)
    assert request.seed is not None and request.seed >= 0
    text = " / ".join(request.notes)
    assert "513x700 became 512x696" in text and "steps 0 became 1" in text
    assert "25000 tokens" in text and "first 75" in text


@pytest.mark.parametrize("side, expected", [(1, 64), (70, 64), (99_999, 4096), (None, 64)])
def test_sides_stay_in_range(fake, side, expected):
    request = engine.resolve(fake, Request("x", width=side, height=side))[0]
    assert (request.width, request.height) == (expected, expected)


def test_seeds_count_up(fake):
    assert [r.seed for r in engine.resolve(fake, Request("x", seed=10, count=3))] == [10, 11, 12]


def test_an_unknown_sampler_names_the_known_ones(fake):
    with pytest.raises(InputError, match=r"'magic'[\s\S]*euler_a"):
        engine.generate(fake, [Request("x", sampler="magic")])


@pytest.mark.parametrize(
    "name, expected",
    [
        ("k_euler_a", "euler_a"),
        ("Euler a", "euler_a"),
        ("DPM++ 2M Karras", "dpmsolver++_karras"),
        ("PLMS", "pndm"),
        ("k_dpm_2", "dpm_2"),
        ("nothing", None),
    ],
)
def test_samplers_are_known_under_several_names(name, expected):
    assert samplers.canonical(name) == expected


def test_schedulers_follow_the_models_own_schedule(fake):
    scheduler = samplers.build("ddim", fake.alphas_cumprod(), "epsilon", 10)
    assert torch.allclose(scheduler.alphas_cumprod, fake.alphas_cumprod(), rtol=2e-4)


@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_zero_terminal_snr_schedules_give_finite_latents(fake, sampler):
    root = fake.alphas_cumprod().sqrt()
    fixed = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    fake.alphas_cumprod = lambda: fixed
    fake.prediction = "v"
    assert bool(torch.isfinite(latents_of(fake, Request("a cat", seed=1, steps=5, sampler=sampler))).all())


def test_half_precision_overflow_of_the_vae_is_mended(fake):
    plain = vae.decode(fake, torch.full((1, 4, 8, 8), 2.0))[0]
    decode = fake.decode_latents

    def overflowing(latents):
        pixels = decode(latents)
        return pixels * float("nan") if next(fake.vae.parameters()).dtype == torch.float16 else pixels

    fake.decode_latents = overflowing
    fake.vae.half()
    pixels, note = vae.decode(fake, torch.full((1, 4, 8, 8), 2.0))
    assert torch.allclose(pixels, plain, atol=2e-2)
    assert "half precision" in note
    assert next(fake.vae.parameters()).dtype == torch.float16


def test_broken_weights_give_a_named_fault(fake):
    with torch.no_grad():
        fake.denoiser.text.weight.fill_(float("nan"))
    drawn = next(iter(engine.draw(fake, [SMALL])))
    assert "black" in drawn.fault and "learning rate" in drawn.fault


@pytest.mark.parametrize("colour, word", [((0, 0, 0), "black"), ((90, 10, 200), "one colour")])
def test_constant_pictures_are_faulty(colour, word):
    assert word in pixels.constant_fault(Image.new("RGB", (16, 16), colour))


def test_real_pictures_are_not_faulty(fake):
    assert next(iter(engine.draw(fake, [SMALL]))).fault == ""
