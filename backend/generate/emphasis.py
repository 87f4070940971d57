"""Prompts with emphasis, as WebUI and sd-scripts draw them: ``(word:1.2)``, ``(word)``, ``[word]``.

Hidden states are multiplied by the weights of their tokens, then all of a prompt is brought back to the
mean that it had, so that emphasis moves attention between words and not the picture's contrast. (Captions
in training are not brought back: see ``families.parts.tokenizer.weigh_states``.)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from backend.data.emphasis import plain
from backend.families.base import Conditioning, DiffusionModel

_LEAST_MEAN = 1e-4
"""Of the root mean square: below, a mean is rounding and no brightness that could be kept."""


def encode(
    model: DiffusionModel,
    prompts: Sequence[str],
    max_token_length: int | None,
    clip_skip: int | None,
    device: torch.device,
) -> Conditioning:
    """Conditioning of prompts; a family that does not read emphasis takes brackets as they are."""
    weights = None
    if model.reads_emphasis:
        tokens, weights = model.tokenize_weighted(prompts, max_token_length)
    else:
        tokens = model.tokenize(prompts, max_token_length)
    found = model.encode_text({key: ids.to(device) for key, ids in tokens.items()}, clip_skip)
    if weights is None or bool((weights == 1).all()):
        return found
    weighed = model.weigh_text(found, weights)
    return {
        key: tensor if tensor is found[key] else _levelled(found[key], tensor)
        for key, tensor in weighed.items()
    }


def token_count(model: DiffusionModel, prompt: str) -> int:
    """Tokens of a prompt as it is encoded."""
    return model.token_count(plain(prompt) if model.reads_emphasis else prompt)


def _levelled(before: Tensor, after: Tensor) -> Tensor:
    """``after`` (B, L, D) with each row's mean as it was ``before``, where there is a mean to speak of."""
    old, new = (states.float().mean(dim=(-2, -1), keepdim=True) for states in (before, after))
    size = after.float().square().mean(dim=(-2, -1), keepdim=True).sqrt()
    return after * torch.where(new.abs() > _LEAST_MEAN * size, old / new, 1.0).to(after.dtype)
