"""The passes in which latents are drawn: from noise, from a picture, inside a mask, and enlarged.

Shapes: B pictures, C latent channels, h and w latent sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from backend.families.base import DiffusionModel
from backend.generate import pixels, samplers, vae
from backend.generate.guidance import Guidance, schedule_of
from backend.generate.modes import autocast, device_of, evaluating, interruptible
from backend.generate.noise import Noise
from backend.generate.preview import Preview
from backend.generate.request import Hires, Request
from backend.generate.watch import Watch

Passing = Callable[[float, tuple[int, int]], None]
"""Told the share (0..1) of a pass that is done before each of its steps, and the pass's size (width,
height) in pixels."""


@dataclass(frozen=True)
class Latents:
    """What was drawn."""

    final: Tensor
    """(B, C, h, w), scaled, float32."""
    first: Tensor | None = None
    """Those of the first pass, where there were two."""


@dataclass(frozen=True)
class _Start:
    """What a pass begins with beside noise."""

    latents: Tensor
    """(1 or B, C, h, w) of the picture."""
    strength: float
    """0..1, how much of it is drawn anew."""
    mask: Tensor | None = None
    """(1, 1, h, w), 1 where it is drawn anew, 0 where it stays."""


@torch.no_grad()
def sample(
    model: DiffusionModel,
    pictures: Sequence[Request],
    watch: Watch | None = None,
    passing: Passing | None = None,
) -> Latents:
    """Draw resolved requests that differ in prompt and seed only.

    Raises :class:`~backend.generate.watch.Stopped` before the next block of the denoiser runs after
    it was asked for.
    """
    drawing = _Drawing(model, list(pictures), watch or Watch(), passing or _ignore)
    with (
        evaluating(model.parts().values()),
        autocast(model),
        interruptible(model.denoiser, drawing.watch.check),
    ):
        return drawing.run()


class _Drawing:
    """One batch on its way through the passes."""

    def __init__(
        self, model: DiffusionModel, pictures: list[Request], watch: Watch, passing: Passing
    ) -> None:
        self.model = model
        self.pictures = pictures
        self.request = pictures[0]
        self.watch = watch
        self.passing = passing
        self.device = device_of(model)

    def run(self) -> Latents:
        request, hires = self.request, self.request.hires
        self.watch.total = steps_in_all(request)
        self.guidance = Guidance(self.model, self.pictures)
        first = self._pass(
            request.steps, self._sides(request), self._given(), Noise(self.model, self.pictures)
        )
        if hires is None:
            return Latents(first)
        start = _Start(self._enlarged(first, hires), hires.strength)
        width, height = hires_size(request, hires, _multiple(self.model))
        sides = height // self.model.scale_factor, width // self.model.scale_factor
        steps = hires.steps or request.steps
        return Latents(self._pass(steps, sides, start, Noise(self.model, self.pictures, further=1)), first)

    def _pass(self, steps: int, sides: tuple[int, int], start: _Start | None, source: Noise) -> Tensor:
        """Walk from noise to a picture; from a part of the way where there is something to start from."""
        scheduler = self._scheduler(steps)
        noise = source.draw(sides).to(self.device)
        size = sides[1] * self.model.scale_factor, sides[0] * self.model.scale_factor
        if start is None:
            latents, times = noise * samplers.first_sigma(scheduler), scheduler.timesteps
        elif start.strength <= 0:
            return start.latents.expand_as(noise)
        else:
            latents, times = self._started(scheduler, steps, start, noise)
        for index, time in enumerate(times):
            self.watch.check()
            self.passing(index / len(times), size)
            seen = samplers.scaled(scheduler, latents, time)
            output = self.guidance.predict(seen, time)
            self._preview(seen, output, time)
            latents = _step(scheduler, output, time, latents, source.generators)
            if start is not None and start.mask is not None:
                latents = _kept(scheduler, latents, start, noise, times[index + 1 : index + 2])
            self.watch.stepped((index + 1) / len(times), _walked(steps, start and start.strength))
        return latents

    def _started(self, scheduler: Any, steps: int, start: _Start, noise: Tensor) -> tuple[Tensor, Tensor]:
        """First latents and timesteps of a pass that begins with a picture."""
        times = samplers.last_part(scheduler, steps, start.strength)
        if start.strength >= 1 and start.mask is not None:
            return noise * samplers.first_sigma(scheduler), times
        return samplers.noised(scheduler, start.latents.expand_as(noise), noise, times[0]), times

    def _scheduler(self, steps: int) -> Any:
        if self.model.prediction == "flow":
            return samplers.build_flow(self.request.sampler, steps)
        alphas = schedule_of(self.model, self.request)
        return samplers.build(self.request.sampler, alphas, self.model.prediction, steps)

    def _sides(self, request: Request) -> tuple[int, int]:
        assert request.width and request.height, "sizes are decided before sampling"
        return request.height // self.model.scale_factor, request.width // self.model.scale_factor

    def _given(self) -> _Start | None:
        """The picture that is drawn over, if there is one."""
        request = self.request
        if not request.image:
            return None
        image = fitted_image(request)
        latents = vae.encode(self.model, pixels.to_pixels(image), request.vae_tile, self.watch.check)
        mask = None
        if request.mask:
            mask = pixels.latent_mask(fitted_mask(request), self.model.scale_factor).to(self.device)
        return _Start(latents.to(self.device), request.strength, mask)

    def _enlarged(self, latents: Tensor, hires: Hires) -> Tensor:
        width, height = hires_size(self.request, hires, _multiple(self.model))
        scale = self.model.scale_factor
        if hires.mode == "latent":
            return F.interpolate(latents, (height // scale, width // scale), mode="bilinear")
        return torch.cat([self._redrawn(each[None], (width, height)) for each in latents])

    def _redrawn(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        """Latents of the decoded picture at another size."""
        tile, check = self.request.vae_tile, self.watch.check
        image = pixels.to_image(vae.decode(self.model, latents, tile, check)[0][0])
        large = image.resize(size, Image.Resampling.LANCZOS)
        return vae.encode(self.model, pixels.to_pixels(large), tile, check).to(self.device)

    def _preview(self, seen: Tensor, output: Tensor, time: Tensor) -> None:
        preview = Preview.of(self.model)
        self.watch.show(lambda: self.guidance.finished(seen, output, time), preview.develop)


def fitted_image(request: Request) -> Image.Image:
    """The request's picture at its size."""
    assert request.width and request.height, "sizes are decided before sampling"
    return pixels.covering(pixels.open_picture(request.image, "image"), request.width, request.height)


