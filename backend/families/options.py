"""What a model is told beside its own file; families take what they know and leave the rest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class LoadOptions:
    """Further files, where they go, and how text and positions are made of it."""

    clip_l: Path | None = None
    """Files of text encoders that take the place of those inside the model."""
    clip_g: Path | None = None
    t5xxl: Path | None = None
    t5xxl_dtype: torch.dtype | None = None
    """None: as the other parts."""
    t5xxl_device: str | None = None
    """None: as the other parts."""
    t5xxl_max_token_length: int = 256
    apply_lg_attn_mask: bool = False
    apply_t5_attn_mask: bool = False
    clip_l_dropout_rate: float = 0.0
    clip_g_dropout_rate: float = 0.0
    t5_dropout_rate: float = 0.0
    pos_emb_random_crop_rate: float = 0.0
    enable_scaled_pos_embed: bool = False
    sizes: tuple[tuple[int, int], ...] = ()
    """Training sizes (width, height) in pixels, for scaled positions."""
    blocks_to_swap: int = 0
    mmap: bool = True
    """Weights may stay in memory-mapped files."""
