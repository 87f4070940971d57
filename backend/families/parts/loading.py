"""Loading latent diffusion models: dimensions from the weights, modules made without memory, tensors
put in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from backend.errors import InputError, Problem
from backend.families.base import Prediction
from backend.families.parts.clip import ACTIVATIONS, ClipShape, ClipTextModel, clip_shape
from backend.families.parts.layout import Layout
from backend.families.parts.skeleton import skeleton
from backend.families.parts.unet import UNet, UNetShape, unet_shape
from backend.families.parts.vae import Vae, VaeShape, vae_shape
from backend.families.parts.weights import Place, Weights, complete, find_weights, replace_vae
from backend.families.store import TensorSource
from backend.system.identify import ModelFile

Module = TypeVar("Module", bound=nn.Module)

HEAD_SIZE = 64
"""Numbers a head in U-Nets whose heads are of one size (SD 2.x, SDXL)."""


@dataclass(frozen=True)
class Rule:
    """What the shapes of a family's weights do not tell, unless a configuration says otherwise."""

    activations: Mapping[str, str]
    """Text encoder (``text_encoder``, ...) -> activation."""
    heads: int | None = None
    """Heads of the U-Net at every level; None: heads of 64 numbers."""
    linear: bool = False
    """The U-Net's transformers have linear layers at their ends, not 1x1 convolutions."""
    scaling_factor: float = 0.18215
    norm_groups: int = 32


def predicted(file: ModelFile, v_prediction: bool | None) -> Prediction:
    """What a model predicts: as its file says, if nobody says otherwise."""
    v = file.prediction == "v" if v_prediction is None else v_prediction
    return "v" if v else "epsilon"


