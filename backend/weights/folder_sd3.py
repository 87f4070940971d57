"""What an SD 3 or 3.5 model puts into a diffusers folder."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from backend.data import tokens
from backend.families.parts.clip import ClipShape
from backend.families.sd3 import keys, t5
from backend.families.sd3.mmdit import MMDiTShape
from backend.families.sd3.model import CLIP_G, CLIP_L, T5, StableDiffusion3
from backend.families.sd3.t5 import FARTHEST, T5Encoder, T5Shape
from backend.weights.folder_parts import (
    VERSION,
    Component,
    Contents,
    text_config,
    vae_config,
    write_clip_tokenizer,
    write_json,
)

_SHIFT = 3.0
"""Of the published models' sampling schedule."""
_SAMPLE = 128
"""Side of the latents that they were made for."""
_T5_LENGTH = 512


def contents(model: StableDiffusion3, kept: Collection[str] = ()) -> Contents:
    """Parts, configurations, schedule and tokenizers; without T5 where the model has none.

    Args:
        kept: parts whose numbers are the source's own, as for ``DiffusionModel.entries``.
    """
    state, shape = model.state(kept), model.transformer.shape
    denoiser = transformer_state(state["transformer"], shape.depth)
    parts = {"transformer": Component(transformer_config(shape), denoiser)}
    for key, part, folder in ((CLIP_L, "clip_l", "text_encoder"), (CLIP_G, "clip_g", "text_encoder_2")):
        parts[folder] = Component(_clip_config(model.clip(key).shape), state[part], text=True)
    tokenizers: dict[str, Callable[[Path], None]] = {
        "tokenizer": partial(write_clip_tokenizer, padding=tokens.END),
        "tokenizer_2": partial(write_clip_tokenizer, padding="!"),
    }
    if T5 in model.text_encoders:
        encoder = cast(T5Encoder, model.text_encoders[T5])
        parts["text_encoder_3"] = Component(t5_config(encoder.shape), state["t5xxl"], text=True)
        tokenizers["tokenizer_3"] = _write_t5_tokenizer
    vae = model.autoencoder.shape
    config = vae_config(vae, model.family) | {"shift_factor": vae.shift_factor, "sample_size": 1024}
    parts["vae"] = Component(config, state["vae"])
    return Contents(parts, _scheduler(), tokenizers, _index(T5 in model.text_encoders))


def transformer_state(state: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """A transformer's tensors by diffusers' names, queries, keys and values apart; ``depth``: its blocks."""
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        other = keys.twin(name, depth)
        whole = torch.cat(tensor.chunk(2)[::-1]) if other.swapped else tensor
        found |= dict(zip(other.names, whole.chunk(len(other.names)), strict=True))
    return found


def transformer_config(shape: MMDiTShape) -> dict[str, Any]:
    """``transformer/config.json``."""
    return {
        "_class_name": "SD3Transformer2DModel",
        "_diffusers_version": VERSION,
        "sample_size": _SAMPLE,
        "patch_size": shape.patch,
        "in_channels": shape.in_channels,
        "out_channels": shape.out_channels,
        "num_layers": shape.depth,
        "attention_head_dim": shape.width // shape.heads,
        "num_attention_heads": shape.heads,
        "joint_attention_dim": shape.context_width,
        "caption_projection_dim": shape.width,
        "pooled_projection_dim": shape.pooled_width,
        "pos_embed_max_size": shape.grid,
        "dual_attention_layers": sorted(shape.dual),
        "qk_norm": "rms_norm" if shape.qk_norm else None,
    }


def _clip_config(shape: ClipShape) -> dict[str, Any]:
    """Both have a projection, whose output is what the model reads."""
    return text_config(shape, "text_encoder_2")


def t5_config(shape: T5Shape) -> dict[str, Any]:
    """``text_encoder_3/config.json``."""
    return {
        "architectures": ["T5EncoderModel"],
        "model_type": "t5",
        "d_model": shape.width,
        "d_ff": shape.inner,
        "d_kv": shape.head_size,
        "num_heads": shape.heads,
        "num_layers": shape.layers,
        "num_decoder_layers": shape.layers,
        "vocab_size": shape.vocabulary,
        "relative_attention_num_buckets": shape.buckets,
        "relative_attention_max_distance": FARTHEST,
        "feed_forward_proj": "gated-gelu",
        "dense_act_fn": "gelu_new",
        "is_gated_act": True,
        "dropout_rate": 0.1,
        "layer_norm_epsilon": 1e-06,
        "initializer_factor": 1.0,
        "is_encoder_decoder": True,
        "tie_word_embeddings": False,
        "decoder_start_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }


def _scheduler() -> dict[str, Any]:
    return {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "_diffusers_version": VERSION,
        "num_train_timesteps": 1000,
        "shift": _SHIFT,
    }


def _index(with_t5: bool) -> dict[str, Any]:
    third: dict[str, Any] = (
        {
            "text_encoder_3": ["transformers", "T5EncoderModel"],
            "tokenizer_3": ["transformers", "T5TokenizerFast"],
        }
        if with_t5
        else {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}
    )
    clip = ["transformers", "CLIPTextModelWithProjection"]
    return {
        "_class_name": "StableDiffusion3Pipeline",
        "_diffusers_version": VERSION,
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": clip,
        "text_encoder_2": clip,
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        **third,
        "transformer": ["diffusers", "SD3Transformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
    }


def _write_t5_tokenizer(folder: Path) -> None:
    special = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_bytes(gzip.decompress(t5.ASSET.read_bytes()))
    write_json(folder / "special_tokens_map.json", special)
    facts = {"tokenizer_class": "T5TokenizerFast", "model_max_length": _T5_LENGTH, **special}
    write_json(folder / "tokenizer_config.json", facts)
