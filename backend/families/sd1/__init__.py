"""Stable Diffusion 1.x."""

from backend.families.sd1.load import hollow, load
from backend.families.sd1.model import StableDiffusion1

__all__ = ["StableDiffusion1", "hollow", "load"]
