"""From captions to what the denoiser is told, the same in a step and for the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from backend.data.emphasis import plain
from backend.data.loader import caption_at
from backend.data.report import count, listing
from backend.data.tokens import room
from backend.data.types import DatasetPlan, Picture
from backend.errors import Problem
from backend.families.base import Conditioning, DiffusionModel, TokenIds, TokenWeights
from backend.settings.declare import declarations
from backend.settings.sections import ModelSettings


def tokenize(
    model: DiffusionModel, captions: Sequence[str], settings: ModelSettings, device: torch.device
) -> tuple[TokenIds, TokenWeights | None]:
    """Ids of captions on the device and, with ``weighted_captions``, how much each token counts."""
    if not settings.weighted_captions:
        return _onto(model.tokenize(captions, settings.max_token_length), device), None
    tokens, weights = model.tokenize_weighted(captions, settings.max_token_length)
    return _onto(tokens, device), _onto(weights, device)


def encode(
    model: DiffusionModel, tokens: TokenIds, weights: TokenWeights | None, clip_skip: int | None
) -> Conditioning:
    """Conditioning of tokens, with the emphasis they have. Differentiable as the encoders are."""
    found = model.encode_text(tokens, clip_skip=clip_skip)
    return found if weights is None else model.weigh_text(found, weights)


def cut_captions(model: DiffusionModel, plan: DatasetPlan, settings: ModelSettings) -> list[Problem]:
    """A note that names captions of which the end is not read; [] when all fit."""
    limit = room(settings.max_token_length)
    names = {
        p.path.name: None for d in plan.datasets for p in d.pictures if _size(model, p, settings) > limit
    }
    if not names:
        return []
    families = declarations()["max_token_length"].info.families
    can_read_more = limit < 225 and (not families or model.family in families)
    longer = f" max_token_length {limit + 75} reads more." if can_read_more else ""
    text = f"{count(len(names), 'caption is', 'captions are')} longer than {limit} tokens and cut there: "
    return [Problem(f"{text}{listing(names)}.{longer}", key="max_token_length")]


def _onto(tensors: Mapping[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _size(model: DiffusionModel, picture: Picture, settings: ModelSettings) -> int:
    """Tokens of a picture's caption at its longest: nothing dropped, all tags in."""
    rules = replace(
        picture.subset.captions,
        caption_dropout_rate=0.0,
        caption_dropout_every_n_epochs=0,
        caption_tag_dropout_rate=0.0,
        token_warmup_step=0.0,
    )
    whole = replace(picture, subset=replace(picture.subset, captions=rules))
    text = caption_at(whole, 0, 0, 0, 1, 1)
    return model.token_count(plain(text) if settings.weighted_captions else text)
