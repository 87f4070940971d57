"""Stable Diffusion XL."""

from backend.families.sdxl.load import hollow, load
from backend.families.sdxl.model import StableDiffusionXL

__all__ = ["StableDiffusionXL", "hollow", "load"]
