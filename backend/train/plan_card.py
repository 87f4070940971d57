"""What a run would do, found out without training: for ``--dry_run`` and the page's card before start.

``python -m backend.train.plan_card CONFIG.toml [--json]``
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from backend import families
from backend.errors import AtelierError, Problem, run_main
from backend.families.base import DiffusionModel
from backend.families.parts.loading import outlines
from backend.jobs.events import Sink
from backend.settings import Settings
from backend.settings.length import Length, run_length
from backend.system.headers import readable_size
from backend.system.paths import runs_root
from backend.train import optimizers
from backend.train.card_room import CardMemory, card_memory, shortage
from backend.train.checkpoints import load_state
from backend.train.differences import differences, identity, require_possible, require_same_pictures
from backend.train.environment import adapt, on_processor
from backend.train.family_rules import asked_prediction, load_options
from backend.train.machine import weights_dtype
from backend.train.methods import make_method
from backend.train.methods.base import HoldsModel, Method, TeachesWord
from backend.train.outline import count_need
from backend.train.preflight import Prepared, prepare
from backend.train.resume import place
from backend.train.room import check_space, disks, forecast
from backend.train.texts import cut_captions

_TRAINED_BYTES, _GRADIENT_BYTES = 8, 4
"""Of a trained number: itself and its gradient, in float32; the model's own are counted with the model."""


def plan_card(settings: Settings) -> dict[str, Any]:
    """Check everything and tell what a run with these settings would do, as plain data.

    No weight of the base model is read, only names and shapes.

    Raises:
        InputError: with all that is wrong with settings, files and pictures.
        EnvironmentFault: this machine cannot do what is asked.
    """
    prepared = prepare(settings)
    settings, notes = adapt(prepared.settings)
    length, start, rows = _course(prepared, settings)
    model, method = _outlined(prepared, settings)
    numbers = sum(tensor.numel() for tensor in method.weights().values())
    run = runs_root() / (settings.saving.output_name or "training")
    output = Path(settings.saving.output_dir).expanduser() if settings.saving.output_dir else run
    beside = method.numbers_beside() if isinstance(method, HoldsModel) else 0
    files = forecast(settings, length, numbers, output, run, beside)
    device = card_memory()
    card: dict[str, Any] = {
        **prepared.plan.summary(),
        **method.describe(),
        "base": prepared.base.title,
        "modules": _layers(method),
        "groups": [
            {
                "name": group["name"],
                "rate": group["lr"],
                "parameters": sum(p.numel() for p in group["params"]),
            }
            for group in method.parameter_groups()
        ],
        **{key: value for key, value in asdict(length).items() if key != "accumulation"},
        "start": start,
        "seed": settings.schedule.seed,
        "result": str(output / f"{settings.saving.output_name or 'last'}{method.suffix()}"),
        "files": [{**asdict(one), "folder": str(one.folder), "total": one.total} for one in files],
        "disks": [{**asdict(one), "folder": str(one.folder)} for one in disks(files)],
        "differences": rows,
        "memory": _memory(model, method, prepared, settings, device),
    }
    cut = cut_captions(model, prepared.plan, settings.model)
    card["notes"] = [note.as_dict() for note in (*prepared.notes, *notes, *on_processor(), *cut)]
    short = shortage(device, card["memory"]["total"], settings, lambda s: needed(prepared, s))
    card["problems"] = [*_problems(files), *([short.as_dict()] if short else [])]
    return card


def needed(prepared: Prepared, settings: Settings) -> int | None:
    """Bytes on the device that training with ``settings`` takes; None where that cannot be counted."""
    most = settings.dataset.train_batch_size
    if most != prepared.settings.dataset.train_batch_size:
        datasets = tuple(replace(one, batch_size=most) for one in prepared.plan.datasets)
        prepared = replace(prepared, plan=replace(prepared.plan, datasets=datasets))
    model, method = _outlined(prepared, settings)
    total = _memory(model, method, prepared, settings, None)["total"]
    return None if total is None else int(total)


