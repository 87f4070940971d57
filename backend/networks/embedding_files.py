"""Files of textual inversions, in the layouts of sd-scripts, WebUI and diffusers.

- SD 1.x and 2.x: one tensor ``emb_params`` (vectors, width); WebUI's ``string_to_param``; diffusers'
  ``{"<word>": vector}``; of any file with a single tensor, that one.
- SDXL and SD 3: ``clip_l`` and ``clip_g``.
- XTI: a tensor for each layer, ``IN01`` to ``OUT11``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from backend.errors import InputError
from backend.networks.embeddings import Embedding, Table
from backend.networks.files import read_pickle
from backend.system.headers import read_header

ENDINGS = (".safetensors", ".pt", ".bin", ".ckpt")
ONE, TWO = "emb_params", ("clip_l", "clip_g")
_LAYER = re.compile(r"^(?:IN\d\d|MID|OUT\d\d)$")


def read_embedding(path: Path) -> Embedding:
    """The vectors of a file of any layout, on the CPU, float32.

    What the file is decides, not its ending. Pickles are looked through first and then read with the
    restricted reader, so no code in them runs.

    Raises:
        InputError: it is missing, damaged, holds code, or is no textual inversion.
    """
    header = read_header(path)
    content = _pickled(path) if header.is_pickle else load_file(path)
    tensors = {name: _matrix(tensor) for name, tensor in _tensors(content).items()}
    if tensors and all(tensor is not None for tensor in tensors.values()):
        found = _arranged({name: tensor for name, tensor in tensors.items() if tensor is not None})
        if found is not None:
            return found
    raise InputError(
        "this is no textual inversion of a kind that is known",
        where=str(path),
        why=f"it holds {', '.join(sorted(map(str, content))[:5]) or 'nothing'}",
        next="choose a file made by textual inversion for SD 1.x, SD 2.x or SDXL",
    )


def file_tensors(embedding: Embedding) -> dict[str, Tensor]:
    """The tensors of a file, as sd-scripts names them."""
    if not embedding.layers:
        return dict(embedding.tables)
    rows = next(iter(embedding.tables.values()))
    return dict(zip(embedding.layers, rows.split(embedding.vectors), strict=True))


def require_fit(
    embedding: Embedding, tables: Sequence[Table], layers: Sequence[str], where: str, key: str | None = None
) -> None:
    """Refuse vectors that are not for a model with these tables and layers.

    Raises:
        InputError: saying what the file has and what the model needs.
    """
    wanted = {table.name: table.module.embedding_dim for table in tables}
    found = {name: rows.shape[1] for name, rows in embedding.tables.items()}
    if found != wanted:
        raise InputError(
            f"this textual inversion is for another kind of model: it has {_widths(found)}",
            where=where,
            why=f"the base model needs {_widths(wanted)}" if wanted else "the base model takes none",
            next="choose one that was made for this kind of base model",
            key=key,
        )
    if embedding.layers and set(embedding.layers) != set(layers):
        raise InputError(
            f"this textual inversion has vectors for {len(embedding.layers)} layers",
            where=where,
            why=f"the base model can read {len(layers)} texts",
            next="choose one that was made for this kind of base model",
            key=key,
        )


def in_folder(folder: Path) -> dict[str, Path]:
    """Word -> file of a folder and those in it: the file's name without its ending. Of two of the same
    name, the first in the order of their paths."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in ENDINGS and path.is_file():
            found.setdefault(path.stem, path)
    return found


def _widths(tables: Mapping[str, int]) -> str:
    return " and ".join(f"{name} of {width} numbers" for name, width in tables.items())


def _pickled(path: Path) -> Mapping[str, object]:
    content = read_pickle(path, allowed=[nn.ParameterDict])
    if isinstance(content, Tensor):
        return {ONE: content}
    return cast("Mapping[str, object]", content if isinstance(content, dict) else {})


def _tensors(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The vectors in a file's table, by name."""
    inner = content.get("string_to_param", content)
    items: Iterable[tuple[object, object]] = inner.items() if hasattr(inner, "items") else ()
    dotted = "string_to_param."
    return {
        str(name).removeprefix(dotted): tensor.detach().float()
        for name, tensor in items
        if isinstance(tensor, Tensor) and tensor.is_floating_point()
    }


def _matrix(tensor: Tensor) -> Tensor | None:
    """(vectors, width); None for what has another number of sides."""
    if tensor.dim() == 1:
        return tensor[None]
    return tensor if tensor.dim() == 2 and len(tensor) else None


def _arranged(tensors: Mapping[str, Tensor]) -> Embedding | None:
    if set(tensors) == set(TWO):
        same = tensors["clip_l"].shape[0] == tensors["clip_g"].shape[0]
        return Embedding({name: tensors[name] for name in TWO}) if same else None
    if all(map(_LAYER.match, tensors)):
        layers = tuple(sorted(tensors, key=_place))
        same = len({tensor.shape for tensor in tensors.values()}) == 1
        return Embedding({ONE: torch.cat([tensors[name] for name in layers])}, layers) if same else None
    return Embedding({ONE: next(iter(tensors.values()))}) if len(tensors) == 1 else None


def _place(layer: str) -> tuple[int, str]:
    """Order in which layers run: down, middle, up."""
    return ("IMO".index(layer[0]), layer)
