"""Puts a session together: model, method, caches, optimizer, and the place to go on from."""

from __future__ import annotations

import secrets
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from backend.data.loader import Encoded, Loader
from backend.data.types import DatasetPlan
from backend.errors import InputError, Problem
from backend.families.base import DiffusionModel
from backend.jobs.control import ControlReader
from backend.jobs.events import Sink
from backend.jobs.runs import Run
from backend.settings import Settings
from backend.settings.length import Length, run_length
from backend.settings.optimizers import is_schedule_free
from backend.train import optimizers
from backend.train.basefile import BaseWatch
from backend.train.caching import Caches, Watch, fill_caches
from backend.train.checkpoints import Position, State
from backend.train.differences import identity as identity_of
from backend.train.ema import Ema
from backend.train.environment import adapt, on_processor
from backend.train.flow import flow_times, objective_of
from backend.train.fused import fused_backward
from backend.train.losses import LossTable
from backend.train.machine import (
    load_base_model,
    make_accelerator,
    settle,
    shrink,
    wrap,
)
from backend.train.meter import Meter
from backend.train.methods import make_method
from backend.train.methods.base import Adjustable, Guided, HoldsModel, Method
from backend.train.noise import NoiseRules
from backend.train.preflight import Prepared
from backend.train.preservation import Preservation
from backend.train.provenance import TrainingFacts
from backend.train.resume import compare, find_state, place, restore
from backend.train.room import check_space, forecast
from backend.train.rounding import rounded
from backend.train.samples import Sampler
from backend.train.saver import Saver, planned
from backend.train.schedule_class import ClassSchedule
from backend.train.schedules import Schedule, schedule_of
from backend.train.session import Session
from backend.train.sources import Sources
from backend.train.step import StepModule
from backend.train.team import ALONE, Team, control_of
from backend.train.texts import cut_captions
from backend.train.validation import Validator

if TYPE_CHECKING:
    from accelerate import Accelerator


def build_session(
    run: Run, prepared: Prepared, resume: bool, events: Sink, started: float, team: Team = ALONE
) -> tuple[Session, Position]:
    """Everything the loop needs, and the position it starts at.

    Raises:
        InputError: the machine cannot do what is asked, or the restore point does not fit.
        StopRequested: the user stopped while latents or captions were being encoded.
    """
    settings, notes = adapt(prepared.settings)
    _say(events, [*notes, *on_processor()])
    state = team.tell(find_state(run, settings, resume, events) if team.main else None)
    seed = settings.schedule.seed
    assert seed is not None, "the seed is drawn before a session is built"
    identity, length, position = _placed(prepared, settings, state, events, team.size, own=resume)
    accelerator, control = make_accelerator(settings), control_of(run, team)
    base_file = BaseWatch(Path(prepared.base.path))
    model = load_base_model(prepared, settings, accelerator, events)
    method = make_method(settings, prepared.plan, model, seed)
    _require_adjustable(method, prepared.plan)
    shrink(settings, model)
    _say(events, method.start())
    settle(settings, accelerator, method.trainable, model)
    if team.main:  # before pictures are encoded, which may take hours
        _check_space(settings, method, length, run)
    preservation = Preservation.of(settings.loss, prepared.plan, method)
    _say(events, cut_captions(model, prepared.plan, settings.model))
    watch = Watch(events, control)
    caches = fill_caches(model, prepared.plan, settings, seed, length.steps, watch, team, preservation)
    if not settings.precision.highvram:
        _free_what_is_cached(model, caches)
    optimizer, arguments = _optimizer(method, settings)
    described = optimizers.describe(optimizer, arguments)
    facts = _facts(prepared, settings, model, accelerator, length, described, started)
    table, ema = LossTable(prepared.plan), _mean(method, settings)
    if state is not None:
        restore(state, method, optimizer, accelerator, settings)
        table.load(state.optimizer.get("losses") if team.main else None)
        _load_mean(ema, state)

    base_rates = tuple(float(group["lr"]) for group in method.parameter_groups())
    rounding = rounded(optimizer, seed, settings.optimizer.optimizer_type)
    fused = fused_backward(settings, optimizer, {id(p): n for n, p in method.trainable.named_parameters()})
    step = _step_module(method, model, settings, accelerator)
    module, optimizer, parts = wrap(accelerator, step, optimizer, settings)
    session = Session(
        settings=settings,
        seed=seed,
        accelerator=accelerator,
        model=model,
        method=method,
        module=module,
        optimizer=optimizer,
        schedule=_schedule(settings, length, optimizers.inner(optimizer), base_rates),
        base_rates=base_rates,
        noise=NoiseRules.of(settings.loss, seed, flow_times(settings, model)),
        loader=_loader(prepared.plan, settings, length, caches, (team.rank, team.size)),
        length=length,
        meter=_meter(prepared.plan, length, accelerator, events, table),
        saver=Saver(settings, run.path, output_folder(settings, run), facts, team.main),
        sampler=_sampler(settings, run, events, model, method, control),
        control=control,
        events=events,
        cached_text=caches.encoders,
        team=team,
        parts=parts,
        sources=Sources(prepared.plan, cached=caches.latents is not None),
        validator=Validator.of(settings, prepared.plan.validation, caches),
        ema=ema,
        preservation=preservation,
        fused=fused,
        rounding=rounding,
        base_file=base_file,
        identity=identity,
    )
    events.emit("plan", **_plan_event(prepared, session))
    return session, position


