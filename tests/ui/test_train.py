"""What the server does for the Train page, without a browser."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from backend.errors import InputError
from backend.jobs import queue as waiting
from backend.jobs.runs import create_run
from backend.settings import Settings, declarations, optimizers
from ui.calls import callable_from_page
from ui.context import Context
from ui.drafts import Drafts
from ui.form import form_schema
from ui.tabs import runs, train
from ui.tabs.train import ESSENTIALS, TrainPage, describe

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainPage:
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path))
    (tmp_path / "runs").mkdir()
    return TrainPage(
        Context(tmp_path, tmp_path / "runs", Drafts(tmp_path / "drafts"), [str(tmp_path / "runs")])
    )


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures" / "3_sks dog"
    folder.mkdir(parents=True)
    for index in range(2):
        Image.new("RGB", (64, 64)).save(folder / f"{index}.png")
    return folder.parent


def test_the_page_loads_no_torch():
    code = (
        "import sys, ui.page; print([m for m in ('torch', 'diffusers', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_schema_holds_every_option_once():
    schema = form_schema(ESSENTIALS)
    keys = [option["key"] for group in schema["groups"] for option in group["options"]]
    assert keys == list(declarations())
    assert set(ESSENTIALS) <= set(keys)
    assert set(ESSENTIALS) == {key for key, one in declarations().items() if one.info.level == "basic"}


def test_what_this_machine_lacks_is_told_beside_the_choice(page: TrainPage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(optimizers, "is_installed", lambda module: module != "prodigyopt")
    schema = form_schema(ESSENTIALS)
    options = {option["key"]: option for group in schema["groups"] for option in group["options"]}
    assert options["optimizer_type"]["lacks"] == {"Prodigy": "not installed: pip install prodigyopt"}
    assert "lacks" not in options["lr_scheduler"]
    told = page.look({"values": {"optimizer_type": "Prodigy"}})["problems"]
    assert any("needs the library prodigyopt" in problem["what"] for problem in told)
    assert options["optimizer_type"]["open"] is True


def test_secrets_go_to_the_run_and_into_no_file(
    page: TrainPage, pictures: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    given: dict[str, Any] = {}

    def start(root: Path, name: str, config: str, secrets: dict[str, str]) -> Any:
        given.update(config=config, secrets=secrets)
        return create_run(root, name, config)

    monkeypatch.setattr(train.process, "create_and_start", start)
    monkeypatch.setattr(page.finder, "look", lambda values, **_: SimpleNamespace(
        problems=[], plan=None, settings=Settings.from_flat(values)
    ))  # fmt: skip
    values = {"train_data_dir": str(pictures), "network_dim": 3, "huggingface_token": "hf_1234567"}
    answer = page.start({"values": values, "preset": ""})
    assert answer["run"] and given["secrets"] == {"HF_TOKEN": "hf_1234567"}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("network_dim" in path.read_text(errors="replace") for path in files)
    assert not [path for path in files if b"hf_1234567" in path.read_bytes()]
    options = {
        option["key"]: option for group in form_schema(ESSENTIALS)["groups"] for option in group["options"]
    }
    assert options["huggingface_token"]["secret"] and options["wandb_api_key"]["secret"]


def test_a_training_can_wait_for_its_turn(page: TrainPage, pictures: Path, monkeypatch: pytest.MonkeyPatch):
    wrong = page.queue({"values": {}})
    assert wrong["problems"] and list(page.context.runs.iterdir()) == []
    monkeypatch.setattr(page.finder, "look", lambda values, **_: SimpleNamespace(
        problems=[], plan=None, settings=Settings.from_flat(values)
    ))  # fmt: skip
    values = {"train_data_dir": str(pictures), "network_dim": 3, "huggingface_token": "hf_1234567"}
    assert "place 1" in page.queue({"values": values})["message"]
    (id,) = waiting.read(page.context.runs).waiting
    assert page.context.queue.secrets == {id: {"HF_TOKEN": "hf_1234567"}}
    config = (page.context.runs / id / "config.toml").read_text(encoding="utf-8")
    assert "network_dim = 3" in config and "hf_1234567" not in config


def test_a_first_visit_begins_with_a_preset_and_a_later_one_with_the_draft(page: TrainPage):
    first = page.open_page({})
    assert first["preset"] == "sd15/character"
    assert first["values"]["learning_rate"] == pytest.approx(1e-4)
    page.look({"values": {"network_dim": 3}, "preset": ""})
    assert page.open_page({})["values"] == {"network_dim": 3}


def test_a_form_cut_off_by_a_crash_comes_back_as_it_was_before(page: TrainPage):
    page.look({"values": {"network_dim": 3}, "preset": ""})
    page.look({"values": {"network_dim": 4}, "preset": ""})
    file = page.context.drafts.folder / "train.json"
    file.write_bytes(file.read_bytes()[:30])
    opened = page.open_page({})
    assert opened["values"] == {"network_dim": 3}
    (kept,) = file.parent.glob("train.damaged-*.json")
    assert kept.name in opened["message"] and f"{datetime.now():%Y-%m-%d}" in opened["message"]
    assert page.open_page({})["message"] == ""


def test_an_empty_form_cannot_start_and_leaves_nothing_behind(page: TrainPage):
    answer = page.start({"values": {}})
    assert [problem["key"] for problem in answer["problems"]] == [
        "pretrained_model_name_or_path",
        "train_data_dir",
    ]
    assert list(page.context.runs.iterdir()) == []


def test_a_lora_in_place_of_a_model_is_recognised(page: TrainPage, tmp_path: Path):
    import numpy
    from safetensors.numpy import save_file

    names = [
        f"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.{part}"
        for part in ("lora_down.weight", "lora_up.weight")
    ]
    save_file({name: numpy.zeros((4, 4), numpy.float16) for name in names}, tmp_path / "x.safetensors")
    found = page.look({"values": {"pretrained_model_name_or_path": str(tmp_path / "x.safetensors")}})
    problem = next(p for p in found["problems"] if p["key"] == "pretrained_model_name_or_path")
    assert "LoRA" in problem["what"]


def test_what_a_model_predicts_is_asked_once_where_its_file_does_not_tell(page: TrainPage, tmp_path: Path):
    import numpy
    from safetensors.numpy import save_file

    layer = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    tensors = {
        "model.diffusion_model.input_blocks.0.0.weight": numpy.zeros((8, 4, 3, 3), numpy.float16),
        layer: numpy.zeros((8, 16), numpy.float16),
        "cond_stage_model.model.token_embedding.weight": numpy.zeros((4, 16), numpy.float16),
        "first_stage_model.decoder.conv_in.weight": numpy.zeros((8, 4, 3, 3), numpy.float16),
    }
    silent, telling = tmp_path / "silent.safetensors", tmp_path / "telling.safetensors"
    save_file(tensors, silent)
    save_file(tensors, telling, {"modelspec.prediction_type": "epsilon"})

    def card(path: Path, **values: Any) -> dict[str, Any]:
        return page.look({"values": {"pretrained_model_name_or_path": str(path), **values}})["model"]

    asked = card(silent)
    assert (asked["asks"], asked["fits"]) == (["epsilon", "v"], "")
    for values, fits in (
        ({"prediction_type": "v"}, "predicts v · made for 768 px"),
        ({"v_parameterization": True}, "predicts v · made for 768 px"),
        ({"prediction_type": "epsilon"}, "predicts noise · made for 512 px"),
    ):
        told = card(silent, **values)
        assert (told["asks"], told["fits"]) == ([], fits)
    assert card(telling)["asks"] == []


def test_the_card_counts_as_the_trainer_does(page: TrainPage, pictures: Path):
    values = {
        "train_data_dir": str(pictures),
        "resolution": "64",
        "train_batch_size": 4,
        "max_train_epochs": 5,
    }
    found = page.look({"values": values})
    assert found["data"]["images"] == 2
    assert found["length"]["steps"] == 10  # 2 pictures x 3 repeats in batches of 4, 5 times
    assert found["resolved"]["train_data_dir"] == str(pictures.resolve())
    assert found["model"] is None


def test_steps_left_empty_are_computed_and_shown(page: TrainPage, pictures: Path):
    found = page.look({"values": {"train_data_dir": str(pictures), "resolution": "64"}})
    assert found["length"]["steps"] == 1600
    assert "about 266.7 epochs of 6 steps" in found["length"]["detail"]


def test_new_pictures_are_seen_when_asked_again(page: TrainPage, pictures: Path):
    values = {"train_data_dir": str(pictures), "resolution": "64"}
    assert page.look({"values": values})["data"]["images"] == 2
    Image.new("RGB", (64, 64)).save(pictures / "3_sks dog" / "new.png")
    assert page.look({"values": values, "again": True})["data"]["images"] == 3


def test_a_wrong_value_does_not_hide_the_rest(page: TrainPage, pictures: Path):
    found = page.look(
        {"values": {"train_data_dir": str(pictures), "resolution": "64", "network_dim": "many"}}
    )
    assert found["data"]["images"] == 2
    assert "network_dim" in [problem["key"] for problem in found["problems"]]


def test_only_chosen_folders_are_shown(page: TrainPage, pictures: Path):
    page.context.allow(pictures)
    page.context.allow(pictures)
    page.context.allow(pictures / "missing")
    assert page.context.allowed[1:] == [str(pictures.resolve())]


@pytest.mark.parametrize("id", ["../secret", "/etc", "..", "", "a\0b", None, 7])
def test_only_runs_of_this_place_are_found(page: TrainPage, id: Any, tmp_path: Path):
    create_run(tmp_path, "secret", "")
    assert page.status({"run": id})["run"] is None
    with pytest.raises(InputError):
        page.stop({"run": id})
    with pytest.raises(InputError):
        page.resume({"run": id})


def test_a_run_is_described_and_listed(page: TrainPage):
    run = create_run(page.context.runs, "my <b>cat</b>", "")
    assert describe(run)["state"] == "created"
    assert page.status({})["run"] == run.id
    listed = runs.RunsPage(page.context).list_all({})["runs"]
    assert [(one["id"], one["name"]) for one in listed] == [(run.id, "my <b>cat</b>")]


def test_presets_are_kept_found_and_not_replaced_unasked(page: TrainPage):
    kept = page.save_preset({"name": "Mine", "values": {"network_dim": 5, "output_name": "x"}})
    assert page.read_preset({"id": kept["id"]})["values"] == {"network_dim": 5}
    again = page.save_preset({"name": "mine", "values": {"network_dim": 6}})
    assert again["taken"] and again["problems"]
    page.save_preset({"name": "Mine", "values": {"network_dim": 6}, "replace": True})
    assert page.read_preset({"id": kept["id"]})["values"] == {"network_dim": 6}
    with pytest.raises(InputError):
        page.read_preset({"id": "../../etc/passwd"})


def test_every_bundled_preset_can_be_loaded(page: TrainPage):
    listed = page.presets.listing()
    assert len(listed) >= 3
    for preset in listed:
        assert not preset["broken"], preset
        assert preset["about"], "a preset says when to use it"
        assert page.read_preset({"id": preset["id"]})["values"]


def test_a_fault_of_ours_becomes_words_for_the_page(capsys: pytest.CaptureFixture[str]):
    def broken(data: dict[str, Any]) -> dict[str, Any]:
        raise RuntimeError("inner words")

    answer = callable_from_page(broken)({})
    assert "inner words" in answer["problems"][0]["what"]
    assert "Traceback" in answer["problems"][0]["detail"]
    assert "inner words" in capsys.readouterr().err


def test_the_scripts_call_what_is_offered_and_nothing_else(page: TrainPage):
    script = "\n".join((ROOT / "ui" / "assets" / name).read_text(encoding="utf-8") for name in train.SCRIPTS)
    called = set(re.findall(r"server\.(\w+)\(", script)) | set(re.findall(r'\bask\("(\w+)"', script))
    called |= {"start", "stop", "resume", "queue"}  # by the names of their buttons
    called |= set(re.findall(r"\b(\w+): \$\(\"#btn-", script)) & {
        "sample_now",
        "save_now",
        "pause",
        "stop_now",
    }
    offered = {method.__name__ for method in train.methods_of(page)}
    assert called == offered
