"""What methods share that train tensors of their own beside a model: groups, restore points, the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from torch import Tensor, nn

from backend.errors import InputError, Problem
from backend.settings import Settings
from backend.weights.safefile import write_safetensors, write_torch


class OwnTensors(Protocol):
    """A module of the tensors that are trained."""

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...

    def parameter_groups(self, rates: Mapping[str, float]) -> list[dict[str, Any]]: ...

    def weights(self) -> dict[str, Tensor]: ...

    def load_weights(self, weights: Mapping[str, Tensor]) -> object: ...


Own = TypeVar("Own", bound=OwnTensors)


class Beside(Generic[Own]):
    """Half of a :class:`backend.train.methods.base.Method`: what does not depend on what is taught."""

    settings: Settings
    rates: Mapping[str, float]
    title: str
    network: Own
    trainable: Own
    misfit: ClassVar[Problem]
    """What is said of a restore point with tensors of other names or shapes."""

    def before_step(self, step: int) -> None:
        """All is trained alike from the first step to the last."""

    def constrain(self) -> None:
        """The tensors have no bounds."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        return self.network.parameter_groups(self.rates)

    def weights(self) -> dict[str, Tensor]:
        return self.network.weights()

    def load(self, weights: Mapping[str, Tensor]) -> None:
        own = {name: tensor.shape for name, tensor in self.network.weights().items()}
        if {name: tensor.shape for name, tensor in weights.items()} != own:
            raise InputError(self.misfit)
        self.network.load_weights(weights)

    def suffix(self) -> str:
        return f".{self.settings.saving.save_model_as}"

    def describe(self) -> dict[str, Any]:
        parameters = sum(p.numel() for p in self.trainable.parameters())
        return {"title": self.title, "parts": dict(self.rates), "parameters": parameters}


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write the result by its ending; only ``.safetensors`` has room for metadata."""
    if path.suffix == ".safetensors":
        write_safetensors(path, tensors, metadata)
    else:
        write_torch(path, tensors)
