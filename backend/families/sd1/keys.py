"""Names of SD 1.x weights: original single-file layout <-> diffusers, for any width and depth.

Original names come with the prefixes of a whole checkpoint (``model.diffusion_model.``,
``first_stage_model.``, ``cond_stage_model.transformer.``); diffusers names with those of the part
(``unet.``, ``vae.``, ``text_encoder.``).
"""

from __future__ import annotations

from collections.abc import Collection

from backend.families.parts.layout import VAE, Layout, TextPart

__all__ = ["LAYOUT", "VAE", "to_diffusers", "to_original"]

LAYOUT = Layout((TextPart("text_encoder", "cond_stage_model.transformer.", also=("cond_stage_model.",)),))


def to_diffusers(names: Collection[str]) -> dict[str, str]:
    """Original name -> diffusers name, for those of ``names`` that belong to the model."""
    return {piece.name: new for new, piece in LAYOUT.pieces(names).items()}


def to_original(names: Collection[str]) -> dict[str, str]:
    """Diffusers name -> original name, for all of ``names``; the inverse of :func:`to_diffusers`."""
    return {parts[0]: original for original, parts in LAYOUT.original(names).items()}
