"""The noise schedule that SD 1.x, 2.x and SDXL were trained with."""

from __future__ import annotations

import torch
from torch import Tensor


def scaled_linear() -> Tensor:
    """Cumulative alphas (1000,) float32: betas from 0.00085 to 0.012, linear in their square roots
    (Rombach et al. 2022)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2
    return torch.cumprod(1.0 - betas, dim=0)


def zero_terminal(alphas_cumprod: Tensor) -> Tensor:
    """The schedule with no signal left at its last step (Lin et al. 2023, algorithm 1), (T,).

    sqrt(a) is shifted so that the last is 0 and scaled so that the first stays. A schedule that is
    so already stays as it is.
    """
    roots = alphas_cumprod.sqrt()
    first, last = roots[0].clone(), roots[-1].clone()
    return ((roots - last) * first / (first - last)).square()
