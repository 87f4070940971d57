"""Where the weights of an SD 3 model lie: one file, a diffusers folder, own files of its parts.

Parts are called ``transformer`` (original names), ``clip_l``, ``clip_g``, ``t5xxl`` (transformers'
names) and ``vae`` (diffusers' names).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from backend.errors import InputError
from backend.families.parts import names as parts_names
from backend.families.parts.weights import read_config
from backend.families.sd3 import keys
from backend.families.store import TensorSource, open_tensors
from backend.system.identify import identify

COMPONENTS = "atelier.components"
"""Metadata key for what shapes cannot tell (JSON: part -> its configuration)."""
PREFIXES: Mapping[str, str] = {
    "transformer": "model.diffusion_model.",
    "clip_l": "text_encoders.clip_l.transformer.",
    "clip_g": "text_encoders.clip_g.transformer.",
    "t5xxl": "text_encoders.t5xxl.transformer.",
    "vae": "first_stage_model.",
}
FOLDERS: Mapping[str, str] = {
    "transformer": "transformer",
    "clip_l": "text_encoder",
    "clip_g": "text_encoder_2",
    "t5xxl": "text_encoder_3",
    "vae": "vae",
}
TITLES: Mapping[str, str] = {
    "transformer": "transformer",
    "clip_l": "CLIP-L",
    "clip_g": "CLIP-G",
    "t5xxl": "T5-XXL",
    "vae": "VAE",
}
PROJECTION = "text_projection.weight"
_CLIP_NAMES = ("text_model.", PROJECTION)


@dataclass(frozen=True)
class Place:
    """A tensor in a file, in pieces that are joined along the first side."""

    source: TensorSource
    names: tuple[str, ...]
    swapped: bool = False
    """The file has its halves the other way round."""

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """As :meth:`read` gives it."""
        shape = self.source.header.tensors[self.name].shape
        return (shape[0] * len(self.names), *shape[1:]) if len(self.names) > 1 else shape

    def read(self, dtype: torch.dtype | None = None) -> Tensor:
        pieces = [self.source.read(name, dtype) for name in self.names]
        tensor = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        return torch.cat(tensor.chunk(2)[::-1]) if self.swapped else tensor


@dataclass(frozen=True)
class Eye(Place):
    """A matrix that changes nothing, in place of one that the file leaves out."""

    width: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.width, self.width

    def read(self, dtype: torch.dtype | None = None) -> Tensor:
        return torch.eye(self.width, dtype=dtype or torch.float32)


@dataclass
class Weights:
    """All tensors of a model by part and name."""

    path: Path
    parts: dict[str, dict[str, Place]]
    config: dict[str, dict[str, Any]] = field(default_factory=lambda: dict[str, dict[str, Any]]())
    """Part -> configuration that shapes cannot tell."""
    metadata: Mapping[str, str] = field(default_factory=lambda: dict[str, str]())
    extras: dict[str, Place] = field(default_factory=lambda: dict[str, Place]())
    """Tensors of the source that are no part of the model, by their own name."""

    def part(self, name: str) -> dict[str, Place]:
        """The tensors of one part by the module's own names."""
        return self.parts.get(name, {})

    def shapes(self, part: str) -> dict[str, tuple[int, ...]]:
        return {name: place.shape for name, place in self.part(part).items()}


@dataclass(frozen=True)
class Files:
    """Own files of parts, in place of what the model's file has."""

    clip_l: Path | None = None
    clip_g: Path | None = None
    t5xxl: Path | None = None
    vae: Path | None = None


