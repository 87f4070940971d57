"""GLoRA: a change from the weight itself and one of its own (Chavan et al. 2023, "One-for-All")."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from backend.networks.kinds.scale import rank_stabilised
from backend.networks.weighted import Dropouts, Options, Scaled, Weight, drawn, sides, zeros


class GLoRA(Scaled):
    """``alpha / r * (b1 @ b2 + W (a1 @ a2))``: ``a1.weight`` (in, r), ``a2.weight`` (r, in),
    ``b1.weight`` (out, r), ``b2.weight`` (r, in[, k, k])."""

    folds = ("a1.weight", "b1.weight")

    def __init__(
        self, host: nn.Module, options: Options, init: torch.Generator | None = None, rs: bool = False
    ) -> None:
        super().__init__(host, options, rank_stabilised(options, rs))
        inputs, outputs, kernel = sides(host)
        rank, flat = options.rank, (1,) * len(kernel)
        late = (lambda shape: drawn(shape, init)) if options.scalar else zeros
        self.a1, self.a2 = Weight(drawn((inputs, rank, *flat), init)), Weight(late((rank, inputs, *flat)))
        self.b1, self.b2 = Weight(drawn((outputs, rank, *flat), init)), Weight(late((rank, inputs, *kernel)))

    @classmethod
    def shaped_like(cls, host: nn.Module, parts: Mapping[str, Tensor], drop: Dropouts) -> GLoRA:
        return cls(host, Options(rank=parts["a2.weight"].shape[0], drop=drop))

    def change(self) -> Tensor:
        own = (self.b1.weight.flatten(1) @ self.b2.weight.flatten(1)).reshape(self.host.weight.shape)
        mixed = self.a1.weight.flatten(1) @ self.a2.weight.flatten(1)
        return self.scale * (own + torch.einsum("oi...,ij->oj...", self.base_weight(own), mixed))
