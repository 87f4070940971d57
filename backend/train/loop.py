"""The training loop.

For each epoch, for each group of batches: draw what is random by key, forward, backward, clip,
step. Between steps: what the user asked for, files, samples. All state that matters is the
position (step, epoch, batch), the weights and the optimizer; everything else follows from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from enum import Enum
from itertools import islice

import torch
from torch import Tensor

from backend import keyed
from backend.data.loader import Batch, PictureFault
from backend.errors import Problem
from backend.train.checkpoints import Position
from backend.train.memory import rescued
from backend.train.meter import Losses, StepRecord
from backend.train.room import worth_another_try
from backend.train.session import Session
from backend.train.sharding import norm_of


class Ending(Enum):
    """How a loop ended."""

    FINISHED = "finished"
    STOPPED = "stopped"


def train(session: Session, position: Position) -> tuple[Ending, Position]:
    """Run from ``position`` to the end, or until the user stops.

    Raises:
        RunFault: the loss is not finite, or a file cannot be written.
    """
    if position.step == 0:
        sample(session, position, at_first=True)
    session.team.wait()
    session.events.emit("phase", name="training", title="Training")
    while position.step < session.length.steps:
        for group in groups(session, position):
            if group is None:
                return Ending.STOPPED, position
            position = one_step(session, group, position)
            if obey(session, position) is Ending.STOPPED:
                return Ending.STOPPED, position
            if position.step >= session.length.steps:
                break
        position = end_epoch(session, position)
        session.team.wait()
    validate(session, position, at_end=True)
    session.meter.flush()
    session.sources.look(session.events, at_end=True)
    return Ending.FINISHED, position


def groups(session: Session, position: Position) -> Iterator[list[Batch] | None]:
    """The rest of the epoch's batches, in groups that make one optimizer step each.

    A picture that cannot be read any more pauses the run until it is back; None: the user stopped then.
    """
    while True:
        batches = iter(session.loader.epoch(position.epoch, start_batch=position.batch, step=position.step))
        try:
            while group := list(islice(batches, session.length.accumulation)):
                yield group
                position = replace(position, step=position.step + 1, batch=position.batch + len(group))
            return
        except PictureFault as fault:
            if session.team.size > 1:
                raise  # the others cannot be made to wait
            paused = Problem("paused: put the picture back and press Resume; it goes on by itself then")
            if not worth_another_try(session, fault, paused):
                yield None
                return


def one_step(session: Session, group: list[Batch], position: Position) -> Position:
    """Forward and backward over ``group``, then one optimizer step, records, files and samples."""
    session.method.before_step(position.step)
    set_rates(session, position.step)
    if session.rounding is not None:
        session.rounding.at(position.step)
    with rescued(session, position):
        passes = [micro_step(session, batch, position, i, len(group)) for i, batch in enumerate(group)]
    if not session.parts.steps_in_backward:
        session.idle.look(session.optimizer, position.step + 1, session.events)
    norm = clip(session)
    session.optimizer.step()
    session.method.constrain()
    session.optimizer.zero_grad(set_to_none=True)
    position = replace(position, step=position.step + 1, batch=position.batch + len(group))
    if session.ema is not None:
        session.ema.update(position.step)
    session.meter.add(record(session, group, position, passes, norm))
    with session.meter.pause():
        session.saver.after_step(session, position)
    validate(session, position)
    if session.sampler.due(position.step, epoch_end=False, epoch=position.epoch):
        sample(session, position)
    return position


def micro_step(session: Session, batch: Batch, position: Position, index: int, count: int) -> Losses:
    """One forward and backward pass; gradients add up."""
    inputs = session.inputs(batch)
    torch.manual_seed(keyed.key(session.seed, "dropout", position.step, index, *session.team.mark))
    last = index == count - 1
    gathering = session.parts.gathering(session.accelerator, session.module, last)
    with gathering, session.strength(batch):
        with session.accelerator.autocast():
            losses = session.module(inputs)
        session.parts.backward(session.accelerator, losses.mean() / count, last)
    return Losses(losses.detach(), inputs.timesteps)


def clip(session: Session) -> Tensor:
    """Shorten gradients that are too long; returns their L2 norm before that, 0-d."""
    if session.fused is not None:
        return session.fused.norm()
    if session.parts.steps_in_backward:
        return session.parts.norm()
    parameters = list(session.method.trainable.parameters())
    limit = session.settings.optimizer.max_grad_norm or float("inf")
    if session.accelerator.use_distributed:
        norm = session.accelerator.clip_grad_norm_(parameters, limit)
        assert norm is not None, "accelerate has no norm only where DeepSpeed clips"
        return norm_of(norm)
    session.accelerator.unscale_gradients()
    return torch.nn.utils.clip_grad_norm_(parameters, limit)


def set_rates(session: Session, step: int) -> None:
    """Give each optimizer group its rate for ``step``."""
    if session.schedule is not None:
        session.schedule.apply(session.optimizer.param_groups, session.base_rates, step)


def record(
    session: Session, group: list[Batch], position: Position, passes: list[Losses], norm: Tensor
) -> StepRecord:
    """What the meter is told of a step; its loss is the mean of the batches' means."""
    loss = session.team.mean(torch.stack([one.losses.mean() for one in passes]).mean())
    pictures = tuple(picture for batch in group for picture in batch.pictures)
    each = Losses.joined(passes)
    return StepRecord(position.step, position.epoch, loss, norm, session.rates(), pictures, each)


