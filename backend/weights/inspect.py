"""What is inside a model file: kind, family, size of every layer, training settings, tags, hashes."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch

from backend.networks.delta import norm
from backend.settings.imports.metadata import settings_of
from backend.system.identify import ModelFile, identify
from backend.weights import hashes
from backend.weights.blockweights import slot_of
from backend.weights.networkfile import Parts, is_pair, on_weight_kind, open_network, pair
from backend.weights.reading import open_file
from backend.weights.safefile import nonfinite

SLOTS = ("BASE", *(f"IN{n:02d}" for n in range(12)), "MID", *(f"OUT{n:02d}" for n in range(12)))
_KINDS = (
    ("hada_w1_a", "LoHa"),
    ("lokr_w1", "LoKr"),
    ("lokr_w1_a", "LoKr"),
    ("lora_mid.weight", "Tucker"),
    ("diff", "full difference"),
    ("w_norm", "norm"),
)
_RANKS = ("lora_down.weight", "hada_w1_b", "lokr_w2_b", "lokr_w1_b", "a2.weight", "oft_blocks")


@dataclass(frozen=True)
class Layer:
    """One module of a network."""

    name: str
    kind: str
    block: str
    rank: int | None
    alpha: float | None
    dtype: str
    shape: list[int]
    """Of the weight it changes, as far as the parts tell; [] otherwise."""
    norm: float | None
    """Frobenius norm of its change at strength 1; None when that depends on the model's weight."""


