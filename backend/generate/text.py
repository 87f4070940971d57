"""Prompts as conditioning, as WebUI and sd-scripts read them: emphasis ``(word:1.2)``, ``(word)``,
``[word]``, escapes, ``BREAK``, and texts longer than one pass of the text encoder.

Hidden states are multiplied by the weights of their tokens, then all of a prompt is brought back to the
mean that it had, so that emphasis moves attention between words and not the picture's contrast; T5's, whose
mean is chance, to the mean of their absolute values. (Captions in training are not brought back: see
``families.parts.tokenizer.weigh_states``.)

A text is read in pieces of 75 tokens. ``BREAK`` ends a piece: what follows begins a new one. Each piece is
padded and read as a text of its own, by every text encoder of the family, and what it becomes stands behind
what the piece before became. (T5 has no pieces but those between BREAKs: it reads more at a time.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from backend.data.emphasis import Part, parse, plain
from backend.data.tokens import room
from backend.families.base import Conditioning, DiffusionModel, TokenIds, TokenWeights
from backend.generate.request import EmphasisMode

_BREAK = re.compile(r"\s*\bBREAK\b\s*")
_BRACES = re.compile(r"\\([{}])")
_BRACKETS = re.compile(r"([\\()\[\]])")
_LEAST_MEAN = 1e-4
"""Of the root mean square: below, a mean is rounding and no brightness that could be kept."""


class Read(NamedTuple):
    """Tokens of prompts (B, pieces, ...), and how much each counts."""

    tokens: TokenIds
    weights: TokenWeights


def encode(
    model: DiffusionModel,
    prompts: Sequence[str],
    max_token_length: int | None,
    clip_skip: int | None,
    device: torch.device,
    mode: EmphasisMode = "original",
) -> Conditioning:
    """Conditioning of prompts, (B, ...)."""
    read = _read(model, prompts, max_token_length)
    found = model.encode_text({key: ids.to(device) for key, ids in read.tokens.items()}, clip_skip)
    if all(bool((weights == 1).all()) for weights in read.weights.values()):
        return found
    weighed = model.weigh_text(found, read.weights)
    if mode == "none":
        return weighed
    by_size = set(weighed) if mode == "abs" else model.text_without_mean
    return {
        key: tensor if tensor is found[key] else _levelled(found[key], tensor, key in by_size)
        for key, tensor in weighed.items()
    }


def token_count(model: DiffusionModel, prompt: str) -> int:
    """Tokens of the longest part between two BREAKs, as it is encoded."""
    return max(model.token_count(plain(part)) for part in parts(prompt))


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


def _read(model: DiffusionModel, prompts: Sequence[str], max_token_length: int | None) -> Read:
    cut = [parts(prompt) for prompt in prompts]
    most = max(map(len, cut))
    rows = [model.tokenize_weighted([*each, *[""] * (most - len(each))], max_token_length) for each in cut]
    return Read(_in_a_row([ids for ids, _ in rows]), _in_a_row([weights for _, weights in rows]))


def _in_a_row(rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """B of (parts, chunks, 77) by encoder -> (B, parts x chunks, 77)."""
    return {key: torch.stack([row[key].flatten(0, 1) for row in rows]) for key in rows[0]}


def _levelled(before: Tensor, after: Tensor, sizes: bool) -> Tensor:
    """``after`` (B, ..., L, D) with each row's mean as it was ``before``, where there is a mean to speak of.

    ``sizes``: the mean of absolute values."""
    old, new = (_mean(states, sizes) for states in (before, after))
    size = after.float().square().mean(dim=(-2, -1), keepdim=True).sqrt()
    return after * torch.where(new.abs() > _LEAST_MEAN * size, old / new, 1.0).to(after.dtype)


def _mean(states: Tensor, sizes: bool) -> Tensor:
    values = states.float().abs() if sizes else states.float()
    return values.mean(dim=(-2, -1), keepdim=True)
