"""Whether the system ended a process because memory (RAM) had run out. Linux tells; others do not."""

from __future__ import annotations

import re
from pathlib import Path

_COUNTERS = Path("/proc/vmstat")


def killed_for_memory() -> int | None:
    """Processes that the kernel has ended for want of memory since the machine was started (proc(5),
    ``oom_kill`` of vmstat, which counts those in containers too); None where nobody tells."""
    try:
        found = re.search(r"^oom_kill (\d+)$", _COUNTERS.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    return int(found.group(1)) if found else None


def was_for_memory(before: int | None, exit_code: int) -> bool:
    """Whether a process that ended so was most likely ended for want of memory.

    Args:
        before: what :func:`killed_for_memory` said when the process was started.
    """
    now = killed_for_memory()
    return exit_code == -9 and before is not None and now is not None and now > before
