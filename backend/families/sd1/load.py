"""Loading SD 1.x: dimensions from the weights, modules made without memory, tensors put in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from backend.errors import InputError, Problem
from backend.families.base import Source
from backend.families.parts.clip import ACTIVATIONS, ClipShape, ClipTextModel, clip_shape
from backend.families.parts.skeleton import skeleton
from backend.families.parts.unet import UNet, UNetShape, unet_shape
from backend.families.parts.vae import Vae, VaeShape, vae_shape
from backend.families.sd1.model import StableDiffusion1
from backend.families.sd1.weights import Place, Weights, find_weights, replace_vae
from backend.system.identify import require_base

Module = TypeVar("Module", bound=nn.Module)


def load(
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    vae: Path | None = None,
    v_prediction: bool = False,
) -> StableDiffusion1:
    """Load a single file (.safetensors, .ckpt) or diffusers folder.

    Weights whose type in the file is ``dtype`` stay in the memory-mapped file, others are converted
    one at a time. Denoiser and text encoder go to ``device``, the VAE stays on the CPU.

    Args:
        vae: a file or folder whose VAE takes the place of the model's own.
        v_prediction: the model predicts v, whatever the file says.

    Raises:
        InputError: not an SD 1.x base model, a part is missing, shapes do not fit, or values are
            not finite (every tensor is looked at while it is loaded).
    """
    found = require_base(path, ("sd1",))
    weights = find_weights(path, dtype)
    if vae is not None:
        replace_vae(weights, vae, dtype)
    for part in ("unet", "text_encoder", "vae"):
        weights.require(part)
    shapes = model_shapes(weights)
    model = StableDiffusion1(
        denoiser=_fill(lambda: UNet(shapes[0]), weights, "unet", dtype),
        text_encoder=_fill(lambda: ClipTextModel(shapes[1]), weights, "text_encoder", dtype),
        vae=_fill(lambda: Vae(shapes[2]), weights, "vae", dtype),
        prediction="v" if v_prediction or found.prediction == "v" else "epsilon",
        source=Source(path, weights.metadata),
        weights=weights,
    )
    if torch.device(device).type != "cpu":
        model.to(device)
    return model


def model_shapes(weights: Weights) -> tuple[UNetShape, ClipShape, VaeShape]:
    """Dimensions from the weights' shapes; SD 1.x's rule for the rest unless a configuration is there."""
    unet, text, vae = (weights.config.get(part, {}) for part in ("unet", "text_encoder", "vae"))
    try:
        shapes = (
            unet_shape(
                _shapes(weights.part("unet")),
                heads=_heads(unet.get("num_attention_heads") or unet.get("attention_head_dim") or 8),
                norm_groups=int(unet.get("norm_num_groups") or 32),
            ),
            clip_shape(
                _shapes(weights.part("text_encoder")),
                heads=text.get("num_attention_heads"),
                activation=str(text.get("hidden_act") or "quick_gelu"),
            ),
            vae_shape(
                _shapes(weights.part("vae")),
                norm_groups=int(vae.get("norm_num_groups") or 32),
                scaling_factor=float(vae.get("scaling_factor") or 0.18215),
            ),
        )
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise InputError(
            f"the model is incomplete: {error.args[0] if error.args else error} is missing or odd",
            where=str(weights.path),
            next="Download it again",
        ) from error
    _check_shapes(weights.path, *shapes)
    return shapes


def _heads(value: Any) -> int:
    """Heads of the U-Net; a list is taken when all its entries are equal, as SD 1.x has them."""
    counts = cast("list[Any]", value) if isinstance(value, list) else [value]
    if len(set(counts)) != 1:
        raise ValueError(f"attention_head_dim {value}")
    return int(counts[0])


def _shapes(places: Mapping[str, Place]) -> dict[str, tuple[int, ...]]:
    return {name: place.shape for name, place in places.items()}


def _check_shapes(path: Path, unet: UNetShape, text: ClipShape, vae: VaeShape) -> None:
    divisions = [
        *(("U-Net heads", width, unet.heads) for width in unet.widths),
        *(("U-Net norm groups", width, unet.norm_groups) for width in unet.widths),
        *(("VAE norm groups", width, vae.norm_groups) for width in vae.widths),
        ("text encoder heads", text.width, text.heads),
    ]
    odd = [_odd_division(path, *division) for division in divisions if division[1] % division[2]]
    if text.activation not in ACTIVATIONS:
        odd.append(Problem(f"text encoder activation {text.activation!r} is unknown", where=str(path)))
    if unet.context_width != text.width:
        odd.append(
            Problem(
                f"the U-Net reads {unet.context_width} numbers a token, the text encoder gives {text.width}",
                where=str(path),
            )
        )
    if odd:
        raise InputError(odd)


def _odd_division(path: Path, what: str, width: int, count: int) -> Problem:
    return Problem(
        f"{what}: {count} do not divide the width {width}",
        where=str(path),
        why="its configuration (metadata atelier.components or config.json) does not belong to these weights",
        next="Download the model again",
    )


def _fill(make: Callable[[], Module], weights: Weights, part: str, dtype: torch.dtype) -> Module:
    """Make a module without memory for its weights and put the file's tensors in place of them."""
    module = skeleton(make)
    places = weights.part(part)
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    _require_all(weights.path, wanted, places)
    state: dict[str, Tensor] = {}
    broken: list[Problem] = []
    for name, shape in wanted.items():
        tensor = places[name].read(dtype)
        state[name] = tensor.view(shape)
        bad = nonfinite(tensor)
        if bad:
            broken.append(
                Problem(
                    f"{bad} non-finite values in {places[name].name}",
                    where=str(places[name].source.header.path),
                    why="NaN or infinite weights: a merge or training that went wrong, or a damaged file",
                    next="use another copy of the model; a picture made with this one is black",
                )
            )
    if broken:
        raise InputError(broken)
    module.load_state_dict(state, assign=True)
    return module.eval().requires_grad_(False)


def _require_all(path: Path, wanted: Mapping[str, tuple[int, ...]], places: Mapping[str, Place]) -> None:
    missing = [name for name in wanted if name not in places]
    if missing:
        raise InputError(
            f"{len(missing)} tensors are missing, the first is {missing[0]}",
            where=str(path),
            next="Download the model again",
        )
    for name, shape in wanted.items():
        place = places[name]
        if math.prod(place.shape) != math.prod(shape):
            raise InputError(
                f"tensor {place.name} is {list(place.shape)}, {list(shape)} is needed",
                where=str(place.source.header.path),
                next="this is no plain SD 1.x model, or it is damaged",
            )


def nonfinite(tensor: Tensor) -> int:
    """How many values are NaN or infinite. Smallest and largest value tell whether to count."""
    if tensor.numel() == 0 or not tensor.is_floating_point():
        return 0
    low, high = torch.aminmax(tensor)
    if math.isfinite(low.item()) and math.isfinite(high.item()):
        return 0
    return int((~torch.isfinite(tensor)).sum().item())
