"""The processes of one training, and what they tell each other.

One of them, the main one, owns the run: it checks, writes, draws samples and listens to commands.
What all must agree on goes over a channel of its own between the processors (gloo), so that no
card waits for it; gradients go the way that accelerate chooses.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

from backend.data.fill import Share
from backend.data.store import MemoryStore, TensorStore
from backend.errors import InputError
from backend.jobs.control import ControlReader
from backend.jobs.runs import Run
from backend.settings import Settings

T = TypeVar("T")

PATIENCE = timedelta(days=7)
"""How long processes wait for the main one to check, save or draw; one that died is noticed at once."""
_SPLITTING = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}
_ROUND = 64
"""Cache entries that a process gives to the others at once."""


class Team:
    """One process alone: it is told what it tells."""

    rank = 0
    size = 1

    @property
    def main(self) -> bool:
        return self.rank == 0

    @property
    def mark(self) -> tuple[int, ...]:
        """What keys of randomness take up that is to differ between processes; nothing in a single one."""
        return (self.rank,) if self.size > 1 else ()

    @property
    def shares(self) -> tuple[Share, ...]:
        """How work is shared out, in turns: over all processes; then on each machine what it still lacks."""
        return ((0, 1),)

    def tell(self, value: T) -> T:
        """The main process's value, in every process."""
        return value

    def gather(self, value: T) -> list[T]:
        """Every process's value, in every process."""
        return [value]

    def mean(self, value: Tensor) -> Tensor:
        """Mean over the processes, without waiting for the device."""
        return value

    def wait(self) -> None:
        """Until all are here."""

    def leave(self) -> None:
        """The end: nothing is told from here on."""


class Crew(Team):
    """Several processes that accelerate or torchrun started."""

    def __init__(self) -> None:
        import torch.distributed as dist

        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._dist = dist
        self._channel: Any = dist.new_group(backend="gloo", timeout=PATIENCE)

    @property
    def shares(self) -> tuple[Share, ...]:
        here = (_number("LOCAL_RANK", 0), _number("LOCAL_WORLD_SIZE", self.size))
        everywhere = (self.rank, self.size)
        return (everywhere,) if here == everywhere else (everywhere, here)

    def tell(self, value: T) -> T:
        values: list[T] = [value]
        self._dist.broadcast_object_list(values, src=0, group=self._channel)
        return values[0]

    def gather(self, value: T) -> list[T]:
        values: list[Any] = [None] * self.size
        self._dist.all_gather_object(values, value, group=self._channel)
        return values

    def mean(self, value: Tensor) -> Tensor:
        total = value.clone()
        self._dist.all_reduce(total)
        return total / self.size

    def wait(self) -> None:
        self._dist.barrier(group=self._channel)

    def leave(self) -> None:
        self._dist.destroy_process_group()


ALONE = Team()


def launched() -> bool:
    """True in one of several processes that a launcher started."""
    return _number("WORLD_SIZE", 1) > 1


def refuse_sharding() -> None:
    """Raises InputError when accelerate was told, by hand or by its configuration, to split the model up."""
    for variable, name in _SPLITTING.items():
        if os.environ.get(variable, "").lower() == "true":
            raise InputError(
                f"accelerate is set to use {name}, which Atelier was not asked for",
                why="what is trained is split up by Atelier's own options fsdp and deepspeed alone",
                next="start it with accelerate launch --multi_gpu, or give num_processes to Atelier, and set "
                "fsdp or deepspeed where something is to be split up",
                key="num_processes",
            )


def require_several(settings: Settings) -> None:
    """Raises InputError when something is to be split up over one process."""
    chosen = settings.sharding
    key = "fsdp" if chosen.fsdp else "deepspeed" if chosen.deepspeed else ""
    if key and settings.launch.num_processes == 1 and not launched():
        raise InputError(
            f"{key} has nothing to split up over one process",
            next=f"give num_processes, one for each card, or leave {key} out",
            key=key,
        )


def join(timeout_minutes: int | None = None) -> Team:
    """The team that this process is one of.

    Args:
        timeout_minutes: how long an exchange of gradients may take; the library's own when None.

    Raises:
        InputError: accelerate is set to work in a way that is not supported.
    """
    if not launched():
        return ALONE
    refuse_sharding()
    from accelerate import PartialState

    options: dict[str, Any] = {"timeout": timedelta(minutes=timeout_minutes)} if timeout_minutes else {}
    if sys.platform == "win32":
        options["backend"] = "gloo"  # there is no NCCL
    PartialState(cpu=not torch.cuda.is_available(), **options)
    return Crew()


@contextmanager
def calling_off(team: Team) -> Generator[None, None, None]:
    """When the main process fails inside, the others hear that there is nothing to do for them."""
    try:
        yield
    except BaseException:
        team.tell(None)
        raise


class SharedControl(ControlReader):
    """Commands as the main process hears them, in all processes at the same step."""

    def __init__(self, run: Run, team: Team) -> None:
        super().__init__(run.control)
        self._team = team

    def poll(self) -> list[dict[str, Any]]:
        """As :meth:`ControlReader.poll`; every process has to call it, and waits for the others."""
        return self._team.tell(super().poll() if self._team.main else [])

    def poll_alone(self) -> list[dict[str, Any]]:
        """For a moment in which only the main process listens."""
        return super().poll()


def control_of(run: Run, team: Team) -> ControlReader:
    return ControlReader(run.control) if team.size == 1 else SharedControl(run, team)


def together(
    team: Team, stopped: type[Exception], work: Callable[[Share], None], store: TensorStore | None = None
) -> None:
    """``work`` for each of this process's shares; what ``stopped`` says in one process stops all.

    What goes into a ``store`` in memory is exchanged afterwards, so that nothing is lacking on a machine.
    """
    for share in team.shares[:1] if isinstance(store, MemoryStore) else team.shares:
        reason: Exception | None = None
        try:
            work(share)
        except stopped as error:
            reason = error
        if any(team.gather(reason is not None)):
            raise reason or stopped


def exchange(team: Team, store: TensorStore) -> None:
    """Give each process what the others have made, where a cache is in memory."""
    if team.size == 1 or not isinstance(store, MemoryStore):
        return
    own = list(store.entries().items())
    rounds = max(team.gather(-(-len(own) // _ROUND)))
    for turn in range(rounds):
        for entries in team.gather(own[turn * _ROUND : (turn + 1) * _ROUND]):
            store.put(dict(entries))


def _number(name: str, default: int) -> int:
    return int(os.environ.get(name) or default)
