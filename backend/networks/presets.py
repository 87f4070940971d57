"""Which modules a LyCORIS network has: the presets of LyCORIS by their names."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn

from backend.networks.base import Attachable


@dataclass(frozen=True)
class Preset:
    """Modules by what holds them (``Attachable.container``)."""

    containers: frozenset[str]
    kernels: bool = True
    """Also convolutions larger than 1x1."""
    names: str = ""
    """Only modules whose name matches this."""
    on_input: str = ""
    """IA3 scales the inputs of modules that match this, the outputs of others."""

    def takes(self, site: Attachable) -> bool:
        if site.container not in self.containers or isinstance(site.module, (nn.LayerNorm, nn.GroupNorm)):
            return False
        small = isinstance(site.module, nn.Linear) or site.module.kernel_size == (1, 1)
        return (small or self.kernels) and (not self.names or bool(re.search(self.names, site.name)))

    def takes_norm(self, site: Attachable) -> bool:
        return site.container.endswith("_norm") and site.container.removesuffix("_norm") in self.containers


_ATTENTION, _RESNET = frozenset({"attention"}), frozenset({"resnet"})
_UNET = _ATTENTION | _RESNET | {"sampler", "edge", "time"}

PRESETS = {
    "full": Preset(_UNET | {"text"}),
    "full-lin": Preset(_ATTENTION | _RESNET | {"time", "text"}, kernels=False),
    "attn-mlp": Preset(_ATTENTION | {"text"}, kernels=False),
    "attn-only": Preset(_ATTENTION | {"text"}, kernels=False, names=r"_(?:self_)?attn\d?_"),
    "unet-only": Preset(_UNET),
    "unet-transformer-only": Preset(_ATTENTION, kernels=False),
    "unet-convblock-only": Preset(_RESNET | {"sampler", "edge"}),
    "ia3": Preset(
        _ATTENTION | {"text"},
        kernels=False,
        names=r"_(?:to_k|to_v|ff_net_2|k_proj|v_proj|mlp_fc2)$",
        on_input=r"_(?:ff_net_2|mlp_fc2)$",
    ),
}
