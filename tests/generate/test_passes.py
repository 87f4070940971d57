"""What a request asks for beside a prompt: pictures to start from, masks, second passes, variations, tiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from backend.errors import InputError
from backend.generate import engine, guidance, pixels, sampling, text, vae
from backend.generate.noise import Noise, slerp
from backend.generate.preview import Preview
from backend.generate.request import Hires, Request
from tests.generate.fake import FakeModel
from tests.train.small import SmallModel

ASKED = {"prompt": "a cat", "width": 64, "height": 64, "steps": 4, "seed": 5}


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "given.png"
    Image.linear_gradient("L").resize((128, 96)).convert("RGB").save(path)
    return str(path)


def request_of(**more) -> Request:
    return Request(**{**ASKED, **more})


def drawn(model, **more) -> list[engine.Drawn]:
    return list(engine.draw(model, [request_of(**more)]))


def latents_of(model, **more) -> torch.Tensor:
    return sampling.sample(model, engine.resolve(model, request_of(**more))).final


def given_latents(model, path: str) -> torch.Tensor:
    return vae.encode(model, pixels.to_pixels(pixels.covering(pixels.open_picture(path, "image"), 64, 64)))


def test_strength_says_how_much_of_a_picture_is_drawn_anew(fake, picture):
    start = given_latents(fake, picture)
    away = [float((latents_of(fake, image=picture, strength=s) - start).norm()) for s in (0, 0.25, 0.5, 1)]
    assert away[0] == 0 and away == sorted(away)


def test_a_request_without_a_size_has_that_of_its_picture(fake, picture):
    (found,) = engine.resolve(fake, Request("x", image=picture))
    assert (found.width, found.height) == (128, 96)
    (found,) = engine.resolve(fake, Request("x", image=picture, width=64))
    assert (found.width, found.height) == (64, 64)


def test_steps_are_counted_over_all_passes(fake, picture):
    seen = []
    asked = request_of(steps=10, image=picture, strength=0.5, hires=Hires(1.5, steps=8, strength=0.5))
    list(engine.draw(fake, [asked], on_step=lambda *step: seen.append(step)))
    assert seen == [(step, 9) for step in range(1, 10)]


def test_outside_a_mask_the_picture_stays_to_the_pixel(fake, picture, tmp_path):
    mask = Image.new("L", (128, 96))
    mask.paste(255, (48, 32, 80, 64))
    mask.save(tmp_path / "mask.png")
    (made,) = drawn(fake, width=128, height=96, image=picture, mask=str(tmp_path / "mask.png"), strength=1.0)
    before, after = np.asarray(Image.open(picture)), np.asarray(made.image)
    inside = np.asarray(mask) > 0
    assert np.array_equal(before[~inside], after[~inside])
    assert np.abs(before[inside].astype(int) - after[inside]).mean() > 5


@pytest.mark.parametrize("key", ["image", "mask"])
def test_a_picture_that_is_not_there_is_named(fake, picture, key):
    with pytest.raises(InputError, match=r"gone\.png"):
        drawn(fake, **{"image": picture, key: "gone.png"})


@pytest.mark.parametrize("mode", ["latent", "image"])
def test_a_second_pass_gives_a_larger_picture_of_the_first(fake, mode):
    (made,) = drawn(fake, hires=Hires(1.5, mode, strength=0.5, save_first=True))
    assert made.image.size == (96, 96)
    assert made.first.tobytes() == drawn(fake)[0].image.tobytes()
    (exact,) = drawn(fake, hires=Hires(mode=mode, width=130, height=72))
    assert exact.image.size == (128, 72)


def test_a_second_pass_of_no_strength_is_the_enlarged_first(fake):
    first = latents_of(fake)
    enlarged = torch.nn.functional.interpolate(first, (12, 12), mode="bilinear")
    assert torch.equal(latents_of(fake, hires=Hires(1.5, strength=0)), enlarged)


def test_variations_lie_between_two_noises_and_are_as_long(fake):
    own, other = (Noise(fake, [request_of(seed=seed)]).draw((32, 32)) for seed in (5, 9))
    noises = [
        Noise(fake, [request_of(variation_seed=9, variation_strength=share)]).draw((32, 32))
        for share in (0.0, 0.3, 1.0)
    ]
    assert torch.equal(noises[0], own) and torch.allclose(noises[2], other, atol=1e-5)
    assert float(noises[1].norm() / own.norm()) == pytest.approx(1, abs=0.05)
    assert torch.nn.functional.cosine_similarity(noises[1].flatten(), own.flatten(), dim=0) > 0.8
    assert torch.equal(slerp(own, own, 0.5), own)


def test_variations_count_up_their_own_seed(fake):
    found = engine.resolve(fake, request_of(count=3, variation_seed=7, variation_strength=0.2))
    assert [(each.seed, each.variation_seed) for each in found] == [(5, 7), (5, 8), (5, 9)]
    assert engine.resolve(fake, request_of(variation_seed=7))[0].variation_seed is None


def test_tiles_join_to_what_the_whole_gives(fake):
    """The decoder of the fake model looks at each place alone, so tiles may not differ at all."""
    latents = torch.randn((1, 4, 21, 30), generator=torch.Generator().manual_seed(0))
    whole, tiled = vae.decode(fake, latents)[0], vae.decode(fake, latents, 64)[0]
    assert tiled.shape == whole.shape == (1, 3, 168, 240)
    assert torch.allclose(tiled, whole, atol=1e-5)
    pictures = torch.rand((1, 3, 168, 240), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(vae.encode(fake, pictures, 64), vae.encode(fake, pictures), atol=1e-5)


def test_tiles_can_be_left_between(fake):
    def stop():
        raise engine.Stopped

    with pytest.raises(engine.Stopped):
        vae.decode(fake, torch.zeros(1, 4, 32, 32), 64, stop)


def test_a_long_step_is_left_inside_of_it(fake):
    blocks = torch.nn.ModuleList([fake.denoiser.conv, fake.denoiser.text])
    fake.denoiser.blocks = blocks
    ran = []
    fake.denoiser.conv.register_forward_hook(lambda *_: ran.append("conv"))
    fake.denoiser.text.register_forward_hook(lambda *_: ran.append("text"))
    with pytest.raises(engine.Stopped):
        list(engine.draw(fake, [request_of()], should_stop=lambda: bool(ran)))
    assert ran == ["text"], "the step went on after the first block"
    assert not fake.denoiser.conv._forward_pre_hooks


def test_previews_come_as_they_are_asked_for_and_look_like_the_picture(fake):
    seen: list[Image.Image] = []
    with torch.no_grad():  # a decoder of which a linear map can tell
        fake.vae.up.weight.copy_(fake.vae.up.weight.mean((2, 3), keepdim=True).expand_as(fake.vae.up.weight))
        fake.vae.up.weight.mul_(0.2)
    made = list(
        engine.draw(fake, [request_of()], on_preview=lambda images: seen.extend(images), preview_seconds=0)
    )
    assert len(seen) == 4 and seen[-1].size == (8, 8)
    small = np.asarray(made[0].image.resize((8, 8), Image.Resampling.BOX), dtype=float)
    assert np.abs(np.asarray(seen[-1], dtype=float) - small).mean() < 12
    assert list(engine.draw(fake, [request_of()], on_preview=seen.append, preview_seconds=1e9))
    assert len(seen) == 4


def test_no_preview_is_worked_out_when_nobody_looks(fake):
    drawn(fake)
    assert not Preview.of(fake).is_fitted


@pytest.mark.parametrize("prediction", ["epsilon", "v", "flow"])
def test_a_preview_is_the_picture_when_the_prediction_is_right(fake, prediction):
    fake.prediction = prediction
    picture, noise = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    alpha = fake.alphas_cumprod()[600]
    noisy, output = alpha.sqrt() * picture + (1 - alpha).sqrt() * noise, noise
    if prediction == "v":
        output = alpha.sqrt() * noise - (1 - alpha).sqrt() * picture
    if prediction == "flow":
        noisy, output = 0.4 * picture + 0.6 * noise, noise - picture
    seen = guidance.Guidance(fake, [request_of()]).finished(noisy, output, torch.tensor(600))
    assert torch.allclose(seen, picture, atol=1e-4)


def test_a_scale_for_the_negative_prompt_alone(fake):
    request = engine.resolve(
        fake, request_of(prompt="a cat", negative="a dog", scale=3.0, negative_scale=2.0)
    )
    noisy, time = torch.randn(1, 4, 8, 8), torch.tensor(500)
    with torch.no_grad():
        got = guidance.Guidance(fake, request).predict(noisy, time)
        cat, dog, none = (
            fake.predict(noisy, time[None], fake.encode_text(fake.tokenize([t])))
            for t in ("a cat", "a dog", "")
        )
    assert torch.allclose(got, none + 3 * (cat - none) - 2 * (dog - none), atol=1e-5)


def test_a_schedule_that_ends_in_noise_is_drawn_when_it_is_asked_for(fake):
    fake.prediction = "v"
    assert not torch.allclose(
        latents_of(fake, zero_terminal_snr=True), latents_of(fake, zero_terminal_snr=False), atol=1e-3
    )
    assert float(guidance.schedule_of(fake, Request(zero_terminal_snr=True))[-1]) == pytest.approx(
        0, abs=1e-9
    )


class TestText:
    @pytest.mark.parametrize(
        ("prompt", "parts"),
        [
            ("a cat", ["a cat"]),
            ("a cat BREAK a dog", ["a cat", "a dog"]),
            ("BREAK x", ["", "x"]),
            ("breakfast BREAKFAST", ["breakfast BREAKFAST"]),
            (r"\{a\} x", ["{a} x"]),
        ],
    )
    def test_break_ends_a_part(self, prompt, parts):
        assert text.parts(prompt) == parts

    def test_brackets_reach_over_a_break(self):
        from backend.data.emphasis import parse

        first, second = text.parts(r"a (red \(one\) BREAK blue:1.5) [x]")
        assert [(each.text, each.weight) for each in parse(first)] == [("a ", 1), ("red (one)", 1.5)]
        found = [(each.text, round(each.weight, 9)) for each in parse(second)]
        assert found == [("blue", 1.5), (" ", 1), ("x", round(1 / 1.1, 9))]

    @pytest.mark.parametrize(
        ("mode", "kept"), [("original", lambda h: h.mean()), ("abs", lambda h: h.abs().mean())]
    )
    def test_what_emphasis_is_brought_back_to(self, mode, kept):
        model = SmallModel()
        plain = text.encode(model, ["a cat"], None, None, torch.device("cpu"))["hidden"]
        weighed = text.encode(model, ["a (cat:1.6)"], None, None, torch.device("cpu"), mode)["hidden"]
        assert float(kept(weighed)) == pytest.approx(float(kept(plain)), rel=1e-4)
        bare = text.encode(model, ["a (cat:1.6)"], None, None, torch.device("cpu"), "none")["hidden"]
        assert torch.allclose(bare[0, 2:5], plain[0, 2:5] * 1.6) and torch.equal(bare[0, :2], plain[0, :2])


def test_what_needs_attachments_is_left_out_with_a_note_where_there_are_none():
    (made,) = drawn(FakeModel(), prompt="a cat <lora:style:0.5>")
    assert made.request.prompt == "a cat" and "loras cannot be used here" in " ".join(made.request.notes)
