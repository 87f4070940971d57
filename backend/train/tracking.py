"""TensorBoard logs, written from the same events that the page reads."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from backend.jobs.events import EventType, Sink
from backend.settings import Settings


class TensorBoard:
    """Passes events on and writes the numbers of each step under sd-scripts' tags.

    Tags: ``loss/current``, ``loss/average``, ``norm/gradient`` and ``lr/<group>``. A log that
    cannot be written is a warning, never the end of a run.
    """

    def __init__(self, events: Sink, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._events = events
        self._writer = SummaryWriter(str(folder))
        self._broken = False

    def emit(self, type: EventType, /, **fields: Any) -> None:
        self._events.emit(type, **fields)
        if type == "step" and not self._broken:
            try:
                self._write(fields)
            except OSError as error:
                self._broken = True
                self._events.emit("warning", text=f"TensorBoard logs cannot be written: {error}")

    def _write(self, fields: dict[str, Any]) -> None:
        step = fields["step"]
        numbers = {"loss/current": fields["loss"], "loss/average": fields["average"]}
        numbers["norm/gradient"] = fields["grad_norm"]
        numbers.update({f"lr/{name}": rate for name, rate in fields["lr"].items()})
        for tag, value in numbers.items():
            self._writer.add_scalar(tag, value, step)

    def close(self) -> None:
        self._writer.close()


def tensorboard_folder(settings: Settings, run: Path) -> Path | None:
    """``logging_dir/<prefix><time>/network_train``, or None when no logs are wanted.

    Logs that are asked for by ``log_with`` alone go into the run's own folder.
    """
    section = settings.tracking
    if section.logging_dir:
        parent = Path(section.logging_dir).expanduser()
    elif section.log_with == "tensorboard":
        parent = run / "logs"
    else:
        return None
    return parent / f"{section.log_prefix or ''}{time.strftime('%Y%m%d%H%M%S')}" / "network_train"
