"""LyCORIS' sparse remainder: what an extracted pair leaves out, as a few numbers and their places.

No layer computes with it; a module that has one is read as the whole difference it stands for.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from backend.errors import InputError

_VALUES = ".bias_values"
_PARTS = (
    "bias_indices",
    "bias_values",
    "bias_size",
    "lora_up.weight",
    "lora_mid.weight",
    "lora_down.weight",
    "alpha",
)


def without_remainders(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Weights in kohya's names with ``diff`` in place of every pair that has a remainder.

    Raises:
        InputError: a remainder does not belong to its pair.
    """
    modules = [name.removesuffix(_VALUES) for name in weights if name.endswith(_VALUES)]
    if not modules:
        return weights
    found = dict(weights)
    for module in modules:
        parts = {part: found.pop(f"{module}.{part}") for part in _PARTS if f"{module}.{part}" in found}
        found[f"{module}.diff"] = _difference(module, parts)
    return found


def _difference(module: str, parts: Mapping[str, Tensor]) -> Tensor:
    try:
        up, down = (parts[f"lora_{part}.weight"].float() for part in ("up", "down"))
        rank = down.shape[0]
        core = parts.get("lora_mid.weight")
        if core is None:
            shape, product = (up.shape[0], *down.shape[1:]), up.flatten(1) @ down.flatten(1)
        else:
            shape = (up.shape[0], down.shape[1], *core.shape[2:])
            product = torch.einsum("or,rskl,si->oikl", up.flatten(1), core.float(), down.flatten(1)).flatten(
                1
            )
        size = [int(n) for n in parts["bias_size"]]
        rest = torch.sparse_coo_tensor(
            parts["bias_indices"].long(), parts["bias_values"].float(), size, check_invariants=True
        ).to_dense()
        scale = float(parts["alpha"].flatten()[0]) / rank if "alpha" in parts else 1.0
        return ((product + rest.reshape(product.shape)) * scale).reshape(shape)
    except (KeyError, RuntimeError) as error:
        raise InputError(
            f"{module}: the remainder (bias_values) does not fit its pair", why=str(error)
        ) from error
