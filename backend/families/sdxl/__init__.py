"""Stable Diffusion XL."""

from backend.families.sdxl.load import load
from backend.families.sdxl.model import StableDiffusionXL

__all__ = ["StableDiffusionXL", "load"]
