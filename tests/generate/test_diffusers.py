"""Our pictures against diffusers' own pipelines: same scheduler, noise and embeddings, on small random models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

from backend import families
from backend.demo.tiny import build_tiny_sd2, build_tiny_sdxl
from backend.generate import engine, pixels, sampling, vae
from backend.generate.request import Request, StatedSizes
from tests.families import sd3_kit
from tests.families.reference import reference_unet
from tests.families.test_sd3 import from_diffusers, reference_transformer

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
DDIM = {**SD, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
ASKED = {
    "prompt": "a photo of a cat",
    "negative": "blurry",
    "width": 64,
    "height": 96,
    "steps": 4,
    "seed": 11,
}
CALL: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 7.5, "output_type": "latent"}


@pytest.fixture(scope="module")
def sd1(tiny_sd15):
    return families.load(tiny_sd15)


@pytest.fixture(scope="module")
def small_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    build_tiny_sd2(folder / "sd2.safetensors", metadata={"modelspec.prediction_type": "v"})
    build_tiny_sdxl(folder / "sdxl.safetensors")
    sd3_kit.build(folder / "sd3.safetensors", dtype=torch.float32)
    return folder


def ours(model, **more) -> torch.Tensor:
    return sampling.sample(model, engine.resolve(model, Request(**{**ASKED, **more}))).final


def texts(model, name: str = "hidden") -> dict[str, torch.Tensor]:
    with torch.no_grad():
        negative, prompt = (
            model.encode_text(model.tokenize([ASKED[k]]))[name] for k in ("negative", "prompt")
        )
    return {"prompt_embeds": prompt, "negative_prompt_embeds": negative}


def pipeline(kind: str, model, scheduler: Any, **more: Any) -> Any:
    import diffusers

    unet = reference_unet(model)
    unet.register_to_config(sample_size=64)
    parts = {
        "vae": None,
        "text_encoder": None,
        "tokenizer": None,
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
        "unet": unet,
        **more,
    }
    made = getattr(diffusers, kind)(scheduler=scheduler, **parts)
    made.set_progress_bar_config(disable=True)
    return made


def drawn(made: Any, **call: Any) -> torch.Tensor:
    with torch.no_grad():
        return made(generator=torch.Generator().manual_seed(11), **{**CALL, **call}).images


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and float((a - b).abs().max()) < 1e-3


def test_sd2_that_predicts_v(small_files):
    from diffusers import EulerDiscreteScheduler

    model = families.load(small_files / "sd2.safetensors")
    assert model.prediction == "v"
    scheduler = EulerDiscreteScheduler(**SD, prediction_type="v_prediction")
    theirs = drawn(pipeline("StableDiffusionPipeline", model, scheduler), width=64, height=96, **texts(model))
    assert close(ours(model, sampler="euler"), theirs)


@pytest.mark.parametrize("stated", [None, StatedSizes(128, 160, 32, 48, 8, 16)])
def test_sdxl(small_files, stated):
    import diffusers

    model = families.load(small_files / "sdxl.safetensors")
    made = diffusers.StableDiffusionXLPipeline(
        vae=None, text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None,
        unet=reference_unet(model), scheduler=diffusers.EulerDiscreteScheduler(**SD), add_watermarker=False,
    )  # fmt: skip
    made.set_progress_bar_config(disable=True)
    both = texts(model, "pooled")
    pooled = {
        "pooled_prompt_embeds": both["prompt_embeds"],
        "negative_pooled_prompt_embeds": both["negative_prompt_embeds"],
    }
    sizes = {} if stated is None else {
        "original_size": (160, 128), "negative_original_size": (48, 32), "crops_coords_top_left": (8, 16),
        "negative_crops_coords_top_left": (8, 16), "target_size": (96, 64), "negative_target_size": (96, 64),
    }  # fmt: skip
    theirs = drawn(made, width=64, height=96, **texts(model), **pooled, **sizes)
    assert close(ours(model, sampler="euler", stated=stated), theirs)


def test_sd3(small_files):
    import diffusers

    model = families.load(small_files / "sd3.safetensors")
    reference = reference_transformer(sd3_kit.MEDIUM)
    model.denoiser.load_state_dict(from_diffusers(reference.state_dict()))
    made = diffusers.StableDiffusion3Pipeline(
        transformer=reference, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), vae=None,
        text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None, text_encoder_3=None,
        tokenizer_3=None,
    )  # fmt: skip
    made.set_progress_bar_config(disable=True)
    found = {}
    with torch.no_grad():
        for start, key in (("", "prompt"), ("negative_", "negative")):
            text = model.encode_text(model.tokenize([ASKED[key]]))
            context, pooled = model._joined(text, torch.device("cpu"), torch.float32)
            found |= {f"{start}prompt_embeds": context, f"{start}pooled_prompt_embeds": pooled}
    theirs = drawn(made, width=64, height=96, **found)
    assert close(ours(model), theirs)


@pytest.fixture
def given(sd1, tmp_path):
    """A picture's file, a mask's file, the mask, and the latents of the picture."""
    image = Image.linear_gradient("L").resize((64, 96)).convert("RGB")
    mask = Image.new("L", (64, 96))
    ImageDraw.Draw(mask).rectangle((16, 24, 47, 71), fill=255)
    image.save(tmp_path / "image.png")
    mask.save(tmp_path / "mask.png")
    latents = vae.encode(sd1, pixels.to_pixels(image))
    return str(tmp_path / "image.png"), str(tmp_path / "mask.png"), mask, latents


@pytest.mark.parametrize("sampler", ["ddim", "euler", "dpmsolver++"])
def test_from_a_picture(sd1, given, sampler):
    import diffusers

    scheduler = {
        "ddim": lambda: diffusers.DDIMScheduler(**DDIM),
        "euler": lambda: diffusers.EulerDiscreteScheduler(**SD),
        "dpmsolver++": lambda: diffusers.DPMSolverMultistepScheduler(**SD),
    }[sampler]()
    made = pipeline("StableDiffusionImg2ImgPipeline", sd1, scheduler)
    theirs = drawn(made, image=given[3], strength=0.5, **texts(sd1))
    assert close(ours(sd1, sampler=sampler, image=given[0], strength=0.5), theirs)


@pytest.mark.parametrize("strength", [0.75, 1.0])
def test_inside_a_mask(sd1, given, strength):
    import diffusers

    picture, mask, mask_image, latents = given
    small = diffusers.AutoencoderKL(
        block_out_channels=(4, 4, 4, 4), norm_num_groups=1, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    scheduler = diffusers.EulerDiscreteScheduler(**SD)
    made = pipeline("StableDiffusionInpaintPipeline", sd1, scheduler, vae=small)
    call = {"image": latents, "masked_image_latents": latents, "mask_image": mask_image, "strength": strength}
    theirs = drawn(made, width=64, height=96, **call, **texts(sd1))
    found = ours(sd1, sampler="euler", image=picture, mask=mask, strength=strength)
    assert close(found, theirs)
    assert close(found[..., :3, :], latents[..., :3, :]), "outside the mask nothing changes"
