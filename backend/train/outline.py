"""What a step needs of memory, counted on a model that has shapes and no weights.

Tensors on the meta device cost nothing, so one step can be gone through in full: what PyTorch would
keep for the backward pass is added up, and what gradient checkpointing would not keep is left out.
Attention is counted as its memory-saving kernels have it (inputs and result, never the scores).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor
from torch.overrides import TorchFunctionMode

from backend.data.types import DatasetPlan
from backend.families.base import DiffusionModel, Sizes
from backend.settings import Settings
from backend.train.methods.base import Guided, Method
from backend.train.texts import encode, tokenize

META = torch.device("meta")


@dataclass(frozen=True)
class Need:
    """Bytes on the device while training."""

    weights: int
    """Of the parts of the model that take part in a step."""
    activations: int
    """What one step keeps for its backward pass."""


def count_need(model: DiffusionModel, method: Method, plan: DatasetPlan, settings: Settings) -> Need:
    """Go through one step of the largest bucket. ``model`` and ``method`` are on the meta device after.

    Raises:
        Exception: the model does something in a step that needs real numbers.
    """
    dtype = next(model.denoiser.parameters()).dtype
    method.trainable.to(device=META, dtype=dtype)
    text = not settings.caching.cache_text_encoder_outputs
    parts = [*(model.text_encoders.values() if text else ()), model.denoiser]
    weights = sum(_size(tensor) for part in parts for tensor in part.parameters())
    if not settings.caching.cache_latents:
        weights += sum(_size(tensor) for tensor in model.vae.parameters())
    counter = _Counter(
        {_storage(p) for m in (*model.parts().values(), method.trainable) for p in m.parameters()}
    )
    with counter.counting(), _Attention():
        _step(model, method, plan, settings, dtype)
    return Need(weights, counter.kept + counter.largest_block)


def _step(
    model: DiffusionModel, method: Method, plan: DatasetPlan, settings: Settings, dtype: torch.dtype
) -> None:
    batch, (width, height) = _largest(plan)
    captions = ["a"] * batch
    tokens, emphasis = tokenize(model, captions, settings.model, META)
    with torch.set_grad_enabled(method.trains_text):
        conditioning = encode(model, tokens, emphasis, settings.model.clip_skip)
    shape = (batch, model.latent_channels, height // model.scale_factor, width // model.scale_factor)
    sides = torch.tensor([[height, width]] * batch, device=META)
    sizes = Sizes(sides, torch.zeros_like(sides), sides)
    noisy = torch.zeros(shape, dtype=dtype, device=META)
    if isinstance(method, Guided):
        method.show(torch.zeros(batch, 3, height, width, dtype=dtype, device=META))
    model.predict(noisy, torch.zeros(batch, dtype=torch.int64, device=META), conditioning, sizes)


def _largest(plan: DatasetPlan) -> tuple[int, tuple[int, int]]:
    """Batch size and bucket of the batch with the most pixels."""
    found = [
        (min(dataset.batch_size, sum(p.repeats for p in pictures)), size)
        for dataset in plan.datasets
        for size, pictures in dataset.buckets().items()
    ]
    return max(found, key=lambda one: one[0] * one[1][0] * one[1][1])


class _Counter:
    """Adds up storages that are kept for the backward pass, each once."""

    def __init__(self, free: set[int]) -> None:
        """``free``: storages that are there anyway, those of weights."""
        self._free = free
        self._held: list[Tensor] = []  # so that no storage is taken for a later one at its address
        self._seen: set[int] = set()
        self.kept = self.largest_block = 0

    @contextmanager
    def counting(self) -> Generator[None, None, None]:
        original = torch.utils.checkpoint.checkpoint
        torch.utils.checkpoint.checkpoint = self._checkpoint  # type: ignore[assignment]
        try:
            with torch.autograd.graph.saved_tensors_hooks(self._keep, lambda kept: kept):
                yield
        finally:
            torch.utils.checkpoint.checkpoint = original

    def _keep(self, tensor: Tensor) -> Tensor:
        mark = _storage(tensor)
        if mark not in self._free and mark not in self._seen:
            self._seen.add(mark)
            self._held.append(tensor)
            self.kept += tensor.untyped_storage().nbytes()
        return tensor

    def _checkpoint(self, block: Callable[..., Any], *inputs: Any, **_: Any) -> Any:
        """A block of which only the inputs stay; its inside is there once, while it is recomputed."""
        for value in inputs:
            if isinstance(value, Tensor) and value.device == META:
                self._keep(value)
        before = self.kept
        result = block(*inputs)
        inside, self.kept = self.kept - before, before
        self.largest_block = max(self.largest_block, inside)
        return result


class _Attention(TorchFunctionMode):
    """Scaled dot-product attention without its scores."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            return _Kernel.apply(*args[:3])
        return func(*args, **(kwargs or {}))


class _Kernel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # type: ignore[override]
        mixed = q.new_empty((*q.shape[:-1], v.shape[-1]))
        ctx.save_for_backward(q, k, v, mixed)
        return mixed


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
