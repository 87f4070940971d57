"""Between latents and pixels: the VAE where it is needed, whole or in overlapping tiles.

Shapes: latents (B, C, h, w), pixels (B, 3, H, W) in -1..1.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from backend.families.base import DiffusionModel
from backend.generate.modes import device_of, evaluating

Check = Callable[[], None]
"""Called between tiles; raises when drawing is to end."""

OVERLAP = 4
"""A tile shares a quarter of its side with its neighbour."""
_LEAST_TILE = 64
"""Pixels: below, a tile is mostly border."""
_FLOAT32_NOTE = "the VAE overflowed in half precision and was used in float32"


@torch.no_grad()
def decode(
    model: DiffusionModel, latents: Tensor, tile: int | None = None, check: Check | None = None
) -> tuple[Tensor, str]:
    """Pixels of scaled latents, and a note ('' when all went as usual).

    The VAE is on the denoiser's device only meanwhile. When half precision overflows, the picture
    is decoded once more in float32. ``tile``: pixels of a side of the pieces it is decoded in.
    """

    def work() -> Tensor:
        return _tiled(model.decode_latents, latents, _tile(model, tile), model.scale_factor, check)

    pixels, note = _with_vae(model, work)
    return (pixels.nan_to_num(-1.0) if note else pixels), note


@torch.no_grad()
def encode(
    model: DiffusionModel, pixels: Tensor, tile: int | None = None, check: Check | None = None
) -> Tensor:
    """Scaled latents of pixels, float32: the middle of the VAE's posterior."""
    scale = model.scale_factor

    def one(piece: Tensor) -> Tensor:
        sides = [side // scale for side in piece.shape[-2:]]
        return model.encode_images(piece, torch.zeros(len(piece), model.latent_channels, *sides))

    def work() -> Tensor:
        size = _tile(model, tile)
        return _tiled(one, pixels.to(device_of(model)), size and size * scale, 1 / scale, check)

    return _with_vae(model, work)[0].float()


def _with_vae(model: DiffusionModel, work: Callable[[], Tensor]) -> tuple[Tensor, str]:
    """What the VAE makes, once more in float32 when it is not finite; and the note about that."""
    device = device_of(model)
    plain = torch.autocast(device.type, enabled=False)
    with _moved(model.vae, device), evaluating([model.vae]), plain:
        made = work()
        if bool(torch.isfinite(made).all()):
            return made, ""
        with _as_float32(model.vae):
            return work(), _FLOAT32_NOTE


def _tile(model: DiffusionModel, pixels: int | None) -> int | None:
    """Latent side of a tile."""
    return None if not pixels else max(pixels, _LEAST_TILE) // model.scale_factor


def _tiled(
    make: Callable[[Tensor], Tensor], whole: Tensor, tile: int | None, scale: float, check: Check | None
) -> Tensor:
    """``make(whole)``, piece by piece where ``whole`` is larger than ``tile``; ``scale``: sides of what
    is made / sides given. Pieces fade into each other over what they share."""
    if not tile or max(whole.shape[-2:]) <= tile:
        if check:
            check()
        return make(whole)
    total = weights = None
    for top, bottom in _spans(whole.shape[-2], tile):
        for left, right in _spans(whole.shape[-1], tile):
            if check:
                check()
            made = make(whole[..., top:bottom, left:right]).float()
            if total is None or weights is None:
                sides = [round(side * scale) for side in whole.shape[-2:]]
                total = made.new_zeros(*made.shape[:2], *sides)
                weights = made.new_zeros(1, 1, *sides)
            place = (
                slice(round(top * scale), round(bottom * scale)),
                slice(round(left * scale), round(right * scale)),
            )
            fade = _fade(made, (top == 0, bottom == whole.shape[-2], left == 0, right == whole.shape[-1]))
            total[..., place[0], place[1]] += made * fade
            weights[..., place[0], place[1]] += fade
    assert total is not None and weights is not None
    return total / weights


def _spans(side: int, tile: int) -> Iterator[tuple[int, int]]:
    """Where tiles begin and end along a side; each is ``tile`` long, or the whole side."""
    if side <= tile:
        yield 0, side
        return
    step = tile - max(tile // OVERLAP, 1)
    for start in range(0, side - tile + step, step):
        first = min(start, side - tile)
        yield first, first + tile


def _fade(made: Tensor, at_edge: tuple[bool, bool, bool, bool]) -> Tensor:
    """Weights (1, 1, H, W) that fall towards sides where another tile goes on."""
    height, width = made.shape[-2:]
    top, bottom, left, right = at_edge
    rows, columns = _ramp(height, top, bottom), _ramp(width, left, right)
    return (rows[:, None] * columns).to(made.device)[None, None]


def _ramp(length: int, flat_start: bool, flat_end: bool) -> Tensor:
    steps = torch.arange(1, length + 1, dtype=torch.float32) / max(length // OVERLAP, 1)
    rising = steps.clamp(max=1.0)
    ramp = torch.ones(length)
    ramp = ramp if flat_start else torch.minimum(ramp, rising)
    return ramp if flat_end else torch.minimum(ramp, rising.flip(0))


@contextmanager
def _moved(module: nn.Module, device: torch.device) -> Generator[None, None, None]:
    home = next(module.parameters()).device
    if home == device:
        yield
        return
    module.to(device)
    try:
        yield
    finally:
        module.to(home)


@contextmanager
def _as_float32(module: nn.Module) -> Generator[None, None, None]:
    dtype = next(module.parameters()).dtype
    module.float()
    try:
        yield
    finally:
        module.to(dtype)
