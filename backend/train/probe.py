"""One training step on given numbers, for comparing with sd-scripts.

Training and generation compute what a family's own code computes. Where sd-scripts is known to differ
from that (``DiffusionModel.compute_as_sd_scripts``), the probe does as sd-scripts does, so that the rest
can be compared to the last digit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from backend import families
from backend.data.types import DatasetPlan
from backend.errors import InputError
from backend.families.base import Sizes
from backend.settings import Settings
from backend.system.headers import read_header
from backend.train.family_rules import asked_prediction
from backend.train.flow import objective_of
from backend.train.methods.network import NetworkMethod
from backend.train.step import StepInputs, StepModule
from backend.train.texts import tokenize


def probe(settings: Settings, tensors: Path, captions: Path, use_noisy_latents: bool) -> dict[str, Any]:
    """Loss and gradient norms of one step in float32.

    ``tensors`` holds ``latents``, ``noise``, ``timesteps`` and optionally ``noisy_latents``,
    ``loss_weights``, ``batch_conditioning_images`` (-1..1) or ``batch_alpha_masks`` (0..1), and
    size conditioning; ``captions`` is a JSON file with the key ``captions``. ``noisy_latents`` are made
    unless ``use_noisy_latents``, or ``ip_noise_gamma``, whose further noise is in them alone, is given.

    Raises:
        InputError: one of the files is not what is needed.
    """
    given, texts = _tensors(tensors, use_noisy_latents), _captions(captions)
    base = Path(settings.model.pretrained_model_name_or_path)
    model = families.load(base, dtype=torch.float32, v_prediction=asked_prediction(settings.model))
    model.compute_as_sd_scripts()
    method = NetworkMethod(settings, DatasetPlan(()), model, seed=settings.schedule.seed or 0)
    method.start()
    objective = objective_of(settings, model)
    module = StepModule(method.trainable, model, objective, settings.model.clip_skip, method.trains_text)
    tokens, emphasis = tokenize(model, texts, settings.model, torch.device("cpu"))
    as_given = use_noisy_latents or bool(settings.loss.ip_noise_gamma and "noisy_latents" in given)
    inputs = StepInputs(
        latents=given["latents"].float(),
        noise=given["noise"].float(),
        timesteps=given["timesteps"].float() if model.prediction == "flow" else given["timesteps"].long(),
        loss_weights=given.get("loss_weights", torch.ones(len(texts))).float(),
        tokens=tokens,
        token_weights=emphasis,
        masks=_masks(given, settings),
        sizes=_sizes(given),
        noisy=given["noisy_latents"].float() if as_given else None,
    )
    losses: Tensor = module(inputs)
    losses.mean().backward()
    return {"loss": losses.mean().item(), "losses": losses.tolist(), **_norms(method)}


def _tensors(path: Path, use_noisy_latents: bool) -> dict[str, Tensor]:
    names = read_header(path).tensors
    needed = ["latents", "noise", "timesteps", *(["noisy_latents"] if use_noisy_latents else [])]
    lacking = [name for name in needed if name not in names]
    if lacking:
        raise InputError(
            f"{path.name} lacks {', '.join(lacking)}",
            where=str(path),
            next="give a safetensors file with latents, noise and timesteps",
        )
    return load_file(path)


def _captions(path: Path) -> list[str]:
    try:
        texts: list[str] = json.loads(path.read_text(encoding="utf-8"))["captions"]
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror})", next="check the path") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is no JSON file of captions",
            why=str(error),
            next='write {"captions": ["a text for each picture"]}',
        ) from error
    return texts


def _masks(given: Mapping[str, Tensor], settings: Settings) -> Tensor | None:
    """Masks (B, 1, H, W) in 0..1; a mask picture is preferred to transparency.

    Transparency that is given counts in any case: sd-scripts is told of it in its dataset file.
    """
    wanted = settings.loss.masked_loss or settings.dataset.alpha_mask or "batch_alpha_masks" in given
    if wanted and "batch_conditioning_images" in given:
        return (given["batch_conditioning_images"][:, :1].float() + 1.0) / 2.0
    if "batch_alpha_masks" in given:
        masks = given["batch_alpha_masks"].float()
        return masks[:, None] if masks.dim() == 3 else masks
    return None


def _sizes(given: Mapping[str, Tensor]) -> Sizes | None:
    names = ("batch_original_sizes_hw", "batch_crop_top_lefts", "batch_target_sizes_hw")
    if not all(name in given for name in names):
        return None
    original, crop, target = (given[name].long() for name in names)
    return Sizes(original, crop, target)


def _norms(method: NetworkMethod) -> dict[str, Any]:
    """L2 norms of all gradients, by tensor of the file, by part, and in all."""
    each: dict[str, float] = {}
    squares = {"unet": 0.0, "te": 0.0}
    for name, parameter in method.network.named_weights().items():
        if parameter.grad is None:
            continue
        each[name] = parameter.grad.norm().item()
        squares["unet" if name.startswith("lora_unet") else "te"] += each[name] ** 2
    return {
        "total_grad_norm": sum(squares.values()) ** 0.5,
        "te_grad_norm": squares["te"] ** 0.5,
        "unet_grad_norm": squares["unet"] ** 0.5,
        "grad_norms": each,
    }
