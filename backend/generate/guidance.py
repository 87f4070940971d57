"""The model's prediction with classifier-free guidance, and what it says of the finished picture.

Guidance: Ho and Salimans 2022 (arXiv 2207.12598).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from backend.families.base import DiffusionModel, Sizes
from backend.families.parts.schedule import zero_terminal
from backend.generate import text
from backend.generate.modes import device_of, dtype_of
from backend.generate.request import Request, StatedSizes

_LEAST_SIGNAL = 1e-3
"""Of sqrt(alpha): below, noise tells nothing of the picture under it."""


class Guidance:
    """Predicts for pictures (B) that differ in prompt and seed only. Their texts are encoded once.

    Rows of a pass: B for what is pulled away from (none at a scale of 1 and below), B more for the
    negative prompts where those have a scale of their own, B for the prompts.
    """

    def __init__(self, model: DiffusionModel, pictures: Sequence[Request]) -> None:
        first = pictures[0]
        self.model = model
        self.request = first
        self.count = len(pictures)
        self.own_negative = first.negative_scale is not None
        self.guided = first.scale > 1 or self.own_negative
        negatives = [picture.negative for picture in pictures]
        away = [[""] * self.count, negatives] if self.own_negative else [negatives] if self.guided else []
        prompts = [each for row in away for each in row] + [picture.prompt for picture in pictures]
        self.passes = len(away) + 1
        self.conditioning = text.encode(
            model,
            prompts,
            first.max_token_length,
            first.clip_skip,
            device_of(model),
            first.emb_normalize_mode,
        )

    def predict(self, latents: Tensor, time: Tensor) -> Tensor:
        """The guided output (B, C, h, w) float32 at one timestep; ``latents`` as the model is to see them."""
        rows = torch.cat([latents] * self.passes)
        times = time.to(rows.device).expand(len(rows))
        sizes = self._sizes(latents)
        output = self.model.predict(rows.to(dtype_of(self.model)), times, self.conditioning, sizes).float()
        if not self.guided:
            return output
        without, *negative, wanted = output.split(self.count)
        guided = without + self.request.scale * (wanted - without)
        if negative:
            guided = guided - (self.request.negative_scale or 0.0) * (negative[0] - without)
        return guided

    def _sizes(self, latents: Tensor) -> Sizes | None:
        stated = self.request.stated
        if stated is None:
            return None
        height, width = (side * self.model.scale_factor for side in latents.shape[-2:])
        wanted = stated.height or height, stated.width or width
        away = stated.height_negative or wanted[0], stated.width_negative or wanted[1]
        rows = [away] * (self.count * (self.passes - 1)) + [wanted] * self.count
        return _sizes(rows, stated, (height, width))

    def finished(self, latents: Tensor, output: Tensor, time: Tensor) -> Tensor:
        """The latents that an output leads to in one leap: a preview of the picture.

        Diffusion: ``x = sqrt(a) x0 + sqrt(1 - a) noise``, where ``latents`` is x; flow: ``x = x0 + t v``.
        """
        if self.model.prediction == "flow":
            return latents - float(time) / 1000 * output
        alphas = schedule_of(self.model, self.request)
        alpha = float(alphas[min(max(round(float(time)), 0), len(alphas) - 1)])
        signal, noise = max(alpha**0.5, _LEAST_SIGNAL), (1 - alpha) ** 0.5
        if self.model.prediction == "v":
            return signal * latents - noise * output
        return (latents - noise * output) / signal


def schedule_of(model: DiffusionModel, request: Request) -> Tensor:
    """The cumulative alphas (1000,) that a request is drawn with. Diffusion families only."""
    alphas = model.alphas_cumprod()
    return zero_terminal(alphas) if request.zero_terminal_snr else alphas


def _sizes(rows: list[tuple[int, int]], stated: StatedSizes, target: tuple[int, int]) -> Sizes:
    count = len(rows)
    return Sizes(
        original=torch.tensor(rows),
        crop=torch.tensor([(stated.top, stated.left)] * count),
        target=torch.tensor([target] * count),
    )
