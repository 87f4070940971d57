"""``python -m backend.weights JOB.json``: does one job on model files, for a page that never loads torch.

``JOB.json`` is a job as :mod:`backend.weights.jobs` describes it, or a run folder that holds one under
the name ``weights.json``. What it says goes to ``events.jsonl`` beside it, as records of
``backend.jobs.events``: ``state``, ``progress``, ``result`` with the report as its facts, or ``error``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backend.errors import run_main
from backend.jobs.attended import attend
from backend.jobs.events import EventLog
from backend.jobs.files import read_job

JOB = "weights.json"
_EVERY = 0.2
"""Seconds between two records of progress."""


class _Progress:
    """Progress as events, not too many of them."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._last = 0.0
        self._doing = ""

    def __call__(self, doing: str, done: int, total: int) -> None:
        if doing != self._doing:
            self._doing, self._last = doing, 0.0
            self._log.emit("phase", name=doing, title=doing)
        now = time.monotonic()
        if done < total and now - self._last < _EVERY:
            return
        self._last = now
        self._log.emit("progress", phase=doing, done=done, total=total, unit="parts")


def main(argv: list[str] | None = None) -> int:
    """Do the job; the exit code is that of its error, 0 without one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("job", type=Path, help="a job's JSON file, or a folder that holds weights.json")
    parser.add_argument("--events", type=Path, help="where events go [events.jsonl beside the job]")
    options = parser.parse_args(argv)
    path: Path = options.job / JOB if options.job.is_dir() else options.job
    values = read_job(path)
    log = EventLog(options.events or path.with_name("events.jsonl"))
    return attend(log, lambda: _do(values, log))


def _do(values: Mapping[str, Any], log: EventLog) -> Mapping[str, Any]:
    import torch

    from backend.weights.jobs import run_job

    torch.set_num_threads(1)  # pieces are worked on side by side instead
    return run_job(values, _Progress(log))


if __name__ == "__main__":
    sys.exit(run_main(main))
