"""The rules between options."""

from __future__ import annotations

from typing import Any

import pytest

from backend.settings import Settings, Verdict, check, declarations
from backend.settings.conditions import holds, is_set
from backend.settings.rules import RULES


def verdict(complete: bool = False, **values: Any) -> Verdict:
    return check(Settings.from_flat(values), complete)


def told(problems: list[Any]) -> str:
    return "\n".join(problem.text() for problem in problems)


def test_defaults_lack_only_model_and_pictures() -> None:
    assert verdict().errors == [] and verdict().notes == []
    found = verdict(complete=True)
    assert [error.key for error in found.errors] == ["pretrained_model_name_or_path", "train_data_dir"]
    assert "1600 steps, which is the default" in told(found.notes)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"network_train_unet_only": True, "network_train_text_encoder_only": True}, "exclude each other"),
        ({"learning_rate": 0}, "nothing would be trained"),
        ({"unet_lr": 0, "text_encoder_lr": 0}, "nothing would be trained"),
        ({"unet_lr": 0, "network_train_unet_only": True}, "nothing would be trained"),
        ({"text_encoder_lr": 0, "network_train_text_encoder_only": True}, "nothing would be trained"),
        ({"unet_lr": 0, "cache_text_encoder_outputs": True}, "nothing would be trained"),
        (
            {"cache_text_encoder_outputs": True, "network_train_text_encoder_only": True},
            "cache_text_encoder_outputs and network_train_text_encoder_only exclude each other",
        ),
        ({"dim_from_weights": True}, "dim_from_weights needs a LoRA file"),
        (
            {"training_method": "finetune", "blocks_to_swap": 2, "gradient_checkpointing": True},
            "blocks_to_swap cannot be used where the whole model is trained\n   blocks that wait",
        ),
        ({"learning_rate": 2}, "learning_rate: 2.0 is out of range; allowed: 0 to 1 with AdamW"),
        ({"unet_lr": 2, "optimizer_type": "AdamW8bit"}, "unet_lr: 2.0 is out of range"),
        (
            {"text_encoder_lr": 2, "optimizer_type": "AdaFactor", "optimizer_args": ["relative_step=False"]},
            "text_encoder_lr: 2.0 is out of range",
        ),
        (
            {"optimizer_type": "AdaFactor", "optimizer_args": ["relative_step=False", "warmup_init=True"]},
            "warmup_init=True needs relative_step=True",
        ),
        (
            {"optimizer_type": "Prodigy", "unet_lr": 1, "text_encoder_lr": 0.5},
            "Prodigy takes one learning rate for all parts; those of U-Net and text encoder differ",
        ),
        (
            {"optimizer_type": "DAdaptAdam", "learning_rate": 1, "unet_lr": 0.5},
            "one learning rate for all parts",
        ),
        ({"optimizer_type": "DAdaptation", "learning_rate": 1, "text_encoder_lr": 0.5}, "for all parts"),
        ({"optimizer_type": "Prodigy", "learning_rate": 1, "loraplus_lr_ratio": 16}, "no LoRA+ ratios"),
        ({"optimizer_type": "Prodigy", "learning_rate": 1, "text_encoder_lr1": 0.5}, "for all parts"),
        (
            {
                "optimizer_type": "DAdaptSGD",
                "learning_rate": 1,
                "lr_scheduler": "cosine",
                "lr_warmup_steps": 1,
            },
            "DAdaptSGD cannot warm up",
        ),
        ({"lr_scheduler": "adafactor"}, "needs AdaFactor with relative_step=True; the optimizer is AdamW"),
        (
            {
                "lr_scheduler": "adafactor",
                "optimizer_type": "AdaFactor",
                "optimizer_args": ["relative_step=False"],
            },
            "needs AdaFactor with relative_step=True",
        ),
        ({"lr_scheduler": "piecewise_constant"}, "piecewise_constant needs step_rules"),
        ({"lr_scheduler": "cosine_with_min_lr"}, "cosine_with_min_lr needs the lowest rate"),
        (
            {
                "lr_scheduler": "cosine_with_min_lr",
                "lr_scheduler_min_lr_ratio": 0.1,
                "lr_scheduler_args": ["min_lr=1e-6"],
            },
            "the lowest rate is given twice",
        ),
        ({"optimizer_type": "AdamWScheduleFree", "ema_decay": 0.99}, "averages the weights already"),
        ({"output_name": "a/b"}, "output_name: 'a/b' must be a name without folders"),
        ({"output_name": "..\\b"}, "must be a name without folders"),
        ({"output_name": ".."}, "cannot be a file name"),
        ({"output_name": "what?"}, "cannot be a file name"),
        ({"enable_bucket": True, "bucket_reso_steps": 60}, "bucket_reso_steps: 60 is not a multiple of 8"),
        (
            {"enable_bucket": True, "min_bucket_reso": 1280},
            "min_bucket_reso 1280 is larger than max_bucket_reso 1024",
        ),
        (
            {"enable_bucket": True, "min_bucket_reso": 640, "resolution": 512},
            "larger than the training size 512,512",
        ),
        (
            {"enable_bucket": True, "max_bucket_reso": 512, "resolution": "512,768"},
            "smaller than the training size",
        ),
        ({"caption_dropout_rate": 1}, "no caption would ever be used"),
        ({"caption_dropout_every_n_epochs": 1}, "no caption would ever be used"),
        ({"sample_prompts": "p.txt", "sample_prompt_text": "a cat"}, "exclude each other"),
        ({"adaptive_noise_scale": 0.1}, "needs noise_offset"),
        ({"diff_output_preservation": True}, "needs to know the class"),
        ({"scale_v_pred_loss_like_noise_pred": True}, "for v-prediction only"),
        ({"v_pred_like_loss": 0.5, "v_parameterization": True}, "exclude each other"),
        ({"zero_terminal_snr": True, "debiased_estimation_loss": True}, "infinite at the last timestep"),
        ({"min_timestep": 500, "max_timestep": 300}, "min_timestep 500 is above max_timestep 300"),
    ],
)
def test_what_stops_a_run(values: dict[str, Any], said: str) -> None:
    errors = verdict(**values).errors
    assert said in told(errors)
    assert all(error.key in declarations() for error in errors)
    assert all(error.next for error in errors)


