"""How long a run would take, by the runs that were made on this machine before."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.errors import AtelierError
from backend.jobs.events import read_events
from backend.jobs.runs import Run, list_runs
from backend.settings import Settings, read_toml

_LOOKED_AT = 40
"""Newest runs that are looked at."""
_FEWEST = 5
"""Steps that a run must have measured."""
_TAIL = 200_000
_SAME = (
    "training_method", "pretrained_model_name_or_path", "network_module", "algo", "mixed_precision",
    "full_fp16", "full_bf16", "fp8_base", "gradient_checkpointing", "gradient_accumulation_steps",
    "cache_latents", "cache_text_encoder_outputs", "optimizer_type", "network_train_unet_only",
    "blocks_to_swap", "torch_compile", "num_processes",
)  # fmt: skip
"""Options that decide how long a step takes, beside the pictures' number and size."""


@dataclass(frozen=True)
class Pace:
    """Seconds a step, and where they come from."""

    seconds: float
    run: str
    """Name of the run that they were measured in."""
    exact: bool
    """Size and number of pictures were the same there; otherwise they were scaled by both."""


def pace(root: Path, settings: Settings) -> Pace | None:
    """What a step of such a run took before, by the newest run that is like it; None without one."""
    wanted = settings.flat()
    scaled: Pace | None = None
    for run in [run for run in list_runs(root) if run.kind == "train"][:_LOOKED_AT]:
        try:
            other = read_toml(run.config).flat()
        except AtelierError:
            continue
        if any(other[key] != wanted[key] for key in _SAME):
            continue
        measured = _measured(run)
        if measured is None:
            continue
        factor = _work(wanted) / _work(other)
        if factor == 1.0:
            return Pace(measured, run.name, exact=True)
        scaled = scaled or Pace(measured * factor, run.name, exact=False)
    return scaled


def _work(values: Mapping[str, Any]) -> float:
    """Pixels of a step. Without a resolution the model's own counts, which is the same for both."""
    width, height = (int(side) for side in str(values["resolution"] or "512,512").split(","))
    return float(values["train_batch_size"]) * width * height


def _measured(run: Run) -> float | None:
    """Median seconds of the run's last steps."""
    try:
        start = max(0, run.events.stat().st_size - _TAIL)
    except OSError:
        return None
    records = read_events(run.events, start)[0]  # what is left of a cut line is passed over
    times = [float(one["seconds"]) for one in records if one["type"] == "step" and one.get("seconds")]
    return statistics.median(times) if len(times) >= _FEWEST else None
