"""OpenCLIP's names of a text encoder (SD 2.x, SDXL's second) <-> transformers' names.

OpenCLIP keeps the three projections of an attention in one tensor (``in_proj_weight``: query, key,
value on top of each other) and the projection of the pooled output transposed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

_ENDS = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_LAYER_BACK = {new: old for old, new in _LAYER.items()}
_FUSED = ("q_proj", "k_proj", "v_proj")
_PROJECTION, _PROJECTION_BACK = "text_projection", "text_projection.weight"


class Piece(NamedTuple):
    """Where a tensor lies in OpenCLIP's layout."""

    name: str
    third: int | None = None
    """Which third of the tensor's rows; None: all of it."""
    turned: bool = False
    """It is stored transposed."""


def to_transformers(names: Iterable[str]) -> dict[str, Piece]:
    """transformers' name -> its place, for those of OpenCLIP's ``names`` that belong to the encoder.

    ``logit_scale``, masks and the like have no place in the encoder and are left out.
    """
    found: dict[str, Piece] = {}
    for name in names:
        if name in _ENDS:
            found[_ENDS[name]] = Piece(name)
        elif name == _PROJECTION:
            found[_PROJECTION_BACK] = Piece(name, turned=True)
        elif name.startswith("transformer.resblocks."):
            found |= _layer(name)
    return found


def _layer(name: str) -> dict[str, Piece]:
    _, _, index, rest = name.split(".", 3)
    start = f"text_model.encoder.layers.{index}."
    if rest.startswith("attn.in_proj_"):
        leaf = rest.removeprefix("attn.in_proj_")
        return {
            f"{start}self_attn.{projection}.{leaf}": Piece(name, third)
            for third, projection in enumerate(_FUSED)
        }
    module, _, leaf = rest.rpartition(".")
    return {f"{start}{_LAYER[module]}.{leaf}": Piece(name)} if module in _LAYER else {}


def from_transformers(names: Collection[str]) -> dict[str, tuple[str, ...]]:
    """OpenCLIP's name -> the transformers' names it is made of: one, or query, key and value.

    ``text_projection`` has to be transposed.
    """
    ends = {new: old for old, new in _ENDS.items()}
    found: dict[str, tuple[str, ...]] = {}
    for name in names:
        if name in ends:
            found[ends[name]] = (name,)
        elif name == _PROJECTION_BACK:
            found[_PROJECTION] = (name,)
        else:
            found |= _layer_back(name)
    return found


def _layer_back(name: str) -> dict[str, tuple[str, ...]]:
    root, kind, encoder, index, rest = name.split(".", 4)
    assert (root, kind, encoder) == ("text_model", "encoder", "layers"), f"{name} is no layer's"
    module, _, leaf = rest.rpartition(".")
    place = f"transformer.resblocks.{int(index)}."
    projection = module.removeprefix("self_attn.")
    if projection in _FUSED:
        start = f"text_model.encoder.layers.{index}.self_attn."
        return {f"{place}attn.in_proj_{leaf}": tuple(f"{start}{part}.{leaf}" for part in _FUSED)}
    return {f"{place}{_LAYER_BACK[module]}.{leaf}": (name,)}
