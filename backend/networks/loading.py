"""Networks out of the weights of a file: each module gets the kind, rank and alpha it has there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from backend.errors import InputError, Problem
from backend.networks import dylora, lora, lora_fa, lycoris
from backend.networks.base import Attachable, NetworkSpec
from backend.networks.common import Adapter, AdapterNetwork, Pace, by_module
from backend.networks.kinds.direct import IA3, FullDifference, Norm
from backend.networks.kinds.glora import GLoRA
from backend.networks.kinds.locon import LoCon
from backend.networks.kinds.loha import LoHa
from backend.networks.kinds.lokr import LoKr
from backend.networks.kinds.rotation import ButterflyOFT, DiagonalOFT
from backend.networks.oft import OFTNetwork
from backend.networks.spec import FLAG, RANK, read_arguments, refuse
from backend.networks.weighted import Dropouts, sides

Parts = Mapping[str, Tensor]
_NOT_THIS_MODEL: Mapping[str, Any] = {
    "why": "the file was made for another model, or is damaged",
    "next": "choose a file made for this model",
    "key": None,
}
"""What is said of weights that do not fit although everything is sized as they are."""
Shape = Callable[[nn.Module, Parts, NetworkSpec], Adapter]

_KINDS: tuple[tuple[str, Any], ...] = (
    ("hada_w1_a", LoHa),
    ("lokr_w1", LoKr),
    ("lokr_w1_a", LoKr),
    ("a1.weight", GLoRA),
    ("on_input", IA3),
    ("diff", FullDifference),
    ("w_norm", Norm),
    ("lora_mid.weight", LoCon),
    ("dora_scale", LoCon),
)
"""A part that only this kind has -> the kind. The first match wins."""
_OWN_LORA: Mapping[str, Shape] = {
    "networks.lora_fa": lora_fa.shaped_like,
    "networks.dylora": dylora.shaped_like,
}
"""Modules that train a LoRA's file in a way of their own."""
FILES: Mapping[str, tuple[str, ...]] = {
    "networks.lora": ("LoRA", "DoRA"),
    "networks.lora_fa": ("LoRA",),
    "networks.dylora": ("LoRA",),
    "networks.oft": ("OFT",),
}
"""Module -> kinds of files that it goes on from; LyCORIS takes all."""


def load(
    weights: Mapping[str, Tensor], modules: Iterable[Attachable], spec: NetworkSpec, module: str
) -> AdapterNetwork:
    """The network of a file (kohya names) on those modules that it speaks of.

    Raises:
        InputError: the shapes are those of another model, or a part is unknown.
    """
    spec, own = _arguments(module, spec)
    found = by_module(weights)
    kind = OFTNetwork if any(name.startswith("oft_") for name in found) else AdapterNetwork
    sites: list[tuple[Attachable, Adapter]] = []
    for site in modules:
        parts = found.get(kind.prefix + site.name)
        if parts is not None:
            sites.append((site, _adapter(site, parts, spec, module)))
    network = kind(sites)
    try:
        network.unused = tuple(network.load_weights(weights))
    except InputError as error:
        raise InputError([replace(problem, **_NOT_THIS_MODEL) for problem in error.problems]) from error
    network.pace = Pace(plus=lora.plus_ratios(own, network.parts()))
    return network


def _arguments(module: str, spec: NetworkSpec) -> tuple[NetworkSpec, dict[str, Any]]:
    """The spec with its dropouts read, and LoRA+'s ratios. Sizes come from the file.

    Raises:
        InputError: arguments that would set sizes, or that cannot be read.
    """
    known = dict(lora.LORAPLUS)
    if module == "networks.dylora":
        known["unit"] = RANK
    if module == "networks.lora":
        known |= {"dora_wd": FLAG, "use_rslora": FLAG, "split_qkv": FLAG, "train_t5xxl": FLAG}
    if module == "lycoris.kohya":
        for _, arguments, _ in lycoris.KINDS.values():
            known |= arguments
        known |= lycoris.COMMON
    read, own = read_arguments(module, spec, known)
    unit = {"unit": spec.args["unit"]} if "unit" in own else {}
    return replace(read, args=unit, conv_dim=None, conv_alpha=None), own


def _adapter(site: Attachable, parts: Parts, spec: NetworkSpec, module: str) -> Adapter:
    drop, host = Dropouts.of(spec), site.module
    norm = isinstance(host, (nn.LayerNorm, nn.GroupNorm))
    for part, kind in _KINDS:
        if part in parts and norm == (kind is Norm):
            return kind.shaped_like(host, parts, drop)
    if "oft_blocks" in parts and not norm:
        kind = ButterflyOFT if parts["oft_blocks"].dim() == 4 else DiagonalOFT
        outputs, shape = sides(host)[1], parts["oft_blocks"].shape
        if shape[-2] * shape[-3] != outputs:
            raise _misfit(site, f"rotations of {shape[-2] * shape[-3]} outputs on {outputs}")
        return kind.shaped_like(host, parts, drop)
    if "lora_down.weight" in parts and not norm:
        if module in _OWN_LORA:
            return _OWN_LORA[module](host, parts, spec)
        return lora.LoRA(host, parts["lora_down.weight"].shape[0], 0.0, drop, None)
    raise _misfit(site, f"it holds {', '.join(sorted(parts))}")


def _misfit(site: Attachable, why: str) -> InputError:
    return InputError(
        Problem(
            f"the file's weights for {site.name} do not fit that layer",
            why=why,
            next="choose a file made for this model",
        )
    )


def require_suited(module: str, kind: str) -> None:
    """Raises:
    InputError: ``network_module`` cannot go on from a file of this kind.
    """
    kinds = FILES.get(module)
    if kinds is not None and kind not in kinds:
        raise refuse(
            f"{module} cannot take its ranks from a file of the kind {kind}",
            next="set network_module to lycoris.kohya, or choose another file",
        )