def find_weights(path: Path, files: Files, dtype: torch.dtype, mapped: bool = True) -> Weights:
    """The weights of a single file or diffusers folder, with ``files`` in place of its parts.

    Raises:
        InputError: a part other than T5 is nowhere, or a file is not what it was given as.
    """
    weights = _in_folder(path, dtype, mapped) if path.is_dir() else _in_file(path, mapped)
    for part in ("clip_l", "clip_g", "t5xxl", "vae"):
        file = cast("Path | None", getattr(files, part))
        if file is not None:
            weights.parts[part], config = _own_file(file, part, dtype, mapped)
            weights.config[part] = config
    for part in ("transformer", "clip_l", "clip_g", "vae"):
        if not weights.parts.get(part):
            _lacks(path, part)
    _complete_projection(weights.part("clip_l"))
    return weights


def _complete_projection(clip_l: dict[str, Place]) -> None:
    """Files of CLIP-L without a projection mean one that changes nothing."""
    first = clip_l.get("text_model.embeddings.token_embedding.weight")
    if PROJECTION not in clip_l and first is not None:
        clip_l[PROJECTION] = Eye(first.source, (PROJECTION,), width=first.shape[1])


def _lacks(path: Path, part: str) -> None:
    title = TITLES[part]
    if part == "transformer":
        raise InputError(
            f"no {title} inside", where=str(path), next="choose the base model, not one of its parts"
        )
    raise InputError(
        f"no {title} inside; choose one",
        where=str(path),
        why=f"the file holds no tensors of a {title}",
        next=f"give its file as {part}, or choose a base model that has it",
        key=part,
    )


def _in_file(path: Path, mapped: bool) -> Weights:
    source = open_tensors(path, mapped=mapped)
    parts: dict[str, dict[str, Place]] = {}
    used: set[str] = set()
    for part, prefix in PREFIXES.items():
        bare = [name[len(prefix) :] for name in source.header.tensors if name.startswith(prefix)]
        if part == "transformer" and not bare:
            prefix, bare = "", [name for name in source.header.tensors if _of_transformer(name)]
        found = _places(source, part, bare, prefix)
        if found:
            parts[part] = found
            used.update(name for place in found.values() for name in place.names)
    extras = {name: Place(source, (name,)) for name in source.header.tensors if name not in used}
    return Weights(path, parts, _components(source), source.header.metadata, extras)


def _of_transformer(name: str) -> bool:
    """Names that a transformer's own file has without any prefix."""
    return name == "pos_embed" or name.split(".")[0] in (
        "joint_blocks", "x_embedder", "t_embedder", "y_embedder", "context_embedder", "final_layer",
    )  # fmt: skip


def _places(source: TensorSource, part: str, names: Iterable[str], prefix: str = "") -> dict[str, Place]:
    """Own name -> place, of what lies in ``source`` as ``prefix`` + one of ``names``."""
    names = list(names)
    if part == "vae":
        modern = any(".down_blocks." in name for name in names)
        renamed = parts_names.modern_vae_names(names) if modern else parts_names.vae_to_diffusers(names)
    elif part == "transformer":
        return {new: Place(source, (prefix + new,)) for new in names if _of_transformer(new)}
    else:
        renamed = _t5_names(names) if part == "t5xxl" else _clip_names(names)
    return {new: Place(source, (prefix + old,)) for old, new in renamed.items()}


def _clip_names(names: Iterable[str]) -> dict[str, str]:
    """Name in a file -> transformers' name; some programs leave ``text_model`` out."""
    found: dict[str, str] = {}
    for name in names:
        if name.endswith("position_ids"):
            continue
        bare = name.startswith(("embeddings.", "encoder.", "final_layer_norm."))
        new = f"text_model.{name}" if bare else name
        if new.startswith(_CLIP_NAMES):
            found[name] = new
    return found


def _t5_names(names: Iterable[str]) -> dict[str, str]:
    """The embedding may stand twice, or only under its second name; a decoder is left out."""
    second = "encoder.embed_tokens.weight"
    known = [name for name in names if name.startswith("encoder.") or name == "shared.weight"]
    found = {name: name for name in known if name != second}
    if "shared.weight" not in found and second in known:
        found[second] = "shared.weight"
    return found


