"""What a run computes with: device, precision, several processes, and the base model on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from backend import families
from backend.families.base import DiffusionModel
from backend.jobs.events import Sink
from backend.settings import Settings
from backend.settings.conditions import holds
from backend.settings.methods import METHODS
from backend.settings.rules.terms import TEXT_OFF
from backend.train import sharding, zero
from backend.train.family_rules import asked_prediction, load_options
from backend.train.preflight import Prepared
from backend.train.sharding import ENTIRE, Parts
from backend.train.step import StepModule
from backend.train.team import refuse_sharding

if TYPE_CHECKING:
    from accelerate import Accelerator

BASE_DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Precision -> that of the base model's weights."""


def make_accelerator(settings: Settings) -> Accelerator:
    """The device and precision that a run uses; the processes are those of :func:`team.join`.

    Raises:
        InputError: accelerate is set to work in a way that is not supported.
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    plugin = sharding.plugin_of(settings)
    if plugin is None:
        refuse_sharding()
    chosen = settings.launch
    gradients = DistributedDataParallelKwargs(
        gradient_as_bucket_view=chosen.ddp_gradient_as_bucket_view,
        static_graph=chosen.ddp_static_graph,
        find_unused_parameters=not chosen.ddp_static_graph and _leaves_weights_out(settings),
    )
    made = Accelerator(
        mixed_precision=settings.precision.mixed_precision,
        cpu=not torch.cuda.is_available(),
        kwargs_handlers=[gradients],
        fsdp_plugin=plugin,
    )
    if plugin is not None:
        sharding.insist(made, plugin)
    return made


def _leaves_weights_out(settings: Settings) -> bool:
    """Whether a step may not use every trained weight: modules left out, or a text encoder's last layers."""
    text = not (settings.caching.cache_text_encoder_outputs or holds(TEXT_OFF, settings.flat()))
    return text or bool(settings.network.module_dropout)


def weights_dtype(settings: Settings) -> torch.dtype:
    """Precision that the base model is loaded in: that of the passes, but whole for weights that are
    themselves trained, unless all is to be in half."""
    wanted = settings.precision
    whole = METHODS[settings.model.training_method].whole
    in_half = wanted.full_fp16 or wanted.full_bf16
    return torch.float32 if whole and not in_half else BASE_DTYPES[wanted.mixed_precision]


def load_base_model(
    prepared: Prepared, settings: Settings, accelerator: Accelerator, events: Sink
) -> DiffusionModel:
    """The base model on the device, in the precision of :func:`weights_dtype`."""
    events.emit(
        "phase", name="loading", title=f"Loading {Path(prepared.base.path).name} ({prepared.base.title})"
    )
    model = families.load(
        Path(settings.model.pretrained_model_name_or_path),
        dtype=weights_dtype(settings),
        device=accelerator.device,
        vae=Path(settings.model.vae) if settings.model.vae else None,
        v_prediction=asked_prediction(settings.model),
        options=load_options(settings, prepared.plan),
    )
    if settings.sd3.blocks_to_swap and accelerator.device.type == "cpu":
        events.emit(
            "note", text="blocks_to_swap has no effect: the model is in host memory, there is no card"
        )
    for note in model.notes:
        events.emit("note", text=note)
    fit_out(model, settings, accelerator.device, events)
    return model


def fit_out(model: DiffusionModel, settings: Settings, device: torch.device, events: Sink) -> None:
    """Bring the VAE to the device, and switch on what the settings ask of a loaded model."""
    model.vae.to(device)
    if settings.precision.no_half_vae:
        model.vae.to(torch.float32)
    _choose_attention(model, settings, events)
    if settings.precision.gradient_checkpointing:
        model.enable_gradient_checkpointing(parked=settings.precision.cpu_offload_checkpointing)


def _choose_attention(model: DiffusionModel, settings: Settings, events: Sink) -> None:
    wanted = settings.precision
    kind = "xformers" if wanted.xformers else "sliced" if wanted.mem_eff_attn else None
    if kind is not None and not model.set_attention(kind):
        events.emit("note", text=f"{model.family} computes attention by PyTorch's own way in any case")


def shrink(settings: Settings, model: DiffusionModel) -> None:
    """Keep the base model in 8 bits when that is asked for: after merging, before a network is attached."""
    wanted = settings.precision
    if not (wanted.fp8_base or wanted.fp8_base_unet):
        return
    from backend.families.parts.lowbit import store_in_8_bits

    for name, module in model.parts().items():
        if name == "unet" or not wanted.fp8_base_unet:
            store_in_8_bits(module, BASE_DTYPES[wanted.mixed_precision])


def settle(settings: Settings, accelerator: Accelerator, trainable: nn.Module, model: DiffusionModel) -> None:
    """Put what is trained on the device, in half precision when all is to be, and compile the denoiser."""
    wanted = settings.precision
    trainable.to(accelerator.device)
    if wanted.full_fp16 or wanted.full_bf16:
        for parameter in trainable.parameters():
            parameter.data = parameter.data.to(BASE_DTYPES[wanted.mixed_precision])
    if wanted.full_fp16 and accelerator.scaler is not None:
        _let_unscale_half(accelerator.scaler)
    if wanted.torch_compile:
        compile_denoiser(settings, model)


def compile_denoiser(settings: Settings, model: DiffusionModel) -> None:
    """Have PyTorch compile the denoiser, with what is attached to it, at its first pass."""
    wanted = settings.precision
    mode = wanted.dynamo_mode if wanted.dynamo_backend == "inductor" else "default"
    model.denoiser.compile(
        backend=wanted.dynamo_backend,
        mode=None if mode == "default" else mode,
        fullgraph=wanted.dynamo_use_fullgraph,
        dynamic=True if wanted.dynamo_use_dynamic else None,
    )


def _let_unscale_half(scaler: Any) -> None:
    """torch's gradient scaler refuses gradients in fp16; training wholly in it is what was asked for."""
    original = scaler._unscale_grads_

    def unscale(optimizer: Any, inverse: Any, found: Any, allow_fp16: bool) -> Any:
        return original(optimizer, inverse, found, True)

    scaler._unscale_grads_ = unscale


def wrap(
    accelerator: Accelerator, module: StepModule, optimizer: torch.optim.Optimizer, settings: Settings
) -> tuple[StepModule, Any, Parts]:
    """Let accelerate wrap what has to be: several processes, or a gradient scaler.

    One process without a scaler needs neither wrapper, and a second of imports is saved.
    """
    if settings.sharding.deepspeed:
        return zero.wrap(accelerator, module, optimizer, settings)
    if accelerator.is_fsdp2:
        return sharding.wrap(accelerator, module, optimizer)
    if accelerator.use_distributed:
        module = accelerator.prepare(module)
    if accelerator.use_distributed or accelerator.scaler is not None:
        optimizer = accelerator.prepare(optimizer)
    return module, optimizer, ENTIRE
