"""What settings mean for the family of the base model: options that are not for it, sizes it cannot
have, and what its loader is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from backend.data.types import DatasetPlan
from backend.errors import InputError, Problem
from backend.families import FAMILIES
from backend.families.options import LoadOptions
from backend.settings import Settings
from backend.settings.declare import declarations
from backend.settings.methods import METHODS
from backend.settings.sections import ModelSettings
from backend.settings.settings import DEFAULTS
from backend.system.identify import ModelFile

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "float": torch.float32}
_FLOW = "it is about the noise of diffusion models; this model learns a flow"
WHY: Mapping[str, str] = {
    "clip_skip": "its text encoders are always read at the layer that the model was trained with",
    "max_token_length": "its CLIP encoders read 75 tokens; T5 has t5xxl_max_token_length",
    **dict.fromkeys(
        (
            "min_snr_gamma", "scale_v_pred_loss_like_noise_pred", "v_pred_like_loss", "v_parameterization",
            "prediction_type",
            "debiased_estimation_loss", "zero_terminal_snr", "noise_offset", "noise_offset_random_strength",
            "adaptive_noise_scale", "multires_noise_iterations", "multires_noise_discount", "ip_noise_gamma",
            "ip_noise_gamma_random_strength",
        ),
        _FLOW,
    ),
}  # fmt: skip
"""Option -> why a family that is not among its families has no use for it."""


def asked_prediction(model: ModelSettings) -> bool | None:
    """Whether the base model is to be taken as one that predicts v; None: as its file says."""
    if model.v_parameterization:
        return True
    return None if model.prediction_type is None else model.prediction_type == "v"


def require_suited(settings: Settings, base: ModelFile) -> list[Problem]:
    """Refuse options that are set and are not for the base model's family.

    Returns notes of those that may stand although they change nothing.

    Raises:
        InputError: with all that may not.
    """
    values, family = settings.flat(), FAMILIES[base.family]
    _require_method(settings.model.training_method, base)
    problems = [
        Problem(
            f"{key} has no use with {family.title}",
            why=WHY.get(key, f"it is for {' and '.join(_titles(declared.info.families))}"),
            next=f"leave {key} out",
            key=key,
        )
        for key, declared in declarations().items()
        if declared.info.families
        and base.family not in declared.info.families
        and values[key] != DEFAULTS[key]
    ]
    refused = [problem for problem in problems if problem.key not in family.ignores]
    if refused:
        raise InputError(refused)
    return problems


def require_parts(settings: Settings, base: ModelFile) -> None:
    """Refuse a base model without a part that no other file is given for, before it is loaded.

    Raises:
        InputError: one problem for each part.
    """
    lacks = base.details.get("lacks", "").split(", ")
    found: list[Problem] = []
    if "VAE" in lacks and not settings.model.vae:
        found.append(
            Problem(
                "no VAE inside; choose one",
                where=str(base.path),
                why="the file holds no tensors of a VAE",
                next="name a VAE file beside the base model",
                key="vae",
            )
        )
    own_files = FAMILIES[base.family].own_text_files
    if "text encoder" in lacks and not (own_files and all(settings.flat()[key] for key in own_files)):
        found.append(
            Problem(
                "no text encoder inside",
                where=str(base.path),
                why="the file holds no tensors of a text encoder",
                next=f"give {' and '.join(own_files)}, or choose a base model that is complete"
                if own_files
                else "choose a base model that is complete (text encoder included)",
                key=own_files[0] if own_files else "pretrained_model_name_or_path",
            )
        )
    if found:
        raise InputError(found)


def prediction_notes(settings: Settings, base: ModelFile) -> list[Problem]:
    """What is said where the settings have a model predict another thing than its file says."""
    asked = asked_prediction(settings.model)
    if asked is None or base.prediction not in ("epsilon", "v") or asked == (base.prediction == "v"):
        return []
    key = "v_parameterization" if settings.model.v_parameterization else "prediction_type"
    said, why = (
        ("v", "its file does not say that it predicts v")
        if asked
        else ("noise (epsilon)", "its file says that it predicts v")
    )
    return [
        Problem(
            f"the base model is taken as one that predicts {said}, as {key} says",
            where=str(base.path),
            why=why,
            next=f"leave {key} out to go by the file: the wrong one teaches noise",
            key=key,
        )
    ]


def _require_method(name: str, base: ModelFile) -> None:
    method = METHODS[name]
    if method.families and base.family not in method.families:
        raise InputError(
            f"{method.what} cannot be trained on {FAMILIES[base.family].title}",
            why=f"it is for {' and '.join(_titles(method.families))}",
            next="choose another base model, or train something else",
            key="training_method",
        )


def _titles(families: tuple[str, ...]) -> Iterator[str]:
    return (FAMILIES[name].title for name in families if name in FAMILIES)


def require_sizes(plan: DatasetPlan, base: ModelFile) -> None:
    """Refuse pictures whose training size the family's model cannot have.

    Raises:
        InputError: naming the first size.
    """
    multiple = FAMILIES[base.family].side_multiple
    buckets = sorted({size for dataset in plan.datasets for size in dataset.buckets()})
    odd = [size for size in buckets if size[0] % multiple or size[1] % multiple]
    if odd:
        width, height = odd[0]
        raise InputError(
            f"training size {width}x{height}: sides must be multiples of {multiple} with {base.title}",
            next=f"use multiples of {multiple} for resolution and bucket_reso_steps, such as 1024 and 64",
            key="bucket_reso_steps" if len(buckets) > 1 else "resolution",
        )


def load_options(settings: Settings, plan: DatasetPlan) -> LoadOptions:
    """What the settings tell a loader beside the base model's file."""
    chosen = settings.sd3
    return LoadOptions(
        clip_l=_path(chosen.clip_l),
        clip_g=_path(chosen.clip_g),
        t5xxl=_path(chosen.t5xxl),
        t5xxl_dtype=_t5_dtype(settings),
        t5xxl_device=_device(chosen.t5xxl_device),
        t5xxl_max_token_length=chosen.t5xxl_max_token_length,
        apply_lg_attn_mask=chosen.apply_lg_attn_mask,
        apply_t5_attn_mask=chosen.apply_t5_attn_mask,
        clip_l_dropout_rate=chosen.clip_l_dropout_rate,
        clip_g_dropout_rate=chosen.clip_g_dropout_rate,
        t5_dropout_rate=chosen.t5_dropout_rate,
        pos_emb_random_crop_rate=chosen.pos_emb_random_crop_rate,
        enable_scaled_pos_embed=chosen.enable_scaled_pos_embed,
        sizes=tuple(sorted({dataset.resolution for dataset in plan.datasets})),
        blocks_to_swap=chosen.blocks_to_swap or 0,
        mmap=not chosen.disable_mmap_load_safetensors,
    )


def _t5_dtype(settings: Settings) -> torch.dtype | None:
    """T5's own precision. While a whole model is in float32 to be trained, T5, which is not, need not be."""
    chosen = settings.sd3
    name = chosen.t5xxl_dtype
    if name is None and METHODS[settings.model.training_method].whole and not chosen.train_t5xxl:
        name = settings.precision.mixed_precision
    return _DTYPES.get(name or "")


def _device(text: str | None) -> str | None:
    """A device as torch names it, when it is one that is here.

    Raises:
        InputError: it is none.
    """
    if not text:
        return None
    try:
        torch.empty(0, device=torch.device(text))
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"t5xxl_device: there is no device {text}",
            why=str(error).splitlines()[0],
            next="cpu is always there; leave it empty to have T5 where the other parts are",
            key="t5xxl_device",
        ) from None
    return text


def _path(text: str | None) -> Path | None:
    return Path(text).expanduser() if text else None
