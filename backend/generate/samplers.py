"""Samplers under the names people know, as a table of diffusers' schedulers.

Nothing heavy is imported until a sampler is built; then only its own module is.
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_LEADING = {"timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": False}
_KARRAS = {"use_karras_sigmas": True}
_CONSISTENCY_STEPS = 50
"""Steps of the schedule that latent consistency models were distilled with (Luo et al. 2023)."""
_PREDICTION = {"epsilon": "epsilon", "v": "v_prediction"}


@dataclass(frozen=True)
class SamplerInfo:
    """One row of the table."""

    label: str
    """Name in other programs' lists and in the text inside PNG files."""
    module: str
    """Leaf module of ``diffusers.schedulers`` without ``scheduling_``."""
    cls: str
    options: Mapping[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()


SAMPLERS: dict[str, SamplerInfo] = {
    "ddim": SamplerInfo("DDIM", "ddim", "DDIMScheduler", {**_LEADING, "clip_sample": False}),
    "pndm": SamplerInfo("PLMS", "pndm", "PNDMScheduler", {**_LEADING, "skip_prk_steps": True}, ("plms",)),
    "lms": SamplerInfo("LMS", "lms_discrete", "LMSDiscreteScheduler", aliases=("k_lms",)),
    "euler": SamplerInfo("Euler", "euler_discrete", "EulerDiscreteScheduler", aliases=("k_euler",)),
    "euler_a": SamplerInfo(
        "Euler a", "euler_ancestral_discrete", "EulerAncestralDiscreteScheduler", aliases=("k_euler_a",)
    ),
    "heun": SamplerInfo("Heun", "heun_discrete", "HeunDiscreteScheduler", aliases=("k_heun",)),
    "dpm_2": SamplerInfo("DPM2", "k_dpm_2_discrete", "KDPM2DiscreteScheduler", aliases=("k_dpm_2",)),
    "dpm_2_a": SamplerInfo(
        "DPM2 a", "k_dpm_2_ancestral_discrete", "KDPM2AncestralDiscreteScheduler", aliases=("k_dpm_2_a",)
    ),
    "dpmsolver": SamplerInfo(
        "DPM-Solver 2M",
        "dpmsolver_multistep",
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
    ),
    "dpmsolver++": SamplerInfo(
        "DPM++ 2M",
        "dpmsolver_multistep",
        "DPMSolverMultistepScheduler",
        aliases=("dpm++_2m", "dpmpp_2m"),
    ),
    "dpmsolver++_karras": SamplerInfo(
        "DPM++ 2M Karras",
        "dpmsolver_multistep",
        "DPMSolverMultistepScheduler",
        _KARRAS,
        ("dpm++_2m_karras", "dpmpp_2m_karras"),
    ),
    "dpmsolver++_sde": SamplerInfo(
        "DPM++ 2M SDE",
        "dpmsolver_multistep",
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++"},
        ("dpm++_2m_sde", "dpmpp_2m_sde"),
    ),
    "dpmsolver++_sde_karras": SamplerInfo(
        "DPM++ 2M SDE Karras",
        "dpmsolver_multistep",
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++", **_KARRAS},
        ("dpm++_2m_sde_karras", "dpmpp_2m_sde_karras"),
    ),
    "dpmsingle": SamplerInfo(
        "DPM++ 2S",
        "dpmsolver_singlestep",
        "DPMSolverSinglestepScheduler",
        {"lower_order_final": True},
        ("dpm++_2s", "dpmpp_2s"),
    ),
    "unipc": SamplerInfo("UniPC", "unipc_multistep", "UniPCMultistepScheduler"),
    "lcm": SamplerInfo("LCM", "lcm", "LCMScheduler"),
}


def canonical(name: str) -> str | None:
    """The table's name for a sampler by name, alias or label; None when there is none.

    Capitals, spaces and ``-`` do not matter.
    """
    return _names().get(_plain(name))


def build(name: str, alphas_cumprod: torch.Tensor, prediction: str, steps: int) -> Any:
    """A scheduler of the sampler for a model's own training schedule, with its timesteps for ``steps``.

    ``alphas_cumprod`` (T,) is the model's; the betas follow from it, so a changed schedule (zero
    terminal SNR) is drawn with as it was trained.
    """
    import torch

    info = SAMPLERS[name]
    cls = getattr(importlib.import_module(f"diffusers.schedulers.scheduling_{info.module}"), info.cls)
    alphas = alphas_cumprod.detach().to("cpu", torch.float64)
    options: dict[str, Any] = {
        "num_train_timesteps": len(alphas),
        "trained_betas": _betas(alphas),
        "prediction_type": _PREDICTION[prediction],
        **info.options,
    }
    if alphas[-1] < 1e-6 or steps >= len(alphas):
        # Only "trailing" visits the step without any signal, and each step once when all are asked for.
        options["timestep_spacing"] = "trailing"
    known = inspect.signature(cls.__init__).parameters
    with warnings.catch_warnings():
        # "dpmsolver" is announced to leave diffusers; people's files name it as long as it is there.
        warnings.simplefilter("ignore", FutureWarning)
        if "original_inference_steps" in known:
            options["original_inference_steps"] = max(_CONSISTENCY_STEPS, steps)
        scheduler = cls(**{key: value for key, value in options.items() if key in known})
    scheduler.set_timesteps(steps)
    return scheduler


def last_part(scheduler: Any, steps: int, strength: float) -> torch.Tensor:
    """The timesteps of the last ``strength`` (0..1) of the steps, at least of one; the scheduler begins
    there."""
    walked = min(max(int(steps * strength), 1), steps)
    start = (steps - walked) * getattr(scheduler, "order", 1)
    if start and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(start)
    return scheduler.timesteps[start:]


def noised(scheduler: Any, latents: torch.Tensor, noise: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    """Latents with as much noise as they have at a timestep."""
    times = time.reshape(1)
    if hasattr(scheduler, "scale_noise"):  # a flow
        return scheduler.scale_noise(latents, times, noise)
    return scheduler.add_noise(latents, noise, times)


FLOW_SHIFT = 3.0
"""How far noise levels are shifted upwards when a flow is drawn (Esser et al. 2024, section 5.3.2)."""
_FLOW_NAMES = {"flow_euler": "euler", "flow_match_euler": "euler", "flow_match_heun": "heun"}
FLOW_SAMPLERS: Mapping[str, tuple[str, str]] = {
    "euler": ("flow_match_euler_discrete", "FlowMatchEulerDiscreteScheduler"),
    "heun": ("flow_match_heun_discrete", "FlowMatchHeunDiscreteScheduler"),
}
"""Samplers that follow a flow: name -> (leaf module, class)."""


def for_flow(name: str) -> str:
    """The sampler with which a flow is drawn when ``name`` is asked for."""
    return name if name in FLOW_SAMPLERS else "euler"


def build_flow(name: str, steps: int, shift: float = FLOW_SHIFT) -> Any:
    """A scheduler that follows a flow from noise (timestep 1000) to the picture, with its timesteps."""
    module, cls = FLOW_SAMPLERS[name]
    found = getattr(importlib.import_module(f"diffusers.schedulers.scheduling_{module}"), cls)
    scheduler = found(shift=shift)
    scheduler.set_timesteps(steps)
    return scheduler


def scaled(scheduler: Any, latents: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    """Latents as the model is to see them; those of a flow are as they are."""
    scale = getattr(scheduler, "scale_model_input", None)
    return latents if scale is None else scale(latents, time)


def first_sigma(scheduler: Any) -> float:
    """What the first noise is multiplied by; 1 for a flow."""
    return getattr(scheduler, "init_noise_sigma", 1.0)


def takes_generator(scheduler: Any) -> bool:
    """True when the scheduler's steps draw noise."""
    return "generator" in inspect.signature(scheduler.step).parameters


def _betas(alphas: torch.Tensor) -> Any:
    """Betas (T,) whose running product of ``1 - beta`` is ``alphas``; a last alpha of 0 is lifted
    to 2^-24 so that its sigma stays finite."""
    import torch

    lifted = alphas.clamp(min=2.0**-24)
    before = torch.cat([torch.ones(1, dtype=lifted.dtype), lifted[:-1]])
    return (1 - lifted / before).to(torch.float32).numpy()


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _names() -> dict[str, str]:
    rows = SAMPLERS.items()
    names = {_plain(alias): name for name, info in rows for alias in (info.label, *info.aliases)}
    return {**names, **_FLOW_NAMES, **{name: name for name in SAMPLERS}}
