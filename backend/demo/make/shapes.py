"""Dimensions of the small model: the topology of SD 1.x, narrow."""

from __future__ import annotations

from dataclasses import dataclass

from backend.families.parts.clip import ClipShape
from backend.families.parts.unet import UNetShape
from backend.families.parts.vae import VaeShape


@dataclass(frozen=True)
class Shapes:
    """The three parts of a model."""

    unet: UNetShape
    text: ClipShape
    vae: VaeShape


DEMO = Shapes(
    unet=UNetShape(widths=(32, 64, 80, 80), context_width=48, heads=2, norm_groups=8),
    text=ClipShape(width=48, inner=96, heads=4),
    vae=VaeShape(widths=(16, 32, 48, 48), norm_groups=1),
)
"""About 15.5 MB in fp16, of which 4.7 MB are the rows of the vocabulary.

Two heads: four take a third more time on a processor."""
