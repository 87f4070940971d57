"""Gradients and the optimizer's memory in parts, one in each process, by DeepSpeed.

ZeRO stages 1 and 2 (Rajbhandari et al. 2020), set up by accelerate. Weights stay whole in every
process, in float32 as without; each process steps a part of them and tells the others. DeepSpeed sees
the weights of an optimizer group as one long row, so restore points are cut back into the shapes of the
weights: they are the same files with and without it.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from backend.errors import EnvironmentFault
from backend.settings import Settings
from backend.settings.deepspeed import missing
from backend.train.sharding import Parts

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.utils import DeepSpeedPlugin

Memory = dict[str, Any]
"""What an optimizer remembers of one weight, or of one row."""


class ZeroParts(Parts):
    """Each process steps a part; the backward pass of a step's last batch takes the step."""

    split = True
    steps_in_backward = True

    def __init__(self, engine: Any, rows: Sequence[Row]) -> None:
        self._engine, self._rows = engine, rows

    def gathering(self, accelerator: Accelerator, module: Any, last: bool) -> AbstractContextManager[None]:
        return nullcontext()  # DeepSpeed is told with the loss

    def backward(self, accelerator: Accelerator, loss: Tensor, last: bool) -> None:
        wrapped: Any = accelerator.deepspeed_engine_wrapped
        wrapped.backward(loss, sync_gradients=last)

    def norm(self) -> Tensor:
        return torch.as_tensor(self._engine.get_global_grad_norm())

    def memory(self, optimizer: Any) -> dict[str, Any]:
        groups: list[Memory] = []
        state: dict[int, Memory] = {}
        for group, row in zip(optimizer.param_groups, self._rows, strict=True):
            numbers = list(range(len(state), len(state) + len(row.weights)))
            state |= dict(zip(numbers, row.gathered(), strict=True))
            groups.append({**group, "params": numbers})
        return {"state": {number: one for number, one in state.items() if one}, "param_groups": groups}


class Row:
    """One optimizer group, as DeepSpeed lays it out: its weights in one row, cut into equal parts."""

    def __init__(self, zero: Any, index: int, weights: Sequence[nn.Parameter]) -> None:
        """``zero``: DeepSpeed's optimizer; ``weights``: those of the group, in its order."""
        laid: list[nn.Parameter] = zero.bit16_groups[index]
        assert len(laid) == len(weights) and all(a is b for a, b in zip(laid, weights, strict=True))
        self.weights = weights
        self._starts: list[int] = zero.round_robin_bit16_offsets[index]
        self._flat: Tensor = zero.bit16_groups_flat[index]
        self._part: Tensor = zero.single_partition_of_fp32_groups[index]
        self._optimizer: Any = zero.optimizer

    def put(self, memory: Sequence[Memory]) -> None:
        """Take over what was remembered of each weight; nothing of one that never had a gradient.

        All others were stepped equally often, so a single count of steps does for the row.
        """
        first = torch.distributed.get_rank() * self._part.numel()
        state = self._optimizer.state[self._part]
        for key, value in next(filter(None, memory), {}).items():
            if key == "step" or not isinstance(value, Tensor):
                state[key] = value
            else:
                part = self._row_of(key, memory).narrow(0, first, self._part.numel())
                state[key] = part.to(self._part.device, copy=True)

    def gathered(self) -> list[Memory]:
        """What is remembered of each weight, on the processor; all processes have to call it together."""
        whole = {key: self._whole(value) for key, value in self._optimizer.state[self._part].items()}
        return [
            {key: self._cut(value, place) for key, value in whole.items()}
            for place in range(len(self.weights))
        ]

    def _row_of(self, key: str, memory: Sequence[Memory]) -> Tensor:
        row = torch.zeros(self._flat.numel(), dtype=next(filter(None, memory))[key].dtype)
        for start, known in zip(self._starts, memory, strict=True):
            if known:
                row[start : start + known[key].numel()] = known[key].detach().reshape(-1).cpu()
        return row

    def _whole(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.shape != self._part.shape:
            return value.cpu() if isinstance(value, Tensor) else value
        own = value.detach().to(self._flat.device)
        parts = [torch.empty_like(own) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, own)
        return torch.cat(parts).cpu()

    def _cut(self, value: Any, place: int) -> Any:
        if not isinstance(value, Tensor):
            return value
        if not value.dim():
            return value.clone()
        weight, start = self.weights[place], self._starts[place]
        return value[start : start + weight.numel()].view(weight.shape).clone()


def require(settings: Settings) -> None:
    """Raises EnvironmentFault when DeepSpeed is asked for and is not there."""
    why = missing() if settings.sharding.deepspeed else ""
    if why:
        raise EnvironmentFault(
            "DeepSpeed is not installed",
            why="deepspeed splits gradients and the optimizer's memory up with it",
            next=f"{why.partition(': ')[2]}; or choose fsdp, which needs nothing more",
            key="deepspeed",
        )


def plugin_of(settings: Settings) -> DeepSpeedPlugin:
    """What accelerate is told. Passes convert weights themselves, so DeepSpeed's own precisions are off.

    Batches are counted and averaged by the loop; the numbers of batches here are only asked for.
    """
    from accelerate.utils import DeepSpeedPlugin

    chosen = settings.sharding
    zero = {
        "stage": chosen.zero_stage,
        "offload_optimizer": {"device": chosen.offload_optimizer_device or "none"},
        "round_robin_gradients": False,
    }
    return DeepSpeedPlugin(
        hf_ds_config={
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": settings.optimizer.max_grad_norm or 0.0,
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        },
        gradient_accumulation_steps=1,
        zero3_init_flag=False,
    )


def wrap(
    accelerator: Accelerator, module: nn.Module, optimizer: torch.optim.Optimizer, settings: Settings
) -> tuple[Any, Any, Parts]:
    """Hand module and optimizer to DeepSpeed, with what the optimizer remembers already."""
    require(settings)
    weights = [list(group["params"]) for group in optimizer.param_groups]
    memory = [[optimizer.state.get(weight, {}) for weight in group] for group in weights]
    optimizer.state.clear()
    _convert_inside(accelerator, module)
    import_module("deepspeed")
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    with _as_deepspeed(accelerator, plugin_of(settings)):
        engine, wrapped = accelerator.prepare(module, optimizer)
    rows = [Row(wrapped.optimizer, index, group) for index, group in enumerate(weights)]
    for row, known in zip(rows, memory, strict=True):
        row.put(known)
    return engine, wrapped, ZeroParts(engine, rows)


def _convert_inside(accelerator: Accelerator, module: nn.Module) -> None:
    """DeepSpeed switches conversions off around the module it wraps; they are on again inside."""
    forward = module.forward

    def converted(*inputs: Any) -> Any:
        with accelerator.autocast():
            return forward(*inputs)

    module.forward = converted


@contextmanager
def _as_deepspeed(accelerator: Accelerator, plugin: DeepSpeedPlugin) -> Generator[None, None, None]:
    """Accelerate prepares for DeepSpeed meanwhile: on processors too, where it leaves its plugin out.

    Afterwards it is as before, for it would take its precision from DeepSpeed's.
    """
    from accelerate import DistributedType

    state = cast("Any", accelerator.state)
    before = state.distributed_type
    accelerator.deepspeed_engine_wrapped = None
    state.distributed_type, state.deepspeed_plugins = DistributedType.DEEPSPEED, plugin
    try:
        yield
    finally:
        state.distributed_type = before
