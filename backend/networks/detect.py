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

# (kind in words, pattern that some name of such a file matches). The first match wins, so kinds
# that also hold the tensors of another kind stand before it.
_KINDS: tuple[tuple[str, str], ...] = (
    ("ControlNet-LLLite", r"^lllite_"),
    ("base model", r"^(model\.diffusion_model|first_stage_model|cond_stage_model|conditioner)\."),
    ("VAE", r"^(encoder|decoder)\.(conv_in|down|mid)\b"),
    ("textual inversion embedding", r"^(emb_params|clip_[lg]|string_to_param)$"),
    ("DoRA", r"\.(dora_scale|lora_magnitude_vector)"),
    ("LoHa", r"\.hada_(w|t)"),
    ("LoKr", r"\.lokr_(w|t)"),
    ("OFT", r"\.oft_(blocks|diag)|^oft_"),
    ("GLoRA", r"\.(a1|a2|b1|b2|bm)\.weight$"),
    ("IA3", r"\.on_input$"),
    ("LoCon with Tucker decomposition", r"\.lora_mid\.weight$"),
    ("norm weights (LyCORIS)", r"\.(w_norm|b_norm)$"),
    ("full difference", r"\.diff(_b)?$"),
    ("LoRA", r"\.(lora_down|lora_up|lora_A|lora_B|lora\.down|lora\.up)\b"),
)
_LORA_NAME = re.compile(r"^[^.]+\.(lora_down\.weight|lora_up\.weight|alpha)$")


def kind_of(names: Iterable[str]) -> str | None:
    """The kind of file in words ("LoRA", "LoHa", "base model", ...), or None when unknown."""
    names = list(names)
    for kind, pattern in _KINDS:
        search = re.compile(pattern).search
        if any(search(name) for name in names):
            return kind
    return None


def is_plain_lora(names: Iterable[str]) -> bool:
    """True when all names are those of LoRA pairs in kohya's dialect."""
    return all(_LORA_NAME.match(name) for name in names)


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
