"""LoHa: the Hadamard product of two low-rank matrices (Hyeon-Woo et al. 2021, "FedPara";
Yeh et al. 2023, "LyCORIS")."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from backend.networks.kinds.scale import rank_stabilised
from backend.networks.weighted import Dropouts, Options, Scaled, dora_of, normal, sides, zeros


class LoHa(Scaled):
    """``alpha / r * (w1_a @ w1_b) * (w2_a @ w2_b)``: ``hada_w1_a`` (out, r), ``hada_w1_b`` (r, in * k * k).

    With a core each half is sum over i, j of core[i, j, k, k] w_a[i, out] w_b[j, in], with
    ``hada_t1`` (r, r, k, k), ``hada_w1_a`` (r, out) and ``hada_w1_b`` (r, in).
    """

    folds = ("hada_w1_a",)

    def __init__(
        self, host: nn.Module, options: Options, init: torch.Generator | None = None, rs: bool = False
    ) -> None:
        super().__init__(host, options, rank_stabilised(options, rs))
        inputs, outputs, kernel = sides(host)
        rank = options.rank
        self.cored = options.tucker and kernel not in ((), (1, 1))
        a = (rank, outputs) if self.cored else (outputs, rank)
        b = (rank, inputs) if self.cored else (rank, inputs * (kernel[0] * kernel[1] if kernel else 1))
        self.hada_w1_a, self.hada_w1_b = normal(a, 0.1, init), normal(b, 1.0, init)
        self.hada_w2_a = normal(a, 0.1, init) if options.scalar else zeros(a)
        self.hada_w2_b = normal(b, 1.0, init)
        if self.cored:
            self.hada_t1 = normal((rank, rank, *kernel), 0.1, init)
            self.hada_t2 = normal((rank, rank, *kernel), 0.1, init)
        self.factors = self.factors_named("hada_")

    @classmethod
    def shaped_like(cls, host: nn.Module, parts: Mapping[str, Tensor], drop: Dropouts) -> LoHa:
        options = Options(
            rank=parts["hada_w1_b"].shape[0], drop=drop, tucker="hada_t1" in parts, dora=dora_of(parts)
        )
        return cls(host, options)

    def change(self) -> Tensor:
        if not self.cored:
            return self.scale * (self.hada_w1_a @ self.hada_w1_b) * (self.hada_w2_a @ self.hada_w2_b)
        one = torch.einsum("ijkl,io,jn->onkl", self.hada_t1, self.hada_w1_a, self.hada_w1_b)
        two = torch.einsum("ijkl,io,jn->onkl", self.hada_t2, self.hada_w2_a, self.hada_w2_b)
        return self.scale * one * two
