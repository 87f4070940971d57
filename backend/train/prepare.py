"""Fills the caches on disk ahead of training: ``python -m backend.train.prepare RUN_FOLDER``.

A training with the same settings finds what was encoded here, since caches are kept by content.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend import settings as settings_package
from backend.errors import AtelierError, InputError, Problem, run_main
from backend.families import FAMILIES
from backend.jobs.control import ControlReader
from backend.jobs.events import EventLog, EventType, NoEvents, Sink
from backend.jobs.process import register_current_process
from backend.jobs.runs import Run, open_run
from backend.settings import Settings
from backend.system import paths
from backend.system.identify import require_base
from backend.train.console import Console
from backend.train.preflight import Prepared, prepare
from backend.train.several import told

if TYPE_CHECKING:
    from backend.families.base import DiffusionModel
    from backend.train.prepare_metadata import BucketRequest

LATENTS, TEXTS = "latents", "texts"


@dataclass
class _Counted:
    """How much of one kind there was, and how much was encoded."""

    total: int = 0
    found: int = 0
    done: int = 0
    unit: str = ""
    started: float = field(default_factory=time.monotonic)
    ended: float = 0.0

    @property
    def computed(self) -> int:
        return self.done - self.found

    def facts(self) -> dict[str, Any]:
        seconds = max(self.ended - self.started, 1e-6)
        return {
            "total": self.total, "found": self.found, "computed": self.computed, "unit": self.unit,
            "seconds": round(seconds, 3), "per_second": round(self.computed / seconds, 2),
        }  # fmt: skip


class Tally:
    """Passes events on and counts what their progress says."""

    def __init__(self, events: Sink) -> None:
        self._events = events
        self.phases: dict[str, _Counted] = {}

    def emit(self, type: EventType, /, **fields: Any) -> None:
        if type == "progress":
            name = str(fields["phase"])
            counted = self.phases.get(name) or _Counted(
                found=fields["done"], unit=str(fields.get("unit", ""))
            )
            counted.done, counted.total, counted.ended = fields["done"], fields["total"], time.monotonic()
            self.phases[name] = counted
        self._events.emit(type, **fields)

    def sentences(self) -> list[str]:
        """'caching latents: 40 pictures encoded, 20 were there; 3.1 a second'."""
        return [_sentence(name, counted.facts()) for name, counted in self.phases.items()]


def _sentence(name: str, facts: dict[str, Any]) -> str:
    rate = f"; {facts['per_second']:g} {facts['unit']} a second" if facts["computed"] else ""
    missing = facts["total"] - facts["found"] - facts["computed"]
    left = f", {missing} left" if missing else ""
    encoded = f"{facts['computed']} of {facts['total']} {facts['unit']} encoded"
    return f"{name}: {encoded}, {facts['found']} were there{left}{rate}"


def wanted_parts(settings: Settings) -> tuple[str, ...]:
    """What the settings ask to keep in a cache; latents when they ask for nothing."""
    section = settings.caching
    parts: list[str] = []
    if section.cache_latents or section.cache_latents_to_disk:
        parts.append(LATENTS)
    if section.cache_text_encoder_outputs or section.cache_text_encoder_outputs_to_disk:
        parts.append(TEXTS)
    return tuple(parts) or (LATENTS,)


def for_parts(settings: Settings, parts: Iterable[str]) -> Settings:
    """The settings with exactly these caches, on disk, and nothing that would stand against them."""
    latents, texts = LATENTS in set(parts), TEXTS in set(parts)
    changed = settings.replace(
        cache_latents=latents,
        cache_latents_to_disk=latents,
        cache_text_encoder_outputs=texts,
        cache_text_encoder_outputs_to_disk=texts,
        # Nothing is trained: an optimizer that this machine lacks is no reason to stop.
        optimizer_type="AdamW",
        optimizer_args=[],
    )
    # Encoded captions are of use only where the text encoder is not trained.
    if texts:
        changed = changed.replace(**_TEXT_STAYS.get(settings.model.training_method, {}))
    return changed


_TEXT_STAYS: Mapping[str, Mapping[str, Any]] = {
    "network": {"network_train_unet_only": True, "network_train_text_encoder_only": False},
    "dreambooth": {"stop_text_encoder_training": 0},
    "finetune": {"train_text_encoder": False},
}
"""Method -> what leaves its text encoders as they are."""


def fill(settings: Settings, parts: Iterable[str], events: Sink, control: ControlReader) -> dict[str, Any]:
    """Check, load the model and encode what the caches on disk lack.

    Gives, for each phase, totals, what was there, what was computed, seconds and rate.

    Raises:
        InputError: with everything that is wrong with settings, files and pictures.
        RunFault: a picture cannot be encoded.
        StopRequested: somebody pressed Stop; what was encoded is kept.
    """
    events.emit("phase", name="checking", title="Checking settings, files and pictures")
    prepared = prepare(for_parts(settings, parts))
    for note in prepared.notes:
        events.emit("note", text=note.text())
    if TEXTS in parts and settings.schedule.seed is None and _random_captions(prepared):
        events.emit(
            "note", text="captions are drawn at random and no seed is set: a training finds these only with "
            f"seed = {prepared.settings.schedule.seed}",
        )  # fmt: skip
    tally = Tally(events)
    try:
        _encode(prepared, tally, control)
    finally:
        for sentence in tally.sentences():
            events.emit("note", text=sentence)
    return {name: counted.facts() for name, counted in tally.phases.items()}


def _random_captions(prepared: Prepared) -> bool:
    return any(s.captions.random() for d in prepared.plan.datasets for s in d.subsets)


def _encode(prepared: Prepared, events: Sink, control: ControlReader) -> None:
    from backend.settings.length import run_length
    from backend.train.caching import Watch, fill_caches
    from backend.train.environment import adapt

    settings, notes = adapt(prepared.settings)
    for note in notes:
        events.emit("note", text=note.text())
    model = load_model(prepared, settings, events)
    length = run_length(settings, prepared.plan.batches_per_epoch())
    seed = settings.schedule.seed
    assert seed is not None, "preflight draws one"
    fill_caches(model, prepared.plan, settings, seed, length.steps, Watch(events, control))


def load_model(prepared: Prepared, settings: Settings, events: Sink) -> DiffusionModel:
    """The base model as a training with these settings loads it."""
    from backend.train.build import load_base_model, make_accelerator

    return load_base_model(prepared, settings, make_accelerator(settings), events)


def prepare_folder(path: Path) -> int:
    """The job of a run folder: its ``config.toml`` says what is cached."""
    from backend.train.run import stop_on_signals

    run = open_run(path)
    register_current_process(run)
    log = EventLog(run.events)
    events = Console(log)
    stop_on_signals(run)
    try:
        events.emit("state", state="running")
        events.emit("state", state=_work(run, events))
        return 0
    except AtelierError as error:
        return _failed(events, error.problems, error.exit_code)
    except Exception as error:
        ended = told(error)
        return _failed(events, ended.problems, ended.exit_code)
    finally:
        log.close()


def _work(run: Run, events: Sink) -> str:
    """Fill the caches; gives the state the job ends in."""
    from backend.train.caching import StopRequested
    from backend.train.run import settings_of

    settings = settings_of(run)
    try:
        facts = fill(settings, wanted_parts(settings), events, ControlReader(run.control))
    except StopRequested:
        return "stopped"
    events.emit("result", path=str(paths.cache_root()), facts=facts)
    return "finished"


def _failed(events: Sink, problems: Iterable[Problem], code: int) -> int:
    events.emit("error", problems=[problem.as_dict() for problem in problems])
    events.emit("state", state="failed", exit_code=code)
    return code


def command_line(argv: list[str], prog: str, part: str) -> int:
    """``tools/cache_latents.py`` and its sister: the trainer's options, one part, no run folder."""
    if int(os.environ.get("RANK", "0")):
        return 0  # one process of several fills the cache for all
    command = settings_package.parse_command_line(_accepted(argv, part), prog=prog)
    for note in command.notes:
        print(f"note: {note.text()}")
    facts = fill(
        command.settings, (part,), Console(NoEvents()), ControlReader(paths.cache_root() / "no-control")
    )
    print(f"done: {sum(entry['total'] for entry in facts.values())} in the cache at {paths.cache_root()}")
    return 0


