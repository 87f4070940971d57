"""Training the model itself: DreamBooth (Ruiz et al. 2022) and fine-tuning.

Trained weights are kept in float32 and computed with in the precision asked for, unless all is to be
in half precision (``full_fp16``, ``full_bf16``). Parts that are not trained are as small as the
precision allows, and stand in the result as the base model's file (or ``vae``) has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from backend.data.types import DatasetPlan
from backend.errors import InputError, Problem
from backend.families.base import DiffusionModel
from backend.settings import Settings
from backend.settings.conditions import holds
from backend.settings.rules.terms import TEXT_OFF
from backend.train import provenance
from backend.train.machine import BASE_DTYPES
from backend.train.methods.modelfile import ModelFileWriter
from backend.train.methods.rates import text_rates
from backend.train.methods.regions import Regions
from backend.train.provenance import TrainingFacts

_TITLES = {"dreambooth": "DreamBooth", "finetune": "Fine-tuning"}


class WholeModel:
    """Trains the denoiser and, where that is asked for, text encoders; its file is the whole model."""

    def __init__(self, settings: Settings, plan: DatasetPlan, model: DiffusionModel, seed: int) -> None:
        self.settings, self.plan, self.model = settings, plan, model
        self.rates: Mapping[str, float] = part_rates(settings, model)
        parts = {name: part for name, part in model.parts().items() if self.rates[name] > 0}
        if not parts:
            raise InputError(
                "nothing would be trained",
                why="every part has a learning rate of 0 or is switched off",
                next="give learning_rate a value above 0",
                key="learning_rate",
            )
        self.trainable: nn.Module = nn.ModuleDict(parts)
        self.regions = Regions.of(settings, model, parts)
        self.writer = ModelFileWriter(settings, model, frozenset(model.parts()) - parts.keys() | {"vae"})
        stop = settings.whole.stop_text_encoder_training
        self._text_until = stop if settings.model.training_method == "dreambooth" else None
        self._text_rests = False
        self.title = title_of(settings, list(parts))

    @property
    def trains_text(self) -> bool:
        return any(name != "unet" for name in self._parts())

    def start(self) -> list[Problem]:
        """Let the trained parts take gradients, and make the others as small as the precision allows."""
        trained, wanted = self._parts(), self.settings.precision
        small = BASE_DTYPES[wanted.mixed_precision]
        for name, part in self.model.parts().items():
            # T5 may have a precision of its own.
            if name not in trained and name not in self.model.optional_text:
                part.to(dtype=small)
        if not wanted.no_half_vae:
            self.model.vae.to(dtype=small)
        for parameter in self.regions.trained().values():
            parameter.requires_grad_(True)
        self.trainable.train()
        return self.regions.notes()

    def before_step(self, step: int) -> None:
        """After ``stop_text_encoder_training`` steps the text encoders stay as they are."""
        if self._text_until is None or self._text_rests or step < self._text_until:
            return
        self._text_rests = True
        for name, part in self._parts().items():
            if name != "unet":
                part.requires_grad_(False)

    def constrain(self) -> None:
        """A model's weights have no bounds."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        return self.regions.groups(self.rates)

    def weights(self) -> dict[str, Tensor]:
        return {name: parameter.detach() for name, parameter in self.regions.trained().items()}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        own = self.weights()
        if {name: tensor.shape for name, tensor in own.items()} != {n: t.shape for n, t in weights.items()}:
            raise InputError(
                "the restore point does not fit what is trained",
                why="other parts of the model are trained now than when it was made",
                next="put training_method and the parts back, or start anew from its model",
                key="training_method",
            )
        for name, tensor in own.items():
            tensor.copy_(weights[name])

    def suffix(self) -> str:
        return self.writer.suffix

    def save(self, path: Path, facts: TrainingFacts) -> None:
        self.writer.write(path, provenance.model_metadata(self.settings, self.plan, facts), facts)

    def numbers_beside(self) -> int:
        """Numbers that stand in the result beside those that are trained."""
        modules = [*self.model.parts().values(), self.model.vae]
        everything = sum(parameter.numel() for module in modules for parameter in module.parameters())
        return everything - sum(parameter.numel() for parameter in self.regions.trained().values())

    def describe(self) -> dict[str, Any]:
        parameters = sum(parameter.numel() for parameter in self.regions.trained().values())
        return {"title": self.title, "parts": dict(self.rates), "parameters": parameters}

    def _parts(self) -> dict[str, nn.Module]:
        return dict(self.trainable.named_children())


def part_rates(settings: Settings, model: DiffusionModel) -> dict[str, float]:
    """Part -> learning rate, 0 where it is not trained."""
    texts = text_rates(settings, list(model.text_encoders))
    if holds(TEXT_OFF, settings.flat()) or settings.caching.cache_text_encoder_outputs:
        texts = dict.fromkeys(texts, 0.0)
    if not settings.sd3.train_t5xxl:
        texts |= dict.fromkeys(model.optional_text & texts.keys(), 0.0)
    return {"unet": settings.optimizer.learning_rate, **texts}


def title_of(settings: Settings, parts: list[str]) -> str:
    """What is trained, in words."""
    name = _TITLES[settings.model.training_method]
    texts = len([part for part in parts if part != "unet"])
    encoders = "text encoder" if texts == 1 else f"{texts} text encoders"
    words = [*(["U-Net"] if "unet" in parts else []), *([encoders] if texts else [])]
    return f"{name}, {' and '.join(words)}"
