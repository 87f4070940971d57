"""LoRA (Hu et al. 2021) on linear layers and convolutions.

``W x + strength * alpha / r * up(drop(down x))``. By default the linear layers and 1x1
convolutions of text encoders and attention blocks have one (LierLa); with ``conv_dim`` resnets and
samplers as well (C3Lier): their linear layers and 1x1 convolutions with ``dim``, larger kernels
with ``conv_dim``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend import keyed
from backend.networks.base import Attachable, NetworkSpec
from backend.networks.blocks import ARGUMENTS as BLOCK_ARGUMENTS
from backend.networks.blocks import Blocks
from backend.networks.common import Adapter, AdapterNetwork, Forward, Pace
from backend.networks.delta import Factors, delta
from backend.networks.joint import ARGUMENTS as JOINT_ARGUMENTS
from backend.networks.joint import Joint
from backend.networks.kinds.locon import LoCon
from backend.networks.kinds.scale import rank_stabilised
from backend.networks.spec import FLAG, NUMBER, WORDS, Reader, read_arguments, refuse
from backend.networks.weighted import Dropouts, Options, Weight

DEFAULT_DIM = 4
DEFAULT_CONV_ALPHA = 1.0
_ALWAYS = frozenset({"text", "attention"})
_TARGETS = frozenset({*_ALWAYS, "resnet", "sampler"})
LORAPLUS: dict[str, Reader] = dict.fromkeys(
    ("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio"), NUMBER
)
BLOCKS: dict[str, Reader] = {**dict.fromkeys(BLOCK_ARGUMENTS, WORDS), "block_lr_zero_threshold": NUMBER}
ARGUMENTS: dict[str, Reader] = {
    **BLOCKS,
    **JOINT_ARGUMENTS,
    **LORAPLUS,
    "dora_wd": FLAG,
    "use_rslora": FLAG,
}


class LoRA(Adapter):
    """The pair of one module.

    Parameters: ``lora_down.weight`` (r, in) or (r, in, k, k), ``lora_up.weight`` (out, r) or
    (out, r, 1, 1), float32. They work under autocast, and beside a base in half precision.
    Dropouts act in training only. They are drawn from torch's global generator inside the forward
    (the trainer seeds it for each step), so gradient checkpointing repeats them exactly.
    """

    alpha: Tensor
    ups = frozenset({"lora_up.weight"})
    factors = ("lora_down.weight", "lora_up.weight")

    def __init__(
        self, base: nn.Module, rank: int, alpha: float, drop: Dropouts, init: torch.Generator | None
    ) -> None:
        """``alpha`` 0 means the rank; ``init`` None leaves down undefined, to be loaded."""
        super().__init__()
        self.convolution: dict[str, Any] | None = None
        if isinstance(base, nn.Linear):
            down, up = (rank, base.in_features), (base.out_features, rank)
        else:
            assert isinstance(base, nn.Conv2d) and base.groups == 1 and base.padding_mode == "zeros"
            down, up = (rank, base.in_channels, *base.kernel_size), (base.out_channels, rank, 1, 1)
            self.convolution = {"stride": base.stride, "padding": base.padding, "dilation": base.dilation}
        self.lora_down = Weight(torch.empty(down))
        if init is not None:
            nn.init.kaiming_uniform_(self.lora_down.weight, a=math.sqrt(5), generator=init)
        self.lora_up = Weight(torch.zeros(up))
        self.register_buffer("alpha", torch.tensor(float(alpha or rank)))
        self.drop = drop
        self.scale = 1.0
        self.refresh()
        self.register_load_state_dict_post_hook(lambda module, _: module.refresh())

    def forward(self, x: Tensor, base: Forward) -> Tensor:
        """Shapes as the base module's; dtype as its output."""
        out = base(x)
        down, up = self.lora_down.weight, self.up()
        if x.dtype != down.dtype and not torch.is_autocast_enabled(x.device.type):
            x = x.to(down.dtype)
        if self.convolution is None:
            hidden = F.linear(x, down)
            added = F.linear(self._dropped(hidden) if self.training else hidden, up)
        else:
            hidden = F.conv2d(x, down, **self.convolution)
            added = F.conv2d(self._dropped(hidden) if self.training else hidden, up)
        return torch.add(out, added.to(out.dtype), alpha=self.strength * self.scale)

    def up(self) -> Tensor:
        """The up weight as it acts."""
        return self.lora_up.weight

    def weight_delta(self) -> Tensor:
        return delta(Factors(self.lora_down.weight.detach(), self.lora_up.weight.detach(), float(self.alpha)))

    def complete(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """No alpha, or 0, means alpha = rank."""
        down, alpha = tensors.get("lora_down.weight"), tensors.get("alpha")
        if down is None or (alpha is not None and float(alpha)):
            return tensors
        return {**tensors, "alpha": torch.tensor(float(down.shape[0]))}

    def refresh(self) -> None:
        self.scale = float(self.alpha) / self.lora_down.weight.shape[0]

    def _dropped(self, hidden: Tensor) -> Tensor:
        """Dropouts on the rank's activations: (B, ..., r), of a convolution (B, r, h, w)."""
        if self.drop.values:
            hidden = F.dropout(hidden, self.drop.values)
        if self.drop.ranks:
            axis = hidden.dim() - 1 if self.convolution is None else 1
            shape = [size if i in (0, axis) else 1 for i, size in enumerate(hidden.shape)]
            keep = 1.0 - self.drop.ranks
            hidden = hidden * (torch.rand(shape, device=hidden.device) < keep).to(hidden.dtype)
            hidden = hidden / keep if self.drop.rescale else hidden
        if self.drop.modules:
            # A product instead of a branch: nothing waits for the device, and graphs stay whole.
            hidden = hidden * (torch.rand((), device=hidden.device) >= self.drop.modules).to(hidden.dtype)
        return hidden


class SplitLoRA(LoRA):
    """Three pairs side by side, each for a third of the outputs: queries, keys, values.

    Held as one pair of three times the rank whose up weight is zero outside of three blocks, with an
    alpha three times as large, so that every loader of the file applies what was trained.
    """

    blocks: Tensor

    def __init__(
        self, base: nn.Module, rank: int, alpha: float, drop: Dropouts, init: torch.Generator | None
    ) -> None:
        """``rank`` and ``alpha`` are each of the three's; alpha 0 means the rank."""
        assert isinstance(base, nn.Linear) and base.out_features % 3 == 0
        super().__init__(base, rank * 3, float(alpha or rank) * 3, drop, init)
        third = base.out_features // 3
        blocks = torch.block_diag(*[torch.ones(third, rank)] * 3)
        self.register_buffer("blocks", blocks, persistent=False)

    def up(self) -> Tensor:
        return self.lora_up.weight * self.blocks

    def complete(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        up, outside = tensors.get("lora_up.weight"), self.blocks.cpu() == 0
        if up is not None and up.shape == outside.shape and bool((up.cpu()[outside] != 0).any()):
            raise refuse(
                "the file was trained without split_qkv",
                why="its queries, keys and values share their ranks",
                next="leave split_qkv out, or start from another file",
            )
        return super().complete(tensors)


def create(modules: Iterable[Attachable], spec: NetworkSpec, *, seed: int = 0) -> AdapterNetwork:
    """A new LoRA on ``modules``, without effect until trained (up is zero).

    Each down weight is drawn from its own generator, keyed by ``seed`` and the module's name, so
    the order of creation and the choice of modules do not matter.

    Raises:
        InputError: a network argument that LoRA does not know, or cannot read.
    """
    spec, own = read_arguments("networks.lora", spec, ARGUMENTS)
    drop, dora, stable = Dropouts.of(spec), "dora_wd" in own, "use_rslora" in own
    if dora and (drop.values or drop.ranks):
        raise refuse(
            "dora_wd cannot be combined with network_dropout or rank_dropout",
            why="DoRA changes the weight as a whole, so there are no inner values to leave out",
            next="use module_dropout",
        )

    if dora and "split_qkv" in own:
        raise refuse("dora_wd cannot be combined with split_qkv", next="leave one of them out")
    modules = list(modules)
    thirds = {id(site.module) for site in modules if "split_qkv" in own and site.name.endswith("_qkv")}

    def make(module: nn.Module, rank: int, alpha: float, init: torch.Generator) -> Adapter:
        options = Options(rank=rank, alpha=alpha, drop=drop, dora="output" if dora else "")
        if dora:
            return LoCon(module, options, init, stable)
        kind = SplitLoRA if id(module) in thirds else LoRA
        return kind(module, rank, rank_stabilised(options, stable), drop, init)

    return assemble(modules, spec, own, make, seed)


Make = Callable[[nn.Module, int, float, torch.Generator], Adapter]


def assemble(
    modules: Iterable[Attachable], spec: NetworkSpec, own: Mapping[str, Any], make: Make, seed: int
) -> AdapterNetwork:
    """A network of the adapters that ``make`` (module, rank, alpha, init) gives, on LoRA's modules.

    Raises:
        InputError: arguments for blocks that do not fit the model.
    """
    modules = list(modules)
    joint = Joint.read(own, [site.name for site in modules])
    chosen = [site for site in modules if site.container in _TARGETS or (joint and joint.names(site.name))]
    blocks = Blocks.read(dict(own), [site.name for site in chosen])
    sites: list[tuple[Attachable, Adapter]] = []
    paces: dict[str, tuple[int, float]] = {}
    for site in chosen:
        block = blocks.table.index(site.name) if blocks else None
        size = _size(site, spec, blocks, block)
        if joint and site.part == "unet":
            size = joint.rank(site.name, spec.dim or DEFAULT_DIM), spec.alpha or 0.0
        if size is None or not size[0]:
            continue
        if blocks and blocks.rates and block is not None:
            if not blocks.rates[block]:
                continue
            paces[AdapterNetwork.prefix + site.name] = block, blocks.rates[block]
        sites.append((site, make(site.module, *size, keyed.generator(seed, "init", site.name))))
    network = AdapterNetwork(sites)
    network.pace = Pace(paces, plus_ratios(own, network.parts()))
    return network


def plus_ratios(own: Mapping[str, Any], parts: Iterable[str]) -> dict[str, float]:
    """Part -> factor of the rate of up weights (LoRA+), from ``loraplus_*_lr_ratio``."""
    both, unet = own.get("loraplus_lr_ratio"), own.get("loraplus_unet_lr_ratio")
    text = own.get("loraplus_text_encoder_lr_ratio")
    ratios = {part: (unet if part == "unet" else text) or both for part in parts}
    return {part: ratio for part, ratio in ratios.items() if ratio}


def _size(
    site: Attachable, spec: NetworkSpec, blocks: Blocks | None, block: int | None
) -> tuple[int, float] | None:
    """(rank, alpha) of a module's LoRA, or None when it has none; rank 0 means none, too."""
    conv_dims = blocks.conv_dims if blocks else None
    if site.container not in _ALWAYS and spec.conv_dim is None and conv_dims is None:
        return None
    if isinstance(site.module, nn.Linear) or site.module.kernel_size == (1, 1):
        dims, alphas = (blocks.dims, blocks.alphas) if blocks else (None, None)
        return (
            spec.dim or DEFAULT_DIM if dims is None or block is None else dims[block],
            spec.alpha or 0.0 if alphas is None or block is None else alphas[block],
        )
    conv_alphas = blocks.conv_alphas if blocks else None
    alpha = DEFAULT_CONV_ALPHA if spec.conv_alpha is None else spec.conv_alpha
    if conv_dims is not None and block is not None:
        return conv_dims[block], alpha if conv_alphas is None else conv_alphas[block]
    return None if spec.conv_dim is None else (spec.conv_dim, alpha)
