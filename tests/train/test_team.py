"""What the processes of a training tell each other."""

from __future__ import annotations

from threading import Barrier, Thread
from typing import Any, TypeVar

import pytest
import torch

from backend.data.fill import Share
from backend.data.store import MemoryStore
from backend.errors import InputError
from backend.settings import Settings
from backend.train.machine import make_accelerator
from backend.train.team import ALONE, Team, calling_off, exchange, join, launched, together

T = TypeVar("T")


class Threads(Team):
    """Processes played by threads of one."""

    size = 2

    def __init__(self, rank: int, said: list[Any], meeting: Barrier) -> None:
        self.rank, self._said, self._meeting = rank, said, meeting

    @property
    def shares(self) -> tuple[Share, ...]:
        return ((self.rank, self.size),)

    def gather(self, value: T) -> list[T]:
        self._said[self.rank] = value
        self._meeting.wait(10)
        all_of_it = list(self._said)
        self._meeting.wait(10)
        return all_of_it


def both(work: Any) -> list[Any]:
    """What ``work(team)`` gives in each of two processes; exceptions are given back."""
    said, meeting, results = [None, None], Barrier(2), [None, None]

    def run(rank: int) -> None:
        try:
            results[rank] = work(Threads(rank, said, meeting))
        except Exception as error:
            results[rank] = error

    threads = [Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return results


class Halt(Exception):
    pass


def test_one_process_knows_what_it_tells() -> None:
    assert ALONE.main and ALONE.tell(3) == 3 and ALONE.gather(3) == [3] and ALONE.shares == ((0, 1),)
    assert ALONE.mark == () and torch.equal(ALONE.mean(torch.ones(())), torch.ones(()))


def test_a_stop_in_one_process_stops_all() -> None:
    def work(team: Team) -> None:
        def fill(share: Share) -> None:
            if share[0] == 0:
                raise Halt

        together(team, Halt, fill)

    assert [type(result) for result in both(work)] == [Halt, Halt]


def test_caches_in_memory_are_exchanged() -> None:
    def work(team: Team) -> dict[str, float]:
        store = MemoryStore()
        own = range(team.rank, 150 if team.rank else 9, 2)
        store.put({str(number): {"latents": torch.tensor(float(number))} for number in own})
        exchange(team, store)
        return {key: float(entry["latents"]) for key, entry in store.entries().items()}

    first, second = both(work)
    assert first == second == {str(n): float(n) for n in (*range(0, 9, 2), *range(1, 150, 2))}


def test_others_are_called_off_when_the_main_process_fails() -> None:
    told: list[Any] = []

    class Telling(Team):
        def tell(self, value: T) -> T:
            told.append(value)
            return value

    with pytest.raises(InputError), calling_off(Telling()):
        raise InputError("no pictures")
    assert told == [None]


def test_processes_are_counted_as_the_launcher_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, several in (("", False), ("1", False), ("2", True)):
        monkeypatch.setenv("WORLD_SIZE", value)
        assert launched() is several


@pytest.mark.parametrize("kind", ["DEEPSPEED", "FSDP"])
def test_splitting_up_the_model_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"ACCELERATE_USE_{kind}", "true")
    with pytest.raises(InputError, match="was not asked for"):
        make_accelerator(Settings())
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="was not asked for"):
        join()
