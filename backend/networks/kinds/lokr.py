"""LoKr: the Kronecker product of a small and a large matrix (Yeh et al. 2023, "LyCORIS")."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from backend.networks.kinds.scale import rank_stabilised
from backend.networks.weighted import Dropouts, Options, Scaled, dora_of, drawn, sides, zeros


class _Layout(NamedTuple):
    """Sizes of the two matrices, and which of them are products of two thin ones."""

    small: tuple[int, int]
    large: tuple[int, int]
    split_small: bool
    split_large: bool


class LoKr(Scaled):
    """``alpha / r * kron(w1, w2)``: ``lokr_w1`` (a, b), ``lokr_w2`` (out / a, in / b[, k, k]).

    Either may be a product: ``lokr_w1_a`` (a, r) ``lokr_w1_b`` (r, b); ``lokr_w2_a`` (out / a, r)
    ``lokr_w2_b`` (r, in / b * k * k), or with a core ``lokr_t2`` (r, r, k, k), ``lokr_w2_a``
    (r, out / a), ``lokr_w2_b`` (r, in / b). When neither is, the strength is 1 whatever alpha says.
    """

    folds = ("lokr_w1", "lokr_w1_a")

    def __init__(
        self,
        host: nn.Module,
        options: Options,
        init: torch.Generator | None = None,
        rs: bool = False,
        layout: _Layout | None = None,
    ) -> None:
        layout = layout or _layout(host, options)
        self.whole = not (layout.split_small or layout.split_large)
        super().__init__(host, options, float(options.rank) if self.whole else rank_stabilised(options, rs))
        rank, kernel = options.rank, sides(host)[2]
        self.cored = options.tucker and layout.split_large and kernel not in ((), (1, 1))
        (a, b), (c, d) = layout.small, layout.large
        if layout.split_small:
            self.lokr_w1_a, self.lokr_w1_b = drawn((a, rank), init), drawn((rank, b), init)
        else:
            self.lokr_w1 = drawn((a, b), init)
        first, last = ((rank, c), (rank, d)) if self.cored else ((c, rank), (rank, d * math.prod(kernel)))
        if layout.split_large:
            if self.cored:
                self.lokr_t2 = drawn((rank, rank, *kernel), init)
            self.lokr_w2_a = drawn(first, init)
            self.lokr_w2_b = drawn(last, init) if options.scalar else zeros(last)
        else:
            self.lokr_w2 = drawn((c, d, *kernel), init) if options.scalar else zeros((c, d, *kernel))
        self.factors = self.factors_named("lokr_")

    @classmethod
    def shaped_like(cls, host: nn.Module, parts: Mapping[str, Tensor], drop: Dropouts) -> LoKr:
        cored = "lokr_t2" in parts
        rank = next((parts[name].shape[0] for name in ("lokr_w2_b", "lokr_w1_b") if name in parts), 1)
        inputs, outputs, _ = sides(host)
        if "lokr_w1" in parts:
            a, b = parts["lokr_w1"].shape
        else:
            a, b = parts["lokr_w1_a"].shape[0], parts["lokr_w1_b"].shape[1]
        layout = _Layout((a, b), (outputs // a, inputs // b), "lokr_w1_a" in parts, "lokr_w2_a" in parts)
        options = Options(rank=rank, drop=drop, tucker=cored, dora=dora_of(parts))
        return cls(host, options, layout=layout)

    def refresh(self) -> None:
        self.scale = 1.0 if self.whole else float(self.alpha) / self.rank

    def complete(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        alpha = tensors.get("alpha")
        tensors = super().complete(tensors)
        return tensors if alpha is None else {**tensors, "alpha": alpha}

    def change(self) -> Tensor:
        kernel = sides(self.host)[2]
        small = self.lokr_w1_a @ self.lokr_w1_b if hasattr(self, "lokr_w1_a") else self.lokr_w1
        if hasattr(self, "lokr_w2"):
            large = self.lokr_w2
        elif self.cored:
            large = torch.einsum("ijkl,ip,jq->pqkl", self.lokr_t2, self.lokr_w2_a, self.lokr_w2_b)
        else:
            large = (self.lokr_w2_a @ self.lokr_w2_b).unflatten(1, (-1, *(kernel or (1,))))
            large = large if kernel else large.squeeze(-1)
        return self.scale * _kronecker(small, large)


def _kronecker(small: Tensor, large: Tensor) -> Tensor:
    """(a, b) x (c, d, ...) -> (a * c, b * d, ...)."""
    product = torch.einsum("ab,cd...->acbd...", small, large)
    return product.flatten(2, 3).flatten(0, 1)


def _layout(host: nn.Module, options: Options) -> _Layout:
    inputs, outputs, _ = sides(host)
    (a, c), (b, d) = parted(outputs, options.factor), parted(inputs, options.factor)
    thin = not options.full_matrix
    split_small = thin and options.decompose_both and options.rank < max(a, b) / 2
    return _Layout((a, b), (c, d), split_small, thin and options.rank < max(c, d) / 2)


def parted(size: int, factor: int) -> tuple[int, int]:
    """``size`` as a product, the smaller first: with ``factor`` itself when it divides, else with the
    largest divisor up to it. -1: as even as can be."""
    if factor > 0 and size % factor == 0:
        return min(factor, size // factor), max(factor, size // factor)
    most = min(math.isqrt(size), factor if factor > 0 else size)
    small = next(n for n in range(most, 0, -1) if size % n == 0)
    return small, size // small