def test_masks_need_a_source_when_a_run_starts() -> None:
    assert "masked_loss has no masks" in told(verdict(complete=True, masked_loss=True).errors)
    for source in ({"alpha_mask": True}, {"dataset_config": "d.toml"}):
        assert "masked_loss" not in told(verdict(complete=True, masked_loss=True, **source).errors)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"unet_lr": 0}, "the U-Net has a learning rate of 0: this part will not be trained"),
        (
            {"enable_bucket": True, "resolution": 128},
            "left at 256, is lowered to suit the training size 128,128",
        ),
        ({"text_encoder_lr": 0}, "the text encoder has a learning rate of 0: this part will not be trained"),
        ({"lr_warmup_steps": 100}, "the schedule 'constant' has no warm-up"),
        (
            {"lr_warmup_steps": 500, "max_train_steps": 400, "lr_scheduler": "cosine"},
            "lr_warmup_steps 500 is more than max_train_steps 400",
        ),
        ({"optimizer_type": "AdaFactor"}, "AdaFactor sets the rate itself"),
        (
            {"optimizer_type": "AdaFactor", "optimizer_args": ["relative_step=False"]},
            "those that start at 0 learn slowly",
        ),
        ({"optimizer_type": "Prodigy"}, "Prodigy finds its step size by itself; learning_rate 2e-06"),
        (
            {"optimizer_type": "prodigyopt.Prodigy", "learning_rate": 0.05},
            "Prodigy finds its step size by itself",
        ),
        ({"optimizer_type": "RAdamScheduleFree", "lr_scheduler": "cosine"}, "the schedule is not used"),
        (
            {"optimizer_type": "AdamWScheduleFree", "lr_warmup_steps": 10},
            "lr_warmup_steps has no effect with AdamWScheduleFree",
        ),
        ({"lr_scheduler_type": "StepLR", "lr_scheduler": "cosine"}, "lr_scheduler cosine is not used"),
        ({"lr_scheduler_type": "StepLR", "lr_warmup_steps": 10}, "StepLR does not know it"),
        ({"lr_scheduler": "warmup_stable_decay"}, "never decays, as lr_decay_steps is 0"),
        (
            {
                "lr_scheduler": "piecewise_constant",
                "lr_scheduler_args": ["step_rules=1:10,0.5"],
                "lr_warmup_steps": 5,
            },
            "'piecewise_constant' has no warm-up",
        ),
        ({"lr_scheduler_power": 2}, "lr_scheduler_power only counts with lr_scheduler = polynomial"),
        (
            {"dataset_config": "d.toml", "train_data_dir": "p"},
            "train_data_dir, reg_data_dir and in_json are not used",
        ),
        ({"max_train_steps": 100, "max_train_epochs": 2}, "max_train_steps 100 is not used"),
        ({"network_alpha": 0}, "an alpha of 0 counts as the rank"),
        ({"conv_alpha": 4}, "conv_alpha has no effect without conv_dim"),
        ({"keep_tokens": 1}, "keep_tokens has no effect"),
        ({"caption_variants": 4}, "have no effect without cache_text_encoder_outputs"),
        (
            {"dim_from_weights": True, "network_weights": "l", "network_dim": 8},
            "network_dim and conv_dim are not used",
        ),
        ({"xformers": True, "sdpa": True}, "sdpa is not used"),
        ({"xformers": True, "mem_eff_attn": True}, "mem_eff_attn is not used, as xformers"),
        ({"sample_every_n_steps": 10}, "no sample pictures are drawn"),
        ({"sample_prompt_text": "a cat"}, "the sample prompts are never drawn"),
        ({"sample_every_n_steps": 5, "sample_every_n_epochs": 1}, "sample_every_n_steps is not used"),
        ({"ema_start": 5}, "ema_start has no effect"),
        ({"training_method": "dreambooth", "learning_rate": 1e-4}, "far above what a whole model bears"),
        ({"training_method": "textual_inversion", "learning_rate": 1e-6}, "1e-06 hardly moves a word"),
        ({"learning_rate": 2e-6, "pretrained_model_name_or_path": "m"}, "2e-06 hardly moves a LoRA"),
        (
            {"blocks_to_swap": 2, "gradient_checkpointing": True, "training_method": "lllite"},
            "only counts with",
        ),
        ({"validate_every_n_steps": 5}, "nothing is measured"),
        ({"masked_loss_normalize": True}, "masked_loss_normalize has no effect"),
        ({"save_model_as": "ckpt"}, "a .ckpt file cannot carry the settings"),
        ({"log_prefix": "x"}, "log_prefix has no effect without logging_dir"),
        ({"min_bucket_reso": 128}, "min_bucket_reso only counts with enable_bucket = true"),
        (
            {"lr_scheduler_num_cycles": 3},
            "lr_scheduler_num_cycles only counts with lr_scheduler = cosine_with_restarts",
        ),
    ],
)
def test_what_a_person_is_told(values: dict[str, Any], said: str) -> None:
    found = verdict(**values)
    assert said in told(found.notes)
    assert found.errors == []
    assert all(note.key in declarations() for note in found.notes)


