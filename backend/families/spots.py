"""Where the modules that a network names lie in a checkpoint of the original layout.

A network names modules as kohya does (``unet_down_blocks_0_attentions_0_proj_in``); a checkpoint
names tensors (``model.diffusion_model.input_blocks.1.1.proj_in.weight``). Both are put side by side
from names alone, so that a merge needs no model in memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from backend.families.sd1 import keys

_UNET = "model.diffusion_model."


@dataclass(frozen=True)
class Spot:
    """One module's weight in a checkpoint."""

    name: str
    """Kohya's name without the network's own prefix."""
    key: str
    """The tensor that holds the weight."""
    bias: str
    """The tensor that holds the bias, when there is one."""
    share: tuple[int, int] = (0, 1)
    """(i, n): the weight is the i-th of n equal parts of the tensor's rows."""

    @property
    def container(self) -> str:
        """What holds it, as ``AdapterModule.container`` names it; '' for what no LoRA has by default."""
        return next((kind for kind, pattern in _CONTAINERS if pattern.search(self.key)), "")


_CONTAINERS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        (
            "text",
            r"\.self_attn\.|\.mlp\.fc\d|resblocks\.\d+\.(?:attn|mlp)\.|\.(?:SelfAttention|DenseReluDense)\.",
        ),
        ("attention", r"\.transformer_blocks\.|\.proj_(?:in|out)\.|\.joint_blocks\.\d+\."),
        ("resnet", r"\.(?:in_layers|out_layers|emb_layers|skip_connection)\."),
        ("sampler", r"input_blocks\.\d+\.0\.op\.|output_blocks\.\d+\.\d\.conv\."),
    )
)


def spots(family: str, names: Collection[str]) -> list[Spot]:
    """All modules of a checkpoint with these tensor names; the VAE's are not among them."""
    return list(_RULES[family](names))


def known_families() -> tuple[str, ...]:
    """Families whose checkpoints can be merged into."""
    return tuple(_RULES)


def other_names(family: str, names: Collection[str]) -> dict[str, str]:
    """Module names that other programs use -> ours. SDXL's U-Net is also named by diffusers' blocks."""
    if family != "sdxl":
        return {}
    renamed = keys.to_diffusers([name for name in names if name.startswith(_UNET)])
    found: dict[str, str] = {}
    for original, new in renamed.items():
        if original.endswith(".weight"):
            found[_joined(f"unet.{_module(new, 'unet.')}")] = _joined(f"unet.{_module(original, _UNET)}")
    return found


def _module(key: str, prefix: str) -> str:
    return key[len(prefix) :].removesuffix(".weight")


def _joined(path: str) -> str:
    return path.replace(".", "_")


def _plain(names: Collection[str], prefix: str, part: str) -> Iterator[Spot]:
    """Tensors below ``prefix``, named as they are."""
    for key in names:
        if key.startswith(prefix) and key.endswith(".weight"):
            yield Spot(_joined(f"{part}.{_module(key, prefix)}"), key, f"{key[:-7]}.bias")


def _by_diffusers(names: Collection[str]) -> Iterator[Spot]:
    """U-Net (and CLIP) of SD 1.x and 2.x: named by diffusers' blocks."""
    parts = {"unet": "unet", "text_encoder": "te"}
    for key, new in keys.to_diffusers(names).items():
        part, _, path = new.partition(".")
        if part in parts and key.endswith(".weight"):
            yield Spot(_joined(f"{parts[part]}.{path.removesuffix('.weight')}"), key, f"{key[:-7]}.bias")


_OPEN_CLIP = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


def _open_clip(names: Iterable[str], prefix: str, part: str) -> Iterator[Spot]:
    """An OpenCLIP text encoder: query, key and value stand in one tensor."""
    pattern = re.compile(rf"{re.escape(prefix)}transformer\.resblocks\.(\d+)\.(.+?)[._]weight$")
    for key in names:
        match = pattern.match(key)
        if match is None:
            continue
        root = f"{part}.text_model.encoder.layers.{match[1]}"
        bias = f"{key[: -len('weight')]}bias"
        if match[2] == "attn.in_proj":
            for place, letter in enumerate("qkv"):
                yield Spot(_joined(f"{root}.self_attn.{letter}_proj"), key, bias, (place, 3))
        elif match[2] in _OPEN_CLIP:
            yield Spot(_joined(f"{root}.{_OPEN_CLIP[match[2]]}"), key, bias)


def _sd1(names: Collection[str]) -> Iterator[Spot]:
    yield from _by_diffusers(names)


def _sd2(names: Collection[str]) -> Iterator[Spot]:
    yield from _by_diffusers(names)
    yield from _open_clip(names, "cond_stage_model.model.", "te")


def _sdxl(names: Collection[str]) -> Iterator[Spot]:
    yield from _plain(names, _UNET, "unet")
    yield from _plain(names, "conditioner.embedders.0.transformer.", "te1")
    yield from _open_clip(names, "conditioner.embedders.1.model.", "te2")


def _sd3(names: Collection[str]) -> Iterator[Spot]:
    yield from _plain(names, _UNET, "unet")
    yield from _plain(names, "text_encoders.clip_l.transformer.", "te1")
    yield from _plain(names, "text_encoders.clip_g.transformer.", "te2")
    yield from _plain(names, "text_encoders.t5xxl.transformer.", "te3")


_RULES: Mapping[str, Callable[[Collection[str]], Iterator[Spot]]] = {
    "sd1": _sd1,
    "sd2": _sd2,
    "sdxl": _sdxl,
    "sd3": _sd3,
}
