"""The optimizers by the names people know, as plain data: what each is, needs and takes.

Names are sd-scripts', read in any case of letters. Beside them any class of ``torch.optim`` and any
``module.Class`` may be named. Nothing is imported here; ``backend.train.optimizers`` makes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec

from backend.errors import Problem

PACKAGES: Mapping[str, str] = {
    "lion_pytorch": "lion-pytorch",
    "prodigyplus": "prodigy-plus-schedule-free",
    "pytorch_optimizer": "pytorch-optimizer",
}
"""Module -> what pip calls it, where the two differ."""
ALWAYS_THERE = ("torch", "transformers")


@dataclass(frozen=True)
class OptimizerKind:
    """One optimizer."""

    name: str
    path: str
    """Its class, as ``module.Class``."""
    takes: tuple[str, ...] | None = None
    """Arguments for ``optimizer_args``; None where that is not known before it is imported."""
    finds_rate: bool = False
    """It finds the size of its steps by itself; the learning rate is a factor around 1."""
    one_rate: bool = False
    """All parts must have the same learning rate, or 0."""
    replacement: str = ""
    """What does nearly the same without its library."""

    @property
    def library(self) -> str:
        """Module it is imported from when that is optional, else ''."""
        module = self.path.partition(".")[0]
        return "" if module in ALWAYS_THERE else module

    @property
    def schedule_free(self) -> bool:
        """It averages weights in place of a schedule."""
        return is_schedule_free(self.path)


_ADAM = "betas eps weight_decay"
_BNB_ADAM = f"{_ADAM} amsgrad min_8bit_size"
_BNB_LION = "betas weight_decay min_8bit_size"
_BNB_EMA = f"{_ADAM} alpha t_alpha t_beta3 min_8bit_size"
_ADAPT = "weight_decay log_every d0 growth_rate"
_FREE = "weight_decay r weight_lr_power foreach"
_TORCH = "maximize foreach differentiable fused"
_PLUS = (
    "betas beta3 weight_decay weight_decay_by_lr d0 d_coef d_limiter prodigy_steps schedulefree_c eps "
    "split_groups split_groups_mean factored factored_fp32 use_bias_correction use_stableadamw "
    "use_schedulefree use_speed stochastic_rounding use_cautious use_grams use_adopt use_orthograd use_focus"
)
_BNB, _DADAPT = "bitsandbytes.optim", "dadaptation"


def _bnb(name: str, takes: str, replacement: str, of: str = "") -> OptimizerKind:
    return OptimizerKind(name, f"{_BNB}.{of or name}", tuple(takes.split()), replacement=replacement)


def _adaptive(name: str, path: str, takes: str) -> OptimizerKind:
    return OptimizerKind(name, path, tuple(takes.split()), finds_rate=True, one_rate=True)


def _plain(name: str, path: str, takes: str) -> OptimizerKind:
    return OptimizerKind(name, path, tuple(takes.split()))


_PREPRINT = f"betas eps decouple fsdp_in_use {_ADAPT}"
_PRODIGY = (
    f"{_ADAM} beta3 decouple use_bias_correction safeguard_warmup d0 d_coef growth_rate fsdp_in_use slice_p"
)
_PLUS_PATH = "prodigyplus.ProdigyPlusScheduleFree"
_ADAN = f"betas eps no_prox {_ADAPT}"

KINDS: tuple[OptimizerKind, ...] = (
    _plain("AdamW", "torch.optim.AdamW", f"{_ADAM} amsgrad capturable {_TORCH}"),
    _bnb("AdamW8bit", _BNB_ADAM, "AdamW"),
    _bnb("PagedAdamW", _BNB_ADAM, "AdamW"),
    _bnb("PagedAdamW8bit", _BNB_ADAM, "AdamW"),
    _bnb("PagedAdamW32bit", _BNB_ADAM, "AdamW"),
    _plain("Lion", "lion_pytorch.Lion", "betas weight_decay use_triton decoupled_weight_decay"),
    _bnb("Lion8bit", _BNB_LION, "Lion"),
    _bnb("PagedLion8bit", _BNB_LION, "Lion"),
    _plain("AdaFactor", "transformers.optimization.Adafactor",
        "eps clip_threshold decay_rate beta1 weight_decay scale_parameter relative_step warmup_init"),
    _adaptive("Prodigy", "prodigyopt.Prodigy", _PRODIGY),
    OptimizerKind(_PLUS_PATH, _PLUS_PATH, tuple(_PLUS.split()), finds_rate=True),
    _adaptive("DAdaptation", f"{_DADAPT}.experimental.DAdaptAdamPreprint", _PREPRINT),
    _adaptive("DAdaptAdamPreprint", f"{_DADAPT}.experimental.DAdaptAdamPreprint", _PREPRINT),
    _adaptive("DAdaptAdam", f"{_DADAPT}.DAdaptAdam", f"use_bias_correction {_PREPRINT}"),
    _adaptive("DAdaptAdaGrad", f"{_DADAPT}.DAdaptAdaGrad", f"momentum eps {_ADAPT}"),
    _adaptive("DAdaptAdan", f"{_DADAPT}.DAdaptAdan", _ADAN),
    _adaptive("DAdaptAdanIP", f"{_DADAPT}.experimental.DAdaptAdanIP", _ADAN),
    _adaptive("DAdaptLion", f"{_DADAPT}.DAdaptLion", "betas weight_decay log_every d0 fsdp_in_use"),
    _adaptive("DAdaptSGD", f"{_DADAPT}.DAdaptSGD", f"momentum fsdp_in_use {_ADAPT}"),
    _plain("AdamWScheduleFree", "schedulefree.AdamWScheduleFree", f"betas eps warmup_steps {_FREE}"),
    _plain("SGDScheduleFree", "schedulefree.SGDScheduleFree", f"momentum warmup_steps {_FREE}"),
    _plain("RAdamScheduleFree", "schedulefree.RAdamScheduleFree", f"betas eps silent_sgd_phase {_FREE}"),
    _plain("SGDNesterov", "torch.optim.SGD", f"momentum dampening weight_decay {_TORCH}"),
    _bnb("SGDNesterov8bit", "momentum dampening weight_decay min_8bit_size", "SGDNesterov", of="SGD8bit"),
    _bnb("bitsandbytes.optim.AdEMAMix8bit", _BNB_EMA, "AdamW", of="AdEMAMix8bit"),
    _bnb("bitsandbytes.optim.PagedAdEMAMix8bit", _BNB_EMA, "AdamW", of="PagedAdEMAMix8bit"),
    OptimizerKind("pytorch_optimizer.CAME", "pytorch_optimizer.CAME"),
)  # fmt: skip
"""In the order of the form."""
NAMES: tuple[str, ...] = tuple(kind.name for kind in KINDS)

TORCH_NAMES = (
    "ASGD", "Adadelta", "Adagrad", "Adam", "Adamax", "Muon", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD",
)  # fmt: skip
"""Classes of torch.optim that are named without their module, beside those above."""
_UNFIT = {
    "lbfgs": "it evaluates the loss several times in a step",
    "sparseadam": "it is for sparse gradients, which there are none of",
}
_BNB_LIKE = (
    ("rmsprop", "RMSprop"),
    ("adagrad", "Adagrad"),
    ("lion", "Lion"),
    ("sgd", "SGDNesterov"),
    ("lars", "SGDNesterov"),
)
"""Part of a class's name -> the one it is made from; all others, LAMB too, are made from Adam."""
_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_BY_NAME: Mapping[str, OptimizerKind] = {kind.name.lower(): kind for kind in KINDS}
_BY_CLASS: Mapping[tuple[str, str], OptimizerKind] = {
    (kind.path.partition(".")[0], kind.path.rpartition(".")[2]): kind
    for kind in KINDS
    if kind.name in kind.path or kind.name == "AdaFactor"
}
"""(Library, class) -> its kind: metadata names a class by the module that it is written in."""
_TORCH_BY_NAME: Mapping[str, str] = {name.lower(): name for name in TORCH_NAMES}