@dataclass(frozen=True)
class Shapes:
    """Dimensions of all parts."""

    unet: UNetShape
    texts: Mapping[str, ClipShape]
    """By part: ``text_encoder``, ``text_encoder_2``."""
    vae: VaeShape

    def components(self) -> dict[str, dict[str, Any]]:
        """What weights do not tell, under the names diffusers and transformers have for it."""
        heads = self.unet.heads
        texts = {
            part: {"num_attention_heads": text.heads, "hidden_act": text.activation}
            for part, text in self.texts.items()
        }
        return {
            "unet": {
                "attention_head_dim": heads if isinstance(heads, int) else list(heads),
                "norm_num_groups": self.unet.norm_groups,
            },
            **texts,
            "vae": {"norm_num_groups": self.vae.norm_groups, "scaling_factor": self.vae.scaling_factor},
        }

    def by_rule(self, rule: Rule) -> Shapes:
        """The same dimensions with the family's rule for what weights do not tell."""
        return Shapes(
            replace(self.unet, heads=_rule_heads(rule, self.unet.widths), norm_groups=rule.norm_groups),
            {
                part: replace(text, heads=max(1, text.width // HEAD_SIZE), activation=rule.activations[part])
                for part, text in self.texts.items()
            },
            replace(self.vae, norm_groups=rule.norm_groups, scaling_factor=rule.scaling_factor),
        )


@dataclass(frozen=True)
class Loaded:
    """The modules of a model with their weights in them."""

    unet: UNet
    texts: Mapping[str, ClipTextModel]
    vae: Vae
    weights: Weights


def hollow_parts(shapes: Shapes) -> Loaded:
    """The modules without memory, for names and shapes alone."""
    return Loaded(
        unet=skeleton(lambda: UNet(shapes.unet)),
        texts={part: _hollow_text(shape) for part, shape in shapes.texts.items()},
        vae=skeleton(lambda: Vae(shapes.vae)),
        weights=Weights(Path(), {}, {}),
    )


def _hollow_text(shape: ClipShape) -> ClipTextModel:
    return skeleton(lambda: ClipTextModel(shape))


def load_parts(path: Path, dtype: torch.dtype, vae: Path | None, layout: Layout, rule: Rule) -> Loaded:
    """The parts of a single file (.safetensors, .ckpt) or diffusers folder, on the CPU.

    Weights whose type in the file is ``dtype`` stay in the memory-mapped file, others are converted
    one at a time.

    Args:
        vae: a file or folder whose VAE takes the place of the model's own.

    Raises:
        InputError: a part is missing, shapes do not fit, or values are not finite (every tensor is
            looked at while it is loaded).
    """
    weights = find_weights(path, dtype, layout)
    if vae is not None:
        replace_vae(weights, vae, dtype)
    for part in layout.parts:
        weights.require(part)
    shapes = read_shapes(weights, layout, rule)
    return Loaded(
        unet=fill(lambda: UNet(shapes.unet), weights, "unet", dtype),
        texts={part: _text(shape, weights, part, dtype) for part, shape in shapes.texts.items()},
        vae=fill(lambda: Vae(shapes.vae), weights, "vae", dtype),
        weights=weights,
    )


def _text(shape: ClipShape, weights: Weights, part: str, dtype: torch.dtype) -> ClipTextModel:
    return fill(lambda: ClipTextModel(shape), weights, part, dtype)


def read_shapes(weights: Weights, layout: Layout, rule: Rule) -> Shapes:
    """Dimensions from the weights' shapes; the family's rule for the rest unless a configuration is there.

    Raises:
        InputError: tensors that tell a dimension are missing, or the configuration does not fit.
    """
    with complete(weights.path):
        shapes = Shapes(
            _unet_shape(weights, rule),
            {text.part: _text_shape(weights, text.part, rule) for text in layout.text},
            _vae_shape(weights, rule),
        )
    _check(weights.path, shapes)
    return shapes


def _unet_shape(weights: Weights, rule: Rule) -> UNetShape:
    config = weights.config.get("unet", {})
    shape = unet_shape(
        _shapes(weights.part("unet")),
        norm_groups=int(config.get("norm_num_groups") or rule.norm_groups),
        linear=rule.linear,
    )
    said = config.get("num_attention_heads") or config.get("attention_head_dim")
    return replace(shape, heads=_heads(said, rule, shape.widths))


def _heads(said: Any, rule: Rule, widths: tuple[int, ...]) -> int | tuple[int, ...]:
    if not said:
        return _rule_heads(rule, widths)
    counts = [int(count) for count in (cast("list[Any]", said) if isinstance(said, list) else [said])]
    if rule.heads is not None and len(set(counts)) == 1:
        return counts[0]
    counts = counts * len(widths) if len(counts) == 1 else counts
    if len(counts) != len(widths):
        raise ValueError(f"attention_head_dim {said}")
    return tuple(counts)


def _rule_heads(rule: Rule, widths: tuple[int, ...]) -> int | tuple[int, ...]:
    return rule.heads or tuple(max(1, width // HEAD_SIZE) for width in widths)


def _text_shape(weights: Weights, part: str, rule: Rule) -> ClipShape:
    config = weights.config.get(part, {})
    return clip_shape(
        _shapes(weights.part(part)),
        heads=config.get("num_attention_heads"),
        activation=str(config.get("hidden_act") or rule.activations[part]),
    )


def _vae_shape(weights: Weights, rule: Rule) -> VaeShape:
    config = weights.config.get("vae", {})
    shape = vae_shape(
        _shapes(weights.part("vae")),
        norm_groups=int(config.get("norm_num_groups") or rule.norm_groups),
        scaling_factor=float(config.get("scaling_factor") or rule.scaling_factor),
    )
    return replace(shape, quant=True)


def _shapes(places: Mapping[str, Place]) -> dict[str, tuple[int, ...]]:
    return {name: place.shape for name, place in places.items()}


def _check(path: Path, shapes: Shapes) -> None:
    odd = [_odd_division(path, *each) for each in _divisions(shapes) if each[1] % each[2]]
    for text in shapes.texts.values():
        if text.activation not in ACTIVATIONS:
            odd.append(Problem(f"text encoder activation {text.activation!r} is unknown", where=str(path)))
    given, read = sum(text.width for text in shapes.texts.values()), shapes.unet.context_width
    if given != read:
        odd.append(
            Problem(
                f"the U-Net reads {read} numbers a token, the text encoder gives {given}", where=str(path)
            )
        )
    if odd:
        raise InputError(odd)


def _divisions(shapes: Shapes) -> Iterator[tuple[str, int, int]]:
    """(what, width, how many parts it must have)."""
    unet = shapes.unet
    attends = [depth > 0 for depth in unet.depths]
    attends[-1] = attends[-1] or unet.middle_depth > 0
    for width, heads, wanted in zip(unet.widths, unet.level_heads, attends, strict=True):
        if wanted:
            yield "U-Net heads", width, heads
    for width in unet.widths:
        yield "U-Net norm groups", width, unet.norm_groups
    for width in shapes.vae.widths:
        yield "VAE norm groups", width, shapes.vae.norm_groups
    for text in shapes.texts.values():
        yield "text encoder heads", text.width, text.heads


def _odd_division(path: Path, what: str, width: int, count: int) -> Problem:
    return Problem(
        f"{what}: {count} do not divide the width {width}",
        where=str(path),
        why="its configuration (metadata atelier.components or config.json) does not belong to these weights",
        next="Download the model again",
    )


_without_weights: ContextVar[bool] = ContextVar("without_weights", default=False)


@contextmanager
def outlines() -> Generator[None, None, None]:
    """Models that are loaded inside have shapes and names only: on the meta device, nothing is read."""
    token = _without_weights.set(True)
    try:
        yield
    finally:
        _without_weights.reset(token)


class Filed(Protocol):
    """A tensor in files, however it is stored there."""

    @property
    def name(self) -> str: ...
    @property
    def source(self) -> TensorSource: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    def read(self, dtype: torch.dtype | None = None) -> Tensor: ...


class WeightTable(Protocol):
    """All tensors of a model by part and name."""

    @property
    def path(self) -> Path: ...
    def part(self, name: str, /) -> Mapping[str, Filed]: ...


def fill(make: Callable[[], Module], weights: WeightTable, part: str, dtype: torch.dtype) -> Module:
    """Make a module without memory for its weights and put the file's tensors in place of them.

    Raises:
        InputError: tensors are missing, of another shape, or not finite.
    """
    module = skeleton(make)
    places = weights.part(part)
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    _require_all(weights.path, wanted, places)
    if _without_weights.get():
        return module.to(dtype).eval().requires_grad_(False)
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


def _require_all(path: Path, wanted: Mapping[str, tuple[int, ...]], places: Mapping[str, Filed]) -> None:
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
                next="the model is not of the plain build of its family, or it is damaged",
            )


def nonfinite(tensor: Tensor) -> int:
    """How many values are NaN or infinite. Smallest and largest value tell whether to count."""
    if tensor.numel() == 0 or not tensor.is_floating_point():
        return 0
    low, high = torch.aminmax(tensor)
    if math.isfinite(low.item()) and math.isfinite(high.item()):
        return 0
    return int((~torch.isfinite(tensor)).sum().item())
