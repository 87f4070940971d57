"""Trained weights, their gradients and the optimizer's memory in parts, one in each process.

The work is PyTorch's (fully sharded data parallel, Zhao et al. 2023), set up by accelerate. Whatever
looks at whole weights (files, samples, the loss on pictures held out) does so inside :meth:`Parts.whole`,
which all processes enter together. Files and restore points are the same with and without.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from backend.settings import Settings
from backend.settings.methods import METHODS

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.utils import FullyShardedDataParallelPlugin


class Parts:
    """What is trained lies whole in every process."""

    split = False
    steps_in_backward = False
    """The backward pass of a step's last batch clips gradients and changes weights too."""

    def gathering(self, accelerator: Accelerator, module: Any, last: bool) -> AbstractContextManager[None]:
        """Around the passes of one of a step's batches: gradients are exchanged with the last one's."""
        return nullcontext() if last else accelerator.no_sync(module)

    def backward(self, accelerator: Accelerator, loss: Tensor, last: bool) -> None:
        """Backward pass of one of a step's batches."""
        accelerator.backward(loss)

    def norm(self) -> Tensor:
        """L2 norm of the last step's gradients before clipping, where steps are in backward passes."""
        raise NotImplementedError

    @contextmanager
    def whole(self) -> Generator[None, None, None]:
        """All trained weights are whole in this process meanwhile, to be read only."""
        yield

    def memory(self, optimizer: Any) -> dict[str, Any]:
        """The optimizer's state dict, whole."""
        return optimizer.state_dict()


class ShardedParts(Parts):
    """What is trained is split up; every method has to be called in all processes at one point."""

    split = True

    def __init__(self, module: nn.Module, let_go: bool) -> None:
        """``module``: as FSDP wrapped it. ``let_go``: its inner pieces are, between the passes."""
        from torch.distributed.fsdp import FSDPModule

        self._pieces: list[FSDPModule] = [one for one in module.modules() if isinstance(one, FSDPModule)]
        self._module, self._let_go, self._inside = module, let_go, False

    @contextmanager
    def whole(self) -> Generator[None, None, None]:
        if self._inside:
            yield
            return
        self._inside = True
        for piece in self._pieces:  # the outermost is first, which sets up the others
            piece.unshard()
            piece.set_reshard_after_forward(False, recurse=False)
        try:
            with self._untouched():
                yield
        finally:
            for place, piece in enumerate(self._pieces):
                piece.set_reshard_after_forward(self._let_go and place > 0, recurse=False)
                piece.reshard()
            self._inside = False

    @contextmanager
    def _untouched(self) -> Generator[None, None, None]:
        """``state_dict`` gives whole weights; else it would split them up again first."""
        modules = list(self._module.modules())
        hooks = [module._state_dict_pre_hooks for module in modules]  # pyright: ignore[reportPrivateUsage]
        for module in modules:
            module._state_dict_pre_hooks = OrderedDict()  # pyright: ignore[reportPrivateUsage]
        try:
            yield
        finally:
            for module, own in zip(modules, hooks, strict=True):
                module._state_dict_pre_hooks = own  # pyright: ignore[reportPrivateUsage]

    def memory(self, optimizer: Any) -> dict[str, Any]:
        return gathered(optimizer.state_dict())


ENTIRE = Parts()


def gathered(value: Any) -> Any:
    """Nested dictionaries and lists with their split tensors put together, on the processor."""
    if isinstance(value, dict):
        return {key: gathered(one) for key, one in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list):
        return [gathered(one) for one in cast("list[Any]", value)]
    return _entire(value).cpu() if isinstance(value, Tensor) else value


def _entire(tensor: Tensor) -> Tensor:
    # Asked by name: importing the class of split tensors takes half a second, in every training.
    put_together = getattr(tensor, "full_tensor", None)
    return tensor if put_together is None else put_together()


def plugin_of(settings: Settings) -> FullyShardedDataParallelPlugin | None:
    """What accelerate is told; None when nothing is to be split.

    Weights stay in float32 and passes convert them, as without FSDP, so its own mixed precision,
    which would also round gradients and losses, is left out.
    """
    chosen = settings.sharding
    if not chosen.fsdp:
        return None
    from accelerate.utils import FullyShardedDataParallelPlugin
    from torch.distributed.fsdp import MixedPrecisionPolicy

    # A network's layers do not compute by themselves, but inside those they are attached to.
    pieces = METHODS[settings.model.training_method].whole and chosen.fsdp_min_num_params
    return FullyShardedDataParallelPlugin(
        fsdp_version=2,
        reshard_after_forward=chosen.fsdp_reshard_after_forward,
        auto_wrap_policy="size_based_wrap" if pieces else "no_wrap",
        min_num_params=pieces or None,
        mixed_precision_policy=MixedPrecisionPolicy(),
        state_dict_type="FULL_STATE_DICT",
        cpu_ram_efficient_loading=False,
    )


def insist(accelerator: Accelerator, plugin: FullyShardedDataParallelPlugin) -> None:
    """Split up on processors too, where accelerate leaves its plugin out though PyTorch can."""
    from accelerate import DistributedType, PartialState

    accelerator.state.distributed_type = DistributedType.FSDP
    accelerator.state.fsdp_plugin = plugin
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP  # pyright: ignore[reportPrivateUsage]


def wrap(
    accelerator: Accelerator, module: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[Any, Any, Parts]:
    """Split module and optimizer up together, with what the optimizer remembers already."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    groups = optimizer.param_groups
    memory = [optimizer.state.get(weight, {}) for group in groups for weight in group["params"]]
    optimizer.state.clear()
    module, wrapped = accelerator.prepare(module, optimizer)
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for weight, known in zip(weights, memory, strict=True):
        assert isinstance(weight, DTensor)

        def part(value: Any, whole: DTensor = weight) -> Any:
            same = isinstance(value, Tensor) and value.shape == whole.shape
            return distribute_tensor(value, whole.device_mesh, whole.placements) if same else value

        if known:
            optimizer.state[weight] = {key: part(value) for key, value in known.items()}
    plugin = accelerator.state.fsdp_plugin
    assert plugin is not None
    return module, wrapped, ShardedParts(module, bool(plugin.reshard_after_forward))


def norm_of(value: Tensor | float) -> Tensor:
    """A gradient norm that may be split up, as a plain 0-d tensor."""
    return _entire(torch.as_tensor(value))
