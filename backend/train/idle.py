"""Notices parts of a model that are meant to learn and do not."""

from __future__ import annotations

import re

import torch

from backend.errors import Problem
from backend.jobs.events import Sink
from backend.train.sharding import norm_of

_ENCODER = re.compile(r"^te(\d?)$")
LOOKED_STEPS = 20
"""A part that had no gradient for so many steps is not learning."""


class IdleWatch:
    """Looks at gradients of the first steps until every optimizer group had one that is not zero.

    Nearly always that is one or two looks, each of which waits for the device once. (In a LoRA the
    first factor has none in the first step, as the second one starts at 0.)
    """

    def __init__(self) -> None:
        self._learning: set[str] = set()
        self._looked, self._over = 0, False

    def look(self, optimizer: torch.optim.Optimizer, step: int, events: Sink) -> None:
        """Look, between backward pass and optimizer step. ``step``: that will be done with this one."""
        if self._over:
            return
        groups = {
            str(group.get("name", i)): group["params"] for i, group in enumerate(optimizer.param_groups)
        }
        gradients = {name: [p.grad for p in group if p.grad is not None] for name, group in groups.items()}
        self._learning |= {name for name, found in gradients.items() if found and _any(found)}
        idle = sorted(groups.keys() - self._learning)
        self._looked += 1
        # Without any gradient the optimizer has taken them already, in the backward pass itself.
        self._over = not idle or not any(gradients.values()) or self._looked >= LOOKED_STEPS
        if idle and self._looked >= LOOKED_STEPS:
            problem = idle_problem(idle, step)
            events.emit("warning", text=problem.text(), problem=problem.as_dict())


def idle_problem(groups: list[str], step: int) -> Problem:
    """What to say of optimizer groups whose gradients are all zero."""
    return Problem(
        f"nothing is being learned in {', '.join(map(_in_words, groups))}",
        where=f"step {step}",
        why=f"all gradients were zero for {LOOKED_STEPS} steps",
        next="stop and look at the settings: masks that hide everything, a weight of 0, or half precision "
        "that rounds small gradients away (try bf16 or no mixed precision)",
    )


def _in_words(group: str) -> str:
    """``te2_plus`` -> ``text encoder 2 plus``: an optimizer group as people call it."""
    part, _, rest = group.partition("_")
    named = _ENCODER.sub(r"text encoder \1", part).strip()
    return " ".join(filter(None, ("U-Net" if part == "unet" else named, rest.replace("_", " "))))


def _any(gradients: list[torch.Tensor]) -> bool:
    """Whether a gradient is not zero (infinite ones count: an fp16 scaler is finding its scale)."""
    return bool((torch.stack([norm_of(gradient.abs().max()) for gradient in gradients]) != 0).any())
