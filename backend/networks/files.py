"""Reading LoRA files. Writing is in ``backend.weights.safefile``."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file
from torch import Tensor

from backend.errors import InputError
from backend.system.headers import read_header


def read_lora(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a ``.safetensors``, ``.ckpt`` or ``.pt`` file, on the CPU.

    What the file is decides, not its ending. Pickles are looked through first and then read with the
    restricted reader, so no code in them runs; they have no metadata.

    Raises:
        InputError: it is missing, damaged, cut short, no file of tensors, or holds code.
    """
    header = read_header(path)
    if header.is_pickle:
        return _pickled(path), {}
    return load_file(path), dict(header.metadata)


def read_pickle(path: Path, allowed: Iterable[type] = ()) -> object:
    """What a pickle holds, read with torch's restricted reader on the CPU, so that no code in it runs.

    Args:
        allowed: classes that it may hold beside tensors and plain containers.

    Raises:
        InputError: it holds something else, or is damaged.
    """
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise InputError(
            f"{path.name} cannot be read by the restricted reader",
            where=str(path),
            why="it holds more than tensors, or it is damaged; nothing of it was run",
            next="use a safetensors file",
            detail=str(error),
        ) from error


def _pickled(path: Path) -> dict[str, Tensor]:
    content = read_pickle(path)
    table = cast("Mapping[str, object]", content if isinstance(content, dict) else {})
    table = cast("Mapping[str, object]", table.get("state_dict", table))
    if not table or not all(isinstance(tensor, Tensor) for tensor in table.values()):
        raise InputError(f"{path.name} holds no table of tensors", where=str(path), next="choose a LoRA file")
    return cast("dict[str, Tensor]", dict(table))
