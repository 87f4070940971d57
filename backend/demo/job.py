"""The demo as a job of the page: ``python -m backend.demo.job <run folder>``.

It draws the pictures and completes the run's settings, then trains as any run does, so that the page
follows it, stops it and resumes it like any other. Before and after are the run's own samples.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from io import StringIO
from pathlib import Path
from typing import Any

from backend.demo import session
from backend.demo.__main__ import STEPS
from backend.demo.progress import Progress
from backend.errors import AtelierError, Problem, run_main
from backend.jobs.events import EventLog
from backend.jobs.process import register_current_process
from backend.jobs.runs import Run, open_run
from backend.settings import Settings, to_toml
from backend.wholefile import write_text


class EventProgress(Progress):
    """Progress that becomes events of a run, and plain lines of its log."""

    def __init__(self, events: EventLog) -> None:
        super().__init__(StringIO())
        self._events = events
        self._phase = ""

    def say(self, text: str = "") -> None:
        print(text, flush=True)

    def show(self, title: str, done: float, total: float, rest: str = "") -> None:
        if title != self._phase:
            self._phase = title
            self._events.emit("phase", name="preparing", title=title)
        if total:
            self._events.emit("progress", phase="preparing", done=done, total=total, unit=rest)


def settings_for_page(model: Path, pictures: Path, steps: int) -> Settings:
    """The demo's settings with every prompt drawn before the first step, on the way and at the end."""
    changes: dict[str, Any] = {
        "sample_prompt_text": "\n".join(session.sample_line(*each) for each in session.PROMPTS),
        "sample_at_first": True,
        "sample_every_n_steps": max(50, steps // 4),
    }
    return session.demo_settings(model, pictures, steps).replace(**changes)


def prepare(run: Run, steps: int) -> None:
    """Draw the pictures and write the run's settings.

    Raises:
        AtelierError: something cannot be read or written; the run says so.
    """
    events = EventLog(run.events)
    try:
        events.emit("state", state="running")
        events.emit("phase", name="preparing", title="Drawing the pictures")
        progress = EventProgress(events)
        folder = run.path.parent / "demo-data"
        pictures = session.prepare_pictures(folder, progress)
        model = session.prepare_model(folder, progress)
        write_text(run.config, to_toml(settings_for_page(model, pictures, steps)))
    except Exception as error:
        events.emit("error", problems=[problem.as_dict() for problem in _problems(error)])
        events.emit("state", state="failed", exit_code=4)
        raise
    finally:
        events.close()


def _problems(error: Exception) -> list[Problem]:
    if isinstance(error, AtelierError):
        return list(error.problems)
    return [Problem(f"the demo cannot be prepared: {error!r}", detail=traceback.format_exc())]


def main() -> int:
    """Prepare the run that is named and train it."""
    parser = argparse.ArgumentParser(prog="python -m backend.demo.job", description=__doc__)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps (default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on from the newest restore point")
    options = parser.parse_args()
    run = open_run(options.run)
    register_current_process(run)
    if not options.resume:
        prepare(run, options.steps)

    from backend.train.run import train_folder

    return train_folder(options.run, resume=options.resume)


if __name__ == "__main__":
    sys.exit(run_main(main))
