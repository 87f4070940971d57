"""Rank-stabilised strength."""

from __future__ import annotations

import math

from backend.networks.weighted import Options


def rank_stabilised(options: Options, on: bool) -> float:
    """The alpha that a file has: with ``on``, strength is alpha / sqrt(r) (Kalajdzievski 2023,
    "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA"), which other programs, that
    divide by r, get from alpha * sqrt(r)."""
    return options.own_alpha * (math.sqrt(options.rank) if on else 1.0)
