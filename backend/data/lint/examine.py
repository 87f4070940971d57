"""Decodes every picture and mask once, for all rules together, and remembers what was seen.

The memory lies in Atelier's cache, one small file a folder; a file that has not changed (size, time of
change) is not opened again.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from backend.data import images
from backend.data.lint.prints import Prints, prints
from backend.system import paths

Role = Literal["picture", "mask"]
Progress = Callable[[str, int, int], None]
"""Told a phase, the number of files done, and of all."""


@dataclass(frozen=True)
class Watch:
    """Who is told how far it is, and who may stop it."""

    progress: Progress
    should_stop: Callable[[], bool]


VERSION = 2
"""Counts changes to what is remembered of a file."""
_SLICE = 256
_LARGE = 20_000_000
"""Bytes of a file; larger ones are decoded one at a time, so that memory stays bounded."""

_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Look:
    """What decoding a file showed."""

    wrong: str = ""
    """Why it cannot be used, completing 'name ...'; '' when it can."""
    digest: str = ""
    """Hash of its bytes."""
    prints: Prints | None = None
    clear: float = 0.0
    """Share of the picture that is fully transparent."""
    seen_through: bool = False
    """Some of it is at least a little transparent."""
    broken_profile: bool = False
    """It has a colour profile that cannot be read."""
    brightest: int = 255
    """Of a mask."""
    rim: float = 0.0
    """Mean of a mask's outermost tenth, 0 to 255."""
    middle: float = 0.0
    """Mean of the middle ninth, 0 to 255."""


class Memory:
    """Looks of the files of one folder, by name, size and time of change."""

    def __init__(self, folder: Path, role: Role) -> None:
        name = hashlib.blake2b(os.fsencode(folder), digest_size=12).hexdigest()
        self.path = paths.cache_root() / "doctor" / f"{name}-{role}-{VERSION}-{images.DECODER}.jsonl"
        self.old: dict[str, tuple[list[int], Look]] = {}
        self.new: dict[str, tuple[list[int], Look]] = {}
        self._load()

    def get(self, path: Path) -> Look | None:
        """The look of an unchanged file."""
        found = self.old.get(path.name)
        if found is None or found[0] != _stamp(path):
            return None
        self.new[path.name] = found
        return found[1]

    def put(self, path: Path, look: Look) -> None:
        stamp = _stamp(path)
        if stamp:
            self.new[path.name] = (stamp, look)

    def save(self) -> None:
        """Keep what belongs to files that are still there. A folder that cannot be written costs nothing."""
        if self.new == self.old:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial = self.path.with_suffix(f".{os.getpid()}.tmp")
            with partial.open("w", encoding="utf-8") as file:
                for name, (stamp, look) in self.new.items():
                    file.write(json.dumps([name, stamp, _plain(look)]) + "\n")
            partial.replace(self.path)
        except OSError:
            return

    def _load(self) -> None:
        try:
            with self.path.open(encoding="utf-8") as file:
                for line in file:
                    name, stamp, facts = json.loads(line)
                    self.old[name] = (stamp, _look(facts))
        except (OSError, ValueError, TypeError):
            return


def examine(files: Sequence[Path], role: Role, watch: Watch) -> Iterator[tuple[Path, Look]]:
    """(path, look) of each file, in order; ends early when told to stop."""
    memories = {folder: Memory(folder, role) for folder in {path.parent for path in files}}
    done = 0
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(files), _SLICE):
            if watch.should_stop():
                break
            part = files[start : start + _SLICE]
            for path, look in zip(part, pool.map(lambda p: _see(p, role, memories), part), strict=True):
                yield path, look
                done += 1
                if done % 50 == 0 or done == len(files):
                    watch.progress("looking", done, len(files))
    if done == len(files):
        for memory in memories.values():
            memory.save()


def _see(path: Path, role: Role, memories: dict[Path, Memory]) -> Look:
    memory = memories[path.parent]
    known = memory.get(path)
    if known is not None:
        return known
    look = look_at(path, role)
    memory.put(path, look)
    return look


def look_at(path: Path, role: Role) -> Look:
    """Read and decode one file."""
    try:
        data = path.read_bytes()
        if len(data) <= _LARGE:
            return _decoded(data, role)
        with _one_at_a_time:
            return _decoded(data, role)
    except images.DecodeError as error:
        return Look(wrong=str(error))
    except OSError as error:
        return Look(wrong=f"cannot be read ({(error.strerror or str(error)).lower()})")


def _decoded(data: bytes, role: Role) -> Look:
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    if role == "mask":
        return _mask_look(images.decode_mask(data), digest)
    pixels, alpha = images.decode_with_alpha(data)
    broken_profile = not images.has_sound_profile(data)
    if alpha is None:
        return Look(digest=digest, prints=prints(pixels), broken_profile=broken_profile)
    return Look(
        digest=digest,
        prints=prints(pixels),
        broken_profile=broken_profile,
        clear=float((alpha == 0).mean()),
        seen_through=bool((alpha < 255).any()),
    )


def _mask_look(mask: NDArray[np.uint8], digest: str) -> Look:
    height, width = mask.shape
    down, across = max(1, height // 10), max(1, width // 10)
    rim = np.concatenate(
        [mask[:down].ravel(), mask[-down:].ravel(), mask[:, :across].ravel(), mask[:, -across:].ravel()]
    )
    middle = mask[height // 3 : max(height // 3 + 1, height * 2 // 3), width // 3 : max(1, width * 2 // 3)]
    return Look(
        digest=digest,
        brightest=int(mask.max()),
        rim=float(rim.mean()),
        middle=float(middle.mean()) if middle.size else float(mask.mean()),
    )


def _stamp(path: Path) -> list[int]:
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]


def _plain(look: Look) -> dict[str, Any]:
    """As JSON, without what has its usual value."""
    usual = Look()
    found = {name: value for name, value in vars(look).items() if value != getattr(usual, name)}
    if look.prints is not None:
        found["prints"] = [look.prints.low, look.prints.slope, look.prints.colours.hex()]
    return found


def _look(facts: dict[str, Any]) -> Look:
    if "prints" in facts:
        low, slope, colours = facts["prints"]
        facts["prints"] = Prints(low, slope, bytes.fromhex(colours))
    return Look(**facts)
