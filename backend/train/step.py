"""One training step as a pure function of parameters and inputs.

:class:`StepModule` holds what is trained as its own sub-module and what stays frozen beside it, so
that a distributed wrapper sees exactly the trainable parameters, and the whole of forward and loss
is one call without a host synchronisation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backend.families.base import Conditioning, DiffusionModel, Sizes, TokenIds
from backend.train.objectives import Objective


@dataclass(frozen=True)
class StepInputs:
    """Everything one forward pass needs, on the training device.

    latents, noise: (B, C, h, w) float32; timesteps: (B,) int64; loss_weights: (B,) float32;
    masks: (B, 1, H, W) in 0..1 or None. Either ``tokens`` (the text encoders run in the step) or
    ``text`` (encoded before).
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


class StepModule(nn.Module):
    """Trainable weights and the loss they are trained by."""

    def __init__(
        self, trainable: nn.Module, model: DiffusionModel, objective: Objective, clip_skip: int | None = None,
        train_text: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.trainable = trainable
        self._frozen = (model, objective)
        self.clip_skip = clip_skip
        self.train_text = train_text

    def conditioning(self, inputs: StepInputs) -> Conditioning:
        """Encoded text; with gradients only when a text encoder is trained."""
        if inputs.text is not None:
            return inputs.text
        assert inputs.tokens is not None, "a step needs tokens or encoded text"
        model, _ = self._frozen
        with torch.set_grad_enabled(self.train_text and torch.is_grad_enabled()):
            return model.encode_text(inputs.tokens, clip_skip=self.clip_skip)

    def forward(self, inputs: StepInputs) -> Tensor:
        """Losses of the pictures, (B,) float32."""
        model, objective = self._frozen
        conditioning = self.conditioning(inputs)
        noisy = inputs.noisy
        if noisy is None:
            noisy = objective.noisy(
                inputs.latents,
                inputs.noise if inputs.input_noise is None else inputs.input_noise,
                inputs.timesteps,
            )
        prediction = model.predict(noisy, inputs.timesteps, conditioning, inputs.sizes)
        target = objective.target(inputs.latents, inputs.noise, inputs.timesteps)
        return objective.losses(prediction, target, inputs.timesteps, inputs.loss_weights, inputs.masks)
