"""What a file of weights is: which kind of network, and for which family of models.

Both are read from names and shapes alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

from backend.system import adapters
from backend.system.headers import Header, TensorInfo
from backend.system.identify import FAMILY_FACTS, FamilyName

_NO_NETWORKS: tuple[tuple[str, str], ...] = (
    ("ControlNet-LLLite", r"^lllite_"),
    ("base model", r"^(model\.diffusion_model|first_stage_model|cond_stage_model|conditioner)\."),
    ("VAE", r"^(encoder|decoder)\.(conv_in|down|mid)\b"),
    ("textual inversion embedding", r"^(emb_params|clip_[lg]|string_to_param)$"),
)
"""(kind in words, pattern that some name of such a file matches)."""
NO_NETWORKS = frozenset(kind for kind, _ in _NO_NETWORKS)
_WEIGHT = re.compile(
    r"^(?:lora|oft)_[^.]+\.(?:alpha|dora_scale|scalar|(?:lora_(?:down|up|mid)|[ab][12])\.weight"
    r"|hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2)|oft_blocks|rescale|on_input|weight"
    r"|diff(?:_b)?|[wb]_norm)$"
)


def kind_of(names: Iterable[str]) -> str | None:
    """The kind of file in words ("LoRA", "LoHa", "base model", ...), or None when unknown."""
    names = list(names)
    for kind, pattern in _NO_NETWORKS:
        search = re.compile(pattern).search
        if any(search(name) for name in names):
            return kind
    return adapters.network_kind(names)


def is_network_weight(name: str) -> bool:
    """True for names that a network of some kind has, in kohya's dialect."""
    return bool(_WEIGHT.match(name))


def family_of(shapes: Mapping[str, Sequence[int]]) -> str | None:
    """The line of families in words ("SDXL"), or None when nothing tells.

    ``shapes``: module name without ``lora_`` -> shape of its down weight (r, in, ...) or of the
    module's own weight (out, in, ...); both have the width that counts at index 1.
    """
    tensors = {f"lora_{n}.lora_down.weight": TensorInfo("F32", tuple(shape)) for n, shape in shapes.items()}
    found = adapters.describe(Header(Path(), tensors))
    return (
        None
        if found is None or found.family == "unknown"
        else FAMILY_FACTS[cast("FamilyName", found.family)].line
    )
