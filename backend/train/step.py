"""One training step as a pure function of parameters and inputs.

:class:`StepModule` holds what is trained as its own sub-module and what stays frozen beside it, so
that a distributed wrapper sees exactly the trainable parameters, and the whole of forward and loss
is one call without a host synchronisation.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from backend.families.base import Conditioning, DiffusionModel, Sizes, TokenIds, TokenWeights
from backend.train.objectives import Objective
from backend.train.texts import encode

if TYPE_CHECKING:
    from backend.train.flow import FlowObjective

Off = Callable[[], AbstractContextManager[None]]
Show = Callable[[Tensor], None]


@dataclass(frozen=True)
class ClassText:
    """Captions with the class in the subject's place, as tokens or encoded before."""

    shares: Tensor
    """(B,) float32: how much each picture's hold counts."""
    tokens: TokenIds | None = None
    token_weights: TokenWeights | None = None
    text: Conditioning | None = None


@dataclass(frozen=True)
class StepInputs:
    """Everything one forward pass needs, on the training device.

    latents, noise: (B, C, h, w) float32; timesteps: (B,) int64, of a flow float32; loss_weights: (B,)
    float32; masks: (B, 1, H, W) in 0..1 or None. ``tokens`` of the text encoders that run in the step,
    ``text`` of those that ran before.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    loss_weights: Tensor
    tokens: TokenIds | None = None
    text: Conditioning | None = None
    masks: Tensor | None = None
    sizes: Sizes | None = None
    input_noise: Tensor | None = None
    """Noise that is added, where it differs from ``noise``, the one to be predicted."""
    noisy: Tensor | None = None
    """Noisy latents to use as they are, for comparing numbers with another trainer."""
    draws: Conditioning | None = None
    """Further conditioning, drawn for each picture at this visit."""
    token_weights: TokenWeights | None = None
    """Emphasis of ``tokens``."""
    to_base: Tensor | None = None
    """(B,) bool: pictures whose target is what the base model says."""
    class_text: ClassText | None = None
    """Held beside the lesson: see ``preservation``."""
    guides: Tensor | None = None
    """(B, 3, H, W) in -1..1: the pictures that guide."""


class StepModule(nn.Module):
    """Trainable weights and the loss they are trained by."""

    def __init__(
        self, trainable: nn.Module, model: DiffusionModel, objective: Objective | FlowObjective,
        clip_skip: int | None = None, train_text: bool = False, off: Off | None = None,
        show: Show | None = None,
    ) -> None:  # fmt: skip
        """``off``: makes the model the base model meanwhile, for what is held to it. ``show``: lets it
        follow pictures that guide, until others are shown."""
        super().__init__()
        self.trainable = trainable
        self._frozen = (model, objective)
        self.clip_skip = clip_skip
        self.train_text = train_text
        self._off = off
        self._show = show

    def conditioning(self, inputs: StepInputs | ClassText, draws: Conditioning | None = None) -> Conditioning:
        """Encoded text, with gradients only when a text encoder is trained, and what was drawn."""
        ready = {**(inputs.text or {}), **(draws or {})}
        if inputs.tokens is None:
            assert inputs.text is not None, "a step needs tokens or encoded text"
            return ready
        model, _ = self._frozen
        with torch.set_grad_enabled(self.train_text and torch.is_grad_enabled()):
            return {**encode(model, inputs.tokens, inputs.token_weights, self.clip_skip), **ready}

    def forward(self, inputs: StepInputs) -> Tensor:
        """Losses of the pictures, (B,) float32."""
        model, objective = self._frozen
        if self._show is not None:
            assert inputs.guides is not None, "a batch without pictures that guide"
            self._show(inputs.guides)
        conditioning = self.conditioning(inputs, inputs.draws)
        noisy = inputs.noisy
        if noisy is None:
            noisy = objective.noisy(
                inputs.latents,
                inputs.noise if inputs.input_noise is None else inputs.input_noise,
                inputs.timesteps,
            )
        prediction = model.predict(noisy, inputs.timesteps, conditioning, inputs.sizes)
        target = objective.target(inputs.latents, inputs.noise, inputs.timesteps)
        if inputs.to_base is not None:
            base = self._base_prediction(inputs, noisy, inputs)
            target = torch.where(inputs.to_base.view(-1, 1, 1, 1), base, target)
        losses = objective.losses(prediction, target, inputs.timesteps, inputs.loss_weights, inputs.masks)
        if inputs.class_text is not None:
            losses = losses + self._drift(inputs, noisy, inputs.class_text)
        return losses

    def _drift(self, inputs: StepInputs, noisy: Tensor, text: ClassText) -> Tensor:
        """How far the model says another thing of the class than the base model, (B,)."""
        model, objective = self._frozen
        now = model.predict(noisy, inputs.timesteps, self.conditioning(text, inputs.draws), inputs.sizes)
        before = self._base_prediction(inputs, noisy, text)
        return objective.losses(now, before, inputs.timesteps, text.shares)

    def _base_prediction(self, inputs: StepInputs, noisy: Tensor, text: StepInputs | ClassText) -> Tensor:
        """What the base model says. After a pass with gradients only: autocast keeps the weights that
        it converts first, and those made without gradients would have none."""
        assert self._off is not None, "checked when the session was built"
        model, _ = self._frozen
        with torch.no_grad(), self._off():
            conditioning = self.conditioning(text, inputs.draws)
            return model.predict(noisy, inputs.timesteps, conditioning, inputs.sizes)
