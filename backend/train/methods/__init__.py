"""The training methods, each in a module that is loaded when it is chosen.

A method is a class that is made with (settings, plan, model, seed) and keeps to
:class:`backend.train.methods.base.Method`. What people are told of it, and which options are for it,
stands in ``backend.settings.methods``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from backend.data.types import DatasetPlan
from backend.families.base import DiffusionModel
from backend.settings import Settings
from backend.train.methods.base import Method

_CLASSES: Mapping[str, tuple[str, str]] = {
    "network": ("network", "NetworkMethod"),
    "dreambooth": ("whole", "WholeModel"),
    "finetune": ("whole", "WholeModel"),
    "textual_inversion": ("textual_inversion", "TextualInversionMethod"),
    "lllite": ("lllite", "LLLiteMethod"),
}
"""Value of ``training_method`` -> module of this package, and its class."""


def make_method(settings: Settings, plan: DatasetPlan, model: DiffusionModel, seed: int) -> Method:
    """What the settings ask to train, on a loaded model; not attached yet (:meth:`Method.start`).

    Raises:
        InputError: the settings ask for something that this model or method cannot have.
    """
    module, name = _CLASSES[settings.model.training_method]
    return getattr(import_module(f"{__name__}.{module}"), name)(settings, plan, model, seed)
