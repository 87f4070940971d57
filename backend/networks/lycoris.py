"""The LyCORIS kinds behind ``network_module=lycoris.kohya``, in LyCORIS' file dialect.

Ranks and alphas are LyCORIS': ``conv_dim`` and ``conv_alpha`` are network_dim and network_alpha
when not given, and by the preset ``full`` every linear layer and convolution of text encoder
blocks and U-Net is trained, the first and last convolution and the time embedding as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from backend import keyed
from backend.networks.base import Attachable, NetworkSpec
from backend.networks.common import Adapter, AdapterNetwork, Pace
from backend.networks.dylora import DyLoRA, check_unit
from backend.networks.kinds.direct import IA3, FullDifference, Norm
from backend.networks.kinds.glora import GLoRA
from backend.networks.kinds.locon import LoCon
from backend.networks.kinds.loha import LoHa
from backend.networks.kinds.lokr import LoKr, parted
from backend.networks.kinds.rotation import ButterflyOFT, DiagonalOFT, butterfly_shape
from backend.networks.kinds.scale import rank_stabilised
from backend.networks.lora import DEFAULT_DIM, LORAPLUS, LoRA, plus_ratios
from backend.networks.presets import PRESETS, Preset
from backend.networks.spec import FLAG, NUMBER, ON, RANK, WHOLE, WORDS, Reader, read_arguments, refuse
from backend.networks.weighted import Dropouts, Options, sides

Make = Callable[[Attachable, Options, torch.Generator, dict[str, Any]], Adapter]


def _locon(site: Attachable, options: Options, init: torch.Generator, own: dict[str, Any]) -> Adapter:
    stable = "rs_lora" in own
    cored = options.tucker and sides(site.module)[2] not in ((), (1, 1))
    if options.dora or options.scalar or cored:
        return LoCon(site.module, options, init, stable)
    return LoRA(site.module, options.rank, rank_stabilised(options, stable), options.drop, init)


def _loha(site: Attachable, options: Options, init: torch.Generator, own: dict[str, Any]) -> Adapter:
    return LoHa(site.module, options, init, "rs_lora" in own)


def _lokr(site: Attachable, options: Options, init: torch.Generator, own: dict[str, Any]) -> Adapter:
    return LoKr(site.module, options, init, "rs_lora" in own)


def _glora(site: Attachable, options: Options, init: torch.Generator, own: dict[str, Any]) -> Adapter:
    return GLoRA(site.module, options, init, "rs_lora" in own)


def _ia3(site: Attachable, options: Options, init: torch.Generator, own: dict[str, Any]) -> Adapter:
    pattern = PRESETS[own["preset"]].on_input
    on_input = "train_on_input" in own or bool(pattern and re.search(pattern, site.name))
    return IA3(site.module, replace(options, on_input=on_input))


def _dylora(site: Attachable, options: Options, init: torch.Generator, own: dict[str, Any]) -> Adapter:
    unit = own.get("block_size", 4)
    check_unit("algo=dylora", options.rank, unit, "block_size")
    return DyLoRA(site.module, options.rank, options.alpha, unit, init, nested=True)


def _diag_oft(site: Attachable, options: Options, init: torch.Generator, own: dict[str, Any]) -> Adapter:
    size, count = parted(sides(site.module)[1], options.rank)
    return DiagonalOFT(site.module, replace(options, alpha=own.get("constraint", 0.0)), (count, size, size))


def _boft(site: Attachable, options: Options, init: torch.Generator, own: dict[str, Any]) -> Adapter:
    shape = butterfly_shape(site.module, options.rank)
    if shape is None:
        raise refuse(
            f"algo=boft cannot part {sides(site.module)[1]} outputs with rank {options.rank} ({site.name})",
            why="blocks need an even size of at most the rank, and a number that is a power of two",
            next="raise network_dim and conv_dim (16 fits SD and SDXL), or use diag-oft",
        )
    return ButterflyOFT(site.module, replace(options, alpha=own.get("constraint", 0.0)), shape)


def _full(site: Attachable, options: Options, init: torch.Generator, own: dict[str, Any]) -> Adapter:
    return FullDifference(site.module, options)


def _norm(site: Attachable, options: Options, init: torch.Generator, own: dict[str, Any]) -> Adapter:
    return Norm(site.module, options)


COMMON: dict[str, Reader] = {"algo": WORDS, "preset": WORDS, "train_norm": FLAG}
_RANKED = ("conv_dim", "conv_alpha")
_DROPS = ("rank_dropout", "module_dropout")
_BYPASS: dict[str, Reader] = {"bypass_mode": FLAG}
_DORA: dict[str, Reader] = {"dora_wd": FLAG, "wd_on_output": ON}
_LOW_RANK: dict[str, Reader] = {
    **_BYPASS,
    "use_scalar": FLAG,
    "rs_lora": FLAG,
    "rank_dropout_scale": FLAG,
}
_TUCKER: dict[str, Reader] = {"use_tucker": FLAG, "use_cp": FLAG}
_TURN: dict[str, Reader] = {**_BYPASS, "constraint": NUMBER, "rescaled": FLAG}

KINDS: dict[str, tuple[Make, dict[str, Reader], tuple[str, ...]]] = {
    "locon": (_locon, {**_LOW_RANK, **_DORA, **_TUCKER, **LORAPLUS}, (*_RANKED, "dropout", *_DROPS)),
    "loha": (_loha, {**_LOW_RANK, **_DORA, **_TUCKER}, (*_RANKED, *_DROPS)),
    "lokr": (
        _lokr,
        {**_LOW_RANK, **_DORA, **_TUCKER, "factor": WHOLE, "full_matrix": FLAG, "decompose_both": FLAG},
        (*_RANKED, *_DROPS),
    ),
    "ia3": (_ia3, {**_BYPASS, "train_on_input": FLAG}, ("module_dropout",)),
    "dylora": (_dylora, {"block_size": RANK, **LORAPLUS}, _RANKED),
    "diag-oft": (_diag_oft, _TURN, ("conv_dim", *_DROPS)),
    "boft": (_boft, _TURN, ("conv_dim", *_DROPS)),
    "glora": (_glora, _LOW_RANK, (*_RANKED, *_DROPS)),
    "full": (_full, {**_BYPASS, "rank_dropout_scale": FLAG}, _DROPS),
    "norm": (_norm, {}, ("module_dropout",)),
}
"""algo -> (maker, its arguments, its sizes and dropouts)."""
_SAME = {"lora": "locon", "": "locon", "oft": "diag-oft", "diag_oft": "diag-oft"}


def create(modules: Iterable[Attachable], spec: NetworkSpec, *, seed: int = 0) -> AdapterNetwork:
    """A new network of the kind that the argument ``algo`` names, without effect until trained.

    Raises:
        InputError: an unknown algo or preset, an argument that the kind does not know or cannot
            read, or sizes that do not fit the model.
    """
    algo = algorithm(spec)
    make, arguments, fields = KINDS[algo]
    spec, own = read_arguments(f"algo={algo}", spec, {**COMMON, **arguments}, fields)
    preset = _preset(own)
    options = _options(spec, own)
    sites: list[tuple[Attachable, Adapter]] = []
    for site in modules:
        init = keyed.generator(seed, "init", site.name)
        if preset.takes_norm(site):
            if algo == "norm" or "train_norm" in own:
                sites.append((site, Norm(site.module, options)))
        elif algo != "norm" and preset.takes(site):
            sites.append((site, make(site, _sized(site.module, options, spec), init, own)))
    if not sites:
        raise refuse(
            f"algo={algo} with the preset {own['preset']} finds nothing to train",
            why="none of the layers that it works on is trained",
            next="choose another preset, or train the part it belongs to",
        )
    network = AdapterNetwork(sites)
    network.pace = Pace(plus=plus_ratios(own, network.parts()))
    return network


def algorithm(spec: NetworkSpec) -> str:
    """The kind that ``algo`` names, by LyCORIS' own name.

    Raises:
        InputError: there is no such kind.
    """
    text = spec.args.get("algo", "").strip().lower()
    algo = _SAME.get(text, text)
    if algo not in KINDS:
        raise refuse(f"unknown algo {text}", next=f"choose one of {', '.join(KINDS)}")
    return algo


def _preset(own: dict[str, Any]) -> Preset:
    """Of the argument ``preset``; its name is put into ``own`` when it was left out."""
    name = own.setdefault("preset", "full")
    if name not in PRESETS:
        raise refuse(f"unknown preset {name}", next=f"choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def _options(spec: NetworkSpec, own: dict[str, Any]) -> Options:
    drop = Dropouts.of(spec, rescale="rank_dropout_scale" in own)
    whole = "dora_wd" in own or "use_tucker" in own or "use_cp" in own or "use_scalar" in own
    if drop.values and whole:
        raise refuse(
            "network_dropout cannot be combined with dora_wd, use_tucker or use_scalar",
            why="they change the weight as a whole, so there are no inner values to leave out",
            next="use rank_dropout or module_dropout",
        )
    factor = own.get("factor", -1)
    if factor == 0 or factor < -1:
        raise refuse(f"factor cannot be {factor}", next="give -1 for as even as can be, or a number from 1")
    return Options(
        rank=spec.dim or DEFAULT_DIM,
        alpha=spec.alpha or 0.0,
        drop=drop,
        tucker="use_tucker" in own or "use_cp" in own,
        scalar="use_scalar" in own,
        dora=("output" if own.get("wd_on_output", True) else "input") if "dora_wd" in own else "",
        bypass="bypass_mode" in own,
        factor=factor,
        full_matrix="full_matrix" in own,
        decompose_both="decompose_both" in own,
        rescaled="rescaled" in own,
    )


def _sized(module: nn.Module, options: Options, spec: NetworkSpec) -> Options:
    """``options`` with the rank and alpha of a larger kernel, where that is one."""
    if sides(module)[2] in ((), (1, 1)):
        return options
    alpha = options.alpha if spec.conv_alpha is None else spec.conv_alpha
    return replace(options, rank=spec.conv_dim or options.rank, alpha=alpha)
