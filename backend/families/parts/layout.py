"""Where the parts of a model lie in a single file of the original layout.

A family says which text encoders it has and how they are stored; U-Net and VAE are the same for
all. Names of parts are those of a diffusers folder: ``unet``, ``vae``, ``text_encoder`` ...
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from backend.families.parts import names as parts_names
from backend.families.parts import open_clip
from backend.families.parts.open_clip import Piece

UNET = "model.diffusion_model."
VAE = "first_stage_model."

_FORTH: Mapping[str, Callable[[Collection[str]], dict[str, str]]] = {
    "unet": parts_names.unet_to_diffusers,
    "vae": parts_names.vae_to_diffusers,
}
_BACK: Mapping[str, Callable[[Collection[str]], dict[str, str]]] = {
    "unet": parts_names.unet_to_original,
    "vae": parts_names.vae_to_original,
}
_LAYER = re.compile(r"text_model\.encoder\.layers\.(\d+)\.")


@dataclass(frozen=True)
class TextPart:
    """How one text encoder is stored."""

    part: str
    """``text_encoder``, ``text_encoder_2``."""
    prefix: str
    also: tuple[str, ...] = ()
    """Other prefixes that files in the world have."""
    open_clip: bool = False
    """By OpenCLIP's names; else by transformers'."""
    cut: bool = False
    """The file's last layer and its projection are not part of the encoder (SD 2.x)."""

    def pieces(self, names: Collection[str]) -> dict[str, Piece]:
        """The encoder's own name -> its place, by names in the file."""
        bare = {rest: name for name in names if (rest := self._without_prefix(name)) is not None}
        found = open_clip.to_transformers(bare) if self.open_clip else _plain(bare)
        kept = _cut(found) if self.cut else found
        return {new: piece._replace(name=bare[piece.name]) for new, piece in kept.items()}

    def original(self, names: Collection[str]) -> dict[str, tuple[str, ...]]:
        """Name in the file -> the encoder's own names that it is made of."""
        table = open_clip.from_transformers(names) if self.open_clip else {name: (name,) for name in names}
        return {f"{self.prefix}{old}": new for old, new in table.items()}

    def _without_prefix(self, name: str) -> str | None:
        for prefix in (self.prefix, *self.also):
            if name.startswith(prefix):
                return name[len(prefix) :]
        return None


def _plain(names: Iterable[str]) -> dict[str, Piece]:
    """transformers' names; some converters leave ``text_model`` out, old files carry constants."""
    found: dict[str, Piece] = {}
    for name in names:
        if name.endswith("position_ids"):
            continue
        inner = name.startswith(("embeddings.", "encoder.", "final_layer_norm."))
        new = f"text_model.{name}" if inner else name
        if new.startswith("text_model.") or new == "text_projection.weight":
            found[new] = Piece(name)
    return found


def _cut(pieces: Mapping[str, Piece]) -> dict[str, Piece]:
    layers = [int(match[1]) for name in pieces if (match := _LAYER.match(name))]
    last = f"text_model.encoder.layers.{max(layers, default=0)}."
    return {
        name: piece
        for name, piece in pieces.items()
        if not name.startswith(last) and name != "text_projection.weight"
    }


@dataclass(frozen=True)
class Layout:
    """The original single-file layout of a family."""

    text: tuple[TextPart, ...]

    @property
    def parts(self) -> tuple[str, ...]:
        return ("unet", "vae", *(text.part for text in self.text))

    def pieces(self, names: Collection[str]) -> dict[str, Piece]:
        """Diffusers name with its part before it -> its place, for all that belongs to the model."""
        found: dict[str, Piece] = {}
        for part, prefix in (("unet", UNET), ("vae", VAE)):
            bare = [name[len(prefix) :] for name in names if name.startswith(prefix)]
            found |= {f"{part}.{new}": Piece(prefix + old) for old, new in _FORTH[part](bare).items()}
        for text in self.text:
            found |= {f"{text.part}.{new}": piece for new, piece in text.pieces(names).items()}
        return found

    def original(self, names: Collection[str]) -> dict[str, tuple[str, ...]]:
        """Name in the file -> the diffusers names it is made of: one, or several on top of each other."""
        found: dict[str, tuple[str, ...]] = {}
        for part, prefix in (("unet", UNET), ("vae", VAE)):
            own = _of_part(names, part)
            found |= {prefix + old: (f"{part}.{new}",) for new, old in _BACK[part](own).items()}
        for text in self.text:
            for old, new in text.original(_of_part(names, text.part)).items():
                found[old] = tuple(f"{text.part}.{name}" for name in new)
        return found


def _of_part(names: Iterable[str], part: str) -> list[str]:
    start = f"{part}."
    return [name[len(start) :] for name in names if name.startswith(start)]


def original_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape in the original layout: the VAE's attention is made of 1x1 convolutions there."""
    is_projection = name.startswith("vae.") and ".attentions." in name and len(shape) == 2
    return (*shape, 1, 1) if is_projection else shape


def file_shape(name: str, pieces: Collection[str], shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Shape in the file of the tensor ``name`` that is made of ``pieces`` (diffusers name -> shape)."""
    first = next(iter(pieces))
    shape = original_shape(first, shapes[first])
    if name.endswith(".text_projection"):
        return shape[1], shape[0]
    return (shape[0] * len(pieces), *shape[1:])


def whole_shapes(layout: Layout, modules: Mapping[str, nn.Module]) -> dict[str, tuple[int, ...]]:
    """Original single-file name -> shape of every tensor of a model made of ``modules`` (part -> module)."""
    shapes = {
        f"{part}.{name}": tuple(tensor.shape)
        for part, module in modules.items()
        for name, tensor in module.state_dict().items()
    }
    return {name: file_shape(name, pieces, shapes) for name, pieces in layout.original(list(shapes)).items()}
