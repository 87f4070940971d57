"""One of several processes of a training of a small model in pieces: started by torchrun.

pieces_run.py 0|1 FILE      0: whole, 1: by FSDP; the main process writes what it found as JSON
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from backend.settings import Settings
from backend.train.machine import make_accelerator, wrap
from backend.train.team import join


class Step(nn.Module):
    """As the trainer's: what is trained is inside, and called from beside."""

    def __init__(self, trainable: nn.Module) -> None:
        super().__init__()
        self.trainable, self._model = trainable, (trainable,)

    def forward(self, x: Tensor) -> Tensor:
        return self._model[0](x).flatten()


def main(split: bool, file: Path) -> None:
    """Four steps; before the third one the main process looks at the whole model, as samples do."""
    team = join(None)
    options = {"fsdp": split, "num_processes": 2, "training_method": "finetune", "fsdp_min_num_params": 20}
    settings = Settings.from_flat(options)
    accelerator = make_accelerator(settings)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.Linear(8, 8), nn.Tanh()), nn.Linear(8, 1))
    groups = [{"params": list(model.parameters()), "lr": 0.05, "name": "unet"}]
    step: Any = Step(model)
    module, optimizer, parts = wrap(accelerator, step, torch.optim.AdamW(groups, eps=1e-3), settings)
    found: dict[str, Any] = {
        "pieces": sum("FSDP" in type(one).__name__ for one in module.modules()),
        "losses": [],
    }
    for number in range(4):
        with parts.whole():
            if team.main and number == 2:
                found["seen"] = float(step(torch.ones(2, 4)).sum())
        loss = module(torch.full((3, 4), float(team.rank + 1))).square().mean()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(list(model.parameters()), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        found["losses"].append(float(team.mean(loss.detach())))
    memory = parts.memory(optimizer)
    found["memory"] = [value["exp_avg"].flatten().tolist() for value in memory["state"].values()]
    with parts.whole():
        if team.main:
            found["weights"] = {name: value.flatten().tolist() for name, value in model.state_dict().items()}
            file.write_text(json.dumps(found), encoding="utf-8")
    team.leave()


if __name__ == "__main__":
    main(sys.argv[1] == "1", Path(sys.argv[2]))
