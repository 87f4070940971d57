"""Which layers of a published model a network would train, and what its file would hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from backend import networks
from backend.families.outlines import outline
from backend.networks.common import by_module
from backend.settings import Settings
from backend.train.methods.network import network_spec, part_rates


@dataclass(frozen=True)
class ModuleRow:
    """One layer that would be trained."""

    name: str
    """As it stands in the file: ``lora_unet_...``."""
    part: str
    weights: Mapping[str, tuple[int, ...]]
    """Full name in the file -> shape."""
    rank: int | None
    """None where the kind has none."""
    parameters: int


def list_modules(architecture: str, settings: Settings) -> list[ModuleRow]:
    """What the settings' network would have on a model of the published size ``architecture``.

    Raises:
        InputError: the network's arguments do not fit the model, or nothing would be trained.
    """
    model = outline(architecture)
    wanted = {part for part, rate in part_rates(settings, model).items() if rate > 0}
    modules = [m for m in (*model.adapter_modules(), *model.further_modules()) if m.part in wanted]
    network = networks.create(settings.network.network_module, modules, network_spec(settings))
    assert isinstance(network, nn.Module)
    trained = {name for name, _ in network.named_parameters()}
    parts = {f"{start}{site.name}": site.part for site in modules for start in ("lora_", "oft_")}
    rows: list[ModuleRow] = []
    for name, tensors in by_module(network.file_weights()).items():
        down = tensors.get("lora_down.weight")
        rows.append(
            ModuleRow(
                name,
                parts.get(name, ""),
                {f"{name}.{part}": tuple(tensor.shape) for part, tensor in tensors.items()},
                None if down is None else down.shape[0],
                sum(tensor.numel() for part, tensor in tensors.items() if f"{name}.{part}" in trained),
            )
        )
    return rows


def table(rows: Sequence[ModuleRow]) -> Iterator[str]:
    """Lines of a table of all layers, and the sums of each part."""
    width = max((len(row.name) for row in rows), default=0)
    for row in rows:
        rank = "" if row.rank is None else f"rank {row.rank}"
        yield f"{row.name:<{width}}  {rank:<9} {row.parameters:>10,}"
    yield ""
    counts, parameters = Counter(row.part for row in rows), Counter[str]()
    for row in rows:
        parameters[row.part] += row.parameters
    for part, count in counts.items():
        yield f"{part}: {count} layers, {parameters[part]:,} parameters"
    yield f"all: {len(rows)} layers, {sum(parameters.values()):,} parameters"
