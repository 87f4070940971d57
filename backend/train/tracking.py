"""A run's events, passed on to the programs that keep curves: see ``trackers``."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from backend.errors import EnvironmentFault, InputError, Problem
from backend.jobs.events import EventType, Sink
from backend.settings import Settings
from backend.settings.secrets import shareable
from backend.settings.trackers import CHOICES, LIBRARIES, missing
from backend.train.trackers import Tracker

_DEFAULT_NAME = "network_train"
"""sd-scripts' name for the tracker of a network's training."""


class Tracked:
    """Passes events on and gives their numbers and pictures to trackers.

    A tracker that fails is told in a warning and left alone from then on; it never ends a run.
    """

    def __init__(self, events: Sink, trackers: list[Tracker], run: Path) -> None:
        self._events, self._trackers, self._run = events, trackers, run

    def emit(self, type: EventType, /, **fields: Any) -> None:
        self._events.emit(type, **fields)
        numbers = numbers_of(type, fields)
        for tracker in list(self._trackers):
            try:
                if numbers:
                    tracker.numbers(numbers, fields["step"])
                elif type == "sample":
                    tag = f"sample/{fields['index']}"
                    tracker.picture(tag, self._run / fields["path"], fields["prompt"], fields["step"])
            except Exception as error:  # a library of somebody else, and only logs
                self._trackers.remove(tracker)
                self._events.emit("warning", text=f"{tracker.title} logs end here: {error}")

    def close(self, failed: bool) -> None:
        """Let every tracker finish."""
        for tracker in self._trackers:
            try:
                tracker.close(failed)
            except Exception as error:  # as above
                self._events.emit("warning", text=f"{tracker.title} logs are not complete: {error}")


def numbers_of(type: EventType, fields: dict[str, Any]) -> dict[str, float]:
    """What an event adds to a log, by sd-scripts' tags; {} for most.

    Tags: ``loss/current``, ``loss/average``, ``norm/gradient``, ``lr/<group>``, and of the pictures held
    out ``loss/validation/step_average`` and ``..._divergence``, at ends of epochs ``epoch_...``.
    """
    if type == "validation":
        tag = f"loss/validation/{fields['when']}"
        return {f"{tag}_average": fields["loss"], f"{tag}_divergence": fields["divergence"]}
    if type != "step":
        return {}
    numbers = {"loss/current": fields["loss"], "loss/average": fields["average"]}
    numbers["norm/gradient"] = fields["grad_norm"]
    return numbers | {f"lr/{name}": rate for name, rate in fields["lr"].items()}


def wanted(settings: Settings) -> tuple[str, ...]:
    """Which trackers are asked for; a folder alone asks for TensorBoard, as in sd-scripts."""
    section = settings.tracking
    if section.log_with is None:
        return ("tensorboard",) if section.logging_dir else ()
    return CHOICES[section.log_with]


def check_trackers(settings: Settings) -> None:
    """What can be known of the trackers before anything is loaded.

    Raises:
        EnvironmentFault: a library is missing, or wandb would stop to ask for a key.
        InputError: ``log_tracker_config`` is no TOML with a table for each tracker.
    """
    from backend.train.trackers.wandb import has_key

    kinds = wanted(settings)
    for kind in kinds:
        if why := missing(kind):
            raise EnvironmentFault(
                f"{kind} is {why.partition(':')[0]}",
                why=f"log_with={settings.tracking.log_with or 'tensorboard'} writes logs for it",
                next=f"install it with: {why.partition(': ')[2]}, or leave log_with out",
                key="log_with",
            )
    if "wandb" in kinds and not settings.tracking.wandb_api_key and not has_key():
        raise EnvironmentFault(
            "Weights & Biases needs a key, and there is none",
            next="give it as wandb_api_key, run 'wandb login' once, or set WANDB_MODE=offline",
            key="wandb_api_key",
        )
    _arguments(settings)


@contextmanager
def tracked(settings: Settings, run: Path, events: Sink) -> Generator[Sink, None, None]:
    """Events that reach the trackers too, while the block runs."""
    trackers = list(_open(settings, run, events))
    if not trackers:
        yield events
        return
    sink = Tracked(events, trackers, run)
    try:
        yield sink
    except BaseException:
        sink.close(failed=True)
        raise
    sink.close(failed=False)


def _open(settings: Settings, run: Path, events: Sink) -> Generator[Tracker, None, None]:
    arguments = _arguments(settings)
    for kind in wanted(settings):
        try:
            yield _make(kind, settings, run, arguments.get(kind, {}))
        except Exception as error:  # no network, a wrong key, a full disk: only logs
            problem = Problem(f"{kind} logs cannot be written: {error}", key="log_with")
            events.emit("warning", text=problem.text(), problem=problem.as_dict())


def _make(kind: str, settings: Settings, run: Path, arguments: Mapping[str, Any]) -> Tracker:
    from backend.train.trackers.tensorboard import TensorBoardTracker
    from backend.train.trackers.wandb import WandbTracker

    section = settings.tracking
    name = section.log_tracker_name or _DEFAULT_NAME
    shown = _shown(settings) if section.log_config else None
    folder = log_folder(settings, run)
    if kind == "tensorboard":
        return TensorBoardTracker(folder / name, shown, arguments)
    return WandbTracker(folder, name, section.wandb_run_name, shown, arguments)


def _shown(settings: Settings) -> dict[str, Any]:
    """Settings for a tracker: those that are set, without secrets and folders."""
    return {key: value for key, value in shareable(settings.flat()).items() if value not in (None, "", [])}


def log_folder(settings: Settings, run: Path) -> Path:
    """``logging_dir/<prefix><time>``; without a folder, inside the run's own."""
    section = settings.tracking
    parent = Path(section.logging_dir).expanduser() if section.logging_dir else run / "logs"
    return parent / f"{section.log_prefix or ''}{time.strftime('%Y%m%d%H%M%S')}"


def _arguments(settings: Settings) -> Mapping[str, Mapping[str, Any]]:
    """Tracker -> further arguments, out of the TOML file of ``log_tracker_config``."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    name = settings.tracking.log_tracker_config
    if not name:
        return {}
    path = Path(name).expanduser()
    try:
        found: dict[str, Any] = tomlkit.parse(path.read_text(encoding="utf-8")).unwrap()
    except (OSError, UnicodeDecodeError, TOMLKitError) as error:
        raise InputError(
            f"log_tracker_config: {path} cannot be read: {error}", key="log_tracker_config"
        ) from error
    odd = [key for key, table in found.items() if key not in LIBRARIES or not isinstance(table, dict)]
    if odd:
        raise InputError(
            f"log_tracker_config: {', '.join(odd)} is no table of a tracker",
            where=str(path),
            next="write [wandb] or [tensorboard] and their arguments below",
            key="log_tracker_config",
        )
    return cast("Mapping[str, Mapping[str, Any]]", found)
