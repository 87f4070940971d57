"""Parts that do not learn, and results that are of no use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from backend.families.base import Conditioning, TokenIds
from backend.train.idle import LOOKED_STEPS, IdleWatch, idle_problem
from backend.train.loop import Ending, train
from backend.train.verify import result_fault
from tests.train.small import SmallModel, draw_pictures, start


class Sink:
    def __init__(self) -> None:
        self.warnings: list[dict[str, Any]] = []

    def emit(self, type: str, /, **fields: Any) -> None:
        self.warnings.append(fields)


def optimizer(**gradients: float | None) -> torch.optim.SGD:
    groups = []
    for name, value in gradients.items():
        parameter = torch.nn.Parameter(torch.zeros(3))
        parameter.grad = None if value is None else torch.full((3,), value)
        groups.append({"params": [parameter], "name": name})
    return torch.optim.SGD(groups, lr=0.1)


def looks(made: torch.optim.Optimizer, steps: int = LOOKED_STEPS + 5) -> Sink:
    watch, sink = IdleWatch(), Sink()
    for step in range(1, steps + 1):
        watch.look(made, step, sink)  # type: ignore[arg-type]
    return sink


@pytest.mark.parametrize("zero", [0.0, None])
def test_a_part_without_gradient_is_told_once_and_by_name(zero: float | None) -> None:
    (warning,) = looks(optimizer(unet=1.0, te=zero)).warnings
    assert "nothing is being learned in text encoder" in warning["text"]
    assert warning["problem"]["where"] == f"step {LOOKED_STEPS}"
    assert looks(optimizer(unet=1.0, te=zero), LOOKED_STEPS - 1).warnings == []


def test_parts_are_named_as_people_call_them() -> None:
    told = idle_problem(["te1", "te2_plus", "unet", "unet_block07"], 20).what
    assert told.endswith("in text encoder 1, text encoder 2 plus, U-Net, U-Net block07")


class Deaf(SmallModel):
    """A model whose pictures do not depend on the text."""

    def encode_text(self, tokens: TokenIds, clip_skip: int | None = None) -> Conditioning:
        return {"hidden": super().encode_text(tokens, clip_skip)["hidden"] * 0}


def test_a_run_tells_which_part_learns_nothing(tmp_path: Path) -> None:
    pictures = draw_pictures(tmp_path / "pictures", 2)
    session, position, events, _ = start(pictures, tmp_path, model=Deaf(), max_train_steps=LOOKED_STEPS + 1)
    ending, _ = train(session, position)
    assert ending is Ending.FINISHED, "the run goes on"
    (warning,) = events.of("warning")
    assert "nothing is being learned in text encoder" in warning["text"]


def test_gradients_that_come_late_or_overflow_are_learning() -> None:
    watch, sink, made = IdleWatch(), Sink(), optimizer(unet=0.0, text_encoder=float("inf"))
    for step in range(1, 40):
        if step == 2:
            made.param_groups[0]["params"][0].grad.fill_(1e-12)
        watch.look(made, step, sink)  # type: ignore[arg-type]
    assert sink.warnings == []


def test_gradients_that_are_used_up_in_the_backward_pass_are_not_judged() -> None:
    assert looks(optimizer(unet=None, text_encoder=None)).warnings == []


def lora(path: Path, up: float = 0.5, down: float = 0.5) -> Path:
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    tensors = {
        f"{name}.lora_down.weight": torch.full((4, 320), down),
        f"{name}.lora_up.weight": torch.full((320, 4), up),
        f"{name}.alpha": torch.tensor(4.0),
    }
    save_file(tensors, path)
    return path


def test_a_good_result_has_no_fault(tmp_path: Path) -> None:
    assert result_fault(lora(tmp_path / "a.safetensors")) is None


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"up": 0.0}, "nothing was learned"),
        ({"down": float("nan")}, "lora_down.weight has values that are not"),
    ],
)
def test_a_result_without_effect_or_with_nan_is_marked(
    tmp_path: Path, values: dict[str, float], why: str
) -> None:
    fault = result_fault(lora(tmp_path / "a.safetensors", **values))
    assert fault and why in fault.why and "not usable" in fault.what


def test_a_torn_or_strange_file_is_marked(tmp_path: Path) -> None:
    path = lora(tmp_path / "a.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    torn = result_fault(path)
    assert torn and "read back" in torn.why
    save_file({"odd": torch.ones(3)}, path)
    odd = result_fault(path)
    assert odd and "not recognised" in odd.why
