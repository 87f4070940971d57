"""Training the whole model from the command line, as people type it: every script, and a run that is resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from backend.demo.tiny import build_tiny_sdxl
from backend.errors import InputError
from backend.system.identify import identify
from backend.train.entry import train_from_line
from tests.e2e.conftest import World, draw_pictures, events
from tests.families import sd3_kit

pytestmark = pytest.mark.e2e
SHORT = ["--max_data_loader_n_workers=0", "--recovery_minutes=0"]


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = draw_pictures(tmp_path_factory.mktemp("classes") / "reg", count=3, size=64)
    (folder / "2_sks shape").rename(folder / "1_shape")
    return folder


def run(world: World, monkeypatch: pytest.MonkeyPatch, line: list[str], prog: str, *more: Any) -> int:
    """What a script does with its words, in this process."""
    monkeypatch.setenv("ATELIER_HOME", str(world.home))
    AcceleratorState._reset_state(reset_partial_state=True)  # a process has one precision otherwise
    steps = [] if any("max_train_steps" in word for word in line) else ["--max_train_steps=2"]
    try:
        return train_from_line([*line, *SHORT, *steps], prog, *more)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def dreambooth(world: World, classes: Path, *more: str) -> list[str]:
    """What the lines of the documents have in common, with these folders."""
    return [
        f"--pretrained_model_name_or_path={world.model}", f"--train_data_dir={world.pictures}",
        f"--reg_data_dir={classes}", f"--output_dir={world.home / 'out'}", "--output_name=db",
        "--prior_loss_weight=1.0", "--caption_extension=.txt", *more,
    ]  # fmt: skip


def test_the_first_line_of_the_documents(
    world: World, classes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = dreambooth(
        world, classes, "--resolution=64", "--train_batch_size=1", "--learning_rate=1e-6", "--use_8bit_adam",
        "--xformers", "--mixed_precision=bf16", "--cache_latents", "--gradient_checkpointing",
    )  # fmt: skip
    if not torch.cuda.is_available():
        assert run(world, monkeypatch, line, "train_db.py", (), "dreambooth") == 3
        assert "run again with --allow_fallback" in capsys.readouterr().out
    assert run(world, monkeypatch, [*line, "--allow_fallback"], "train_db.py", (), "dreambooth") == 0
    found = identify(world.home / "out" / "db.safetensors")
    assert (found.kind, found.family) == ("base", "sd1")
    weights = load_file(world.home / "out" / "db.safetensors")
    assert weights["model.diffusion_model.out.2.weight"].dtype == torch.float32
    plan = events(world.newest_run(), "plan")[-1]
    assert plan["title"] == "DreamBooth, U-Net and text encoder" and plan["reg_images"] > 0


def test_the_second_line_of_the_documents(
    world: World, classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = dreambooth(
        world, classes, "--resolution=96,64", "--train_batch_size=4", "--learning_rate=5e-6",
        "--save_every_n_epochs=1", "--save_state", "--save_precision=bf16", f"--logging_dir={world.home / 'logs'}",
        "--enable_bucket", "--min_bucket_reso=64", "--max_bucket_reso=128", "--color_aug", "--flip_aug",
        "--seed", "42",
    )  # fmt: skip
    assert run(world, monkeypatch, line, "train_db.py", (), "dreambooth") == 0
    out = world.home / "out"
    assert {tensor.dtype for tensor in load_file(out / "db.safetensors").values()} <= {
        torch.bfloat16,
        torch.int64,
    }
    assert (out / "db-state" / "state.json").is_file() and any((world.home / "logs").rglob("events.*"))


def test_fine_tuning_from_a_metadata_file(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = world.pictures / "2_sks shape"
    table = {path.stem: {"caption": "a shape", "tags": "flat"} for path in folder.glob("*.png")}
    metadata = world.home / "meta.json"
    metadata.write_text(json.dumps(table), encoding="utf-8")
    line = [
        f"--pretrained_model_name_or_path={world.model}", f"--in_json={metadata}", f"--train_data_dir={folder}",
        f"--output_dir={world.home / 'out'}", "--output_name=ft", "--train_batch_size=2", "--resolution=64",
        "--learning_rate=1e-5", "--train_text_encoder", "--learning_rate_te=5e-6", "--diffusers_xformers",
        "--allow_fallback", "--save_model_as=diffusers_safetensors", "--shuffle_caption", "--cache_latents",
    ]  # fmt: skip
    assert run(world, monkeypatch, line, "fine_tune.py", (), "finetune") == 0
    found = identify(world.home / "out" / "ft")
    assert (found.kind, found.family) == ("base", "sd1")
    result = events(world.newest_run(), "result")[-1]
    assert "fault" not in result["facts"] and result["facts"]["parts"]["te"] == pytest.approx(5e-6)


def test_the_scripts_of_sdxl_and_sd3(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    build_tiny_sdxl(tmp_path / "xl.safetensors")
    sd3_kit.build(tmp_path / "sd3.safetensors", sd3_kit.MEDIUM)
    common = [
        f"--train_data_dir={world.pictures}", f"--output_dir={world.home / 'out'}", "--resolution=64",
        "--learning_rate=1e-5", "--learning_rate_te1=1e-6", "--train_text_encoder", "--mixed_precision=bf16",
        "--full_bf16", "--cache_latents", "--caption_extension=.txt",
    ]  # fmt: skip
    rates = ",".join(["1e-5"] * 23)
    lines = {
        "sdxl": [*common, "--learning_rate_te2=0", f"--block_lr={rates}", "--fused_optimizer_groups=4"],
        "sd3": [
            *common,
            "--blockwise_fused_optimizers",
            "--num_last_block_to_freeze=1",
            "--learning_rate_te3=1e-6",
            "--save_model_as=diffusers_safetensors",
        ],
    }
    for family, prog in (("sdxl", "sdxl_train.py"), ("sd3", "sd3_train.py")):
        base = f"--pretrained_model_name_or_path={tmp_path / 'xl' if family == 'sdxl' else tmp_path / 'sd3'}.safetensors"
        line = [base, f"--output_name={family}", *lines[family]]
        assert run(world, monkeypatch, line, prog, (family,), "finetune") == 0
        found = identify(world.home / "out" / (f"{family}.safetensors" if family == "sdxl" else family))
        assert (found.kind, found.family) == ("base", family)
    with pytest.raises(InputError, match=r"sdxl_train\.py is for"):
        run(world, monkeypatch, [base, *common], "sdxl_train.py", ("sdxl",), "finetune")


def test_a_run_is_resumed_from_its_state_in_another_process(
    world: World, classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes give what one gives, and the samples of both are there."""
    common: dict[str, Any] = {
        "network_module": None, "network_dim": None, "learning_rate": "1e-4", "reg_data_dir": classes,
        "stop_text_encoder_training": 1, "caption_extension": ".txt", "save_state_on_train_end": True,
        "sample_prompt_text": "sks shape --w 64 --h 64 --s 2 --d 1", "sample_every_n_steps": 1,
    }  # fmt: skip
    for name, steps in (("whole", 2), ("half", 1)):
        line = world.options(**common, output_name=name, max_train_steps=None)
        assert (
            run(world, monkeypatch, [*line, f"--max_train_steps={steps}"], "train_db.py", (), "dreambooth")
            == 0
        )
    state = world.home / "out" / "half-state"
    rest = world.options(**common, output_name="rest", max_train_steps=2, resume=state)
    done = world.python("tools/train_db.py", *rest)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [sample["step"] for sample in events(world.newest_run(), "sample")] == [2]
    whole, resumed = (load_file(world.home / "out" / f"{name}.safetensors") for name in ("whole", "rest"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
