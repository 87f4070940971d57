"""What was asked to be drawn and is not finished, kept so that it outlives the server.

Each server keeps a file of its own, named by its process, since two may share a home. What a server
leaves behind when it ends, however it ends, is taken over by whichever looks first.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

from backend.errors import AtelierError
from backend.filelock import exclusive
from backend.jobs.files import read_json, write_json
from backend.jobs.identity import ProcessIdentity

JobKind = Literal["pictures", "grid"]
_LOCK = ".lock"
_KINDS: Mapping[str, JobKind] = {"generate": "pictures", "grid": "grid"}
"""What the worker is asked -> what comes of it."""


@dataclass(frozen=True)
class Order:
    """One message to the worker."""

    message: Mapping[str, Any]
    caption: str = ""
    """Of its pictures."""
    first: int = 0
    """Pictures of it that there are already; those after them are drawn."""


@dataclass(frozen=True)
class Job:
    """What is asked for at once: passes that belong together, or a grid."""

    orders: tuple[Order, ...]
    title: str
    total: int
    """Pictures."""
    kind: JobKind = "pictures"
    grid: str = ""
    """The grid's id."""
    seed: int | None = None
    id: str = field(default_factory=lambda: secrets.token_hex(6))

    @property
    def done(self) -> int:
        """Pictures that there are already. A grid's folder knows its own."""
        return sum(order.first for order in self.orders)

    def after(self, finished: Mapping[int, int]) -> Job:
        """What is left of it when of some orders (by their place) so many pictures are finished."""
        orders = (
            replace(order, first=finished.get(turn, order.first)) for turn, order in enumerate(self.orders)
        )
        return replace(self, orders=tuple(orders))


class KeptJobs:
    """A folder of files, one for each server that has something left to draw."""

    def __init__(self, folder: Path, owner: ProcessIdentity | None = None) -> None:
        """``owner``: the process that keeps them, this one unless a test says otherwise."""
        self.folder = folder
        self._owner = owner or ProcessIdentity.of(os.getpid())
        name = "server" if self._owner is None else f"{self._owner.pid}-{int(self._owner.created)}"
        self._path = folder / f"{name}.json"

    def keep(self, jobs: Sequence[Job]) -> None:
        """Keep exactly these. Raises OSError: the folder cannot be written."""
        if jobs:
            self.folder.mkdir(parents=True, exist_ok=True)
            owner = self._owner.as_dict() if self._owner else {}
            write_json(self._path, {"version": 1, "owner": owner, "jobs": [asdict(job) for job in jobs]})
        else:
            self._path.unlink(missing_ok=True)

    def left_behind(self) -> list[Job]:
        """What servers that are gone had left to draw, the oldest first. It is this one's from now on.

        Files that cannot be read are left where they are, and jobs that make no sense are left out.
        """
        found: list[Job] = []
        with contextlib.suppress(OSError, AtelierError):
            if not any(self.folder.glob("*.json")):
                return []
            with exclusive(self.folder / _LOCK):
                files = sorted(self.folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
                read = [(path, facts) for path in files if (facts := read_json(path)) is not None]
                left = [(path, facts) for path, facts in read if not _is_at_work(facts)]
                found = [job for _, facts in left for job in _jobs(facts)]
                if found:
                    self.keep(found)
                for path, _ in left:
                    path.unlink()
        return found


def _is_at_work(facts: Mapping[str, Any]) -> bool:
    owner = facts.get("owner")
    identity = ProcessIdentity.read(cast("dict[str, Any]", owner)) if isinstance(owner, dict) else None
    return identity is not None and identity.alive()


def _jobs(facts: Mapping[str, Any]) -> Iterator[Job]:
    for each in facts.get("jobs") or ():
        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
            yield _job(each)


def _order(facts: Mapping[str, Any]) -> Order:
    return Order(dict(facts["message"]), str(facts["caption"]), max(int(facts.get("first") or 0), 0))


def _job(facts: Mapping[str, Any]) -> Job:
    """Raises KeyError, TypeError, ValueError or AttributeError for what is no job."""
    orders = tuple(_order(each) for each in facts["orders"])
    kinds: set[JobKind] = {_KINDS[each.message["op"]] for each in orders}
    (kind,) = kinds
    seed = facts.get("seed")
    return Job(
        orders,
        str(facts["title"]),
        max(int(facts["total"]), 1),
        kind,
        str(facts.get("grid") or ""),
        None if seed is None else int(seed),
        str(facts["id"]),
    )
