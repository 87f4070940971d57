"""Puts a session together: model, method, caches, optimizer, and the place to go on from."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from backend import families
from backend.data.loader import Loader
from backend.data.types import DatasetPlan
from backend.errors import InputError, Problem
from backend.families.base import DiffusionModel
from backend.jobs.control import ControlReader
from backend.jobs.events import Sink
from backend.jobs.runs import Run
from backend.settings import Settings
from backend.settings.length import Length, run_length
from backend.train import optimizers
from backend.train.caching import Caches, Watch, fill_caches
from backend.train.checkpoints import Position, State, load_state, newest_state
from backend.train.ema import Ema
from backend.train.environment import adapt
from backend.train.losses import LossTable
from backend.train.meter import Meter
from backend.train.methods.base import Adjustable, Method
from backend.train.methods.network import NetworkMethod
from backend.train.noise import NoiseRules
from backend.train.objectives import Objective
from backend.train.preflight import Prepared
from backend.train.provenance import TrainingFacts
from backend.train.room import check_space, forecast
from backend.train.samples import Sampler
from backend.train.saver import Saver
from backend.train.schedules import Schedule, warmup_steps
from backend.train.session import Session, picture_ids
from backend.train.step import StepModule
from backend.train.validation import Validator

if TYPE_CHECKING:
    from accelerate import Accelerator

_BASE_DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def build_session(
    run: Run, prepared: Prepared, resume: bool, events: Sink, started: float
) -> tuple[Session, Position]:
    """Everything the loop needs, and the position it starts at.

    Raises:
        InputError: the machine cannot do what is asked, or the restore point does not fit.
        StopRequested: the user stopped while latents or captions were being encoded.
    """
    settings, notes = adapt(prepared.settings)
    _say(events, notes)
    state = _state_to_resume(run, settings, resume, events)
    settings = settings.replace(seed=state.facts["seed"]) if state else settings
    seed = settings.schedule.seed
    assert seed is not None, "the seed is drawn before a session is built"

    accelerator, control = make_accelerator(settings), ControlReader(run.control)
    model = load_base_model(prepared, settings, accelerator, events)
    method = NetworkMethod(settings, prepared.plan, model, seed)
    _require_adjustable(method, prepared.plan)
    _say(events, method.start())
    method.trainable.to(accelerator.device)
    length = run_length(settings, prepared.plan.batches_per_epoch(), accelerator.num_processes)
    caches = fill_caches(model, prepared.plan, settings, seed, length.steps, Watch(events, control))
    _free_what_is_cached(model, caches)
    optimizer, arguments = _optimizer(method, settings)
    facts = _facts(
        prepared, settings, model, accelerator, length, optimizers.describe(optimizer, arguments), started
    )
    position = _restore(state, prepared.plan, method, optimizer, accelerator) if state else Position()
    table, ema = LossTable(prepared.plan), _mean(method, settings)
    if state is not None:
        table.load(state.optimizer.get("losses"))
        _load_mean(ema, state)
    base_rates = tuple(float(group["lr"]) for group in method.parameter_groups())
    module, optimizer = _wrap(accelerator, _step_module(method, model, settings, accelerator), optimizer)
    session = Session(
        settings=settings,
        seed=seed,
        accelerator=accelerator,
        model=model,
        method=method,
        module=module,
        optimizer=optimizer,
        schedule=None if facts.own_rate else _schedule(settings, length),
        base_rates=base_rates,
        noise=NoiseRules.of(settings.loss, seed),
        loader=_loader(
            prepared.plan, settings, length, caches, (accelerator.process_index, accelerator.num_processes)
        ),
        length=length,
        meter=Meter(
            events,
            length,
            _pictures_per_step(prepared.plan, length, accelerator),
            table,
            scaled=accelerator.scaler is not None,
        ),
        saver=Saver(settings, run.path, output_folder(settings, run), facts, accelerator.is_main_process),
        sampler=_sampler(settings, run, events, model, method, control),
        control=control,
        events=events,
        validator=Validator.of(settings, prepared.plan.validation, caches),
        ema=ema,
    )
    _check_space(session, run)
    events.emit("plan", **_plan_event(prepared, session))
    return session, position


def _check_space(session: Session, run: Run) -> None:
    """Whether the run's files will fit, less those that an earlier attempt has written already."""
    numbers = sum(tensor.numel() for tensor in session.method.weights().values())
    output = output_folder(session.settings, run)
    files = forecast(session.settings, session.length, numbers, output, run.path)
    check_space(files, session.saver.planned())


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
        for encoder in model.text_encoders.values():
            encoder.to("cpu")


