"""Where the weights of a model lie: one file, a diffusers folder, an own VAE file."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from backend.errors import InputError
from backend.families.parts import names as parts_names
from backend.families.parts.layout import VAE, Layout
from backend.families.store import Rows, TensorSource, open_tensors
from backend.system.identify import identify

COMPONENTS = "atelier.components"
"""Metadata key for what shapes cannot tell (JSON: part -> its configuration)."""

_PART_TITLES = {
    "unet": "U-Net",
    "vae": "VAE",
    "text_encoder": "text encoder",
    "text_encoder_2": "second text encoder",
}
_STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
_TEXT_STEM = "model"


class Place(NamedTuple):
    """A tensor in a file, or a third of its rows."""

    source: TensorSource
    name: str
    third: int | None = None
    turned: bool = False
    """The file has it transposed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As :meth:`read` gives it."""
        shape = self.source.header.tensors[self.name].shape
        if self.third is not None:
            return shape[0] // 3, *shape[1:]
        return shape[::-1] if self.turned else shape

    def read(self, dtype: torch.dtype | None = None) -> Tensor:
        tensor = self.source.read(self.name, dtype, self._rows())
        return tensor.t().contiguous() if self.turned else tensor

    def _rows(self) -> Rows | None:
        if self.third is None:
            return None
        count = self.shape[0]
        return self.third * count, (self.third + 1) * count


@dataclass
class Weights:
    """All tensors of a model by diffusers name (``unet.``, ``vae.``, ``text_encoder.`` ...)."""

    path: Path
    places: dict[str, Place]
    config: dict[str, dict[str, Any]]
    """Part -> configuration that shapes cannot tell."""
    metadata: Mapping[str, str] = field(default_factory=lambda: dict[str, str]())
    extras: dict[str, Place] = field(default_factory=lambda: dict[str, Place]())
    """Tensors of the source that are no part of the model (EMA copies, constants), by their own name."""

    def part(self, name: str) -> dict[str, Place]:
        """The tensors of one part by the module's own names."""
        start = f"{name}."
        return {key[len(start) :]: place for key, place in self.places.items() if key.startswith(start)}

    def require(self, part: str) -> None:
        """InputError when no tensor of ``part`` is there."""
        if not any(name.startswith(f"{part}.") for name in self.places):
            title = _PART_TITLES[part]
            raise InputError(
                f"no {title} inside; choose one" if part == "vae" else f"no {title} inside",
                where=str(self.path),
                why=f"the file holds no tensors of a {title}",
                next="name a VAE file beside the base model"
                if part == "vae"
                else f"choose a base model that is complete ({title} included)",
                key="vae" if part == "vae" else None,
            )


def find_weights(path: Path, dtype: torch.dtype, layout: Layout) -> Weights:
    """The weights in a single file or diffusers folder; fp16 variants are preferred for fp16."""
    return _in_folder(path, dtype, layout) if path.is_dir() else _in_file(path, layout)


def _in_file(path: Path, layout: Layout) -> Weights:
    source = open_tensors(path)
    names = source.header.tensors
    pieces = layout.pieces(names)
    places = {new: Place(source, *piece) for new, piece in pieces.items()}
    used = {piece.name for piece in pieces.values()}
    extras = {name: Place(source, name) for name in names if name not in used}
    return Weights(path, places, _components(source), source.header.metadata, extras)


def _components(source: TensorSource) -> dict[str, dict[str, Any]]:
    text = source.header.metadata.get(COMPONENTS)
    if not text:
        return {}
    try:
        table = json.loads(text)
        return {str(part): dict(config) for part, config in table.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"the metadata {COMPONENTS} cannot be read", where=str(source.header.path), why=str(error)
        ) from None


def _in_folder(path: Path, dtype: torch.dtype, layout: Layout) -> Weights:
    places: dict[str, Place] = {}
    config: dict[str, dict[str, Any]] = {}
    for part in layout.parts:
        folder = path / part
        config[part] = read_config(folder)
        for file in _weight_files(folder, _STEMS.get(part, _TEXT_STEM), dtype):
            places |= {f"{part}.{name}": place for name, place in _diffusers_part(part, file)}
    return Weights(path, places, config)


@contextmanager
def complete(path: Path) -> Generator[None]:
    """Dimensions are read inside. Raises InputError, naming the tensor, when one that tells them is
    missing or has an odd shape."""
    try:
        yield
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise InputError(
            f"the model is incomplete: {error.args[0] if error.args else error} is missing or odd",
            where=str(path),
            next="Download it again",
        ) from error


def read_config(folder: Path) -> dict[str, Any]:
    """A component's ``config.json``, empty when there is none."""
    try:
        return cast("dict[str, Any]", json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InputError(
            "config.json is not valid JSON", where=str(folder / "config.json"), why=str(error)
        ) from None


def _weight_files(folder: Path, stem: str, dtype: torch.dtype) -> list[Path]:
    """The files of one component: one, or several shards; none when the component is absent."""
    plain, half = [f"{stem}.safetensors"], [f"{stem}.fp16.safetensors"]
    pickled = ["pytorch_model" if stem == "model" else stem]
    names = half + plain if dtype == torch.float16 else plain + half
    names += [f"{name}{variant}.bin" for name in pickled for variant in ("", ".fp16")]
    for name in names:
        if (folder / name).is_file():
            return [folder / name]
    return sorted(folder.glob(f"{stem}-*-of-*.safetensors"))


def _diffusers_part(part: str, file: Path) -> Iterator[tuple[str, Place]]:
    source = open_tensors(file)
    names: Iterable[str] = source.header.tensors
    if part == "vae":
        renamed = parts_names.modern_vae_names(names)
    elif part != "unet":
        renamed = {
            name: name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}"
            for name in names
        }
    else:
        renamed = {name: name for name in names}
    for old, new in renamed.items():
        if not old.endswith("position_ids"):
            yield new, Place(source, old)


def replace_vae(weights: Weights, path: Path, dtype: torch.dtype) -> None:
    """Take the VAE from ``path``: a VAE file in either layout, a VAE folder, or a whole model."""
    found = identify(path)
    if found.kind not in ("vae", "base"):
        raise InputError(
            f"this is a {found.title}, not a VAE", where=str(path), next="choose the file of a VAE", key="vae"
        )
    if path.is_dir():
        folder = path / "vae" if (path / "vae").is_dir() else path
        files = _weight_files(folder, _STEMS["vae"], dtype)
        places = dict(entry for file in files for entry in _diffusers_part("vae", file))
        config = read_config(folder)
    else:
        source = open_tensors(path)
        places, config = _vae_places(source), _components(source).get("vae", {})
    if not places:
        raise InputError("no VAE inside; choose one", where=str(path), key="vae")
    kept = {name: place for name, place in weights.places.items() if not name.startswith("vae.")}
    weights.places = kept | {f"vae.{name}": place for name, place in places.items()}
    weights.config["vae"] = config


def _vae_places(source: TensorSource) -> dict[str, Place]:
    names = source.header.tensors
    if any(".down_blocks." in name for name in names if name.startswith("encoder.")):
        return {new: Place(source, old) for old, new in parts_names.modern_vae_names(names).items()}
    prefix = VAE if any(name.startswith(VAE) for name in names) else ""
    bare = [name[len(prefix) :] for name in names if name.startswith(prefix)]
    return {new: Place(source, f"{prefix}{old}") for old, new in parts_names.vae_to_diffusers(bare).items()}