@dataclass(frozen=True)
class Inspection:
    """Everything that can be said of a file."""

    path: str
    title: str
    kind: str
    family: str
    size: int
    dtype: str
    tensors: int
    sha256: str
    legacy_hash: str
    details: Mapping[str, str]
    layers: list[Layer] = field(default_factory=lambda: list[Layer]())
    blocks: dict[str, dict[str, float]] = field(default_factory=lambda: dict[str, dict[str, float]]())
    """Block -> modules, norm (root of the sum of squares), mean rank."""
    metadata: Mapping[str, str] = field(default_factory=lambda: dict[str, str]())
    training: dict[str, Any] = field(default_factory=lambda: dict[str, Any]())
    """Options that it was trained with."""
    training_toml: str = ""
    notes: list[str] = field(default_factory=lambda: list[str]())
    tags: list[tuple[str, int]] = field(default_factory=lambda: list[tuple[str, int]]())
    """Tags with their counts, the most frequent first."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


def inspect(path: Path, *, full_hash: bool = True) -> Inspection:
    """Look into a model file or diffusers folder.

    Args:
        full_hash: compute the SHA-256 of the whole file, which takes seconds for large files.

    Raises:
        InputError: missing, damaged, no model file, or a pickle with code.
    """
    found = identify(path)
    if path.is_dir():
        return _plain(found, {}, 0)
    file = open_file(path)
    digest = hashes.sha256(path) if full_hash else ""
    base = _plain(found, file.metadata, len(file.tensors), digest, hashes.legacy_hash(path))
    if found.kind != "lora":
        return base
    network = open_network(path)
    layers = [_layer(name, parts) for name, parts in network.modules.items()]
    return replace(base, layers=layers, blocks=_blocks(layers))


def _plain(
    found: ModelFile, metadata: Mapping[str, str], count: int, digest: str = "", legacy: str = ""
) -> Inspection:
    trained = settings_of(metadata) if any(key.startswith("ss_") for key in metadata) else None
    return Inspection(
        path=str(found.path),
        title=found.title,
        kind=found.kind,
        family=found.family,
        size=found.size,
        dtype=found.dtype,
        tensors=count,
        sha256=digest,
        legacy_hash=legacy,
        details=found.details,
        metadata=metadata,
        training=trained.taken if trained else {},
        training_toml=trained.toml(metadata.get("ss_output_name", found.path.stem)) if trained else "",
        notes=trained.notes if trained else [],
        tags=tag_frequencies(metadata),
    )


def tag_frequencies(metadata: Mapping[str, str]) -> list[tuple[str, int]]:
    """Tags of ``ss_tag_frequency`` over all folders with their counts, the most frequent first."""
    try:
        folders: Any = json.loads(metadata.get("ss_tag_frequency", "{}"))
    except ValueError:
        return []
    total: Counter[str] = Counter()
    for counts in cast("dict[str, Any]", folders).values() if isinstance(folders, dict) else ():
        total.update({str(tag).strip(): int(count) for tag, count in counts.items()})
    return total.most_common()


def _layer(name: str, parts: Parts) -> Layer:
    sizes = [parts[part].shape for part in _RANKS if part in parts]
    alpha = parts.get("alpha")
    dtypes = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in parts.values() if tensor.dim())
    return Layer(
        name=name,
        kind=_kind(parts),
        block=block_of(name),
        rank=int(sizes[0][0]) if sizes else None,
        alpha=None if alpha is None else float(alpha),
        dtype=dtypes.most_common(1)[0][0] if dtypes else "",
        shape=_shape(parts),
        norm=_norm(name, parts),
    )


def _kind(parts: Parts) -> str:
    if is_pair(parts):
        return "LoRA"
    own = on_weight_kind(parts)
    return own or next((kind for part, kind in _KINDS if part in parts), "unknown")


def _shape(parts: Parts) -> list[int]:
    if is_pair(parts):
        up, down = parts["lora_up.weight"], parts["lora_down.weight"]
        return [up.shape[0], *down.shape[1:]]
    return list(parts["diff"].shape) if "diff" in parts else []


def _norm(name: str, parts: Parts) -> float | None:
    if is_pair(parts):
        return _finite(norm(pair(name, parts)))
    if on_weight_kind(parts) is not None:
        return None
    direct = parts.get("diff", parts.get("w_norm"))
    if direct is not None:
        return _finite(float(direct.float().norm()))
    return _built_norm(name, parts)


def _built_norm(name: str, parts: Parts) -> float | None:
    """The norm of a change that has to be built first: LoHa, LoKr, Tucker."""
    from backend.weights.merge_networks import own_shape
    from backend.weights.networkfile import change_of

    shape = own_shape(parts)
    if shape is None:
        return None
    return _finite(float(change_of(name, parts, torch.zeros(shape), has_bias=False)[0].norm()))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def block_of(name: str) -> str:
    """The block a module lies in: BASE for text encoders, IN00 ..., MID, OUT00 ...; J00 ... of SD 3."""
    if name.startswith("unet_joint_blocks_"):
        return f"J{int(name.split('_')[3]):02d}"
    return SLOTS[slot_of(name)]


def _blocks(layers: Sequence[Layer]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for block in sorted({layer.block for layer in layers}, key=place_of_block):
        own = [layer for layer in layers if layer.block == block]
        ranks = [layer.rank for layer in own if layer.rank is not None]
        found[block] = {
            "modules": len(own),
            "norm": math.sqrt(sum((layer.norm or 0.0) ** 2 for layer in own)),
            "rank": sum(ranks) / len(ranks) if ranks else 0.0,
        }
    return found


def place_of_block(block: str) -> tuple[int, str]:
    """A key to sort blocks by: text encoders first, then down, middle, up."""
    return (SLOTS.index(block) if block in SLOTS else 1, block)


@dataclass(frozen=True)
class TensorFacts:
    """Numbers of one tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    mean_abs: float
    smallest: float
    largest: float
    broken: int
    """Values that are not finite."""


def tensor_facts(path: Path) -> Iterable[TensorFacts]:
    """Shape, type and size of the values of every tensor of a file."""
    for stored in open_file(path).tensors.values():
        tensor = stored.read(None)
        values = tensor.float() if tensor.numel() else torch.zeros(1)
        yield TensorFacts(
            stored.name,
            stored.shape,
            str(stored.dtype).removeprefix("torch."),
            float(values.abs().mean()),
            float(values.min()),
            float(values.max()),
            nonfinite(tensor),
        )