def _components(source: TensorSource) -> dict[str, dict[str, Any]]:
    text = source.header.metadata.get(COMPONENTS)
    if not text:
        return {}
    try:
        return {str(part): dict(config) for part, config in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"the metadata {COMPONENTS} cannot be read", where=str(source.header.path), why=str(error)
        ) from None


def _own_file(
    file: Path, part: str, dtype: torch.dtype, mapped: bool
) -> tuple[dict[str, Place], dict[str, Any]]:
    """The tensors of one part in a file or folder of its own, and its configuration."""
    if file.is_dir():
        inner = file / FOLDERS[part]
        folder = inner if inner.is_dir() else file
        found, config = _folder_part(part, folder, dtype, mapped), read_config(folder)
    else:
        source = open_tensors(file, mapped=mapped)
        names = source.header.tensors
        prefix = next(
            (p for p in (PREFIXES[part], "transformer.") if any(name.startswith(p) for name in names)), ""
        )
        bare = [name[len(prefix) :] for name in names if name.startswith(prefix)]
        found, config = _places(source, part, bare, prefix), _components(source).get(part, {})
    marks = {"t5xxl": "shared.weight", "vae": "decoder.conv_in.weight"}
    if marks.get(part, "text_model.embeddings.token_embedding.weight") not in found:
        raise InputError(
            f"this is {_what(file)}, not the weights of a {TITLES[part]}", where=str(file), key=part
        )
    return found, config


def _what(file: Path) -> str:
    title = identify(file).title
    return f"{'an' if title[:1].lower() in 'aeiou' else 'a'} {title}"


def _in_folder(path: Path, dtype: torch.dtype, mapped: bool) -> Weights:
    weights = Weights(path, {})
    for part, name in FOLDERS.items():
        weights.config[part] = read_config(path / name)
        found = _folder_part(part, path / name, dtype, mapped)
        if found:
            weights.parts[part] = found
    return weights


def _folder_part(part: str, folder: Path, dtype: torch.dtype, mapped: bool) -> dict[str, Place]:
    """One component of a diffusers folder, of one file or several shards."""
    sources = [open_tensors(file, mapped=mapped) for file in _weight_files(folder, part, dtype)]
    if part != "transformer":
        return {
            name: place
            for source in sources
            for name, place in _places(source, part, source.header.tensors).items()
        }
    where = {name: source for source in sources for name in source.header.tensors}
    found: dict[str, Place] = {}
    for name, twin in keys.from_diffusers(where).items():
        owners = {id(where[piece]): where[piece] for piece in twin.names}
        source = next(iter(owners.values())) if len(owners) == 1 else _Shards(where)
        found[name] = Place(source, twin.names, twin.swapped)
    return found


class _Shards:
    """Several files that hold pieces of one tensor, as one source."""

    def __init__(self, where: Mapping[str, TensorSource]) -> None:
        self._where = where
        first = next(iter(where.values())).header
        tensors = {name: source.header.tensors[name] for name, source in where.items()}
        self.header = type(first)(first.path, tensors)

    def read(
        self, name: str, dtype: torch.dtype | None = None, rows: tuple[int, int] | None = None
    ) -> Tensor:
        return self._where[name].read(name, dtype, rows)


def _weight_files(folder: Path, part: str, dtype: torch.dtype) -> list[Path]:
    """The files of one component; fp16 variants are preferred for fp16, none when it is absent."""
    stem = "diffusion_pytorch_model" if part in ("transformer", "vae") else "model"
    stems = [f"{stem}.fp16", stem] if dtype == torch.float16 else [stem, f"{stem}.fp16"]
    for name in stems:
        if (folder / f"{name}.safetensors").is_file():
            return [folder / f"{name}.safetensors"]
    for name in stems:
        base, dot, variant = name.partition(".")
        shards = sorted(folder.glob(f"{base}{dot}{variant}-*-of-*.safetensors"))
        if shards:
            return shards
    pickled = folder / f"{'pytorch_model' if stem == 'model' else stem}.bin"
    return [pickled] if pickled.is_file() else []