def _placed(
    prepared: Prepared, settings: Settings, state: State | None, events: Sink, processes: int, *, own: bool
) -> tuple[dict[str, Any], Length, Position]:
    """What the run is known by, how long it is, and where it starts; ``own``: see :func:`place`.

    Raises InputError: the restore point does not fit.
    """
    batches, base = prepared.plan.batches_per_epoch(processes), prepared.base
    identity = identity_of(settings, prepared.plan, batches, base.family, Path(base.path))
    if state is not None:
        compare(state, identity, events, settings.saving.resume_changed_dataset)
    return identity, *place(settings, run_length(settings, batches), state, own=own)


def _meter(
    plan: DatasetPlan, length: Length, accelerator: Accelerator, events: Sink, table: LossTable
) -> Meter:
    pictures = _pictures_per_step(plan, length, accelerator)
    return Meter(events, length, pictures, table, scaled=accelerator.scaler is not None)


def _check_space(settings: Settings, method: Method, length: Length, run: Run) -> None:
    """Whether the run's files will fit, less those that an earlier attempt has written already."""
    numbers = sum(tensor.numel() for tensor in method.weights().values())
    beside = method.numbers_beside() if isinstance(method, HoldsModel) else 0
    files = forecast(settings, length, numbers, output_folder(settings, run), run.path, beside)
    check_space(files, planned(run.path))


def output_folder(settings: Settings, run: Run) -> Path:
    """Where results go: the folder asked for, or the run's own."""
    return (
        Path(settings.saving.output_dir).expanduser()
        if settings.saving.output_dir
        else run.path / "checkpoints"
    )


def _free_what_is_cached(model: DiffusionModel, caches: Caches) -> None:
    """What is not needed in a step leaves the device; samples bring it back while they are drawn."""
    if caches.latents is not None:
        model.vae.to("cpu")
    if caches.texts is not None:
        for name in caches.encoders:
            model.text_encoders[name].to("cpu")


def _say(events: Sink, notes: list[Problem]) -> None:
    for note in notes:
        events.emit("note", text=note.text())


def _require_adjustable(method: Method, plan: DatasetPlan) -> None:
    """Refuse strengths of datasets where nothing has a strength."""
    if not isinstance(method, Adjustable) and any(d.network_multiplier != 1.0 for d in plan.datasets):
        raise InputError(
            "network_multiplier needs a network to train",
            why="the model itself is trained here, which has no strength",
            next="remove network_multiplier from the dataset file, or train a network",
            key="dataset_config",
        )


def _mean(method: Method, settings: Settings) -> Ema | None:
    section = settings.optimizer
    return Ema.of(method.trainable, section.ema_decay, section.ema_start)


def _load_mean(ema: Ema | None, state: State) -> None:
    if ema is not None:
        ema.load(state.optimizer.get("ema"))