def encode_metadata(
    request: BucketRequest, model: str, mixed_precision: str, batch_size: int, threads: int | None
) -> int:
    """``tools/prepare_buckets_latents.py``: buckets into the metadata, latents into the cache.

    Gives the exit code: 4 when some pictures could not be used, whose names are printed.
    """
    from backend.train import prepare_metadata as metadata

    settings = metadata.model_settings(model, request, mixed_precision, batch_size, threads)
    problems = settings_package.check_files(settings)
    if problems:
        raise InputError(problems)
    base = require_base(Path(model), tuple(FAMILIES))
    bucketed = metadata.assign_buckets(request, metadata.read_metadata(request.in_json))
    events = Console(NoEvents())
    tally = Tally(events)
    _encode(
        Prepared(settings, bucketed.plan, base, ()), tally, ControlReader(paths.cache_root() / "no-control")
    )
    kept = metadata.write_metadata(request.out_json, bucketed.entries)
    for sentence in [*tally.sentences(), *metadata.sentences(bucketed, request, kept)]:
        print(sentence)
    for name, what in bucketed.failed:
        print(f"failed: {name} {what}")
    return 4 if bucketed.failed else 0


_NEED_NOTHING = ("skip_existing", "sdxl")
"""Switches of the scripts of these names beside the trainer's options: what is there is always found, and
the kind of model is read from its file."""


def _accepted(argv: list[str], part: str) -> list[str]:
    """The words without switches that change nothing here. Raises InputError."""
    if "--flux" in argv:
        raise InputError(
            "Flux models are not supported", where="command line", next="use an SD 1.x or SDXL model"
        )
    switches = {f"--{name}" for name in _NEED_NOTHING}
    kept = [word for word in argv if word not in switches]
    # With the text encoder in training, its outputs could not be kept: the switch goes with the part.
    return [*kept, "--network_train_unet_only"] if part == TEXTS and not _helps(argv) else kept


def _helps(argv: list[str]) -> bool:
    return "-h" in argv or "--help" in argv


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m backend.train.prepare", allow_abbrev=False)
    parser.add_argument("run", type=Path, help="a folder inside runs, with config.toml")
    return prepare_folder(parser.parse_args().run)


if __name__ == "__main__":
    sys.exit(run_main(main))
