"""What a training method decides: what is trainable, its groups, and its file."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from backend.errors import Problem
from backend.train.provenance import TrainingFacts


class Method(Protocol):
    """A way of teaching a model (a network, full fine-tuning, textual inversion, ...)."""

    title: str
    """In words, for plan and card: "LoRA, rank 8"."""
    trainable: nn.Module
    """Holds every trained parameter, in float32 unless the user asked otherwise."""
    rates: Mapping[str, float]
    """Part -> learning rate, as really used."""

    @property
    def trains_text(self) -> bool:
        """True when a text encoder must run, with gradients, in every step."""
        ...

    def start(self) -> list[Problem]:
        """Attach to the model; returns notes (what was taken from a file to start from)."""
        ...

    def before_step(self, step: int) -> None:
        """Called before the step that follows ``step`` steps, also right after a restore."""
        ...

    def constrain(self) -> None:
        """Bring the trained weights back into their bounds; called after every optimizer step."""
        ...

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Optimizer groups with ``params``, ``lr`` and ``name``."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """The trained tensors by the names of the file, for restore points."""
        ...

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take the tensors of a restore point."""
        ...

    def suffix(self) -> str:
        """Ending of the result file, with the dot."""
        ...

    def save(self, path: Path, facts: TrainingFacts) -> None:
        """Write the result with its metadata, checked and renamed into place."""
        ...

    def describe(self) -> dict[str, Any]:
        """What is trained, as plain data: parts, modules, parameters."""
        ...


@runtime_checkable
class HoldsModel(Protocol):
    """A method that trains the model itself: its weights are the model's, and so is its file."""

    def numbers_beside(self) -> int:
        """Numbers that stand in the result beside those that are trained."""
        ...


@runtime_checkable
class TeachesWord(Protocol):
    """A method whose result are vectors of a word: no layer of the model is trained, or added to."""

    word: str


@runtime_checkable
class Adjustable(Protocol):
    """A method that adds to a model which is else as it was, so that it can be turned down, or off."""

    def at_strength(self, strength: float) -> AbstractContextManager[None]:
        """What is trained acts on the model this strongly meanwhile; 0: the model is the base model."""
        ...


@runtime_checkable
class Guided(Protocol):
    """A method of which the model follows a second picture."""

    def show(self, pixels: Tensor | None) -> None:
        """Follow ``pixels`` (B, 3, H, W) in -1..1 in what is predicted from now on; None: nothing."""
        ...