def _loader(
    plan: DatasetPlan, settings: Settings, length: Length, caches: Caches, shard: tuple[int, int]
) -> Loader:
    assert settings.schedule.seed is not None
    return Loader(
        plan,
        seed=settings.schedule.seed,
        total_steps=length.steps,
        threads=settings.dataset.max_data_loader_n_workers,
        encoded=Encoded(caches.latents, caches.texts, caches.caption_variants),
        accumulation=length.accumulation,
        shard=shard,
    )


def _optimizer(method: Method, settings: Settings) -> tuple[torch.optim.Optimizer, dict[str, Any]]:
    section = settings.optimizer
    arguments = optimizers.parse_arguments(section.optimizer_args)
    groups = method.parameter_groups()
    made = optimizers.make(section.optimizer_type, groups, section.learning_rate, arguments)
    return made, optimizers.settled(section.optimizer_type, arguments)


def _schedule(
    settings: Settings, length: Length, optimizer: torch.optim.Optimizer, base_rates: tuple[float, ...]
) -> Schedule | ClassSchedule | None:
    """How the learning rates run; None when the optimizer sets its own."""
    section, name = settings.schedule, settings.optimizer.optimizer_type
    if optimizers.sets_own_rate(name, optimizers.parse_arguments(settings.optimizer.optimizer_args)):
        return None
    if is_schedule_free(name):
        return Schedule("constant", length.steps)
    if section.lr_scheduler_type:
        return ClassSchedule(section, length.steps, optimizer, base_rates)
    return schedule_of(section, length.steps, settings.optimizer.learning_rate or max(base_rates))


def _pictures_per_step(plan: DatasetPlan, length: Length, accelerator: Accelerator) -> int:
    return length.accumulation * accelerator.num_processes * plan.datasets[0].batch_size


def _sampler(
    settings: Settings, run: Run, events: Sink, model: DiffusionModel, method: Method, control: ControlReader
) -> Sampler:
    return Sampler.from_settings(
        settings,
        run.path,
        settings.saving.output_name or "sample",
        events,
        model,
        seed=settings.schedule.seed or 0,
        network=method.trainable,
        should_stop=control.stop_waits,
        show=method.show if isinstance(method, Guided) else None,
    )


def _step_module(
    method: Method, model: DiffusionModel, settings: Settings, accelerator: Accelerator
) -> StepModule:
    objective = objective_of(settings, model)
    return StepModule(
        method.trainable,
        model,
        objective.to(accelerator.device),
        settings.model.clip_skip,
        method.trains_text,
        partial(method.at_strength, 0.0) if isinstance(method, Adjustable) else None,
        method.show if isinstance(method, Guided) else None,
    )


def _facts(
    prepared: Prepared,
    settings: Settings,
    model: DiffusionModel,
    accelerator: Accelerator,
    length: Length,
    optimizer: str,
    started: float,
) -> TrainingFacts:
    """What the result's metadata says beside settings and dataset."""
    arguments = optimizers.parse_arguments(settings.optimizer.optimizer_args)
    assert settings.schedule.seed is not None
    return TrainingFacts(
        session_id=secrets.randbelow(2**32),
        started_at=started,
        family=prepared.base.family,
        base_model=Path(settings.model.pretrained_model_name_or_path),
        seed=settings.schedule.seed,
        optimizer=optimizer,
        max_train_steps=length.steps,
        num_epochs=length.epochs,
        batches_per_epoch=length.batches_per_epoch,
        vae=Path(settings.model.vae) if settings.model.vae else None,
        prediction=model.prediction,
        own_rate=optimizers.sets_own_rate(settings.optimizer.optimizer_type, arguments),
        processes=accelerator.num_processes,
        variant=prepared.base.details.get("model", ""),
        validation_images=prepared.plan.validation.image_count if prepared.plan.validation else 0,
    )


def _plan_event(prepared: Prepared, session: Session) -> dict[str, Any]:
    """What will be trained, for page and terminal."""
    return {
        **prepared.plan.summary(),
        **session.method.describe(),
        "base": prepared.base.title,
        "steps": session.length.steps,
        "epochs": session.length.epochs,
        "steps_per_epoch": session.length.steps_per_epoch,
        "batches_per_epoch": session.length.batches_per_epoch,
        "seed": session.seed,
    }
