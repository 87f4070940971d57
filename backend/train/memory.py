"""When memory runs out in a training: what is trained is kept, and cheaper settings are named."""

from __future__ import annotations

import contextlib
import gc
import traceback
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

import torch

from backend.errors import AtelierError, Problem, RunFault
from backend.generate.faults import is_out_of_memory
from backend.settings import Settings
from backend.train.card_room import card_memory

if TYPE_CHECKING:
    from backend.train.checkpoints import Position
    from backend.train.session import Session

_CHEAPER: tuple[tuple[Callable[[Settings], bool], str], ...] = (
    (lambda s: not s.precision.gradient_checkpointing, "gradient_checkpointing"),
    (lambda s: s.dataset.train_batch_size > 1, "a smaller train_batch_size"),
    (lambda s: not (s.caching.cache_latents or s.caching.cache_latents_to_disk), "cache_latents"),
    (lambda s: s.precision.mixed_precision == "no", "mixed_precision = bf16"),
    (lambda s: s.optimizer.optimizer_type.lower() in ("adamw", "adam"), "optimizer_type = AdamW8bit"),
)
"""What saves memory, most first, and whether there is still something to gain by it."""
_SUGGESTIONS = 2


def problem_of(error: BaseException, settings: Settings, where: str = "") -> Problem:
    """What to say when memory ran out. ``where``: the step, when one was under way."""
    of_card = _of_card(error)
    kind = "GPU memory" if of_card else "memory (RAM)"
    saving = [text for gains, text in _CHEAPER if gains(settings)][:_SUGGESTIONS]
    cheaper = " and ".join(saving) or "a smaller resolution or network_dim"
    card = card_memory() if of_card else None
    reasons = (str(error).strip().partition("\n")[0], card.in_use() if card and card.holders else "")
    return Problem(
        f"out of {kind}",
        where=where,
        why="; ".join(filter(None, reasons)),
        next=f"end other programs that use it, or turn on what needs less: {cheaper}",
        detail="".join(traceback.format_exception(error)),
    )


def _of_card(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "cuda" in str(error).lower()


@contextlib.contextmanager
def rescued(session: Session, position: Position) -> Generator[None, None, None]:
    """Around forward and backward of a step, which leave the weights as they are: should memory run out,
    they are saved with a restore point before the run ends.

    Raises:
        RunFault: memory ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        problem = problem_of(error, session.settings, f"step {position.step + 1}")
        traceback.clear_frames(error.__traceback__)  # what the step had computed is let go of
        session.optimizer.zero_grad(set_to_none=True)
        _let_go()
        if _is_whole(session, position):
            _save(session, position)
        raise RunFault(problem) from error


def _let_go() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _is_whole(session: Session, position: Position) -> bool:
    """Whether this process alone has weights that are those after the last step."""
    parts = session.parts
    changing = parts.split or parts.steps_in_backward or session.fused is not None
    return position.step > 0 and session.team.main and not changing


def _save(session: Session, position: Position) -> None:
    try:
        session.saver.stopped(session, position)
    except (AtelierError, RuntimeError, MemoryError) as error:
        session.events.emit("warning", text=f"what was trained could not be saved: {error}")
        return
    session.events.emit("note", text=f"saved as of step {position.step}, and can be gone on with")