def end_epoch(session: Session, position: Position) -> Position:
    """Files and samples of a finished epoch, then the start of the next one."""
    done = position.batch >= session.length.batches_per_epoch
    if not done:
        return position
    session.sources.look(session.events)
    session.meter.gather(session.team)
    with session.meter.pause():
        session.saver.after_epoch(session, position)
    validate(session, position, epoch_end=True)
    if session.sampler.due(position.step, epoch_end=True, epoch=position.epoch):
        sample(session, position, epoch_end=True)
    return replace(position, epoch=position.epoch + 1, batch=0)


def sample(session: Session, position: Position, at_first: bool = False, epoch_end: bool = False) -> None:
    """Draw the sample prompts, unless there are none or it is not the time."""
    if not takes_part(session) or (at_first and not session.sampler.at_first):
        return
    with session.meter.pause(), session.kept_weights(), session.parts.whole():
        if session.team.main:
            session.sampler.draw(position.step, position.epoch if epoch_end else None)
    session.events.emit("phase", name="training", title="Training")


def validate(session: Session, position: Position, epoch_end: bool = False, at_end: bool = False) -> None:
    """Measure on the pictures held out, when there are any and it is time."""
    validator = session.validator if takes_part(session) else None
    if validator is None or not validator.due(position, epoch_end=epoch_end, at_end=at_end):
        return
    session.meter.flush()
    with session.meter.pause(), session.kept_weights(), session.parts.whole():
        if session.team.main:
            validator.measure(session, position, epoch_end=epoch_end)
        else:
            validator.pass_over(position)
    session.events.emit("phase", name="training", title="Training")


def takes_part(session: Session) -> bool:
    """Whether this process does what only the main one is to do: or helps it, where weights are in parts."""
    return session.team.main or session.parts.split


def obey(session: Session, position: Position) -> Ending | None:
    """Do what was asked for since the last step."""
    for command in session.control.poll():
        match command["command"]:
            case "stop" | "stop_now":
                return Ending.STOPPED
            case "sample":
                sample(session, position)
            case "save":
                with session.meter.pause():
                    session.saver.save_now(session, position)
            case "prompts":
                session.sampler.ask_for(str(command.get("text") or ""), position.step)
            case "pause":
                if pause(session) is Ending.STOPPED:
                    return Ending.STOPPED
            case _:
                pass
    return None


def pause(session: Session) -> Ending | None:
    """Wait for ``resume`` or ``stop``."""
    session.meter.flush()
    session.events.emit("state", state="paused")
    with session.meter.pause():
        asked = session.wait()
    session.events.emit("state", state="running")
    return Ending.STOPPED if asked == "stop" else None
