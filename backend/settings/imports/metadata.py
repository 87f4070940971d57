"""The settings that a file says it was trained with, as settings of this program: train again with them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from backend.settings import Settings
from backend.settings.declare import declarations
from backend.settings.settings import read_values
from backend.settings.tomlfile import to_toml

_SAME = (
    "output_name", "training_comment", "learning_rate", "text_encoder_lr", "unet_lr",
    "gradient_checkpointing", "gradient_accumulation_steps", "max_train_steps", "lr_warmup_steps",
    "lr_scheduler", "max_grad_norm", "network_module", "network_dim", "network_alpha",
    "network_dropout", "mixed_precision", "full_fp16", "fp8_base", "fp8_base_unet", "lowram",
    "clip_skip", "max_token_length", "cache_latents", "seed", "noise_offset",
    "noise_offset_random_strength", "multires_noise_iterations", "multires_noise_discount",
    "adaptive_noise_scale", "zero_terminal_snr", "ip_noise_gamma", "ip_noise_gamma_random_strength",
    "caption_dropout_rate", "caption_dropout_every_n_epochs", "caption_tag_dropout_rate",
    "face_crop_aug_range", "resize_interpolation", "prior_loss_weight", "min_snr_gamma",
    "scale_weight_norms", "loss_type", "huber_schedule", "huber_scale", "huber_c", "validation_seed",
    "validation_split", "max_validation_steps", "validate_every_n_epochs", "validate_every_n_steps",
    "resolution", "color_aug", "flip_aug", "random_crop", "shuffle_caption", "enable_bucket",
    "bucket_no_upscale", "min_bucket_reso", "max_bucket_reso", "keep_tokens", "weighting_scheme",
    "logit_mean", "logit_std", "mode_scale",
)  # fmt: skip
"""Options that stand in metadata under their own name with ``ss_`` before it."""
_OTHER = {
    "debiased_estimation": "debiased_estimation_loss",
    "batch_size_per_device": "train_batch_size",
    "sd_model_name": "pretrained_model_name_or_path",
    "vae_name": "vae",
}
_OPTIMIZER = re.compile(r"^(?:.*\.)?(\w+)(?:\((.*)\))?$")


@dataclass(frozen=True)
class TrainedWith:
    """What could be read back."""

    settings: Settings
    taken: dict[str, Any] = field(default_factory=lambda: dict[str, Any]())
    """Option -> value, as it stands in the file."""
    notes: list[str] = field(default_factory=lambda: list[str]())
    """What could not be taken, and why."""

    def toml(self, title: str) -> str:
        """The settings as a TOML file."""
        return to_toml(self.settings, {"title": title, "description": "read back from a trained file"})


def settings_of(metadata: Mapping[str, str]) -> TrainedWith:
    """The settings in ``ss_*`` metadata. Values that this program cannot take are left out and noted.

    A model is known there by its file's name only; a dataset by what its pictures were.
    """
    values = dict(metadata_values(metadata))
    notes: list[str] = []
    reading = read_values(values)
    while reading.problems:
        wrong = {problem.key for problem in reading.problems} & values.keys()
        notes += [f"{problem.key}: {problem.what}" for problem in reading.problems]
        if not wrong:
            break
        values = {key: value for key, value in values.items() if key not in wrong}
        reading = read_values(values)
    notes += [problem.what for problem in reading.notes]
    if "ss_datasets" in metadata or "ss_dataset_dirs" in metadata:
        notes.append(f"choose the pictures again: {', '.join(_folders(metadata)) or 'no folder is named'}")
    if "pretrained_model_name_or_path" in values:
        notes.append("the base model is known by its name only; choose its file")
    return TrainedWith(reading.settings, values, notes)


def metadata_values(metadata: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """Options and their values, as ``ss_*`` metadata has them."""
    known = declarations()
    for key in _SAME:
        text = metadata.get(f"ss_{key}", "None")
        if text != "None" and key in known:
            yield key, _size(text) if key == "resolution" else text
    for key, option in _OTHER.items():
        text = metadata.get(f"ss_{key}", "None")
        if text != "None" and option in known:
            yield option, text
    if "atelier.training_method" in metadata:
        yield "training_method", metadata["atelier.training_method"]
    yield from _optimizer(metadata.get("ss_optimizer", ""))
    yield from _network_args(metadata.get("ss_network_args", ""))
    if metadata.get("ss_base_model_version", "").endswith("_v"):
        yield "v_parameterization", "True"
    yield from _dataset(metadata)


def _size(text: str) -> str:
    """``(512, 768)`` as the option has it."""
    return ",".join(re.findall(r"\d+", text))


def _optimizer(text: str) -> Iterator[tuple[str, Any]]:
    """``bitsandbytes.optim.adamw.AdamW8bit(weight_decay=0.1)``"""
    match = _OPTIMIZER.match(text)
    if match:
        yield "optimizer_type", match[1]
        if match[2]:
            yield "optimizer_args", re.split(r",\s*(?=\w+=)", match[2])


def _network_args(text: str) -> Iterator[tuple[str, Any]]:
    found = _json(text)
    items = [f"{k}={v}" for k, v in found.items() if v not in (None, "None") and k != "dropout"]
    if items:
        yield "network_args", items


def _dataset(metadata: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """Of several datasets the first."""
    found = _json(metadata.get("ss_datasets", ""))
    first: dict[str, Any] = found.get("0", {})
    names = ("enable_bucket", "min_bucket_reso", "max_bucket_reso", "batch_size_per_device", "resolution")
    for key in names:
        value = first.get(key)
        if value is not None:
            yield _OTHER.get(key, key), _size(str(value)) if key == "resolution" else value
    subset = next(iter(cast("list[dict[str, Any]]", first.get("subsets") or [])), {})
    for key in ("shuffle_caption", "keep_tokens", "flip_aug", "color_aug", "random_crop", "caption_prefix"):
        if subset.get(key) is not None:
            yield key, subset[key]


def _folders(metadata: Mapping[str, str]) -> list[str]:
    return list(_json(metadata.get("ss_dataset_dirs", "")))


def _json(text: str) -> dict[str, Any]:
    """A table out of JSON; a list by place; {} when it is neither."""
    try:
        found: Any = json.loads(text)
    except ValueError:
        return {}
    if isinstance(found, list):
        return {
            str(place): item for place, item in enumerate(cast("list[Any]", found)) if isinstance(item, dict)
        }
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}
