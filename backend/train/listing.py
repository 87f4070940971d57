"""What a network would train on a published model, found out without any weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from backend import families
from backend.data.types import DatasetPlan
from backend.families.parts.skeleton import WithoutInit
from backend.networks.base import Attachable
from backend.networks.common import Adapter, AdapterNetwork
from backend.settings import Settings, check
from backend.train.methods.network import NetworkMethod


@dataclass(frozen=True)
class Listed:
    """One module of the network."""

    name: str
    """As it stands in the file: ``lora_unet_...``."""
    part: str
    container: str
    rank: int | None
    """Of a product of two factors; other kinds of networks have none."""
    alpha: float | None
    shapes: Mapping[str, tuple[int, ...]]
    """Name in the file -> shape."""
    parameters: int
    """Numbers that are trained."""


def list_modules(arch: str, settings: Settings) -> list[Listed]:
    """The modules of the network that ``settings`` describe, on the model ``arch``
    (:data:`backend.families.PUBLISHED`), in the model's order.

    Raises:
        InputError: settings that this network or model cannot have.
    """
    model = families.hollow(arch)
    sites = {site.name: site for site in (*model.adapter_modules(), *model.further_modules())}
    with WithoutInit():
        meant = check(settings, complete=False).settings
        network = NetworkMethod(meant, DatasetPlan(()), model, seed=0).trainable
    assert isinstance(network, AdapterNetwork)
    return [
        _listed(name, sites[name.removeprefix(network.prefix)], adapter)
        for name, adapter in network.adapters().items()
    ]


def _listed(name: str, site: Attachable, adapter: Adapter) -> Listed:
    shapes = {f"{name}.{leaf}": tuple(tensor.shape) for leaf, tensor in adapter.export().items()}
    alpha: object = getattr(adapter, "alpha", None)
    return Listed(
        name=name,
        part=site.part,
        container=site.container,
        rank=next((shape[0] for key, shape in shapes.items() if key.endswith("lora_down.weight")), None),
        alpha=float(alpha) if isinstance(alpha, Tensor) else None,
        shapes=shapes,
        parameters=sum(parameter.numel() for parameter in adapter.parameters()),
    )
