"""What a result file says about how it was made.

``ss_*`` as sd-scripts writes them, so that every viewer and importer reads them; ``modelspec.*``
(Stability's model metadata standard 1.0.1); the ``sshs_*`` hashes by which other programs know a
LoRA. Values are what ``str()`` gives: "None", "True". Of paths only the last part is written.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend import __version__
from backend.data.types import DatasetPlan
from backend.train.modelspec import words_for_people
from backend.train.provenance_data import dataset_metadata
from backend.weights import hashes
from backend.weights.metadata import content_hashes
from backend.weights.safefile import write_safetensors, write_torch

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from backend.settings import Settings


@dataclass(frozen=True)
class TrainingFacts:
    """What only the running trainer knows. Settings and dataset plan say the rest."""

    session_id: int
    """A random number for the run."""
    started_at: float
    """Unix time, seconds."""
    family: str
    """``sd1``, ``sd2``, ``sdxl`` or ``sd3``."""
    base_model: Path
    seed: int
    """As used, drawn or given."""
    optimizer: str
    """``torch.optim.adamw.AdamW(weight_decay=0.1)``."""
    max_train_steps: int
    num_epochs: int
    batches_per_epoch: int
    vae: Path | None = None
    """A VAE used in place of the one inside the base model."""
    prediction: str = "epsilon"
    """``epsilon``, ``v`` or ``flow``."""
    variant: str = ""
    """Of SD 3: ``medium``, ``5-medium``, ``5-large``."""
    own_rate: bool = False
    """The optimizer finds its learning rate itself (Adafactor with relative_step)."""
    processes: int = 1
    validation_images: int = 0
    steps: int = 0
    """Optimizer steps behind the file."""
    epoch: int = 0
    """The file's epoch, 1-based."""
    finished_at: float | None = None
    """Unix time; None: the time of writing."""

    def at(self, steps: int, epoch: int) -> TrainingFacts:
        """The facts for a file written now."""
        return replace(self, steps=steps, epoch=epoch, finished_at=time.time())


@dataclass(frozen=True)
class _Family:
    """How a family is named in metadata. ``{v}``: SD 3's variant."""

    version: str
    architecture: str
    resolution: int
    implementation: str = "diffusers"
    marks_v: bool = True
    """v prediction stands in the version's name."""


_SDXL_CODE = "https://github.com/Stability-AI/generative-models"
_FAMILIES: Mapping[str, _Family] = {
    "sd1": _Family("sd_v1", "stable-diffusion-v1", 512),
    "sd2": _Family("sd_v2", "stable-diffusion-v2-512", 512),
    "sd2_v": _Family("sd_v2_v", "stable-diffusion-v2-768-v", 768),
    "sdxl": _Family("sdxl_base_v1-0", "stable-diffusion-xl-v1-base", 1024, _SDXL_CODE, marks_v=False),
    "sd3": _Family("{v}", "stable-diffusion-3-{v}", 1024),
}

# Keys that repeat an option: the option's name, and what sd-scripts writes where this program has no
# such option (its default there, which is what happens here).
_OPTIONS: Mapping[str, tuple[str, object]] = {
    "ss_output_name": ("output_name", None),
    "ss_training_comment": ("training_comment", None),
    "ss_gradient_checkpointing": ("gradient_checkpointing", False),
    "ss_gradient_accumulation_steps": ("gradient_accumulation_steps", 1),
    "ss_lr_warmup_steps": ("lr_warmup_steps", 0),
    "ss_max_grad_norm": ("max_grad_norm", 1.0),
    "ss_network_module": ("network_module", "networks.lora"),
    "ss_network_dim": ("network_dim", None),
    "ss_network_alpha": ("network_alpha", 1.0),
    "ss_network_dropout": ("network_dropout", None),
    "ss_mixed_precision": ("mixed_precision", "no"),
    "ss_full_fp16": ("full_fp16", False),
    "ss_fp8_base": ("fp8_base", False),
    "ss_fp8_base_unet": ("fp8_base_unet", False),
    "ss_lowram": ("lowram", False),
    "ss_clip_skip": ("clip_skip", None),
    "ss_max_token_length": ("max_token_length", None),
    "ss_cache_latents": ("cache_latents", False),
    "ss_noise_offset": ("noise_offset", None),
    "ss_noise_offset_random_strength": ("noise_offset_random_strength", False),
    "ss_multires_noise_iterations": ("multires_noise_iterations", None),
    "ss_multires_noise_discount": ("multires_noise_discount", 0.3),
    "ss_adaptive_noise_scale": ("adaptive_noise_scale", None),
    "ss_zero_terminal_snr": ("zero_terminal_snr", False),
    "ss_ip_noise_gamma": ("ip_noise_gamma", None),
    "ss_ip_noise_gamma_random_strength": ("ip_noise_gamma_random_strength", False),
    "ss_caption_dropout_rate": ("caption_dropout_rate", 0.0),
    "ss_caption_dropout_every_n_epochs": ("caption_dropout_every_n_epochs", 0),
    "ss_caption_tag_dropout_rate": ("caption_tag_dropout_rate", 0.0),
    "ss_face_crop_aug_range": ("face_crop_aug_range", None),
    "ss_resize_interpolation": ("resize_interpolation", None),
    "ss_prior_loss_weight": ("prior_loss_weight", 1.0),
    "ss_min_snr_gamma": ("min_snr_gamma", None),
    "ss_scale_weight_norms": ("scale_weight_norms", None),
    "ss_debiased_estimation": ("debiased_estimation_loss", False),
    "ss_loss_type": ("loss_type", "l2"),
    "ss_huber_schedule": ("huber_schedule", "snr"),
    "ss_huber_scale": ("huber_scale", 1.0),
    "ss_huber_c": ("huber_c", 0.1),
    "ss_validation_seed": ("validation_seed", None),
    "ss_validation_split": ("validation_split", 0.0),
    "ss_max_validation_steps": ("max_validation_steps", None),
    "ss_validate_every_n_epochs": ("validate_every_n_epochs", None),
    "ss_validate_every_n_steps": ("validate_every_n_steps", None),
}
_FLOW_OPTIONS = (
    "apply_lg_attn_mask", "apply_t5_attn_mask", "weighting_scheme", "logit_mean", "logit_std", "mode_scale",
    "training_shift",
)  # fmt: skip
"""What files of models that follow a flow say besides."""
_OF_NETWORKS = ("scale_weight_norms", "fp8_base", "fp8_base_unet")
_MINIMUM = (
    "ss_v2",
    "ss_base_model_version",
    "ss_network_module",
    "ss_network_dim",
    "ss_network_alpha",
    "ss_network_args",
)


