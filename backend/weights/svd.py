"""The best approximation of a matrix by one of low rank (Eckart and Young 1936).

- A product of two thin matrices is decomposed through QR of both: exact, and cheap.
- A whole matrix by randomised subspace iteration (Halko, Martinsson and Tropp 2011, "Finding
  Structure with Randomness", algorithms 4.4 and 5.1), until another iteration changes the error by less
  than a thousandth; or exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_OVERSAMPLING = 10
_MAX_ITERATIONS = 12
_SETTLED = 1e-3
_WORTH_IT = 4
"""A matrix whose short side is less than so many times the sample is decomposed exactly."""
_SMALL = 128
"""A product with a side of at most so many is built: LAPACK takes about a millisecond for it, and its
choice of signs, on which a clamp depends, is then the one that other programs see."""


@dataclass(frozen=True)
class Decomposed:
    """``u`` (m, k) with orthonormal columns, ``s`` (k,) falling, ``vh`` (k, n)."""

    u: Tensor
    s: Tensor
    vh: Tensor
    energy: float
    """Squared Frobenius norm of the whole matrix."""

    def error(self, rank: int) -> float:
        """Norm of what the first ``rank`` values leave out over the norm of the whole."""
        if not self.energy:
            return 0.0
        kept = float(self.s[:rank].double().square().sum())
        return math.sqrt(max(self.energy - kept, 0.0) / self.energy)


def of_product(up: Tensor, down: Tensor) -> Decomposed:
    """All singular values of ``up`` (m, r) @ ``down`` (r, n), without building the product."""
    short = min(up.shape[0], down.shape[1])
    if short <= max(_SMALL, up.shape[1]):
        return of_matrix(up @ down, short, exact=True)
    left, inner = torch.linalg.qr(up)
    right, outer = torch.linalg.qr(down.T)
    u, s, vh = torch.linalg.svd(inner @ outer.T, full_matrices=False)
    return Decomposed(left @ u, s, vh @ right.T, float(s.double().square().sum()))


def of_matrix(matrix: Tensor, rank: int, *, exact: bool = False, seed: int = 0) -> Decomposed:
    """The first ``rank`` (or more) singular values and vectors of ``matrix`` (m, n), float32.

    The error is within 1 % of the least possible one; with ``exact`` it is the least.
    """
    short = min(matrix.shape)
    sample = rank + max(_OVERSAMPLING, rank // 4)
    if exact or short <= max(_SMALL, _WORTH_IT * sample):
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
        return Decomposed(u, s, vh, float(s.double().square().sum()))
    energy = float(torch.linalg.vector_norm(matrix, dtype=torch.float64)) ** 2
    draw = torch.Generator().manual_seed(seed)
    basis = matrix @ torch.randn(matrix.shape[1], sample, generator=draw).to(matrix)
    last, found = math.inf, None
    for _ in range(_MAX_ITERATIONS):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ torch.linalg.qr(basis)[0])[0])[0]
        u, s, vh = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
        found = Decomposed(basis @ u, s, vh, energy)
        error = found.error(rank)
        if last - error <= _SETTLED * error:
            break
        last = error
    assert found is not None
    return found


def clamped(up: Tensor, down: Tensor, quantile: float) -> tuple[Tensor, Tensor]:
    """Both cut at plus and minus the quantile of all their values together; 1 leaves them.

    A few outliers would otherwise decide how finely fp16 holds the rest.
    """
    if quantile >= 1:
        return up, down
    values = torch.cat([up.flatten(), down.flatten()])
    bound = quantile_of(values, quantile)
    return up.clamp(-bound, bound), down.clamp(-bound, bound)


def quantile_of(values: Tensor, quantile: float) -> float:
    """As ``torch.quantile`` with linear interpolation, for any number of values."""
    place = quantile * (values.numel() - 1)
    low = math.floor(place)
    lower = float(torch.kthvalue(values.cpu(), low + 1).values)
    if low == place:
        return lower
    upper = float(torch.kthvalue(values.cpu(), low + 2).values)
    return lower + (upper - lower) * (place - low)


def product_error(up: Tensor, down: Tensor, new_up: Tensor, new_down: Tensor) -> float:
    """Norm of ``up @ down - new_up @ new_down`` over that of ``up @ down``, from the factors alone."""
    whole = _square(up, down)
    lost = _square(torch.cat([up, -new_up], 1), torch.cat([down, new_down]))
    return math.sqrt(max(lost, 0.0) / whole) if whole else 0.0


def _square(up: Tensor, down: Tensor) -> float:
    up, down = up.cpu().double(), down.cpu().double()
    return float(((up.T @ up) * (down @ down.T)).sum())
