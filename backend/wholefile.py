"""Files that are whole or not there at all.

What is written goes to a temporary name in the same folder, is flushed to the disk, and is renamed
last. A reader, a crash or a power cut finds the old file or the new one, never a part.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import IO


@dataclass(frozen=True)
class NewFile:
    """A file that has not got its name yet."""

    file: IO[bytes]
    path: Path
    """Its temporary name, under which it can be read back."""

    def settle(self) -> None:
        """Bring what was written so far to the disk."""
        self.file.flush()
        os.fsync(self.file.fileno())


@contextlib.contextmanager
def replacing(path: Path) -> Generator[NewFile, None, None]:
    """A new file that takes the name ``path`` when the block ends without a fault.

    Raises:
        OSError: as the file system reports it; what stood under ``path`` is untouched.
    """
    partial = path.with_name(f".{secrets.token_hex(6)}.partial")
    try:
        with partial.open("xb") as file:
            new = NewFile(file, partial)
            yield new
            new.settle()
        _rename(partial, path)
        settle_folder(path.parent)
    except OSError as error:
        if error.filename in (None, str(partial), partial):  # people know the file by its own name
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with line ends as given. Raises OSError as above."""
    with replacing(path) as new:
        new.file.write(text.encode("utf-8"))


def _rename(source: Path, target: Path) -> None:
    """Rename over ``target``. Windows refuses for a moment while a reader has it open."""
    for attempt in range(20):
        try:
            source.replace(target)
            return
        except PermissionError:
            if sys.platform != "win32" or attempt == 19:
                raise
            time.sleep(0.05)


def settle_folder(folder: Path) -> None:
    """Make the new name survive a power cut. Windows has no such call and needs none."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError):  # some network drives refuse; the file itself is on the disk
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