def network_metadata(settings: Settings, plan: DatasetPlan, facts: TrainingFacts) -> dict[str, str]:
    """All metadata of a network's file but the ``sshs_*`` hashes, which :func:`save_network` adds.

    With ``no_metadata`` it is :func:`minimum_metadata`. Hashing the base model may take seconds the
    first time: see :func:`backend.weights.hashes.prefetch`.
    """
    if settings.metadata.no_metadata:
        return minimum_metadata(settings, facts)
    options = settings.flat()
    found: dict[str, object] = {key: options.get(name, other) for key, (name, other) in _OPTIONS.items()}
    found.update(_arguments(settings))
    return training_metadata(settings, plan, facts, found) | modelspec(settings, facts)


def model_metadata(
    settings: Settings, plan: DatasetPlan, facts: TrainingFacts, kind: str = "", word: str = "Checkpoint"
) -> dict[str, str]:
    """All metadata of what is no network; with ``no_metadata`` only ``modelspec.*``.

    A model that was itself trained, a word, a ControlNet-LLLite (``kind`` and ``word``: see
    :func:`modelspec`). There is nothing in it of networks, by which other programs tell a LoRA.
    """
    spec = modelspec(settings, facts, kind, word)
    if settings.metadata.no_metadata:
        return spec
    options = settings.flat()
    found: dict[str, object] = {
        key: options.get(name, other)
        for key, (name, other) in _OPTIONS.items()
        if "network" not in key and name not in _OF_NETWORKS
    }
    found["atelier.training_method"] = settings.model.training_method
    return training_metadata(settings, plan, facts, found) | spec


def training_metadata(
    settings: Settings, plan: DatasetPlan, facts: TrainingFacts, found: Mapping[str, object]
) -> dict[str, str]:
    """``found`` and what the run, its pictures and its base model add, as text."""
    options = settings.flat()
    found = {**found, **_run_metadata(settings, plan, facts)}
    if facts.prediction == "flow":
        found.update({f"ss_{name}": options[name] for name in _FLOW_OPTIONS})
    found.update(dataset_metadata(settings, plan, facts.processes))
    found.update(_model_metadata("sd_model", facts.base_model))
    if facts.vae is not None:
        found.update(_model_metadata("vae", facts.vae))
    return {key: str(value) for key, value in found.items()}


def minimum_metadata(settings: Settings, facts: TrainingFacts) -> dict[str, str]:
    """What a file needs so that other programs can use it: family, kind and size of the network."""
    options = settings.flat()
    found: dict[str, object] = {key: options.get(name, other) for key, (name, other) in _OPTIONS.items()}
    found.update(_identity(facts) | _arguments(settings))
    return {key: str(found[key]) for key in _MINIMUM if key in found} | modelspec(settings, facts)


def modelspec(
    settings: Settings, facts: TrainingFacts, kind: str = "/lora", word: str = "LoRA"
) -> dict[str, str]:
    """``modelspec.*`` of a result. Fields without a value are left out.

    ``kind``: what stands behind the architecture's name; ``word``: the title of a nameless result.
    """
    family = _family(facts)
    now = datetime.fromtimestamp(facts.finished_at or time.time())
    width, height = settings.dataset.resolution or (family.resolution, family.resolution)
    found = {
        "sai_model_spec": "1.0.1",
        "architecture": family.architecture.format(v=facts.variant) + kind,
        "implementation": family.implementation,
        "title": settings.saving.output_name or f"{word}@{now.timestamp()}",
        "resolution": f"{width}x{height}",
        "date": now.isoformat(timespec="seconds"),
        "prediction_type": "v" if facts.prediction == "v" else "epsilon",
        "implementation_version": f"atelier/{__version__}",
        "encoder_layer": settings.model.clip_skip,
        "timestep_range": _timestep_range(settings),
    }
    words = {key: value for key, value in words_for_people(settings.metadata).items() if value}
    return {f"modelspec.{key}": str(value) for key, value in (found | words).items() if value is not None}


