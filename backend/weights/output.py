"""Writing the file of a network that a job made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from backend.weights.metadata import content_hashes
from backend.weights.safefile import write_safetensors, write_torch
from backend.weights.streaming import Progress, threads

Item = TypeVar("Item")
Result = TypeVar("Result")


def write_network(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], dtype: torch.dtype | None
) -> None:
    """Write a network, whole or not at all. ``.ckpt`` and ``.pt`` carry no metadata.

    Raises:
        RunFault: a value is not finite in ``dtype``, or the disk is full.
        EnvironmentFault: the folder cannot be written to.
    """
    ready = {
        name: (tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in tensors.items()
    }
    if path.suffix == ".safetensors":
        write_safetensors(path, ready, {**metadata, **content_hashes(ready, metadata)})
    else:
        write_torch(path, ready)


def pair_tensors(
    name: str, up: Tensor, down: Tensor, alpha: float, shape: Iterable[int]
) -> dict[str, Tensor]:
    """A pair as the file has it: ``up`` (out, r), ``down`` (r, n) for a weight of ``shape``."""
    _, *rest = shape
    flat = (1,) * len(rest[1:])
    return {
        f"lora_{name}.lora_down.weight": down.reshape(down.shape[0], *rest).cpu(),
        f"lora_{name}.lora_up.weight": up.reshape(*up.shape, *flat).cpu(),
        f"lora_{name}.alpha": torch.tensor(float(alpha)),
    }


def in_parallel(
    doing: str, work: Callable[[Item], Result], items: Iterable[Item], progress: Progress
) -> Iterator[Result]:
    """``work`` for every item on all cores, in the items' order."""
    listed = list(items)
    with ThreadPoolExecutor(threads()) as pool:
        futures = []
        try:
            futures = [pool.submit(work, item) for item in listed]
            for place, future in enumerate(futures):
                yield future.result()
                progress(doing, place + 1, len(listed))
        finally:
            for future in futures:
                future.cancel()
