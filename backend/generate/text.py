"""Prompts as conditioning, as WebUI and sd-scripts read them: emphasis ``(word:1.2)``, ``(word)``,
``[word]``, escapes, ``BREAK``, and texts longer than one pass of the text encoder.

Hidden states are multiplied by the weights of their tokens, then all of a prompt is brought back to the
mean that it had, so that emphasis moves attention between words and not the picture's contrast. (Captions
in training are not brought back: see ``families.parts.tokenizer.weigh_states``.)

A text is read in pieces of 75 tokens. ``BREAK`` ends a piece: what follows begins a new one. Families that
do not read emphasis take brackets as they are and have one piece.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from backend.data.emphasis import Part, parse, plain
from backend.data.tokens import room
from backend.families.base import Conditioning, DiffusionModel, TokenIds
from backend.generate.request import EmphasisMode

_BREAK = re.compile(r"\s*\bBREAK\b\s*")
_BRACES = re.compile(r"\\([{}])")
_BRACKETS = re.compile(r"([\\()\[\]])")
_LEAST_MEAN = 1e-4
"""Of the root mean square: below, a mean is rounding and no brightness that could be kept."""


class Read(NamedTuple):
    """Tokens of prompts, and how much each counts (B, chunks, 77), where there is emphasis."""

    tokens: TokenIds
    weights: Tensor | None


def encode(
    model: DiffusionModel,
    prompts: Sequence[str],
    max_token_length: int | None,
    clip_skip: int | None,
    device: torch.device,
    mode: EmphasisMode = "original",
) -> Conditioning:
    """Conditioning of prompts; a family that does not read emphasis takes brackets as they are."""
    read = _read(model, prompts, max_token_length)
    found = model.encode_text({key: ids.to(device) for key, ids in read.tokens.items()}, clip_skip)
    weights = read.weights
    if weights is None or bool((weights == 1).all()):
        return found
    weighed = model.weigh_text(found, weights)
    if mode == "none":
        return weighed
    return {
        key: tensor if tensor is found[key] else _levelled(found[key], tensor, mode == "abs")
        for key, tensor in weighed.items()
    }


def token_count(model: DiffusionModel, prompt: str) -> int:
    """Tokens of the longest part between two BREAKs, as it is encoded."""
    return (
        max(model.token_count(plain(part)) for part in parts(prompt))
        if model.reads_emphasis
        else (model.token_count(_without_breaks(prompt)))
    )


def tokens_needed(model: DiffusionModel, prompt: str) -> int:
    """The ``max_token_length`` with which all of a prompt is read."""
    return room(token_count(model, prompt))


def parts(prompt: str) -> list[str]:
    """A prompt cut at ``BREAK``; brackets that reach over one stand in each part as weights."""
    if not _BREAK.search(prompt):
        return [_BRACES.sub(r"\1", prompt)]
    found: list[list[Part]] = [[]]
    for part in parse(prompt):
        first, *others = _BREAK.split(part.text)
        found[-1].append(Part(first, part.weight))
        found += [[Part(text, part.weight)] for text in others]
    return [_BRACES.sub(r"\1", "".join(map(_written, each))) for each in found]


def _written(part: Part) -> str:
    text = _BRACKETS.sub(r"\\\1", part.text)
    return text if part.weight == 1 or not text else f"({text}:{part.weight:.17f})"


def _without_breaks(prompt: str) -> str:
    return _BRACES.sub(r"\1", _BREAK.sub(" ", prompt))


def _read(model: DiffusionModel, prompts: Sequence[str], max_token_length: int | None) -> Read:
    if not model.reads_emphasis:
        return Read(model.tokenize([_without_breaks(prompt) for prompt in prompts], max_token_length), None)
    cut = [parts(prompt) for prompt in prompts]
    most = max(map(len, cut))
    rows = [model.tokenize_weighted([*each, *[""] * (most - len(each))], max_token_length) for each in cut]
    tokens = {key: torch.stack([_in_a_row(ids[key]) for ids, _ in rows]) for key in rows[0][0]}
    return Read(tokens, torch.stack([_in_a_row(weights) for _, weights in rows]))


def _in_a_row(pieces: Tensor) -> Tensor:
    """(parts, chunks, 77) -> (parts x chunks, 77)."""
    return pieces.flatten(0, 1)


def _levelled(before: Tensor, after: Tensor, sizes: bool) -> Tensor:
    """``after`` (B, ..., L, D) with each row's mean as it was ``before``, where there is a mean to speak of.

    ``sizes``: the mean of absolute values."""
    old, new = (_mean(states, sizes) for states in (before, after))
    size = after.float().square().mean(dim=(-2, -1), keepdim=True).sqrt()
    return after * torch.where(new.abs() > _LEAST_MEAN * size, old / new, 1.0).to(after.dtype)


def _mean(states: Tensor, sizes: bool) -> Tensor:
    values = states.float().abs() if sizes else states.float()
    return values.mean(dim=(-2, -1), keepdim=True)