def _say(events: Sink, notes: list[Problem]) -> None:
    for note in notes:
        events.emit("note", text=note.text())


def make_accelerator(settings: Settings) -> Accelerator:
    """The device and precision that a run uses."""
    from accelerate import Accelerator

    return Accelerator(mixed_precision=settings.precision.mixed_precision, cpu=not torch.cuda.is_available())


def load_base_model(
    prepared: Prepared, settings: Settings, accelerator: Accelerator, events: Sink
) -> DiffusionModel:
    """The base model on the device, in the precision of the forward pass."""
    events.emit(
        "phase", name="loading", title=f"Loading {Path(prepared.base.path).name} ({prepared.base.title})"
    )
    model = families.load(
        Path(settings.model.pretrained_model_name_or_path),
        dtype=_BASE_DTYPES[settings.precision.mixed_precision],
        device=accelerator.device,
        vae=Path(settings.model.vae) if settings.model.vae else None,
        v_prediction=settings.model.v_parameterization,
    )
    model.vae.to(accelerator.device)
    if settings.precision.no_half_vae:
        model.vae.to(torch.float32)
    if settings.precision.xformers:
        model.set_attention("xformers")
    if settings.precision.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    return model


def _state_to_resume(run: Run, settings: Settings, resume: bool, events: Sink) -> State | None:
    """The restore point to go on from: the run's own newest, or the one that was named."""
    if settings.saving.resume and not resume:
        return load_state(Path(settings.saving.resume).expanduser())
    if not resume:
        return None
    folders = [*(run.path / "state").iterdir(), *output_folder(settings, run).glob("*-state")]
    newest, damaged = newest_state(folders)
    for problem in damaged:
        events.emit("warning", text=problem.text(), problem=problem.as_dict())
    if newest is None:
        events.emit("note", text="there is no restore point yet: starting from the beginning")
        return None
    events.emit("note", text=f"going on from {newest.name}")
    return load_state(newest)


def _restore(
    state: State,
    plan: DatasetPlan,
    method: Method,
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
) -> Position:
    """Put weights and optimizer where they were.

    Raises:
        InputError: the pictures or the network are not those of the restore point. It counts
            batches of one dataset, and another dataset has other batches.
    """
    before, now = set(state.facts.get("pictures", ())), set(picture_ids(plan))
    if before != now:
        raise InputError(
            f"the pictures are not the same: {len(now - before)} added, {len(before - now)} removed "
            f"since step {state.position.step}",
            next="put them back to resume, or start a new run from the last LoRA file (network_weights)",
            key="train_data_dir",
        )
    method.load(state.weights)
    optimizer.load_state_dict(state.optimizer["optimizer"])
    if accelerator.scaler is not None and state.optimizer.get("scaler"):
        accelerator.scaler.load_state_dict(state.optimizer["scaler"])
    return state.position


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
        latents=caches.latents,
        texts=caches.texts,
        caption_variants=caches.caption_variants,
        accumulation=length.accumulation,
        shard=shard,
    )


def _optimizer(method: Method, settings: Settings) -> tuple[torch.optim.Optimizer, dict[str, Any]]:
    section = settings.optimizer
    arguments = optimizers.parse_arguments(section.optimizer_args)
    groups = method.parameter_groups()
    return optimizers.make(section.optimizer_type, groups, section.learning_rate, arguments), arguments


def _schedule(settings: Settings, length: Length) -> Schedule:
    section = settings.schedule
    warmup = warmup_steps(section.lr_warmup_steps, length.steps)
    return Schedule(section.lr_scheduler, length.steps, warmup, section.lr_scheduler_num_cycles)


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
    )


def _step_module(
    method: Method, model: DiffusionModel, settings: Settings, accelerator: Accelerator
) -> StepModule:
    objective = Objective.of(settings.loss, model.alphas_cumprod(), model.prediction == "v")
    return StepModule(
        method.trainable,
        model,
        objective.to(accelerator.device),
        settings.model.clip_skip,
        method.trains_text,
    )


def _wrap(
    accelerator: Accelerator, module: StepModule, optimizer: torch.optim.Optimizer
) -> tuple[StepModule, Any]:
    """Let accelerate wrap what has to be: several processes, or a gradient scaler.

    One process without a scaler needs neither wrapper, and a second of imports is saved.
    """
    if accelerator.use_distributed:
        module = accelerator.prepare(module)
    if accelerator.use_distributed or accelerator.scaler is not None:
        optimizer = accelerator.prepare(optimizer)
    return module, optimizer


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
