"""``python -m backend.annotate JOB.json``: does one job on captions or tags, for a page that loads no model.

``JOB.json`` is a job as :mod:`backend.annotate.jobs` describes it, or a run folder that holds one under the
name ``annotate.json``. What it says goes to ``events.jsonl`` beside it, as records of
``backend.jobs.events``: ``state``, ``note``, ``progress``, ``result`` with what came of it, or ``error``.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backend.errors import run_main
from backend.jobs.attended import attend, interrupted
from backend.jobs.control import ControlReader
from backend.jobs.events import EventLog
from backend.jobs.files import read_job

JOB = "annotate.json"
_EVERY = 0.2
"""Seconds between two records of progress."""


class _Progress:
    """Progress as events, not too many of them; hears when the job is to end.

    Raises KeyboardInterrupt then, as a signal does: Windows has none for a process without a window.
    """

    def __init__(self, log: EventLog, control: ControlReader) -> None:
        self._log, self._control = log, control
        self._last = 0.0

    def __call__(self, done: int, total: int) -> None:
        if self._control.stop_waits():
            self._control.poll()
            raise interrupted()
        now = time.monotonic()
        if done < total and now - self._last < _EVERY:
            return
        self._last = now
        self._log.emit("progress", phase="annotating", done=done, total=total, unit="pictures")


def main(argv: list[str] | None = None) -> int:
    """Do the job; the exit code is that of its error, 0 without one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("job", type=Path, help="a job's JSON file, or a folder that holds annotate.json")
    options = parser.parse_args(argv)
    path: Path = options.job / JOB if options.job.is_dir() else options.job
    job = read_job(path)
    log = EventLog(path.with_name("events.jsonl"))
    control = ControlReader(path.with_name("control.jsonl"))
    return attend(log, lambda: _do(job, log, control))


def _do(job: Mapping[str, Any], log: EventLog, control: ControlReader) -> Mapping[str, Any]:
    if job.get("download"):
        # The page's processes keep to this machine unless a person asked for this very download.
        os.environ["HF_HUB_OFFLINE"] = "0"

    def say(text: str) -> None:
        print(text, flush=True)
        log.emit("note", text=text)

    if job.get("device") == "cpu":
        # Read when torch and ONNX Runtime are loaded, which is not before the next lines.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        say("a training is at work, so the card is left to it")
    from backend.annotate.jobs import run_job

    return run_job(job, _Progress(log, control), say)


if __name__ == "__main__":
    sys.exit(run_main(main))
