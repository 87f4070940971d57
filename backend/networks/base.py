"""What every network (LoRA and its relatives) offers to trainer, generator and tools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn


class Attachable(Protocol):
    """A module of a model with its names; families supply these (their ``AdapterModule``)."""

    @property
    def name(self) -> str: ...
    @property
    def part(self) -> str: ...
    @property
    def container(self) -> str: ...
    @property
    def module(self) -> nn.Module: ...


@dataclass(frozen=True)
class NetworkSpec:
    """How large a network is. ``None`` means the kind's default."""

    dim: int | None = None
    alpha: float | None = None
    conv_dim: int | None = None
    conv_alpha: float | None = None
    dropout: float | None = None
    rank_dropout: float | None = None
    module_dropout: float | None = None
    args: Mapping[str, str] = field(default_factory=dict)
    """Further key=value arguments of the kind."""


@runtime_checkable
class Network(Protocol):
    """A network attached to the modules of a model.

    It is an ``nn.Module`` whose parameters are the trainable weights.
    """

    strength: float
    """Multiplies the network's effect; 1 while training."""

    def attach(self) -> None:
        """Let the modules' forward use the network. Attaching twice is a mistake of ours."""
        ...

    def detach(self) -> None:
        """Give the modules their own forward back."""
        ...

    def parameter_groups(self, rates: Mapping[str, float]) -> list[dict[str, Any]]:
        """Optimizer groups ``{"params", "lr", "name"}``. ``rates``: part -> learning rate; parts
        with rate 0 or absent are left out and frozen."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """Tensors by kohya's names, on the CPU, in the parameters' dtype."""
        ...

    def file_weights(self) -> dict[str, Tensor]:
        """As :meth:`weights`, as other programs read them: the content of a result file."""
        ...

    def can_constrain(self) -> bool:
        """Whether :meth:`constrain` has a meaning for this kind."""
        ...

    def constrain(self, limit: float) -> None:
        """Shorten every module's change to a norm of at most ``limit``; called after each step."""
        ...

    def merge(self, ratio: float = 1.0) -> None:
        """Add ``ratio`` times its effect to the modules' own weights, for good."""
        ...

    def named_weights(self) -> Mapping[str, nn.Parameter]:
        """The trained parameters themselves by kohya's names (alphas are not among them)."""
        ...

    def load_weights(self, weights: Mapping[str, Tensor]) -> list[str]:
        """Copy weights by name; returns the names in ``weights`` that nothing here takes."""
        ...

    def parts(self) -> Iterable[str]:
        """Parts that have at least one module."""
        ...
