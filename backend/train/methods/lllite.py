"""Training a ControlNet-LLLite: what is drawn follows a second picture of each picture."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from backend.data.types import DatasetPlan
from backend.errors import InputError, Problem
from backend.families.base import DiffusionModel
from backend.networks import lllite, read_lora
from backend.settings import Settings
from backend.train import provenance
from backend.train.methods.beside import Beside, write_tensors
from backend.train.methods.network import DTYPES
from backend.train.provenance import TrainingFacts


class LLLiteMethod(Beside[lllite.LLLiteNetwork]):
    """Steers SDXL's attention by the guide pictures of a dataset."""

    misfit: ClassVar[Problem] = Problem(
        "the restore point does not fit this ControlNet-LLLite",
        why="its sizes or the base model were changed since it was made",
        next="put them back, or start anew with its file as network_weights",
        key="network_dim",
    )

    def __init__(self, settings: Settings, plan: DatasetPlan, model: DiffusionModel, seed: int) -> None:
        self.settings, self.plan = settings, plan
        self.rates = {"unet": settings.optimizer.learning_rate}
        if not settings.optimizer.learning_rate:
            raise InputError(
                "nothing would be trained: the learning rate is 0",
                next="give a learning rate; 2e-4 is usual",
                key="learning_rate",
            )
        self.network = _network(settings, model, seed)
        self.trainable = self.network
        cond_dim, dim = lllite.sizes_of(self.network.state_dict())
        self.title = f"ControlNet-LLLite, {dim} inner numbers, {cond_dim} of the guide"

    @property
    def trains_text(self) -> bool:
        return False

    def start(self) -> list[Problem]:
        self.network.attach()
        self.trainable.train()
        return []

    def show(self, pixels: Tensor | None) -> None:
        """Follow these guide pictures from now on; None: none."""
        self.network.show(pixels)

    @contextmanager
    def at_strength(self, strength: float) -> Generator[None, None, None]:
        """What is trained acts this strongly meanwhile; 0: the model is the base model."""
        before, self.network.strength = self.network.strength, strength
        try:
            yield
        finally:
            self.network.strength = before

    def save(self, path: Path, facts: TrainingFacts) -> None:
        dtype = DTYPES.get(self.settings.saving.save_precision or "")
        tensors = {
            name: tensor if dtype is None else tensor.to(dtype)
            for name, tensor in self.network.file_weights().items()
        }
        metadata = provenance.model_metadata(self.settings, self.plan, facts, "/control-net-lllite", "LLLite")
        write_tensors(path, tensors, metadata)


def _network(settings: Settings, model: DiffusionModel, seed: int) -> lllite.LLLiteNetwork:
    """A new network, or that of the file to start from, which says its sizes."""
    section, cond_dim = settings.network, settings.guide.cond_emb_dim
    modules = [site for site in model.adapter_modules() if site.part == "unet"]
    if not section.network_weights:
        return lllite.create(
            modules,
            cond_dim=cond_dim or lllite.DEFAULT_COND_DIM,
            dim=section.network_dim or lllite.DEFAULT_DIM,
            dropout=section.network_dropout,
            seed=seed,
        )
    weights = read_lora(Path(section.network_weights).expanduser())[0]
    network = lllite.from_weights(weights, modules, section.network_dropout)
    found = lllite.sizes_of(weights)
    wanted = (cond_dim or found[0], section.network_dim or found[1])
    if found != wanted:
        raise InputError(
            f"the file to start from has cond_emb_dim {found[0]} and network_dim {found[1]}",
            where=section.network_weights,
            why=f"{wanted[0]} and {wanted[1]} are asked for",
            next="leave both out to take them from the file, or start without it",
            key="network_dim",
        )
    return network
