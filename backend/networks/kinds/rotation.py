"""Rotations of a weight's rows: OFT (Qiu et al. 2023, "Controlling Text-to-Image Diffusion by
Orthogonal Finetuning") and BOFT (Liu et al. 2023, "Parameter-Efficient Orthogonal Finetuning via
Butterfly Factorization").

A rotation is the Cayley transform R = (I + Q)(I - Q)^-1 of Q = B - B^T, block by block.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from backend.networks.weighted import Dropouts, Options, WeightAdapter, sides


class Rotation(WeightAdapter):
    """``oft_blocks`` (..., b, b) start at 0, which is no rotation; ``rescale`` (out, 1, ...) at 1.

    ``alpha`` in the file is the constraint: the norm of all Q together is kept at or below alpha
    times the number of outputs; 0 leaves it free.
    """

    alpha: Tensor

    def __init__(self, host: nn.Module, options: Options, shape: tuple[int, ...]) -> None:
        super().__init__(host, options)
        self.oft_blocks = nn.Parameter(torch.zeros(shape))
        self.rescale: nn.Parameter | None = None
        if options.rescaled:
            self.rescale = nn.Parameter(torch.ones(_column(self.host.weight)))
        self.register_buffer("alpha", torch.tensor(float(options.alpha)))
        self.limit = 0.0
        self.refresh()
        self.register_load_state_dict_post_hook(lambda module, _: module.refresh())

    def refresh(self) -> None:
        self.limit = float(self.alpha) * self.host.weight.shape[0]

    def complete(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"alpha": torch.zeros(()), **super().complete(tensors)}

    def rotations(self) -> Tensor:
        """R for every block, float32."""
        blocks = self.oft_blocks.float()
        skew = blocks - blocks.transpose(-1, -2)
        if self.limit:
            skew = skew * (self.limit / skew.norm().clamp(min=self.limit))
        one = torch.eye(skew.shape[-1], device=skew.device)
        # (I + Q) and (I - Q)^-1 commute, so solving from the left is the same.
        return torch.linalg.solve((one - skew).expand_as(skew), (one + skew).expand_as(skew))

    def turned(self, weight: Tensor) -> Tensor:
        """``weight`` (out, n) with its rows rotated."""
        raise AssertionError("a rotation without a rule")

    def change(self) -> Tensor:
        base = self.host.weight.detach().float()
        turned = self.turned(base.flatten(1)).reshape(base.shape)
        return (turned if self.rescale is None else turned * self.rescale) - base


class DiagonalOFT(Rotation):
    """One block after the other: row m of a block becomes sum over n of R[n, m] W[n]."""

    @classmethod
    def shaped_like(cls, host: nn.Module, parts: Mapping[str, Tensor], drop: Dropouts) -> DiagonalOFT:
        options = Options(drop=drop, rescaled="rescale" in parts)
        return cls(host, options, tuple(parts["oft_blocks"].shape))

    def turned(self, weight: Tensor) -> Tensor:
        count, size = self.oft_blocks.shape[0], self.oft_blocks.shape[1]
        rows = weight.reshape(count, size, -1)
        return torch.einsum("knm,knp->kmp", self.rotations(), rows).reshape(weight.shape)


class ButterflyOFT(Rotation):
    """Rotations of pairs of half blocks that lie further and further apart, one after the other."""

    @classmethod
    def shaped_like(cls, host: nn.Module, parts: Mapping[str, Tensor], drop: Dropouts) -> ButterflyOFT:
        options = Options(drop=drop, rescaled="rescale" in parts)
        return cls(host, options, tuple(parts["oft_blocks"].shape))

    def turned(self, weight: Tensor) -> Tensor:
        rows, (_, count, size, _) = weight.shape[0], self.oft_blocks.shape
        for level, turn in enumerate(self.rotations()):
            apart = 2**level * (size // 2)
            pairs = weight.reshape(rows // (2 * apart), 2, apart, -1).transpose(1, 2)
            pairs = torch.einsum("bij,bjp->bip", turn, pairs.reshape(count, size, -1))
            weight = pairs.reshape(rows // (2 * apart), apart, 2, -1).transpose(1, 2).reshape(rows, -1)
        return weight


def _column(weight: Tensor) -> tuple[int, ...]:
    return (weight.shape[0], *[1] * (weight.dim() - 1))


def butterfly_shape(host: nn.Module, rank: int) -> tuple[int, ...] | None:
    """(levels, blocks, b, b): b the largest even number up to ``rank`` of which the outputs are a
    multiple by a power of two; None when there is none."""
    outputs, size, count = sides(host)[1], sides(host)[1], 1
    while size > rank:
        if size % 2:
            return None
        size, count = size // 2, count * 2
    return None if size % 2 or size * count != outputs else (count.bit_length(), count, size, size)
