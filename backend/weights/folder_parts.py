"""What a diffusers folder is made of, and the parts that models of several families put into one.

The configurations say what diffusers and transformers need to build the parts; the names in them are theirs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from backend.data import tokens
from backend.families.parts.clip import ClipShape
from backend.families.parts.vae import VaeShape
from backend.wholefile import write_text

VERSION = "0.32.1"
"""Of diffusers, whose configurations these are."""


@dataclass(frozen=True)
class Component:
    """One folder inside, with a model's weights."""

    config: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]
    """By diffusers' or transformers' names."""
    text: bool = False
    """A text encoder."""


@dataclass(frozen=True)
class Contents:
    """All that a diffusers folder holds."""

    parts: Mapping[str, Component]
    scheduler: Mapping[str, Any]
    tokenizers: Mapping[str, Callable[[Path], None]]
    """Name -> what writes its folder."""
    index: Mapping[str, Any]


def text_config(shape: ClipShape, part: str) -> dict[str, Any]:
    """``config.json`` of a text encoder."""
    pooled = part == "text_encoder_2"
    return {
        "architectures": ["CLIPTextModelWithProjection" if pooled else "CLIPTextModel"],
        "model_type": "clip_text_model",
        "hidden_size": shape.width,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "hidden_act": shape.activation,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.positions,
        "projection_dim": shape.projection or shape.width,
        "layer_norm_eps": 1e-05,
        "attention_dropout": 0.0,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }


def vae_config(shape: VaeShape, family: str) -> dict[str, Any]:
    """``vae/config.json``."""
    levels = len(shape.widths)
    return {
        "_class_name": "AutoencoderKL",
        "_diffusers_version": VERSION,
        "act_fn": "silu",
        "block_out_channels": list(shape.widths),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": shape.latent_channels,
        "layers_per_block": shape.layers,
        "norm_num_groups": shape.norm_groups,
        "sample_size": 1024 if family == "sdxl" else 256,
        "scaling_factor": shape.scaling_factor,
        "force_upcast": True,
        "use_quant_conv": shape.quant,
        "use_post_quant_conv": shape.quant,
    }


def write_clip_tokenizer(folder: Path, padding: str) -> None:
    vocabulary = tokens.bpe().get_vocab()
    ordered = dict(sorted(vocabulary.items(), key=lambda item: item[1]))
    write_json(folder / "vocab.json", ordered)
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in tokens.merges())]
    _write_text(folder / "merges.txt", "\n".join(lines) + "\n")
    special = {
        "bos_token": tokens.START,
        "eos_token": tokens.END,
        "unk_token": tokens.END,
        "pad_token": padding,
    }
    write_json(folder / "special_tokens_map.json", special)
    facts: Mapping[str, Any] = {
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": 77,
        "tokenizer_class": "CLIPTokenizer",
        **special,
    }
    write_json(folder / "tokenizer_config.json", facts)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    _write_text(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