@pytest.mark.parametrize(
    ("values", "changes"),
    [
        ({"cache_latents_to_disk": True}, {"cache_latents": True}),
        (
            {"cache_text_encoder_outputs_to_disk": True, "network_train_unet_only": True},
            {"cache_text_encoder_outputs": True},
        ),
        ({"cache_text_encoder_outputs": True, "unet_lr": 1e-5}, {"network_train_unet_only": True}),
        ({"cache_text_encoder_outputs": True, "text_encoder_lr": 1e-5}, {"network_train_unet_only": True}),
        (
            {"cache_text_encoder_outputs_to_disk": True},
            {"cache_text_encoder_outputs": True, "network_train_unet_only": True},
        ),
        ({"cache_text_encoder_outputs": True, "text_encoder_lr": 0}, {}),
        ({"enable_bucket": True, "resolution": 1040}, {"max_bucket_reso": 1088}),
        ({"enable_bucket": True, "resolution": 1024}, {}),
        ({"resolution": 2048}, {}),
    ],
)
def test_changes_that_follow_are_made_told_and_final(values: dict[str, Any], changes: dict[str, Any]) -> None:
    given = Settings.from_flat(values)
    found = check(given, complete=False)
    assert found.settings == given.replace(**changes)
    assert found.errors == []
    assert bool(found.notes) >= bool(changes)
    again = check(found.settings, complete=False)
    assert again.settings == found.settings


def test_rates_that_adafactor_sets_itself_may_be_large() -> None:
    assert verdict(optimizer_type="AdaFactor", learning_rate=5).errors == []


@pytest.mark.parametrize(
    "values",
    [
        {"learning_rate": 1.5},
        {"unet_lr": 1, "text_encoder_lr": 1},
        {"learning_rate": 1, "text_encoder_lr1": 1, "text_encoder_lr2": 1},
        {"learning_rate": 1, "text_encoder_lr": 0},
        {"unet_lr": 1, "text_encoder_lr": 0.5, "network_train_unet_only": True},
        {"unet_lr": 1, "learning_rate": 0.3, "cache_text_encoder_outputs": True},
    ],
)
def test_rates_that_suit_prodigy(values: dict[str, Any]) -> None:
    found = verdict(optimizer_type="Prodigy", **values)
    assert found.errors == []
    assert "finds its step size" not in told(found.notes)


def test_rules_name_options_and_have_texts_that_can_be_filled() -> None:
    values = Settings().flat()
    assert len({rule.id for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert set(rule.keys) <= set(values), rule.id
        assert rule.field in values, rule.id
        assert rule.what.format_map(values)
        assert (rule.change is not None) == (rule.kind == "change")
        holds(rule.when, values)


@pytest.mark.parametrize(
    ("value", "given"), [(None, False), (False, False), ("", False), ([], False), (0, True), (0.0, True)]
)
def test_zero_is_a_value_and_nothing_is_not(value: Any, given: bool) -> None:
    assert is_set(value) is given
    assert holds(("x", "set"), {"x": value}) is given
    assert holds(("x", "unset"), {"x": value}) is not given


def test_conditions() -> None:
    values = {"a": 3, "b": None, "size": "512,768", "args": ["relative_step=False", "odd"]}
    assert holds(("all", ("a", ">", 2), ("any", ("a", "=", 4), ("not", ("b", "set")))), values)
    assert not holds(("b", "<", 5), values) and not holds(("a", "<", ("key", "b")), values)
    assert holds(("a", "<", ("shorter side", "size")), values) and holds(
        ("a", "<", ("longer side", "size")), values
    )
    assert holds(("args.relative_step", "=", False), values) and holds(("args.odd", "unset"), values)
    assert holds(("size", "has any of", "x,"), values) and holds(("a", "not multiple of", 2), values)


def test_the_smallest_bucket_side_left_alone_follows_a_small_training_size() -> None:
    found = verdict(enable_bucket=True, resolution=128)
    assert not found.errors
    assert found.settings.dataset.min_bucket_reso == 64
