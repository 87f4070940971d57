"""What a run computes with: device, precision, several processes, and the base model on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from backend import families
from backend.families.base import DiffusionModel
from backend.jobs.events import Sink
from backend.settings import Settings
from backend.train.preflight import Prepared
from backend.train.step import StepModule

if TYPE_CHECKING:
    from accelerate import Accelerator

_BASE_DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def make_accelerator(settings: Settings) -> Accelerator:
    """The device and precision that a run uses; the processes are those of :func:`team.join`."""
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    chosen = settings.launch
    gradients = DistributedDataParallelKwargs(
        gradient_as_bucket_view=chosen.ddp_gradient_as_bucket_view,
        static_graph=chosen.ddp_static_graph,
        find_unused_parameters=not chosen.ddp_static_graph and _leaves_weights_out(settings),
    )
    return Accelerator(
        mixed_precision=settings.precision.mixed_precision,
        cpu=not torch.cuda.is_available(),
        kwargs_handlers=[gradients],
    )


def _leaves_weights_out(settings: Settings) -> bool:
    """Whether a step may not use every trained weight: modules left out, or a text encoder's last layers."""
    network = settings.network
    text = not (network.network_train_unet_only or settings.caching.cache_text_encoder_outputs)
    return text or bool(network.module_dropout)


def load_base_model(
    prepared: Prepared, settings: Settings, accelerator: Accelerator, events: Sink
) -> DiffusionModel:
    """The base model on the device, in the precision of the forward pass."""
    events.emit(
        "phase", name="loading", title=f"Loading {Path(prepared.base.path).name} ({prepared.base.title})"
    )
    model = families.load(
        Path(settings.model.pretrained_model_name_or_path),
        dtype=_BASE_DTYPES[settings.precision.mixed_precision],
        device=accelerator.device,
        vae=Path(settings.model.vae) if settings.model.vae else None,
        v_prediction=settings.model.v_parameterization,
    )
    model.vae.to(accelerator.device)
    if settings.precision.no_half_vae:
        model.vae.to(torch.float32)
    if settings.precision.xformers:
        model.set_attention("xformers")
    if settings.precision.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    return model


def wrap(
    accelerator: Accelerator, module: StepModule, optimizer: torch.optim.Optimizer
) -> tuple[StepModule, Any]:
    """Let accelerate wrap what has to be: several processes, or a gradient scaler.

    One process without a scaler needs neither wrapper, and a second of imports is saved.
    """
    if accelerator.use_distributed:
        module = accelerator.prepare(module)
    if accelerator.use_distributed or accelerator.scaler is not None:
        optimizer = accelerator.prepare(optimizer)
    return module, optimizer