def warn_of_shortage(prepared: Prepared, events: Sink) -> None:
    """Tell before anything is loaded that a step will hardly fit into the card. The run tries it even so."""
    device = card_memory()
    if device is None:
        return
    try:
        total = needed(prepared, prepared.settings)
        short = shortage(device, total, prepared.settings, lambda s: needed(prepared, s))
    except Exception:  # an estimate must not stop a run, and what is wrong is told when it is built
        return
    if short:
        events.emit("warning", text=short.text(), problem=short.as_dict())


def _outlined(prepared: Prepared, settings: Settings) -> tuple[DiffusionModel, Method]:
    """The model without weights, and what is trained of it or beside it."""
    assert settings.schedule.seed is not None, "preflight draws one"
    model = _outline(prepared, settings)
    # What is merged into the model beforehand changes no shape.
    bare = settings.replace(base_weights=[], base_weights_multiplier=[])
    method = make_method(bare, prepared.plan, model, settings.schedule.seed)
    method.start()
    return model, method


def _course(prepared: Prepared, settings: Settings) -> tuple[Length, int, list[dict[str, Any]]]:
    """Length, the step it begins at, and what differs from the restore point that it goes on from."""
    batches = prepared.plan.batches_per_epoch(settings.launch.num_processes or 1)
    state, rows = None, list[dict[str, Any]]()
    if settings.saving.resume:
        state = load_state(Path(settings.saving.resume).expanduser())
        now = identity(settings, prepared.plan, batches, prepared.base.family, Path(prepared.base.path))
        found = differences(state.facts, now)
        require_same_pictures(state.facts, now, state.position.step, settings.saving.resume_changed_dataset)
        require_possible(found)
        rows = [asdict(one) for one in found]
    length, position = place(settings, run_length(settings, batches), state, own=False)
    return length, position.step, rows


def _outline(prepared: Prepared, settings: Settings) -> DiffusionModel:
    """The base model without weights, in the precision that it would have."""
    with outlines():
        model = families.load(
            Path(settings.model.pretrained_model_name_or_path),
            dtype=weights_dtype(settings),
            vae=Path(settings.model.vae) if settings.model.vae else None,
            v_prediction=asked_prediction(settings.model),
            options=load_options(settings, prepared.plan),
        )
    if settings.precision.gradient_checkpointing:
        model.enable_gradient_checkpointing(parked=settings.precision.cpu_offload_checkpointing)
    return model


def _layers(method: Method) -> int:
    """Layers whose own weights, or what is added to them, are trained.

    A model's weight is called ``part.layer.weight``, one of a network ``layer.lora_down.weight``.
    """
    if isinstance(method, TeachesWord):
        return 0
    names = method.weights()
    if isinstance(method, HoldsModel):
        return len({name.rpartition(".")[0] for name in names})
    return len({name.partition(".")[0] for name in names})


def _memory(
    model: DiffusionModel, method: Method, prepared: Prepared, settings: Settings, device: CardMemory | None
) -> dict[str, Any]:
    """Bytes on the device, and what they were counted from; ``total`` is None where that is not possible."""
    trained = sum(parameter.numel() for parameter in method.trainable.parameters())
    own = _GRADIENT_BYTES if isinstance(method, HoldsModel) else _TRAINED_BYTES
    memory = trained * (own + _optimizer_bytes(settings))
    try:
        need = count_need(model, method, prepared.plan, settings)
    except Exception as error:  # a model of whatever kind: without an estimate the plan is still of use
        return {"total": None, "trained": memory, "basis": f"a step could not be counted: {error}"}
    return {
        "total": need.weights + memory + need.activations,
        "weights": need.weights,
        "trained": memory,
        "activations": need.activations,
        "free": device.free if device else None,
        "basis": "weights, gradients and the optimizer's memory, and all that one step of the largest "
        "bucket keeps for its backward pass; libraries take some hundred megabytes more",
    }


