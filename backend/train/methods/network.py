"""Training a small network (LoRA and relatives) attached to a frozen model."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backend import networks
from backend.data.types import DatasetPlan
from backend.errors import InputError, Problem, said_of
from backend.families.base import DiffusionModel
from backend.networks.base import NetworkSpec
from backend.settings import Settings
from backend.settings.declare import Declared, declarations
from backend.train import provenance
from backend.train.methods.rates import text_rates
from backend.train.provenance import TrainingFacts

DTYPES = {"float": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_TITLES = {
    "networks.lora": "LoRA",
    "networks.lora_fa": "LoRA-FA",
    "networks.dylora": "DyLoRA",
    "networks.oft": "OFT",
}
_LYCORIS_TITLES = {
    "locon": "LoCon", "loha": "LoHa", "lokr": "LoKr", "ia3": "IA3", "dylora": "DyLoRA", "boft": "BOFT",
    "diag-oft": "OFT", "glora": "GLoRA", "full": "Full difference", "norm": "Norm layers",
}  # fmt: skip


class NetworkMethod:
    """Creates the network, attaches it, and writes its file."""

    def __init__(self, settings: Settings, plan: DatasetPlan, model: DiffusionModel, seed: int) -> None:
        self.settings = settings
        self.plan = plan
        self.rates: Mapping[str, float] = part_rates(settings, model)
        learning = {part for part, rate in self.rates.items() if rate > 0}
        merge_base_weights(settings, model)
        found = [*model.adapter_modules(), *model.further_modules()]
        modules = [m for m in found if m.part in learning | held_parts(settings, model)]
        if not any(m.part in learning for m in modules):
            raise InputError(
                "nothing would be trained",
                why="every part has a learning rate of 0 or is switched off",
                next="give the U-Net or the text encoder a learning rate",
                key="learning_rate",
            )
        kind, spec = settings.network.network_module, network_spec(settings)
        start = settings.network.network_weights
        self._start_weights = networks.read_lora(Path(start))[0] if start else None
        if self._start_weights is not None:
            with said_of(start or "", "network_weights"):
                networks.require_fit(self._start_weights, modules)
        if self._start_weights is not None and settings.network.dim_from_weights:
            with said_of(start or "", "network_weights"):
                network = networks.from_weights(self._start_weights, modules, spec, kind)
        else:
            network = networks.create(kind, modules, spec, seed=seed)
        assert isinstance(network, nn.Module)
        self.network: networks.Network = network
        self.trainable: nn.Module = network
        self.norm_limit = settings.network.scale_weight_norms
        if self.norm_limit and not network.can_constrain():
            raise InputError(
                "scale_weight_norms cannot be used with this kind of network",
                why="the norm of its change is not that of a product that could be shortened",
                next="leave scale_weight_norms out, or use LoRA, LoHa, LoKr or full",
                key="scale_weight_norms",
            )
        self.title = title_of(settings)

    @property
    def trains_text(self) -> bool:
        return any(part != "unet" and self.rates[part] > 0 for part in self.network.parts())

    def start(self) -> list[Problem]:
        notes: list[Problem] = []
        if self._start_weights is not None:
            with said_of(self.settings.network.network_weights or "", "network_weights"):
                left = self.network.load_weights(self._start_weights)
            if left:
                notes.append(
                    Problem(
                        f"{len(left)} of {len(self._start_weights)} tensors of the LoRA to start from "
                        "belong to parts that are not trained here",
                        where=Path(self.settings.network.network_weights or "").name,
                        detail="\n".join(left),
                        key="network_weights",
                    )
                )
            self._start_weights = None
        self.network.attach()
        self.trainable.train()
        return notes

    @contextmanager
    def at_strength(self, strength: float) -> Generator[None, None, None]:
        """The network acts this strongly meanwhile; 0: the model is the base model."""
        before, self.network.strength = self.network.strength, strength
        try:
            yield
        finally:
            self.network.strength = before

    def before_step(self, step: int) -> None:
        """A network is trained alike from the first step to the last."""

    def constrain(self) -> None:
        if self.norm_limit:
            self.network.constrain(self.norm_limit)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return self.network.parameter_groups(self.rates)

    def weights(self) -> dict[str, Tensor]:
        return self.network.weights()

    def load(self, weights: Mapping[str, Tensor]) -> None:
        left = self.network.load_weights(weights)
        expected = set(self.network.weights())
        if left or not expected <= set(weights):
            raise InputError(
                "the restore point does not fit this network",
                why="rank, network kind or trained parts were changed since it was made",
                next="put them back, or start anew with its LoRA file as network_weights",
                key="network_dim",
            )

    def suffix(self) -> str:
        return f".{self.settings.saving.save_model_as}"

    def save(self, path: Path, facts: TrainingFacts) -> None:
        metadata = provenance.network_metadata(self.settings, self.plan, facts)
        dtype = DTYPES.get(self.settings.saving.save_precision or "")
        provenance.save_network(path, self.network.file_weights(), metadata, dtype)

    def describe(self) -> dict[str, Any]:
        parameters = sum(p.numel() for p in self.trainable.parameters())
        return {"title": self.title, "parts": dict(self.rates), "parameters": parameters}


def learning_rates(settings: Settings, text_parts: list[str]) -> dict[str, float]:
    """Part -> rate as really used: 0 for parts that are switched off or cached."""
    optimizer = settings.optimizer
    unet = optimizer.learning_rate if optimizer.unet_lr is None else optimizer.unet_lr
    texts = text_rates(settings, text_parts)
    rates = {"unet": unet, **texts}
    return rates | {part: 0.0 for part in rates if _switched_off(settings, part)}


def held_parts(settings: Settings, model: DiffusionModel) -> set[str]:
    """Parts of the LoRA to start from that act and are saved, but do not learn: their rate is 0."""
    if not settings.network.network_weights:
        return set()
    asked = model.optional_text if not settings.sd3.train_t5xxl else frozenset[str]()
    parts = {"unet", *model.text_encoders} - set(asked)
    return {part for part in parts if not _switched_off(settings, part)}


def _switched_off(settings: Settings, part: str) -> bool:
    network = settings.network
    if part == "unet":
        return network.network_train_text_encoder_only
    return network.network_train_unet_only or settings.caching.cache_text_encoder_outputs


def part_rates(settings: Settings, model: DiffusionModel) -> dict[str, float]:
    """As :func:`learning_rates` for a model: 0 for text encoders that have to be asked for and were not."""
    rates = learning_rates(settings, list(model.text_encoders))
    alone = () if settings.sd3.train_t5xxl else model.optional_text & rates.keys()
    return rates | dict.fromkeys(alone, 0.0)


def network_spec(settings: Settings) -> NetworkSpec:
    """The network's size out of the settings; alpha 0 means the rank. What only counts for other kinds,
    which is told, is left out."""
    section, values = settings.network, settings.flat()

    def used(key: str) -> Any:
        return values[key] if _counts(declarations()[key], values) else None

    return NetworkSpec(
        dim=section.network_dim,
        alpha=section.network_alpha,
        conv_dim=used("conv_dim"),
        conv_alpha=used("conv_alpha"),
        dropout=section.network_dropout,
        rank_dropout=used("rank_dropout"),
        module_dropout=used("module_dropout"),
        args=network_arguments(settings),
    )


def _counts(declared: Declared, values: Mapping[str, Any]) -> bool:
    return all(values[other] in wanted for other, wanted in declared.info.show_if)


def network_arguments(settings: Settings) -> dict[str, str]:
    """What sd-scripts takes as ``--network_args`` and the chosen network can use, as text.

    A switch that is off, and is so by default, asks for nothing, and not every kind knows it.
    """
    values = settings.flat()
    found = dict(item.split("=", 1) for item in settings.network.network_args)
    for key, declared in declarations().items():
        is_field = key in NetworkSpec.__dataclass_fields__
        idle = values[key] is None or (values[key] is False and declared.default is False)
        if declared.info.network_arg and _counts(declared, values) and not is_field and not idle:
            found[key] = str(values[key])
    return found


def merge_base_weights(settings: Settings, model: DiffusionModel) -> None:
    """Add the effect of ``base_weights`` to the model, before anything is trained or cached."""
    section = settings.network
    factors = _factors(section.base_weights_multiplier, len(section.base_weights))
    for index, name in enumerate(section.base_weights):
        weights = networks.read_lora(Path(name).expanduser())[0]
        modules = [*model.adapter_modules(), *model.further_modules()]
        with said_of(name, "base_weights"):
            networks.from_weights(weights, modules).merge(factors[index])


def _factors(texts: Sequence[str], count: int) -> list[float]:
    """One factor for each file: 1 for those that have none."""
    try:
        factors = [float(text) for text in texts]
    except ValueError:
        factors = [math.nan]
    if len(factors) > count or not all(map(math.isfinite, factors)):
        raise InputError(
            f"base_weights_multiplier: expected up to {count} numbers, got {' '.join(texts)}",
            next="give one number for each file of base_weights",
            key="base_weights_multiplier",
        )
    return factors + [1.0] * (count - len(factors))


def title_of(settings: Settings) -> str:
    """What is trained, in words."""
    section = settings.network
    name = _TITLES.get(section.network_module) or _LYCORIS_TITLES.get(section.algo, section.algo)
    if section.dim_from_weights:
        return f"{name} from file"
    if section.network_module == "lycoris.kohya" and section.algo in ("ia3", "full", "norm"):
        return name
    return f"{name}, rank {section.network_dim or 4}"
