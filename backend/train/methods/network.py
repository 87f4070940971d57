"""Training a small network (LoRA and relatives) attached to a frozen model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backend import networks
from backend.data.types import DatasetPlan
from backend.errors import InputError, Problem
from backend.families.base import DiffusionModel
from backend.networks.base import NetworkSpec
from backend.settings import Settings
from backend.train import provenance
from backend.train.provenance import TrainingFacts

DTYPES = {"float": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class NetworkMethod:
    """Creates the network, attaches it, and writes its file."""

    def __init__(self, settings: Settings, plan: DatasetPlan, model: DiffusionModel, seed: int) -> None:
        self.settings = settings
        self.plan = plan
        self.rates: Mapping[str, float] = learning_rates(settings, list(model.text_encoders))
        wanted = {part for part, rate in self.rates.items() if rate > 0}
        modules = [m for m in model.adapter_modules() if m.part in wanted]
        if not modules:
            raise InputError(
                "nothing would be trained",
                why="every part has a learning rate of 0 or is switched off",
                next="give the U-Net or the text encoder a learning rate",
                key="learning_rate",
            )
        start, spec = settings.network.network_weights, network_spec(settings)
        self._start_weights = networks.read_lora(Path(start))[0] if start else None
        if self._start_weights is not None:
            networks.require_fit(self._start_weights, modules)
        if self._start_weights is not None and settings.network.dim_from_weights:
            network = networks.from_weights(self._start_weights, modules, spec)
        else:
            network = networks.create(settings.network.network_module, modules, spec, seed=seed)
        assert isinstance(network, nn.Module)
        self.network: networks.Network = network
        self.trainable: nn.Module = network
        rank = settings.network.network_dim or 4
        self.title = "LoRA from file" if settings.network.dim_from_weights else f"LoRA, rank {rank}"

    @property
    def trains_text(self) -> bool:
        return any(part != "unet" for part in self.network.parts())

    def start(self) -> list[Problem]:
        notes: list[Problem] = []
        if self._start_weights is not None:
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
        provenance.save_network(path, self.network.weights(), metadata, dtype)

    def describe(self) -> dict[str, Any]:
        parameters = sum(p.numel() for p in self.trainable.parameters())
        return {"title": self.title, "parts": dict(self.rates), "parameters": parameters}


def learning_rates(settings: Settings, text_parts: list[str]) -> dict[str, float]:
    """Part -> rate as really used: 0 for parts that are switched off or cached."""
    optimizer, network = settings.optimizer, settings.network
    unet = optimizer.learning_rate if optimizer.unet_lr is None else optimizer.unet_lr
    text = optimizer.learning_rate if optimizer.text_encoder_lr is None else optimizer.text_encoder_lr
    if network.network_train_text_encoder_only:
        unet = 0.0
    if network.network_train_unet_only or settings.caching.cache_text_encoder_outputs:
        text = 0.0
    return {"unet": unet, **dict.fromkeys(text_parts, text)}


def network_spec(settings: Settings) -> NetworkSpec:
    """The network's size out of the settings; alpha 0 means the rank."""
    section = settings.network
    arguments = dict(item.split("=", 1) for item in section.network_args)
    return NetworkSpec(
        dim=section.network_dim,
        alpha=section.network_alpha,
        conv_dim=section.conv_dim,
        conv_alpha=section.conv_alpha,
        dropout=section.network_dropout,
        rank_dropout=section.rank_dropout,
        module_dropout=section.module_dropout,
        args=arguments,
    )
