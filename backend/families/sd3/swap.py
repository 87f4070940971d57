"""Blocks that wait in host memory and are on the card only while they are computed.

Their weights are frozen, so nothing is ever copied back: the host keeps its (pinned) copy, the card
gets another one when the block's turn comes and drops it when two further blocks have come. The
next block is fetched on a stream of its own while the current one is computed. Gradient
checkpointing must be on: it computes a block's forward again right before its backward, which fetches
the weights for both.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

PLACES = 2
"""Blocks that may be on the card beside those that always are: the current and the next one."""


class BlockSwap:
    """Keeps the last ``count`` + 2 of ``blocks`` in host memory, two of them at a time on ``device``.

    So weights of ``len(blocks) - count`` blocks are on the device at any time.
    """

    def __init__(self, blocks: Sequence[nn.Module], count: int, device: torch.device) -> None:
        assert 1 <= count <= len(blocks) - PLACES, f"{count} of {len(blocks)} blocks cannot be swapped"
        self.device = device
        self.first = len(blocks) - count - PLACES
        self.blocks = tuple(blocks)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._host = {index: self._to_host(index) for index in range(self.first, len(blocks))}
        self._here: OrderedDict[int, dict[nn.Parameter, Tensor]] = OrderedDict()
        self._last = -1

    def around(self, index: int, block: nn.Module) -> Callable[..., Any]:
        """``block`` as a function that has its weights on the device when it is called."""

        def run(*inputs: Any) -> Any:
            self.require(index)
            return block(*inputs)

        return run

    @property
    def present(self) -> tuple[int, ...]:
        """Swapped blocks whose weights are on the device, the oldest first."""
        return tuple(self._here)

    def require(self, index: int) -> None:
        """Have a block on the device, and begin to fetch the one that is likely next."""
        if index < self.first:
            self._last = index
            return
        self._fetch(index)
        if self._stream is not None:
            torch.cuda.current_stream(self.device).wait_stream(self._stream)
        for parameter, tensor in self._here[index].items():
            if self._stream is not None:
                tensor.record_stream(torch.cuda.current_stream(self.device))
            parameter.data = tensor
        after = index + (1 if index >= self._last else -1)
        self._last = index
        if self._stream is not None and after in self._host:
            self._fetch(after)

    def _fetch(self, index: int) -> None:
        if index in self._here:
            self._here.move_to_end(index)
            return
        while len(self._here) >= PLACES:
            self._drop(next(iter(self._here)))
        if self._stream is None:
            self._here[index] = {p: host.to(self.device, copy=True) for p, host in self._host[index].items()}
            return
        # What runs now may still use memory that the dropped block gave back.
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            self._here[index] = {
                p: host.to(self.device, non_blocking=True) for p, host in self._host[index].items()
            }

    def _drop(self, index: int) -> None:
        for parameter in self._here.pop(index):
            parameter.data = self._host[index][parameter]

    def _to_host(self, index: int) -> dict[nn.Parameter, Tensor]:
        """The block's parameters in host memory, and left there."""
        found: dict[nn.Parameter, Tensor] = {}
        for parameter in self.blocks[index].parameters():
            assert not parameter.requires_grad, "weights that are trained cannot be swapped"
            host = parameter.data.to("cpu")
            found[parameter] = host.pin_memory() if self.device.type == "cuda" else host
            parameter.data = found[parameter]
        return found
