"""Ways of teaching a model: the first choice of a training, which decides what other options apply.

What each of them does stands in ``backend.train.methods``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TrainingMethod:
    """One way, as people are told of it."""

    title: str
    what: str
    """What is trained, within a sentence."""
    families: tuple[str, ...] = ()
    """Families it is for; empty: all."""
    whole: bool = False
    """The model itself is trained and saved, not something small beside it."""
    tools: Mapping[str, str] = field(default_factory=dict[str, str])
    """Family -> script of ``tools`` that trains so; ``""``: the one for all others."""


_LATENT = ("sd1", "sd2", "sdxl")

METHODS: Mapping[str, TrainingMethod] = {
    "network": TrainingMethod(
        "LoRA and other networks", "a network",
        tools={"": "train_network.py"},
    ),
    "dreambooth": TrainingMethod(
        "DreamBooth: the whole model, from a few pictures", "the whole model (DreamBooth)", whole=True,
        tools={"": "train_db.py"},
    ),
    "finetune": TrainingMethod(
        "Fine-tuning: the whole model, from many pictures", "the whole model (fine-tuning)", whole=True,
        tools={"": "fine_tune.py", "sdxl": "sdxl_train.py", "sd3": "sd3_train.py"},
    ),
    "textual_inversion": TrainingMethod(
        "Textual inversion: a word for the subject", "a word (textual inversion)", _LATENT,
        tools={"": "train_textual_inversion.py", "sdxl": "sdxl_train_textual_inversion.py"},
    ),
    "lllite": TrainingMethod(
        "ControlNet-LLLite: guidance by pictures", "a ControlNet-LLLite", ("sdxl",),
        tools={"": "sdxl_train_control_net_lllite.py"},
    ),
}  # fmt: skip
"""Value of ``training_method`` -> the way it stands for."""
NETWORK = ("network",)
WORD = ("textual_inversion",)
GUIDED = ("lllite",)
SIZED = (*NETWORK, *GUIDED)
"""Those whose size is chosen."""
UNGUIDED = tuple(name for name in METHODS if name not in GUIDED)
TEXTUAL = tuple(name for name in METHODS if name not in WORD)
"""Those that also learn from pictures without a caption."""
WHOLE = tuple(name for name, method in METHODS.items() if method.whole)
"""Those that train the model itself."""
BESIDE = tuple(name for name, method in METHODS.items() if not method.whole)
"""Those that leave it as it is and train something small."""


def tool_of(method: str, family: str = "") -> str:
    """The script that trains so, for models of a family."""
    tools = METHODS[method].tools
    return tools.get(family, tools[""])