def fitted_mask(request: Request) -> Image.Image:
    """The request's mask at its size, grey."""
    assert request.width and request.height, "sizes are decided before sampling"
    return pixels.covering(pixels.open_mask(request.mask), request.width, request.height)


def hires_size(request: Request, hires: Hires, multiple: int) -> tuple[int, int]:
    """(width, height) of the second pass in pixels, whole multiples of ``multiple``."""
    assert request.width and request.height, "sizes are decided before sampling"
    width = hires.width or round(request.width * hires.scale)
    height = hires.height or round(request.height * hires.scale)
    return max(width // multiple, 1) * multiple, max(height // multiple, 1) * multiple


def steps_in_all(request: Request) -> int:
    """Steps of all passes of a resolved request."""
    first = _walked(request.steps, request.strength if request.image else None)
    hires = request.hires
    return first + (_walked(hires.steps or request.steps, hires.strength) if hires else 0)


def _walked(steps: int, strength: float | None) -> int:
    """Steps of a pass; ``strength`` None: from noise."""
    if strength is None:
        return steps
    return 0 if strength <= 0 else min(max(int(steps * strength), 1), steps)


def _multiple(model: DiffusionModel) -> int:
    return max(model.scale_factor, model.side_multiple)


def _step(scheduler: Any, output: Tensor, time: Tensor, latents: Tensor, generators: Any) -> Tensor:
    noise = {"generator": generators} if samplers.takes_generator(scheduler) else {}
    return scheduler.step(output, time, latents, return_dict=False, **noise)[0].float()


def _kept(scheduler: Any, latents: Tensor, start: _Start, noise: Tensor, following: Tensor) -> Tensor:
    """Latents with the picture where the mask is black, as noisy as the next step expects it."""
    assert start.mask is not None
    kept = start.latents
    if len(following):
        kept = samplers.noised(scheduler, kept.expand_as(noise), noise, following[0])
    return start.mask * latents + (1 - start.mask) * kept


def _ignore(share: float, size: tuple[int, int]) -> None:
    return
