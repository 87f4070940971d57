"""The schedules of the learning rate by the names people know, and how names are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches

NAMES: tuple[str, ...] = (
    "constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial",
    "inverse_sqrt", "cosine_with_min_lr", "warmup_stable_decay", "rex", "piecewise_constant", "adafactor",
)  # fmt: skip
"""In the order of the form. All but rex are sd-scripts'."""
WITHOUT_WARMUP = ("constant", "piecewise_constant", "adafactor")

TORCH_NAMES = (
    "ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "CyclicLR", "ExponentialLR",
    "LinearLR", "MultiStepLR", "OneCycleLR", "PolynomialLR", "StepLR",
)  # fmt: skip
"""Classes of torch.optim.lr_scheduler that can be made from key=value arguments."""

_MEASURE = "it needs a measured value after every step"
_FUNCTION = "it needs a function, which key=value arguments cannot give"
_OTHERS = "it is put together from other schedules, which key=value arguments cannot give"
_UNFIT: Mapping[str, str] = {
    "ReduceLROnPlateau": _MEASURE,
    "LambdaLR": _FUNCTION,
    "MultiplicativeLR": _FUNCTION,
    "ChainedScheduler": _OTHERS,
    "SequentialLR": _OTHERS,
}
_REFUSED: Mapping[str, str] = {"reduce_lr_on_plateau": _MEASURE, "greedy": _MEASURE}
_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def read_schedule(value: object) -> str:
    """A name as the table spells it; empty means constant.

    ``adafactor:1e-4`` is how sd-scripts notes the schedule of AdaFactor, and is read as adafactor.

    Raises:
        ValueError: there is no such schedule, or it cannot be used.
    """
    text = str(value).strip().lower()
    name = "adafactor" if text.startswith("adafactor:") else text or "constant"
    if name in NAMES:
        return name
    if name in _REFUSED:
        raise ValueError(f"{name} cannot be used: {_REFUSED[name]}")
    near = get_close_matches(name, NAMES, n=1)
    advice = f"did you mean {near[0]}?" if near else f"known are {', '.join(NAMES)}"
    raise ValueError(f"there is no schedule '{value}'; {advice}")


def read_class(value: object) -> str:
    """The name of a class of ``torch.optim.lr_scheduler`` as torch spells it, or a class path.

    Raises:
        ValueError: there is no such class, or it cannot be made from arguments.
    """
    text = "" if value is None else str(value).strip()
    name = text.removeprefix("torch.optim.lr_scheduler.")
    if name in _UNFIT:
        raise ValueError(f"{name} cannot be used: {_UNFIT[name]}")
    if not name or _PATH.fullmatch(name):
        return name
    spelled = {known.lower(): known for known in TORCH_NAMES}
    if name.lower() in spelled:
        return spelled[name.lower()]
    near = get_close_matches(name, TORCH_NAMES, n=1)
    advice = f"did you mean {near[0]}?" if near else "name one of torch.optim.lr_scheduler, or module.Class"
    raise ValueError(f"there is no schedule class '{text}'; {advice}")
