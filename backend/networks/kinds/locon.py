"""LoRA pairs that need the whole weight: with DoRA, a Tucker core, or a scalar.

``alpha / r * up @ down``, or for kernels with a core (LoCon with Tucker decomposition; Yeh et al.
2023, "LyCORIS", arXiv:2309.14859): sum over r, s of up[o, r] core[r, s, k, k] down[s, i].
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from backend.networks.kinds.scale import rank_stabilised
from backend.networks.weighted import Dropouts, Options, Scaled, Weight, dora_of, drawn, sides, zeros


class LoCon(Scaled):
    """``lora_down.weight`` (r, in[, k, k]), ``lora_up.weight`` (out, r[, 1, 1]), with a core
    ``lora_mid.weight`` (r, r, k, k) and a 1x1 down."""

    folds = ("lora_up.weight",)
    ups = frozenset({"lora_up.weight"})

    def __init__(
        self, host: nn.Module, options: Options, init: torch.Generator | None = None, rs: bool = False
    ) -> None:
        super().__init__(host, options, rank_stabilised(options, rs))
        inputs, outputs, kernel = sides(host)
        rank, flat = options.rank, (1,) * len(kernel)
        cored = options.tucker and kernel not in ((), (1, 1))
        self.lora_down = Weight(drawn((rank, inputs, *(flat if cored else kernel)), init))
        self.lora_mid = Weight(drawn((rank, rank, *kernel), init)) if cored else None
        shape = (outputs, rank, *flat)
        self.lora_up = Weight(drawn(shape, init) if options.scalar else zeros(shape))
        self.factors = self.factors_named("lora_")

    @classmethod
    def shaped_like(cls, host: nn.Module, parts: Mapping[str, Tensor], drop: Dropouts) -> LoCon:
        options = Options(
            rank=parts["lora_down.weight"].shape[0],
            drop=drop,
            tucker="lora_mid.weight" in parts,
            dora=dora_of(parts),
        )
        return cls(host, options)

    def change(self) -> Tensor:
        up, down = self.lora_up.weight.flatten(1), self.lora_down.weight
        if self.lora_mid is None:
            return self.scale * (up @ down.flatten(1))
        core = torch.einsum("or,rskl->oskl", up, self.lora_mid.weight)
        return self.scale * torch.einsum("oskl,si->oikl", core, down.flatten(1))
