"""Stable Diffusion 3 medium, 3.5 medium and 3.5 large."""

from backend.families.sd3.hollow import hollow
from backend.families.sd3.load import load
from backend.families.sd3.model import StableDiffusion3

__all__ = ["StableDiffusion3", "hollow", "load"]
