"""Scaled dot-product attention and the choice of who computes it."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend.errors import EnvironmentFault

AttentionKind = Literal["sdpa", "xformers", "sliced"]
"""PyTorch's own, the xformers library's, or PyTorch's own over a part of the queries at a time."""
SLICE = 1024
"""Queries at a time."""


class Attention(nn.Module):
    """Multi-head attention over tokens, with diffusers' names (``to_q``, ..., ``to_out.0``).

    ``context`` (B, L, D) gives keys and values; without one, the tokens attend to themselves.
    """

    def __init__(self, width: int, heads: int, context_width: int | None = None, bias: bool = False) -> None:
        super().__init__()
        assert width % heads == 0, f"{heads} heads do not divide the width {width}"
        self.heads = heads
        self.kind: AttentionKind = "sdpa"
        source = context_width or width
        self.to_q = nn.Linear(width, width, bias=bias)
        self.to_k = nn.Linear(source, width, bias=bias)
        self.to_v = nn.Linear(source, width, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(width, width), nn.Identity()])

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        source = tokens if context is None else context
        q, k, v = (self._split(x) for x in (self.to_q(tokens), self.to_k(source), self.to_v(source)))
        if self.kind == "xformers":
            mixed = _xformers(q, k, v)
        else:
            q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
            mixed = attend(q, k, v, sliced=self.kind == "sliced").transpose(1, 2)
        return self.to_out[0](mixed.flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        """(B, L, width) -> (B, L, heads, width / heads)."""
        return x.unflatten(-1, (self.heads, -1))


def attend(q: Tensor, k: Tensor, v: Tensor, sliced: bool = False) -> Tensor:
    """Scaled dot-product attention of (B, heads, L, size), shaped as ``q``.

    ``sliced``: the queries in parts, each of which is computed anew in the backward pass, so that
    scores need memory for one part only, where the card has no kernel that needs none at all.
    """
    if not sliced or q.shape[2] <= SLICE:
        return F.scaled_dot_product_attention(q, k, v)
    return torch.cat([_part(queries, k, v) for queries in q.split(SLICE, dim=2)], dim=2)


def _part(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(q, k, v)
    from torch.utils.checkpoint import checkpoint

    return checkpoint(F.scaled_dot_product_attention, q, k, v, use_reentrant=False)


def _xformers(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    ops = _xformers_ops()
    return ops.memory_efficient_attention(q.contiguous(), k.contiguous(), v.contiguous())


def _xformers_ops() -> Any:
    import xformers.ops  # type: ignore[import-not-found]

    return xformers.ops


def set_attention(module: nn.Module, kind: AttentionKind) -> bool:
    """Let every attention in ``module`` be computed by ``kind``; False when it has none that can.

    Raises:
        EnvironmentFault: xformers is asked for and is not installed or has no CUDA device.
    """
    if kind == "xformers":
        _require_xformers()
    found = [part for part in module.modules() if isinstance(part, Attention)]
    for part in found:
        part.kind = kind
    return bool(found)


def _require_xformers() -> None:
    try:
        _xformers_ops()
    except ImportError as error:
        raise EnvironmentFault(
            "xformers is asked for but is not installed",
            why=str(error),
            next="choose SDPA, which is built in and about as fast, or install xformers",
            key="xformers",
        ) from error
    if not torch.cuda.is_available():
        raise EnvironmentFault(
            "xformers needs an NVIDIA card; none is found", next="choose SDPA", key="xformers"
        )
