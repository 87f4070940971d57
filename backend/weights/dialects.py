"""Networks in the names of any program, read in kohya's."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from backend.weights.names import dialect_of, family_of, to_kohya

_LEAF = re.compile(
    r"\.(alpha|dora_scale|scalar|lora_[AB](?:\.\w+)?\.weight|lora(?:_linear_layer)?\.(?:down|up)\.weight"
    r"|lora_(?:down|up|mid)\.weight|[ab][12]\.weight|hada_\w+|lokr_\w+|oft_blocks|rescale|on_input|weight"
    r"|diff(?:_b)?|[wb]_norm)$"
)
_AS_KOHYA = (
    (re.compile(r"lora_A(?:\.\w+)?\.weight|lora(?:_linear_layer)?\.down\.weight"), "lora_down.weight"),
    (re.compile(r"lora_B(?:\.\w+)?\.weight|lora(?:_linear_layer)?\.up\.weight"), "lora_up.weight"),
)


def in_kohya_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in any dialect by kohya's names; what is not known stays as it is."""
    dialect = dialect_of(weights)
    if dialect == "kohya":
        return dict(weights)
    leaves = {key: match for key in weights if (match := _LEAF.search(key))}
    modules = {key[: match.start()] for key, match in leaves.items()}
    table = to_kohya(modules, family_of(weights.keys(), _context(weights)), dialect)
    found: dict[str, Tensor] = {}
    for key, tensor in weights.items():
        match = leaves.get(key)
        name = table.get(key[: match.start()]) if match else None
        if match is None or name is None:
            found[key] = tensor
            continue
        leaf = next((new for pattern, new in _AS_KOHYA if pattern.fullmatch(match[1])), match[1])
        found[f"{'oft_' if leaf == 'oft_blocks' else 'lora_'}{name}.{leaf}"] = tensor
    return found


def _context(weights: Mapping[str, Tensor]) -> int | None:
    """How many numbers a token has for cross attention."""
    ends = ("lora_A.weight", "lora_down.weight", "lora.down.weight")
    for key, tensor in weights.items():
        if "attn2.to_k." in key and key.endswith(ends):
            return int(tensor.shape[1])
    return None