def read_optimizer(value: object) -> str:
    """A name as the table spells it, or the path of any other class as it is; empty means AdamW.

    Raises:
        ValueError: nothing is known by this name, or it cannot train here.
    """
    text = value.strip() if isinstance(value, str) else str(value)
    if not text:
        return "AdamW"
    name = text.rpartition(".")[2].lower() if text.lower().startswith("torch.optim.") else text.lower()
    if name in _UNFIT:
        raise ValueError(f"{text} cannot be used: {_UNFIT[name]}")
    if text.lower() in _BY_NAME:
        return _BY_NAME[text.lower()].name
    if text.lower() in _TORCH_BY_NAME:
        return _TORCH_BY_NAME[text.lower()]
    if _PATH.fullmatch(text):
        known = _BY_CLASS.get((text.partition(".")[0], text.rpartition(".")[2]))
        return known.name if known else text
    raise ValueError(f"there is no optimizer '{text}'{_suggestion(text)}")


def _suggestion(text: str) -> str:
    near = get_close_matches(text.lower(), [*_BY_NAME, *_TORCH_BY_NAME], n=1, cutoff=0.6)
    if near:
        found = _BY_NAME.get(near[0])
        return f"; did you mean {found.name if found else _TORCH_BY_NAME[near[0]]}?"
    return "; name one of the list, a class of torch.optim, or a class with its module (module.Class)"


