"""What a U-Net model (SD 1.x, 2.x, SDXL) puts into a diffusers folder."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import torch

from backend.data import tokens
from backend.families.parts.latent import LatentDiffusion
from backend.families.parts.unet import UNetShape
from backend.weights.folder_parts import (
    VERSION,
    Component,
    Contents,
    text_config,
    vae_config,
    write_clip_tokenizer,
)

_SIZES = {"sd1": 64, "sd2": 64, "sdxl": 128}
"""Side of the latents that a model was made for."""


def contents(model: LatentDiffusion, kept: Collection[str] = ()) -> Contents:
    """Parts, configurations, schedule and tokenizers.

    Args:
        kept: parts whose numbers are the source's own, as for ``DiffusionModel.entries``.
    """
    shapes, state = model.shapes(), model.state(kept)
    configs: dict[str, dict[str, Any]] = {
        "unet": unet_config(shapes.unet, model.family),
        **{part: text_config(shape, part) for part, shape in shapes.texts.items()},
        "vae": vae_config(shapes.vae, model.family),
    }
    parts = {
        part: Component(config, _below(f"{part}.", state), part in shapes.texts)
        for part, config in configs.items()
    }
    names = ["tokenizer", "tokenizer_2"][: len(model.text_parts)]
    tokenizers = {name: partial(write_clip_tokenizer, padding=_padding(model, name)) for name in names}
    return Contents(parts, scheduler_config(model), tokenizers, _index(model))


def _below(start: str, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.removeprefix(start): tensor for key, tensor in state.items() if key.startswith(start)}


def _padding(model: LatentDiffusion, tokenizer: str) -> str:
    """CLIP-L is padded with the end, OpenCLIP's encoders with their first entry."""
    return "!" if tokenizer == "tokenizer_2" or model.family == "sd2" else tokens.END


def _index(model: LatentDiffusion) -> dict[str, Any]:
    found: dict[str, Any] = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": VERSION,
        "scheduler": ["diffusers", scheduler_config(model)["_class_name"]],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
    }
    if len(model.text_parts) > 1:
        found |= {
            "_class_name": "StableDiffusionXLPipeline",
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
            "force_zeros_for_empty_prompt": True,
        }
    else:
        found |= {"safety_checker": [None, None], "requires_safety_checker": None}
    return found


def scheduler_config(model: LatentDiffusion) -> dict[str, Any]:
    """The schedule that the model was trained with, as diffusers' DDIM sampler has it."""
    return {
        "_class_name": "DDIMScheduler",
        "_diffusers_version": VERSION,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "prediction_type": "v_prediction" if model.prediction == "v" else "epsilon",
        "rescale_betas_zero_snr": model.zero_terminal_snr,
        "timestep_spacing": "trailing" if model.zero_terminal_snr else "leading",
    }


def unet_config(shape: UNetShape, family: str) -> dict[str, Any]:
    """``unet/config.json``."""
    attends = [depth > 0 for depth in shape.depths]
    heads = shape.heads if isinstance(shape.heads, int) else list(shape.heads)
    found: dict[str, Any] = {
        "_class_name": "UNet2DConditionModel",
        "_diffusers_version": VERSION,
        "sample_size": _SIZES[family],
        "in_channels": shape.in_channels,
        "out_channels": shape.out_channels,
        "center_input_sample": False,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "down_block_types": ["CrossAttnDownBlock2D" if yes else "DownBlock2D" for yes in attends],
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": ["CrossAttnUpBlock2D" if yes else "UpBlock2D" for yes in reversed(attends)],
        "only_cross_attention": False,
        "block_out_channels": list(shape.widths),
        "layers_per_block": shape.layers,
        "downsample_padding": 1,
        "mid_block_scale_factor": 1,
        "act_fn": "silu",
        "norm_num_groups": shape.norm_groups,
        "norm_eps": 1e-05,
        "cross_attention_dim": shape.context_width,
        "attention_head_dim": heads,
        "use_linear_projection": shape.linear,
        "transformer_layers_per_block": 1,
    }
    if shape.label_width:
        depths = [max(depth, 1) for depth in shape.depths]  # the middle has the last level's
        found |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": shape.label_width,
            "transformer_layers_per_block": depths,
        }
    return found