def _timestep_range(settings: Settings) -> str | None:
    low, high = settings.loss.min_timestep, settings.loss.max_timestep
    return None if (low, high) == (0, 1000) else f"{low},{high}"


def save_network(
    path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str], dtype: torch.dtype | None
) -> None:
    """Write a network's file, whole or not at all. ``.ckpt`` and ``.pt`` carry no metadata.

    Args:
        dtype: precision of all floating-point tensors in the file; None keeps theirs.

    Raises:
        RunFault: a tensor is not finite, also after the change of precision; the disk is full.
        EnvironmentFault: the folder cannot be written to.
    """
    tensors = {n: t.to(dtype) if dtype and t.is_floating_point() else t for n, t in weights.items()}
    if path.suffix == ".safetensors":
        write_safetensors(path, tensors, {**metadata, **content_hashes(tensors, metadata)})
    else:
        write_torch(path, tensors)


def _family(facts: TrainingFacts) -> _Family:
    return _FAMILIES.get(f"{facts.family}_{facts.prediction}") or _FAMILIES[facts.family]


def _identity(facts: TrainingFacts) -> dict[str, object]:
    family = _family(facts)
    version = family.version.format(v=facts.variant)
    if facts.prediction == "v" and family.marks_v and not version.endswith("_v"):
        version += "_v"
    return {"ss_v2": facts.family == "sd2", "ss_base_model_version": version}


def _text_rates(settings: Settings) -> object:
    """The rate of all text encoders, or a list of their own ones, as sd-scripts is given it."""
    section = settings.optimizer
    own = (section.text_encoder_lr1, section.text_encoder_lr2, section.text_encoder_lr3)
    if all(rate is None for rate in own):
        return section.text_encoder_lr
    common = section.learning_rate if section.text_encoder_lr is None else section.text_encoder_lr
    return [common if rate is None else rate for rate in (own if own[2] is not None else own[:2])]


def _run_metadata(settings: Settings, plan: DatasetPlan, facts: TrainingFacts) -> dict[str, object]:
    optimizer, schedule = settings.optimizer, settings.schedule
    own = facts.own_rate
    return {
        **_identity(facts),
        "ss_session_id": facts.session_id,
        "ss_training_started_at": facts.started_at,
        "ss_training_finished_at": facts.finished_at or time.time(),
        "ss_sd_scripts_commit_hash": "(unknown)",
        "atelier.version": __version__,
        "ss_learning_rate": None if own else optimizer.learning_rate,
        "ss_unet_lr": None if own else optimizer.unet_lr,
        "ss_text_encoder_lr": None if own else _text_rates(settings),
        "ss_lr_scheduler": f"adafactor:{optimizer.learning_rate}" if own else schedule.lr_scheduler,
        "ss_optimizer": facts.optimizer,
        "ss_num_train_images": plan.train_images,
        "ss_num_reg_images": plan.reg_images,
        "ss_num_validation_images": facts.validation_images,
        "ss_num_batches_per_epoch": facts.batches_per_epoch,
        "ss_num_epochs": facts.num_epochs,
        "ss_epoch": facts.epoch,
        "ss_steps": facts.steps,
        "ss_max_train_steps": facts.max_train_steps,
        "ss_seed": facts.seed,
        **({} if optimizer.ema_decay is None else {"atelier.ema_decay": optimizer.ema_decay}),
    }


def _arguments(settings: Settings) -> dict[str, object]:
    """``ss_network_args``, when there are any: as text, as they would stand on a command line."""
    from backend.settings.declare import declarations

    options = settings.flat()
    found: dict[str, Any] = dict(item.split("=", 1) for item in settings.network.network_args)
    for key, declared in declarations().items():
        shown = all(options[other] in wanted for other, wanted in declared.info.show_if)
        if not declared.info.network_arg or not shown or options[key] is None:
            continue
        if options[key] != declared.default or key == "algo":
            found[key] = str(options[key])
    if not found:
        return {}
    if not settings.network.dim_from_weights:
        found.setdefault("dropout", settings.network.network_dropout)
    return {"ss_network_args": json.dumps(found)}


def _model_metadata(which: str, path: Path) -> dict[str, object]:
    """Name and hashes of the base model (``sd_model``) or VAE (``vae``)."""
    found: dict[str, object] = {f"ss_{which}_name": path.name}
    if path.exists():
        found[f"ss_{which}_hash"] = _hash_or_word(hashes.legacy_hash, path)
        found[f"ss_new_{which}_hash"] = _hash_or_word(hashes.sha256, path)
    return found


def _hash_or_word(compute: Callable[[Path], str], path: Path) -> str:
    try:
        return "IsADirectory" if path.is_dir() else compute(path)
    except OSError:
        return "NOFILE"