def find(name: str) -> OptimizerKind:
    """The optimizer by a name or class path that :func:`read_optimizer` accepts."""
    name = read_optimizer(name)
    known = _BY_NAME.get(name.lower())
    return known or OptimizerKind(
        name, name if "." in name else f"torch.optim.{name}", replacement=_like(name)
    )


def _like(path: str) -> str:
    """What does nearly the same as one of bitsandbytes' other classes; '' for other libraries'."""
    if not path.startswith("bitsandbytes."):
        return ""
    word = path.rpartition(".")[2].lower()
    return next((replacement for part, replacement in _BNB_LIKE if part in word), "AdamW")


def is_schedule_free(name: str) -> bool:
    """True for optimizers that average weights in place of a schedule, by their name as in sd-scripts."""
    return "schedulefree" in name.lower()


def is_installed(module: str) -> bool:
    """Whether a library can be imported; it is not."""
    return find_spec(module) is not None


def install_hint(module: str) -> str:
    """The command that brings a library."""
    return f"pip install {PACKAGES.get(module, module)}"


def missing_library(name: str) -> Problem | None:
    """Why this machine cannot run an optimizer, or None when its library is there."""
    kind = find(name)
    if not kind.library or is_installed(kind.library):
        return None
    hint = f"install it: {install_hint(kind.library)}"
    return Problem(
        f"the optimizer {kind.name} needs the library {kind.library}, which is not installed",
        next=f"use {kind.replacement}, or run again with --allow_fallback to have it replaced, or {hint}"
        if kind.replacement
        else f"{hint}; or choose another optimizer",
        key="optimizer_type",
    )


def names_where(**facts: bool) -> tuple[str, ...]:
    """Names of the optimizers of which ``finds_rate``, ``one_rate`` or ``schedule_free`` are as given."""
    return tuple(k.name for k in KINDS if all(getattr(k, fact) == wanted for fact, wanted in facts.items()))


def unavailable(names: Iterable[str] = NAMES) -> dict[str, str]:
    """Name -> why it cannot be chosen on this machine, for those whose library is missing."""
    library = {name: find(name).library for name in names}
    lacking = {module for module in set(library.values()) if module and not is_installed(module)}
    return {
        name: f"not installed: {install_hint(module)}"
        for name, module in library.items()
        if module in lacking
    }