def _optimizer_bytes(settings: Settings) -> float:
    """What the optimizer remembers of each number, seen from one step with a small weight."""
    section = settings.optimizer
    weight = torch.nn.Parameter(torch.ones(64, 64))
    weight.grad = torch.ones_like(weight)
    try:
        arguments = optimizers.parse_arguments(section.optimizer_args)
        groups = [{"params": [weight], "lr": 1e-4, "name": "unet"}]
        optimizer = optimizers.make(section.optimizer_type, groups, 1e-4, arguments)
        optimizer.step()
        found = (v for v in optimizer.state[weight].values() if isinstance(v, torch.Tensor))
    except Exception:  # kinds that work on a card only: two numbers, as Adam has
        return 8.0
    return sum(tensor.nbytes for tensor in found if tensor.numel() > 1) / weight.numel()


def _problems(files: list[Any]) -> list[dict[str, Any]]:
    try:
        check_space(files)
    except AtelierError as error:
        return [problem.as_dict() for problem in error.problems]
    return []


def card_text(card: dict[str, Any]) -> str:
    """The plan for a terminal."""
    lines = [
        f"{card['title']} on {card['base']}: "
        + (f"{card['modules']} modules, " if card["modules"] else "")
        + f"{card['parameters']:,} numbers",
        *(
            f"  {one['name']}: {one['parameters']:,} numbers, learning rate {one['rate']:g}"
            for one in card["groups"]
        ),
        f"{card['images']} pictures, {card['train_images']} with repeats, "
        f"{card['reg_images']} of regularisation",
        *(f"  {one['size'][0]} x {one['size'][1]}: {one['count']}" for one in card["buckets"]),
        f"{card['steps']} steps in {card['epochs']} epochs of {card['steps_per_epoch']}, seed {card['seed']}"
        + (f", going on from step {card['start']}" if card["start"] else ""),
        f"result: {card['result']}",
        *(
            f"  {one['count']} x {one['kind']} of {readable_size(one['size'])} in {one['folder']}"
            for one in card["files"]
        ),
        *(
            f"  {readable_size(disk['needed'])} are needed, "
            f"{readable_size(disk['free'])} free: {disk['folder']}"
            for disk in card["disks"]
        ),
        *_memory_lines(card["memory"]),
        *(f"changed: {one['what']} {one['before']} -> {one['now']}" for one in card["differences"]),
        *(f"note: {Problem(**one).text()}" for one in card["notes"]),
        *(f"error: {Problem(**one).text()}" for one in card["problems"]),
    ]
    return "\n".join(lines)


def _memory_lines(memory: dict[str, Any]) -> list[str]:
    if memory["total"] is None:
        return [f"memory: {memory['basis']}"]
    names = ("weights", "trained", "activations")
    parts = ", ".join(f"{name} {readable_size(int(memory[name]))}" for name in names)
    free = f"; {readable_size(memory['free'])} are free" if memory["free"] else ""
    return [
        f"memory: about {readable_size(int(memory['total']))} ({parts}){free}",
        f"  counted: {memory['basis']}",
    ]


def show(settings: Settings, as_json: bool, notes: Iterable[Problem] = ()) -> int:
    """Print the plan. Returns the exit code: 2 when something in it cannot be.

    ``notes``: what was found out while the settings were read.
    """
    card = plan_card(settings)
    card["notes"] = [*(note.as_dict() for note in notes), *card["notes"]]
    card["planned_at"] = round(time.time(), 3)
    print(json.dumps(card, ensure_ascii=False) if as_json else card_text(card))
    return 2 if card["problems"] else 0


def main() -> int:
    from backend.settings import read_toml

    parser = argparse.ArgumentParser(prog="python -m backend.train.plan_card", allow_abbrev=False)
    parser.add_argument("config", type=Path, help="a settings file")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args()
    try:
        return show(read_toml(arguments.config), arguments.json)
    except AtelierError as error:
        if not arguments.json:
            raise
        print(json.dumps({"problems": [problem.as_dict() for problem in error.problems]}))
        return error.exit_code


if __name__ == "__main__":
    sys.exit(run_main(main))
