"""Writing a model as a diffusers folder: a folder for each part, with its configuration.

What U-Net models (SD 1.x, 2.x, SDXL) put into one stands here, SD 3's in ``folder_sd3``. The configurations
say what diffusers and transformers need to build the parts; the names in them are theirs.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from backend.data import tokens
from backend.errors import InputError
from backend.families.base import DiffusionModel
from backend.families.parts.clip import ClipShape
from backend.families.parts.latent import LatentDiffusion
from backend.families.parts.unet import UNetShape
from backend.families.parts.vae import VaeShape
from backend.weights.reading import Rows
from backend.weights.streaming import Planned, Progress, silent, write_planned
from backend.wholefile import write_text

INDEX = "model_index.json"
"""The file that makes a folder a diffusers folder."""
_FOLDERS = (
    *("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3", "scheduler"),
    *("tokenizer", "tokenizer_2", "tokenizer_3"),
)
_NAMES = (
    *("config.json", "scheduler_config.json", "tokenizer_config.json", "special_tokens_map.json"),
    *(
        "vocab.json",
        "merges.txt",
        "tokenizer.json",
        "model*.safetensors",
        "diffusion_pytorch_model*",
        "pytorch_model*.bin",
    ),
)
VERSION = "0.32.1"
"""Of diffusers, whose configurations these are."""
_SIZES = {"sd1": 64, "sd2": 64, "sdxl": 128}
"""Side of the latents that a model was made for."""


def write_folder(
    model: DiffusionModel,
    path: Path,
    *,
    variant: str | None = None,
    reference: Path | None = None,
    progress: Progress = silent,
    dtype: torch.dtype | None = None,
    kept: Collection[str] = (),
    pickled: bool = False,
) -> list[str]:
    """Write ``model`` as a diffusers folder; it gets its name when all files are there.

    Args:
        variant: stands in the files' names (``fp16``).
        reference: a diffusers folder whose scheduler and tokenizers are taken.
        dtype: precision of the files; None: as in memory, and as in the source for kept parts.
        kept: parts whose numbers are the source's own, as for ``DiffusionModel.entries``.
        pickled: weights in ``.bin`` files, as old programs read them.

    Returns:
        The names of the files, relative to the folder.

    Raises:
        InputError: there is something under ``path``, or ``reference`` is no diffusers folder.
        RunFault, EnvironmentFault: as for any file.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} is there already", next="choose another name for the folder")
    if reference is not None and not (reference / "scheduler").is_dir():
        raise InputError(
            f"{reference} is no diffusers folder", next="give --reference_model a folder with scheduler"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{secrets.token_hex(6)}.partial")
    try:
        new.mkdir()
        contents = _contents(model, kept)
        _write_parts(contents, new, _Files(variant, dtype, kept, pickled), progress)
        _write_rest(contents, new, reference)
        if path.is_dir():
            path.rmdir()
        new.rename(path)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


@dataclass(frozen=True)
class _Files:
    """What the files of the parts are like."""

    variant: str | None
    dtype: torch.dtype | None
    kept: Collection[str]
    pickled: bool

    def name(self, text: bool) -> str:
        """Of a part's weights, by what diffusers and transformers look for."""
        stem = "model" if text else "diffusion_pytorch_model"
        if self.pickled and text:
            stem = "pytorch_model"
        middle = f".{self.variant}" if self.variant else ""
        return f"{stem}{middle}.{'bin' if self.pickled else 'safetensors'}"


def remove_folder(path: Path) -> None:
    """Remove what :func:`write_folder` wrote under ``path``; what else lies there stays. Raises OSError."""
    (path / INDEX).unlink(missing_ok=True)
    for folder in (path / name for name in _FOLDERS):
        for name in _NAMES:
            for file in folder.glob(name):
                file.unlink()
        with contextlib.suppress(OSError):  # it is not empty, or not there
            folder.rmdir()
    with contextlib.suppress(OSError):
        path.rmdir()


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


def _contents(model: DiffusionModel, kept: Collection[str]) -> Contents:
    if isinstance(model, LatentDiffusion):
        return _of_latent(model, kept)
    from backend.families.sd3.model import StableDiffusion3
    from backend.weights.folder_sd3 import contents

    assert isinstance(model, StableDiffusion3), f"no diffusers folder is known of {model.family}"
    return contents(model, kept)


def _of_latent(model: LatentDiffusion, kept: Collection[str]) -> Contents:
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


def _write_parts(contents: Contents, folder: Path, files: _Files, progress: Progress) -> None:
    for part, component in contents.parts.items():
        planned = [_planned(name, tensor, files.dtype) for name, tensor in component.tensors.items()]
        write_planned(folder / part / files.name(component.text), planned, {"format": "pt"}, progress)
        write_json(folder / part / "config.json", component.config)


def _planned(name: str, tensor: torch.Tensor, dtype: torch.dtype | None) -> Planned:
    def make(rows: Rows | None) -> torch.Tensor:
        return tensor if rows is None else tensor[rows[0] : rows[1]]

    target = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    return Planned(name, tuple(tensor.shape), target, make)


def _write_rest(contents: Contents, folder: Path, reference: Path | None) -> None:
    copied: set[str] = set()
    for name in ("scheduler", *contents.tokenizers):
        if reference is not None and (reference / name).is_dir():
            shutil.copytree(reference / name, folder / name)
            copied.add(name)
    if "scheduler" not in copied:
        write_json(folder / "scheduler" / "scheduler_config.json", contents.scheduler)
    for name, write in contents.tokenizers.items():
        if name not in copied:
            write(folder / name)
    write_json(folder / INDEX, contents.index)


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
