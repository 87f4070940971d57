"""Going on with a run under other settings: options given beside ``--resume``."""

from __future__ import annotations

from collections.abc import Sequence

from backend import settings as settings_package
from backend.errors import InputError, Problem
from backend.jobs.runs import Run
from backend.settings.declare import declarations
from backend.train.checkpoints import load_state, newest_state
from backend.train.differences import changed_options, require_possible
from backend.train.resume import restore_points
from backend.weights.safefile import write_text_atomic

_STILL_COUNT = frozenset(("max_data_loader_n_workers", "skip_broken_images"))
"""Options of the dataset that ``dataset.toml`` does not hold."""


def amend(run: Run, argv: Sequence[str]) -> None:
    """Put options of a command line into the run's ``config.toml``. What they change is told later.

    Raises:
        InputError: an option is wrong, one of those that ``dataset.toml`` decides, or one that the
            restore point cannot live with; there is none to go on from.
    """
    if not argv:
        return
    newest, damaged = newest_state(restore_points(run))
    if newest is None:
        none = Problem(
            f"{run.id} has no restore point to go on from", next="start a new run with these options"
        )
        raise InputError(damaged or none)
    command = settings_package.parse_command_line(
        argv, prog="python -m backend.train RUN --resume", complete=False
    )
    fixed = [
        key for key in command.given if declarations()[key].section == "dataset" and key not in _STILL_COUNT
    ]
    if fixed:
        raise InputError(
            [
                Problem(
                    f"--{key} cannot be given here: the pictures of a run are fixed in its dataset.toml",
                    where=str(run.path / "dataset.toml"),
                    next="change it there, or start a new run from the restore point (--resume FOLDER)",
                    key=key,
                )
                for key in sorted(fixed)
            ]
        )
    values = command.settings.flat()
    settings = settings_package.read_toml(run.config)
    settings = settings.replace(**{key: values[key] for key in command.given})
    # What is refused must not be in the file: the run could not be resumed without it either then.
    require_possible(changed_options(load_state(newest).facts, settings))
    write_text_atomic(run.config, settings_package.to_toml(settings))
