"""Weights in parts (FSDP) on two processors: they train as whole ones, and the files are the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from backend.errors import InputError
from backend.settings import Settings, check
from backend.train.methods.regions import Regions
from backend.train.sharding import ENTIRE, plugin_of
from backend.train.team import require_several
from tests.e2e.conftest import ROOT
from tests.train.small import draw_pictures

OPTIONS: dict[str, Any] = {
    "train_batch_size": 1, "validation_split": 0.25, "gradient_accumulation_steps": 2, "max_train_steps": 4,
    "save_state": True, "save_every_n_steps": 2,
    # A large epsilon: divided by next to nothing, the rounding of sums in another order would show.
    "optimizer_args": ["eps=1e-3"],
}  # fmt: skip


def two_processes(script: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", script, *arguments],
        cwd=ROOT, env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}, text=True,
        capture_output=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def run(home: Path, name: str, **options: Any) -> dict[str, Any]:
    values = {**OPTIONS, "output_dir": str(home / "out"), **options}
    two_processes("tests/train/parts_run.py", str(home), name, json.dumps(values))
    return json.loads((home / f"{name}.json").read_text(encoding="utf-8"))


def require_alike(home: Path, whole: dict[str, Any], parts: dict[str, Any], name: str) -> None:
    """Losses, norms and the file of the run ``name``, in parts, are those of the run "whole"."""
    assert parts.pop("split") and not whole.pop("split")
    assert whole.keys() == parts.keys() and len(parts["validation"]) > 1
    for key, values in whole.items():
        assert parts[key] == pytest.approx(values, rel=1e-4), key
    one, other = (load_file(home / "out" / f"{file}.safetensors") for file in ("whole", name))
    assert one.keys() == other.keys()
    assert all(torch.allclose(one[key], other[key], rtol=1e-3, atol=1e-5) for key in one)


@pytest.mark.e2e
def test_parts_train_as_the_whole_does_and_go_on_to_the_bit(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "pictures" / "1_sks dog", 8)
    whole, split = run(tmp_path, "whole"), run(tmp_path, "split", fsdp=True)
    require_alike(tmp_path, whole, split, "split")
    half = tmp_path / "out" / "split-step00000002-state"
    again = run(tmp_path, "again", fsdp=True, resume=str(half))
    assert again["step"] == split["step"][2:], "it goes on to the bit"
    apart = run(tmp_path, "apart", resume=str(half))
    assert apart["step"] == pytest.approx(split["step"][2:], rel=1e-4), "the restore point is whole"


@pytest.mark.e2e
def test_pieces_of_a_whole_model_train_as_it_does(tmp_path: Path) -> None:
    found: list[dict[str, Any]] = []
    for number in ("0", "1"):
        two_processes("tests/train/pieces_run.py", number, str(tmp_path / f"{number}.json"))
        found.append(json.loads((tmp_path / f"{number}.json").read_text(encoding="utf-8")))
    whole, split = found
    assert whole.pop("pieces") == 0 and split.pop("pieces") > 2
    for key in ("seen", "losses"):
        assert split[key] == pytest.approx(whole[key], rel=1e-5)
    for one, other in zip(split["memory"], whole["memory"], strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-7)
    assert split["weights"].keys() == whole["weights"].keys()
    for name, values in whole["weights"].items():
        assert split["weights"][name] == pytest.approx(values, rel=1e-4, abs=1e-6)


def test_one_process_has_nothing_to_split_up(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.from_flat({"fsdp": True})
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(InputError, match="nothing to split up"):
        require_several(settings)
    require_several(settings.replace(num_processes=2))
    monkeypatch.setenv("WORLD_SIZE", "2")
    require_several(settings)
    assert plugin_of(Settings()) is None and not ENTIRE.split


@pytest.mark.parametrize(
    "option",
    [{"ema_decay": 0.9}, {"scale_weight_norms": 1.0}, {"optimizer_type": "Prodigy"}, {"optimizer_type": "AdamW8bit"},
     {"optimizer_type": "AdamWScheduleFree"}, {"torch_compile": True}, {"training_method": "dreambooth", "stop_text_encoder_training": 5}],
)  # fmt: skip
def test_what_needs_whole_weights_is_refused_before_the_start(option: dict[str, Any]) -> None:
    verdict = check(Settings.from_flat({"fsdp": True, "num_processes": 2, **option}), complete=False)
    assert any("fsdp" in problem.what for problem in verdict.errors)


def test_whole_models_are_split_in_pieces_networks_are_not() -> None:
    asked = {
        "fsdp": True,
        "num_processes": 2,
        "fsdp_min_num_params": 1000,
        "fsdp_reshard_after_forward": False,
    }
    model = plugin_of(Settings.from_flat({**asked, "training_method": "finetune"}))
    assert model is not None and model.min_num_params == 1000 and model.reshard_after_forward is False
    network = plugin_of(Settings.from_flat({"fsdp": True}))
    assert network is not None and network.fsdp_version == 2 and not network.min_num_params


def test_a_method_sees_the_weights_that_splitting_put_in_place() -> None:
    """It holds modules, not weights: else restore points would be of weights that nobody trains."""
    part = torch.nn.Linear(2, 2)
    regions = Regions({"unet": part})
    part.weight = torch.nn.Parameter(torch.full((2, 2), 7.0))
    assert torch.equal(regions.trained()["unet.weight"], part.weight)
