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
from backend.families.base import Sizes
from backend.settings import Settings
from backend.train.family_rules import asked_prediction
from backend.train.methods.network import NetworkMethod
from backend.train.objectives import Objective
from backend.train.step import StepInputs, StepModule


def probe(settings: Settings, tensors: Path, captions: Path, use_noisy_latents: bool) -> dict[str, Any]:
    """Loss and gradient norms of one step in float32.

    ``tensors`` holds ``latents``, ``noise``, ``timesteps`` and optionally ``noisy_latents``,
    ``loss_weights``, ``batch_conditioning_images`` (-1..1) or ``batch_alpha_masks`` (0..1), and
    size conditioning; ``captions`` is a JSON file with the key ``captions``.
    """
    given = load_file(tensors)
    texts: list[str] = json.loads(captions.read_text(encoding="utf-8"))["captions"]
    base = Path(settings.model.pretrained_model_name_or_path)
    model = families.load(base, dtype=torch.float32, v_prediction=asked_prediction(settings.model))
    model.compute_as_sd_scripts()
    method = NetworkMethod(settings, DatasetPlan(()), model, seed=settings.schedule.seed or 0)
    method.start()
    objective = Objective.of(settings.loss, model.alphas_cumprod(), model.prediction == "v")
    module = StepModule(method.trainable, model, objective, settings.model.clip_skip, method.trains_text)
    tokens = model.tokenize(texts, settings.model.max_token_length)
    inputs = StepInputs(
        latents=given["latents"].float(),
        noise=given["noise"].float(),
        timesteps=given["timesteps"].long(),
        loss_weights=given.get("loss_weights", torch.ones(len(texts))).float(),
        tokens=tokens,
        masks=_masks(given) if settings.loss.masked_loss or settings.dataset.alpha_mask else None,
        sizes=_sizes(given),
        noisy=given["noisy_latents"].float() if use_noisy_latents else None,
    )
    losses: Tensor = module(inputs)
    losses.mean().backward()
    return {"loss": losses.mean().item(), "losses": losses.tolist(), **_norms(method)}


def _masks(given: Mapping[str, Tensor]) -> Tensor | None:
    """Masks (B, 1, H, W) in 0..1; a mask picture is preferred to transparency."""
    if "batch_conditioning_images" in given:
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
