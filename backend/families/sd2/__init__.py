"""Stable Diffusion 2.x: base (predicts noise) and 768-v."""

from backend.families.sd2.load import hollow, load
from backend.families.sd2.model import StableDiffusion2

__all__ = ["StableDiffusion2", "hollow", "load"]
