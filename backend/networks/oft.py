"""OFT as sd-scripts writes it: rotations of the rows of U-Net weights (see ``kinds.rotation``).

``network_dim`` is the number of blocks, ``network_alpha`` the constraint: how far all rotations of a
module may go together, 0 for no limit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

from backend.networks.base import Attachable, NetworkSpec
from backend.networks.common import Adapter, AdapterNetwork
from backend.networks.kinds.rotation import DiagonalOFT
from backend.networks.spec import FLAG, Reader, read_arguments, refuse
from backend.networks.weighted import Options, sides

ARGUMENTS: dict[str, Reader] = {"enable_all_linear": FLAG, "enable_conv": FLAG}
_CROSS_ATTENTION = re.compile(r"_attn\d?_(?:to_|qkv|proj)")


class OFTNetwork(AdapterNetwork):
    """Its names in the file start with ``oft_``."""

    prefix = "oft_"


def create(modules: Iterable[Attachable], spec: NetworkSpec, *, seed: int = 0) -> OFTNetwork:
    """A new OFT, without effect until trained: nothing is drawn, whatever ``seed``.

    Raises:
        InputError: arguments that OFT does not know, or a number of blocks that divides no module.
    """
    del seed  # every rotation starts at none
    spec, own = read_arguments("networks.oft", spec, ARGUMENTS, ())
    blocks = spec.dim or 4
    sites: list[tuple[Attachable, Adapter]] = []
    for site in modules:
        if site.part == "unet" and _wanted(site, own):
            outputs = sides(site.module)[1]
            if outputs % blocks:
                raise refuse(
                    f"networks.oft cannot part {outputs} outputs into {blocks} blocks ({site.name})",
                    next="choose a network_dim that divides all layers, such as 4",
                )
            size = outputs // blocks
            options = Options(rank=blocks, alpha=spec.alpha or 0.0)
            sites.append((site, DiagonalOFT(site.module, options, (blocks, size, size))))
    if not sites:
        raise refuse(
            "networks.oft finds nothing to train",
            why="it works on the U-Net only, and the U-Net is switched off",
            next="switch network_train_text_encoder_only off, and give the U-Net a learning rate",
        )
    return OFTNetwork(sites)


def _wanted(site: Attachable, own: dict[str, bool]) -> bool:
    if site.container == "attention":
        linear = isinstance(site.module, nn.Linear)
        return (linear and bool(_CROSS_ATTENTION.search(site.name))) or "enable_all_linear" in own
    return site.container in ("resnet", "sampler") and "enable_conv" in own
