"""Going on with a run under other settings: options given beside ``--resume``."""

from __future__ import annotations

from collections.abc import Sequence

from backend import settings as settings_package
from backend.errors import InputError, Problem
from backend.jobs.runs import Run
from backend.settings.declare import declarations
from backend.train.checkpoints import newest_state
from backend.weights.safefile import write_text_atomic

_STILL_COUNT = frozenset(("max_data_loader_n_workers", "skip_broken_images"))
"""Options of the dataset that ``dataset.toml`` does not hold."""


def amend(run: Run, argv: Sequence[str]) -> None:
    """Put options of a command line into the run's ``config.toml``. What they change is told later.

    Raises:
        InputError: an option is wrong, or one of those that ``dataset.toml`` decides; there is no
            restore point to go on from.
    """
    if not argv:
        return
    if newest_state((run.path / "state").iterdir())[0] is None:
        raise InputError(
            f"{run.id} has no restore point to go on from", next="start a new run with these options"
        )
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
    write_text_atomic(run.config, settings_package.to_toml(settings))
