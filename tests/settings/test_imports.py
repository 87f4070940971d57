"""Settings out of other programs' files: every key ends in the report, and what trains is the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backend.errors import InputError
from backend.settings import Settings, declarations, to_command_line, to_toml
from backend.settings.imports import Imported, import_metadata, import_text

FORM: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "golden" / "kohya_form.json").read_text(encoding="utf-8")
)
"""Every key that kohya_ss's shipped presets use: values found there, and the form's default."""


def read(**form: Any) -> Imported:
    return import_text(json.dumps(form))


def told(found: Imported, key: str) -> tuple[str, str]:
    """Fate and target of a key."""
    entry = next(entry for entry in found.entries if entry.key == key)
    return entry.fate, entry.target


EXPECTED_UNSUPPORTED = {
    ("LoRA_type", "Flux1"),
    ("flux1_checkbox", "True"),
    ("bucket_reso_steps", "1.0"),
}
"""What is not possible here, of all values in shipped presets, each key alone."""


@pytest.mark.parametrize("key", FORM)
def test_every_key_of_shipped_presets_is_reported_with_every_value_found(key: str):
    for value in FORM[key]["examples"]:
        form = {"LoRA_type": "LyCORIS/LoKr", "optimizer": "Adafactor", "noise_offset": 0.1, key: value}
        if key == "optimizer_args":
            form["optimizer"] = "Prodigy" if "d0" in value else form["optimizer"]
            form["optimizer"] = "AdamW" if "betas" in value or not value else form["optimizer"]
        found = read(**form)
        fates = [entry.fate for entry in found.entries if entry.key == key]
        assert len(fates) == 1 or key == "additional_parameters", (key, value, found.entries)
        refused = [entry for entry in found.entries if entry.fate == "unsupported"]
        assert not refused or (key, str(value)) in EXPECTED_UNSUPPORTED, refused
        assert all(entry.why for entry in found.entries if entry.fate != "taken")


def test_a_form_with_everything_is_reported_key_by_key():
    form = {key: facts["default"] for key, facts in FORM.items()}
    found = import_text(json.dumps(form))
    assert sorted({entry.key for entry in found.entries}) == sorted(form)
    assert found.source == "kohya_ss"
    assert not found.of("unsupported")
    assert found.settings.schedule.max_train_steps == 1600
    assert found.settings.optimizer.optimizer_type == "AdamW8bit"


def test_what_the_form_computes_is_computed():
    form = {"LoRA_type": "LyCORIS/LoHa", "epoch": "8", "max_train_steps": "", "lr_warmup": "10",
            "lr_scheduler": "cosine", "text_encoder_lr": 0, "unet_lr": 1e-4, "max_resolution": "768,512",
            "xformers": False, "sdxl": True, "sdxl_no_half_vae": True, "use_cp": True,
            "noise_offset_type": "Multires", "noise_offset": 0.05, "multires_noise_iterations": 6,
            "multires_noise_discount": 0.3, "optimizer": "AdamW", "seed": "12345"}  # fmt: skip
    found = read(**form)
    assert found.settings.changed() == {
        "max_train_epochs": 8, "lr_scheduler": "cosine", "lr_warmup_steps": 0.1, "unet_lr": 1e-4,
        "network_train_unet_only": True, "resolution": "768,512", "no_half_vae": True,
        "network_module": "lycoris.kohya", "algo": "loha", "use_tucker": True,
        "multires_noise_iterations": 6, "seed": 12345,
    }  # fmt: skip
    assert told(found, "noise_offset")[0] == "idle"
    assert told(found, "epoch") == ("changed", "max_train_epochs")


def test_steps_of_the_form_win_over_its_epochs():
    found = read(LoRA_type="Standard", epoch=20, max_train_steps=1600, max_train_epochs=0)
    assert (
        found.settings.changed() == {"max_train_steps": 1600}
        or found.settings.schedule.max_train_steps == 1600
    )
    assert found.settings.schedule.max_train_epochs is None
    assert told(found, "epoch")[0] == "idle"


def test_a_zero_that_the_form_drops_is_the_trainers_default_and_said():
    found = read(LoRA_type="Standard", prior_loss_weight=0, max_data_loader_n_workers="0", min_snr_gamma=0)
    assert found.settings.loss.prior_loss_weight == 1.0
    assert told(found, "prior_loss_weight") == ("changed", "prior_loss_weight")
    assert found.settings.dataset.max_data_loader_n_workers == 0
    assert told(found, "min_snr_gamma")[0] == "taken"


@pytest.mark.parametrize(
    ("type", "module", "algorithm", "conv_dim"),
    [
        ("Standard", "networks.lora", "locon", None),
        ("Kohya LoCon", "networks.lora", "locon", 8),
        ("LoCon", "lycoris.kohya", "locon", 8),
        ("LyCORIS/iA3", "lycoris.kohya", "ia3", 8),
        ("Kohya DyLoRA", "networks.dylora", "locon", 8),
        ("LyCORIS/Diag-OFT", "lycoris.kohya", "diag-oft", 8),
    ],
)
def test_the_type_of_network(type: str, module: str, algorithm: str, conv_dim: int | None):
    found = read(LoRA_type=type, conv_dim=8, network_dim=16)
    assert (found.settings.network.network_module, found.settings.network.algo) == (module, algorithm)
    assert found.settings.network.conv_dim == conv_dim


def test_what_the_form_gives_with_ia3_can_be_trained():
    found = read(LoRA_type="LyCORIS/iA3", train_on_input=True, conv_dim=1, conv_alpha=1, network_dropout=0)
    assert found.settings.network.train_on_input
    assert not found.of("unsupported") and not found.problems
    others = read(LoRA_type="LyCORIS/LoHa", train_on_input=True)
    assert told(others, "train_on_input")[0] == "idle" and not others.settings.network.train_on_input


def test_a_rank_beyond_all_layers_asks_lokr_for_whole_matrices():
    found = read(LoRA_type="LyCORIS/LoKr", network_dim=100000, conv_dim=100000, factor=6)
    assert found.settings.network.full_matrix and found.settings.network.network_dim is None
    assert found.settings.network.factor == 6
    assert not found.of("unsupported")


def test_odd_values_are_kept_or_told():
    found = read(LoRA_type="Standard", caption_extension=".txt2", save_model_as="diffusers_safetensors",
                 use_8bit_adam=True, use_wandb="True", lora_network_weights="D:/a.safetensors", conv_dims="")  # fmt: skip
    assert found.settings.dataset.caption_extension == ".txt2"
    assert found.settings.saving.save_model_as == "safetensors"
    assert found.settings.optimizer.optimizer_type == "AdamW8bit"
    assert found.settings.tracking.log_with == "wandb"
    assert found.settings.network.network_weights == "D:/a.safetensors"


def test_additional_parameters_are_options_too_and_win():
    text = (
        '--lr_scheduler_type "CosineAnnealingLR" --lr_scheduler_args "T_max=30" --max_grad_norm=0.5 --gronk 1'
    )
    found = read(LoRA_type="Standard", max_grad_norm=1, additional_parameters=text)
    assert found.settings.schedule.lr_scheduler_args == ("T_max=30",)
    assert found.settings.optimizer.max_grad_norm == 0.5
    assert [entry.key for entry in found.of("unsupported")] == ["gronk"]


def test_additional_parameters_may_hold_paths_of_windows():
    text = r'--network_weights "D:\my loras\new.safetensors" --vae E:\vae\n.safetensors --metadata_title "its #1"'
    found = read(LoRA_type="Standard", additional_parameters=text)
    assert found.settings.network.network_weights == "D:\\my loras\\new.safetensors"
    assert found.settings.model.vae == "E:\\vae\\n.safetensors"
    assert found.settings.metadata.metadata_title == "its #1"
    assert not found.of("unsupported")


def test_prompts_of_the_form_are_texts():
    found = read(LoRA_type="Standard", sample_prompts="a cat --w 512\na dog", sample_every_n_epochs=1)
    assert found.settings.sampling.sample_prompt_text == "a cat --w 512\na dog"
    assert found.settings.sampling.sample_prompts is None and not found.problems
    found = read(LoRA_type="Standard", sample_prompts="D:/prompts.txt", sample_every_n_epochs=1)
    assert found.settings.sampling.sample_prompts == "D:/prompts.txt"


@pytest.mark.parametrize(
    ("form", "stop"),
    [
        ({"learning_rate_te": 1e-6, "stop_text_encoder_training": "0"}, None),
        ({"learning_rate_te": 1e-6, "stop_text_encoder_training": 50, "max_train_steps": "801"}, 401),
        ({"learning_rate_te": 1e-6, "stop_text_encoder_training_pct": 50, "max_train_steps": 800}, 400),
        ({"learning_rate_te": 1e-6, "stop_text_encoder_training": -1, "max_train_steps": 800}, -1),
        ({"LoRA_type": "Standard", "stop_text_encoder_training": 50, "max_train_steps": 800}, None),
    ],
)
def test_the_end_of_text_training_is_a_percentage_in_the_form(form: dict[str, Any], stop: int | None):
    found = read(**form)
    assert found.settings.whole.stop_text_encoder_training == stop
    assert not found.of("unsupported") and not found.problems


def test_a_percentage_of_an_unknown_length_is_not_possible():
    found = read(
        learning_rate_te=1e-6, stop_text_encoder_training=50, max_train_epochs=4, max_train_steps=800
    )
    assert [entry.key for entry in found.of("unsupported")] == ["stop_text_encoder_training"]


@pytest.mark.parametrize(("cp", "tucker"), [(True, False), (False, True), (False, False), ("True", "False")])
def test_either_name_of_tucker_counts(cp: object, tucker: object):
    found = read(LoRA_type="LyCORIS/LoKr", use_cp=cp, use_tucker=tucker)
    assert found.settings.network.use_tucker == ("True" in (str(cp), str(tucker)))
    assert not found.of("unsupported")


def test_what_dreambooths_page_saves_by_itself_is_no_fault():
    found = read(learning_rate_te="1e-6", save_model_as="same as source model", seed=0)
    assert told(found, "save_model_as") == ("changed", "save_model_as")
    assert found.settings.schedule.seed is None and not found.of("unsupported")


def test_secrets_are_taken_but_not_shown():
    found = read(LoRA_type="Standard", huggingface_token="hf_secret", wandb_api_key="")
    entry = next(entry for entry in found.entries if entry.key == "huggingface_token")
    assert "hf_secret" not in entry.value + entry.now and entry.fate == "taken"
    assert found.settings.hub.huggingface_token == "hf_secret"


def test_toml_of_sd_scripts_key_by_key():
    text = """
        pretrained_model_name_or_path = 'D:\\models\\a.safetensors'
        [network_arguments]
        network_module = "networks.lora"
        network_args = ["conv_dim=4", "conv_alpha=1"]
        [optimizer_arguments]
        use_8bit_adam = true
        learning_rate = "1e-4"
        v2 = false
        epoch = 4
        max_train_steps = 100
        deepspeed = true
        gronk = 3
        """
    found = import_text(text.replace("        ", ""), "run.toml")
    assert found.source == "sd-scripts"
    assert told(found, "learning_rate") == ("taken", "learning_rate")
    assert told(found, "use_8bit_adam") == ("changed", "optimizer_type")
    assert told(found, "network_args") == ("changed", "conv_dim, conv_alpha")
    assert told(found, "v2")[0] == "idle" and told(found, "epoch")[0] == "idle"
    assert told(found, "gronk")[0] == "unsupported"
    assert found.settings.network.conv_dim == 4
    assert found.entries[0].key == "pretrained_model_name_or_path"


def test_our_own_files_come_back_whole():
    given = {"network_dim": 16, "optimizer_type": "Adafactor", "optimizer_args": ["relative_step=False"],
             "lr_scheduler": "constant_with_warmup", "resolution": "640,512", "flip_aug": True}  # fmt: skip
    settings = Settings.from_flat(given)
    for text in (to_toml(settings), "python tools/train_network.py " + " ".join(to_command_line(settings))):
        found = import_text(text)
        assert found.settings == settings
        assert not found.of("unsupported")
        assert found.given - {"training_method"} == set(given)


def test_a_command_line_over_several_lines_with_windows_paths():
    text = (
        "accelerate launch --num_cpu_threads_per_process 1 --quiet train_network.py ^\n"
        '  --pretrained_model_name_or_path="D:\\my models\\a.ckpt" --xformers ^\n'
        "  --network_args conv_dim=4 conv_alpha=2 --optimizer_type AdamW8bit"
    )
    found = import_text(text)
    assert found.source == "command line"
    assert found.settings.model.pretrained_model_name_or_path == "D:\\my models\\a.ckpt"
    assert found.settings.network.conv_dim == 4 and found.settings.precision.xformers
    assert told(found, "quiet")[0] == "idle"


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("python train_db.py --learning_rate 1e-6", "dreambooth"),
        ("sdxl_train.py --learning_rate 1e-6", "finetune"),
        ('{"image_folder": "D:/a", "learning_rate": 1e-5}', "finetune"),
        ('{"learning_rate_te": 1e-5, "prior_loss_weight": 0}', "dreambooth"),
        ('{"token_string": "sks"}', "textual_inversion"),
        ('{"network_dim": 4}', "network"),
    ],
)
def test_the_training_method_follows_from_script_or_form(text: str, method: str):
    assert import_text(text).settings.model.training_method == method


def test_metadata_of_a_trained_file():
    found = import_metadata({"ss_network_dim": "8", "ss_learning_rate": "0.0001", "ss_optimizer": "torch.optim.adamw.AdamW(weight_decay=0.1)",
                             "ss_max_train_steps": "many"})  # fmt: skip
    assert found.settings.network.network_dim == 8
    assert found.settings.optimizer.optimizer_args == ("weight_decay=0.1",)
    assert [entry.key for entry in found.of("unsupported")] == ["max_train_steps"]
    with pytest.raises(InputError, match="does not say"):
        import_metadata({"format": "pt"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("[[datasets]]\nresolution = 512\n", "dataset file"),
        ('{"a.png": {"caption": "x"}}', "pictures"),
        ("= = =", "no settings file"),
        ("[preset]\ntitle = 'x'\n", "no settings"),
    ],
)
def test_what_holds_no_settings_is_said(text: str, said: str):
    with pytest.raises(InputError, match=said):
        import_text(text, "some.file")


def test_a_report_never_names_an_option_that_does_not_exist():
    for key, facts in FORM.items():
        for value in facts["examples"]:
            for entry in read(**{key: value}).entries:
                targets = [target for target in entry.target.split(", ") if target]
                assert set(targets) <= set(declarations()), entry
