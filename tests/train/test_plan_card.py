"""The plan before a run, found out without reading a weight."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from backend import families
from backend.demo.tiny import build_tiny_sd2, build_tiny_sdxl
from backend.errors import InputError
from backend.families.base import Sizes
from backend.families.parts.loading import outlines
from backend.families.parts.weights import Place
from backend.settings import Settings
from backend.train import room
from backend.train.entry import train_from_line
from backend.train.methods.network import NetworkMethod
from backend.train.outline import _Attention, count_need
from backend.train.plan_card import card_text, plan_card
from backend.train.preflight import prepare
from tests.e2e.conftest import draw_pictures


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("pictures") / "train", count=6)


@pytest.fixture
def options(
    tiny_sd15: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))
    return {
        "pretrained_model_name_or_path": str(tiny_sd15),
        "train_data_dir": str(pictures),
        "output_dir": str(tmp_path / "out"),
        "output_name": "cat",
        "resolution": 64,
        "min_bucket_reso": 32,
        "enable_bucket": True,
        "train_batch_size": 2,
        "network_dim": 8,
        "learning_rate": 1e-4,
        "max_train_epochs": 3,
        "save_every_n_epochs": 1,
        "save_last_n_epochs": 1,
        "seed": 1,
        "save_precision": "fp16",
    }


def test_the_plan_is_that_of_the_run_and_nothing_is_read_or_written(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a weight was read")

    monkeypatch.setattr(Place, "read", refuse)
    card = plan_card(Settings.from_flat(options))
    assert json.loads(json.dumps(card)) == card
    assert (card["steps"], card["epochs"], card["start"]) == (18, 3, 0)
    assert (card["images"], card["train_images"], card["modules"]) == (6, 12, 264)
    assert sum(one["count"] for one in card["buckets"]) == 12
    assert card["parameters"] == sum(one["parameters"] for one in card["groups"])
    assert {one["name"]: one["rate"] for one in card["groups"]}["unet"] == 1e-4
    assert card["result"] == str(tmp_path / "out" / "cat.safetensors")
    files = {one["kind"]: one for one in card["files"]}
    assert files["result"]["count"] == 3 and files["recovery"]["count"] == 2
    numbers = card["parameters"] + card["modules"]  # each module has an alpha
    assert files["result"]["size"] == 2 * numbers
    memory = card["memory"]
    assert memory["trained"] == 16 * card["parameters"], "itself, its gradient and two numbers of AdamW"
    assert memory["total"] == memory["weights"] + memory["trained"] + memory["activations"]
    assert card["problems"] == [] and not (tmp_path / "out").exists()
    assert not any("cut there" in note["what"] for note in card["notes"])
    text = card_text(card)
    assert "264 modules" in text and "18 steps in 3 epochs" in text and "memory: about" in text


def test_layers_of_a_model_are_counted_as_layers(options: dict[str, Any]) -> None:
    """A network takes 264 of them; the rest are norms, embeddings and the like."""
    del options["network_dim"]
    card = plan_card(Settings.from_flat(options | {"training_method": "dreambooth", "learning_rate": 1e-6}))
    assert 400 < card["modules"] < 900 and card["title"] == "DreamBooth, U-Net and text encoder"


def kept_by_a_real_step(settings: Settings) -> int:
    """Bytes that PyTorch really keeps for the backward pass of one step, weights left out."""
    prepared = prepare(settings)
    model = families.load(Path(settings.model.pretrained_model_name_or_path))
    method = NetworkMethod(settings, prepared.plan, model, 1)
    method.start()
    parts = (*model.parts().values(), method.trainable)
    weights = {p.untyped_storage().data_ptr() for part in parts for p in part.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if (place := tensor.untyped_storage().data_ptr()) not in weights:
            kept[place] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), _Attention():
        conditioning = model.encode_text(model.tokenize(["a", "a"]))
        sides = torch.tensor([[64, 64]] * 2)
        model.predict(
            torch.zeros(2, 4, 8, 8),
            torch.zeros(2, dtype=torch.long),
            conditioning,
            Sizes(sides, sides, sides),
        )
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_activations_are_counted_as_a_real_step_keeps_them(options: dict[str, Any]) -> None:
    settings = Settings.from_flat({**options, "enable_bucket": False})
    counted = plan_card(settings)["memory"]
    assert counted["activations"] == pytest.approx(kept_by_a_real_step(settings), rel=0.02)
    spared = plan_card(settings.replace(gradient_checkpointing=True))["memory"]
    assert spared["activations"] < counted["activations"] / 3
    assert spared["weights"] == counted["weights"]


def test_caches_and_optimizers_change_the_need(options: dict[str, Any]) -> None:
    live = plan_card(Settings.from_flat(options))["memory"]
    cached = plan_card(
        Settings.from_flat(
            {**options, "cache_latents": True, "cache_text_encoder_outputs": True, "network_train_unet_only": True,
             "optimizer_type": "SGDNesterov"}
        )
    )["memory"]  # fmt: skip
    assert cached["weights"] < live["weights"] and cached["activations"] < live["activations"]
    assert cached["trained"] < live["trained"]


def test_a_model_that_cannot_be_counted_still_has_a_plan(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd(*_: Any) -> None:
        raise RuntimeError("needs real numbers")

    monkeypatch.setattr("backend.train.plan_card.count_need", odd)
    card = plan_card(Settings.from_flat(options))
    assert card["memory"]["total"] is None and "needs real numbers" in card_text(card)
    assert callable(count_need)


def test_captions_that_will_be_cut_are_counted_before_a_start(
    options: dict[str, Any], tmp_path: Path
) -> None:
    words = " ".join(f"word{number}" for number in range(2000))
    folder = draw_pictures(tmp_path / "long", count=3) / "2_sks shape"
    long = sorted(folder.glob("*.txt"))[1:]
    for path in long:
        path.write_text(words)
    card = plan_card(Settings.from_flat({**options, "train_data_dir": str(folder.parent)}))
    (note,) = [note["what"] for note in card["notes"] if "cut there" in note["what"]]
    assert note.startswith("2 captions are longer than 75 tokens")
    assert all(f"{path.stem}.png" in note for path in long) and "max_token_length 150" in note


@pytest.mark.parametrize("build", [build_tiny_sd2, build_tiny_sdxl])
def test_outlines_of_other_families(build: Callable[[Path], None], tmp_path: Path) -> None:
    build(tmp_path / "m.safetensors")
    with outlines():
        model = families.load(tmp_path / "m.safetensors")
    parts = (*model.parts().values(), model.vae)
    assert all(parameter.is_meta for part in parts for parameter in part.parameters())
    assert len(list(model.adapter_modules())) > 200
    whole = families.load(tmp_path / "m.safetensors")
    assert not next(whole.denoiser.parameters()).is_meta, "only inside the block"


def line(options: dict[str, Any], *more: str) -> list[str]:
    return [
        f"--{key}={str(value).lower() if isinstance(value, bool) else value}"
        for key, value in options.items()
    ] + [*more]


def test_a_dry_run_ends_with_code_two_where_files_do_not_fit(
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: usage)
    assert train_from_line(line(options, "--dry_run", "--json", "--tokenizer_cache_dir=t"), "x") == 2
    card = json.loads(capsys.readouterr().out)
    assert "are free" in card["problems"][0]["what"] and card["problems"][0]["key"] == "output_dir"
    assert "tokenizer_cache_dir needs nothing here" in card["notes"][0]["what"]


def test_a_dry_run_tells_everything_that_is_wrong(options: dict[str, Any]) -> None:
    wrong = {
        **options,
        "pretrained_model_name_or_path": "/nowhere/m.safetensors",
        "vae": "/nowhere/v.safetensors",
    }
    with pytest.raises(InputError) as caught:
        train_from_line(line(wrong, "--dry_run"), "x")
    assert {problem.key for problem in caught.value.problems} >= {"pretrained_model_name_or_path", "vae"}


def test_settings_are_written_and_nothing_trained(
    options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from backend.settings import parse_command_line

    file = tmp_path / "kept"
    assert train_from_line(line(options, f"--config_file={file}", "--output_config"), "x") == 0
    assert f"settings written to {file}.toml" in capsys.readouterr().out
    assert (
        parse_command_line([f"--config_file={file}"]).settings == parse_command_line(line(options)).settings
    )
    assert not (tmp_path / "home").exists()
