"""The command line of a job that is to run as several processes.

``accelerate launch`` starts them, on this machine or as this machine's part of several. The choices
are options of the settings' section ``launch``; here they are read off a run's ``config.toml`` as
they are, since whoever made the run has checked them.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

SECTION = "launch"
_PASSED_ON = (
    "num_processes",
    "num_machines",
    "machine_rank",
    "main_process_ip",
    "main_process_port",
    "gpu_ids",
    "num_cpu_threads_per_process",
)
"""Options that ``accelerate launch`` knows by the same names."""
_OURS = ("--mixed_precision", "no", "--dynamo_backend", "no")
"""What the training sees to itself."""


def choices(config: Path) -> Mapping[str, Any]:
    """What a run's settings say of processes; empty when they say nothing or cannot be read."""
    try:
        return choices_in(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return {}


def choices_in(config_toml: str) -> Mapping[str, Any]:
    """As :func:`choices`, of a file's text."""
    try:
        section = tomlkit.parse(config_toml).unwrap().get(SECTION)
    except TOMLKitError:
        return {}
    return section if isinstance(section, dict) else {}


def is_several(chosen: Mapping[str, Any]) -> bool:
    """Whether more than one process, or a card by number, is asked for: then a launcher is needed."""
    return int(chosen.get("num_processes") or 1) > 1 or bool(chosen.get("gpu_ids"))


def command(module: str, arguments: list[str], chosen: Mapping[str, Any]) -> list[str]:
    """``python [-m accelerate... options] -m module arguments``."""
    return [sys.executable, *launcher(chosen), "-m", module, *arguments]


def launcher(chosen: Mapping[str, Any]) -> list[str]:
    """What stands between ``python`` and ``-m module``; nothing for one process.

    ``--multi_gpu`` also starts processes that work on processors: each finds out by itself what
    there is. ``--cpu`` would start one process however many are asked for.
    """
    if not is_several(chosen):
        return []
    given = {name: value for name, value in chosen.items() if value not in (None, "")}
    known = {"num_machines": 1, "main_process_port": 0, **given}
    count = int(known.get("num_processes") or 1)
    words = ["-m", "accelerate.commands.launch", *(["--multi_gpu"] if count > 1 else [])]
    for name in _PASSED_ON:
        if name in known:
            words += [f"--{name}", str(known[name])]
    return [
        *words,
        *_OURS,
        *shlex.split(str(known.get("extra_accelerate_launch_args") or "")),
    ]
