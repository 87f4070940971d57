"""The main job from the command line: train, stop, resume, and what must not happen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from backend.jobs.control import send
from backend.jobs.runs import open_run
from tests.e2e.conftest import ROOT, World, events

pytestmark = pytest.mark.e2e


def same(one: Path, other: Path) -> bool:
    """Every tensor equal to the bit."""
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def wait_for(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def test_a_run_writes_a_kohya_lora_that_says_how_it_was_made(world: World) -> None:
    done = world.train(max_train_epochs=2, save_every_n_epochs=1, enable_bucket=True, min_bucket_reso=32)
    assert done.returncode == 0, done.stdout + done.stderr
    result = world.home / "out" / "result.safetensors"
    with safe_open(result, "pt") as file:
        metadata = file.metadata()
        names = list(file.keys())
    assert len(names) == 264 * 3
    assert metadata["ss_network_module"] == "networks.lora" and metadata["ss_network_dim"] == "4"
    assert metadata["ss_num_train_images"] == "24" and metadata["ss_num_epochs"] == "2"
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert (world.home / "out" / "result-000001.safetensors").is_file()
    assert not (world.home / "out" / "result-000002.safetensors").exists()
    run = world.newest_run()
    steps = events(run, "step")
    assert [record["step"] for record in steps] == list(range(1, len(steps) + 1))
    assert events(run, "state")[-1]["state"] == "finished"
    assert events(run, "result")[-1]["path"] == str(result)
    weights = load_file(result)
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    assert any(tensor.abs().sum() > 0 for name, tensor in weights.items() if "lora_up" in name)


def test_kill_and_resume_gives_the_bytes_of_an_unbroken_run(world: World) -> None:
    options: dict[str, Any] = {
        "max_train_steps": 10, "network_dropout": 0.1, "shuffle_caption": True, "flip_aug": True,
        "noise_offset": 0.05, "lr_scheduler": "cosine", "lr_warmup_steps": 2,
    }  # fmt: skip
    straight = world.train(**options, output_name="straight")
    assert straight.returncode == 0, straight.stdout + straight.stderr

    line = world.options(**options, output_name="broken", save_every_n_steps=4, save_state=True)
    process = subprocess.Popen(
        [sys.executable, "tools/train_network.py", *line],
        cwd=ROOT,
        env=world.environment,
        stdout=subprocess.DEVNULL,
    )
    known = world.newest_run()

    def saved_step_four() -> bool:
        run = world.newest_run()
        return run != known and any(e["kind"] == "state" and e["step"] == 4 for e in events(run, "saved"))

    wait_for(saved_step_four)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run = world.newest_run()
    assert not (world.home / "out" / "broken.safetensors").exists()

    resumed = world.python("-m", "backend.train", run, "--resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert same(world.home / "out" / "straight.safetensors", world.home / "out" / "broken.safetensors")


def test_stop_finishes_the_step_saves_and_resumes_to_the_bit(world: World) -> None:
    assert world.train(max_train_steps=9, output_name="straight").returncode == 0
    line = world.options(max_train_steps=9, output_name="stopped")
    process = subprocess.Popen(
        [sys.executable, "tools/train_network.py", *line],
        cwd=ROOT,
        env=world.environment,
        stdout=subprocess.PIPE,
    )
    known = world.newest_run()
    wait_for(
        lambda: (
            world.newest_run() != known
            and any(e["name"] == "training" for e in events(world.newest_run(), "phase"))
        )
    )
    run = world.newest_run()
    send(open_run(run), "stop")
    assert process.wait(60) == 0
    assert events(run, "state")[-1]["state"] == "stopped"
    reached = events(run, "saved")[-1]["step"]
    assert 1 <= reached < 9
    assert (world.home / "out" / f"stopped-step{reached:08d}.safetensors").is_file()
    resumed = world.python("-m", "backend.train", run, "--resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert same(world.home / "out" / "straight.safetensors", world.home / "out" / "stopped.safetensors")
    assert [e["step"] for e in events(run, "step")] == list(range(1, 10))


def test_cached_and_live_latents_train_alike(world: World) -> None:
    losses: list[list[float]] = []
    for cached in (True, None):
        assert world.train(cache_latents=cached, flip_aug=True).returncode == 0
        losses.append([record["loss"] for record in events(world.newest_run(), "step")])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_cached_text_trains_the_unet_alone(world: World) -> None:
    done = world.train(
        cache_text_encoder_outputs=True, cache_text_encoder_outputs_to_disk=True, shuffle_caption=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "text encoder" in done.stdout
    names = load_file(world.home / "out" / "result.safetensors").keys()
    assert len(names) == 192 * 3 and all(name.startswith("lora_unet") for name in names)


def test_the_line_people_type_today_runs_through_accelerate(world: World) -> None:
    config = world.home / "data.toml"
    config.write_text(
        "[general]\nenable_bucket = true\n[[datasets]]\nresolution = 64\nbatch_size = 2\nmin_bucket_reso = 32\n"
        f"[[datasets.subsets]]\nimage_dir = {json.dumps(str(world.pictures / '2_sks shape'))}\nnum_repeats = 2\n"
        "caption_extension = '.txt'\n",
        encoding="utf-8",
    )
    accelerate = Path(sys.executable).with_name("accelerate")
    line = [
        accelerate, "launch", "--num_cpu_threads_per_process", "1", "tools/train_network.py",
        f"--pretrained_model_name_or_path={world.model}", f"--dataset_config={config}", f"--output_dir={world.home / 'out'}",
        "--output_name=typed", "--save_model_as=safetensors", "--prior_loss_weight=1.0", "--max_train_steps=3",
        "--learning_rate=1e-4", "--optimizer_type=AdamW", "--mixed_precision=no", "--cache_latents",
        "--gradient_checkpointing", "--save_every_n_epochs=1", "--network_module=networks.lora",
    ]  # fmt: skip
    done = subprocess.run(
        [*map(str, line)], cwd=ROOT, env=world.environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (world.home / "out" / "typed.safetensors").is_file()


def test_config_file_with_an_override_on_the_line(world: World) -> None:
    config = world.home / "run.toml"
    config.write_text(
        f"pretrained_model_name_or_path = {json.dumps(str(world.model))}\ntrain_data_dir = {json.dumps(str(world.pictures))}\n"
        f"output_dir = {json.dumps(str(world.home / 'out'))}\noutput_name = 'fromfile'\nresolution = 64\n"
        "max_train_steps = 2\nlearning_rate = 1e-4\nnetwork_dim = 4\nseed = 1\ncache_latents = true\n",
        encoding="utf-8",
    )
    done = world.python("tools/train_network.py", "--config_file", config, "--learning_rate", "2e-4")
    assert done.returncode == 0, done.stdout + done.stderr
    with safe_open(world.home / "out" / "fromfile.safetensors", "pt") as file:
        assert file.metadata()["ss_learning_rate"] == "0.0002"


def test_a_loss_that_explodes_stops_with_step_pictures_and_advice(world: World) -> None:
    done = world.train(
        learning_rate=1, network_alpha=10000, max_train_steps=200, max_grad_norm=0, save_every_n_steps=1
    )
    assert done.returncode == 4
    run = world.newest_run()
    problem = events(run, "error")[-1]["problems"][0]
    assert "step" in problem["where"] and "im" in problem["why"] and "learning rate" in problem["next"]
    for file in (world.home / "out").glob("*.safetensors"):
        assert all(torch.isfinite(tensor).all() for tensor in load_file(file).values())
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"learing_rate": "1e-4"}, ("learing_rate", "learning_rate")),
        ({"learning_rate": "many"}, ("learning_rate",)),
        (
            {"pretrained_model_name_or_path": "/nowhere/model.safetensors"},
            ("/nowhere/model.safetensors", "not found"),
        ),
        ({"learning_rate": 0}, ("nothing would be trained",)),
        ({"optimizer_type": "AdanW"}, ("AdanW", "AdamW")),
        ({"mixed_precision": "fp16"}, ("fp16", "--allow_fallback")),
        ({"xformers": True}, ("xformers", "sdpa")),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="half precision and xformers may work here")
def test_bad_settings_end_with_code_two_before_anything_starts(
    world: World, options: dict[str, Any], words: tuple[str, ...]
) -> None:
    done = world.train(**options)
    assert done.returncode in (2, 3), done.stdout + done.stderr
    text = done.stdout + done.stderr
    for word in words:
        assert word in text
    assert "Traceback" not in text
    assert not list((world.home / "out").glob("*.safetensors")) if (world.home / "out").exists() else True


def test_fallbacks_are_used_and_said_when_asked_for(world: World) -> None:
    done = world.train(mixed_precision="fp16", xformers=True, allow_fallback=True, max_train_steps=1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mixed_precision=no is used instead" in done.stdout


def test_the_same_name_twice_keeps_both_results(world: World) -> None:
    assert world.train(max_train_steps=1).returncode == 0
    first = (world.home / "out" / "result.safetensors").read_bytes()
    assert world.train(max_train_steps=1, seed=7).returncode == 0
    assert (world.home / "out" / "result.safetensors").read_bytes() == first
    assert (world.home / "out" / "result (2).safetensors").is_file()


def test_results_do_not_depend_on_loading_threads(world: World) -> None:
    assert world.train(max_data_loader_n_workers=0, cache_latents=None, output_name="none").returncode == 0
    assert world.train(max_data_loader_n_workers=4, cache_latents=None, output_name="four").returncode == 0
    assert same(world.home / "out" / "none.safetensors", world.home / "out" / "four.safetensors")


def test_samples_and_tensorboard(world: World) -> None:
    done = world.train(
        max_train_steps=2, sample_prompt_text="sks shape --w 64 --h 64 --s 2 --d 5", sample_every_n_steps=1,
        sample_at_first=True, logging_dir=world.home / "logs",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    run = world.newest_run()
    samples = events(run, "sample")
    assert [record["step"] for record in samples] == [0, 1, 2]
    assert all((run / record["path"]).is_file() for record in samples)
    assert list((world.home / "logs").rglob("events.out.tfevents*"))


def test_paths_with_every_kind_of_letter(world: World, tmp_path: Path) -> None:
    import shutil

    strange = tmp_path / "a b ü 日本語 [x] % & ' #"
    shutil.copytree(world.pictures, strange / "train")
    done = world.train(
        train_data_dir=strange / "train",
        output_dir=strange / "out",
        output_name="モデル ü",
        max_train_steps=1,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (strange / "out" / "モデル ü.safetensors").is_file()


def test_output_inside_the_dataset_is_refused(world: World) -> None:
    done = world.train(output_dir=world.pictures)
    assert done.returncode == 2
    assert os.path.realpath(world.pictures) in done.stdout + done.stderr


def test_every_bad_picture_is_told_at_once_or_left_out_when_asked(world: World, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "pictures"
    shutil.copytree(world.pictures, folder)
    own = folder / "2_sks shape"
    (own / "im03.png").write_bytes((own / "im03.png").read_bytes()[:300])
    (own / "im04.png").write_bytes(b"")
    (own / "im07.png").write_text("<html>not found</html>")
    refused = world.train(train_data_dir=folder)
    assert refused.returncode == 2
    told = refused.stdout + refused.stderr
    for words in ("im03.png is cut off", "im04.png is empty (0 bytes)", "im07.png is not an image"):
        assert words in told
    done = world.train(train_data_dir=folder, skip_broken_images=True, max_train_steps=1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 pictures left out" in done.stdout
    assert (own / "im04.png").read_bytes() == b"", "nothing in the dataset is touched"
