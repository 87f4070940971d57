"""The command line, as people type it today."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from backend.errors import InputError
from backend.settings import Settings, declarations, parse_command_line
from backend.settings.command import Actions, ParsedCommand, help_text

BASE = "--pretrained_model_name_or_path=M --dataset_config=D.toml --output_dir=O --output_name=N"
LORA = (
    f"{BASE} --save_model_as=safetensors --prior_loss_weight=1.0 --max_train_steps=400 --learning_rate=1e-4 "
    '--optimizer_type="AdamW8bit" --xformers --mixed_precision="fp16" --cache_latents --gradient_checkpointing '
    "--save_every_n_epochs=1 --network_module=networks.lora"
)

DIMS = "2,4,4,4,8,8,8,8,12,12,12,12,16,12,12,12,12,8,8,8,8,4,4,4,2"


def parse(line: str, complete: bool = True) -> Settings:
    return parse_command_line(shlex.split(line), complete=complete).settings


def fault(line: str, complete: bool = False) -> str:
    with pytest.raises(InputError) as caught:
        parse(line, complete)
    return caught.value.text()


def test_the_line_of_the_handbook() -> None:
    assert parse(LORA).changed() == {
        "pretrained_model_name_or_path": "M",
        "dataset_config": "D.toml",
        "output_dir": "O",
        "output_name": "N",
        "max_train_steps": 400,
        "learning_rate": 1e-4,
        "optimizer_type": "AdamW8bit",
        "xformers": True,
        "mixed_precision": "fp16",
        "cache_latents": True,
        "gradient_checkpointing": True,
        "save_every_n_epochs": 1,
    }


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ('--network_args "conv_dim=4"', {"conv_dim": 4}),
        (
            "--network_module=networks.dylora --network_dim=32 --network_alpha=16 "
            '--network_args "conv_dim=32" "conv_alpha=16" "unit=8"',
            {
                "network_module": "networks.dylora",
                "network_dim": 32,
                "network_alpha": 16.0,
                "conv_dim": 32,
                "conv_alpha": 16.0,
                "unit": 8,
            },
        ),
        (
            '--network_args "block_lr_zero_threshold=0.1" "down_lr_weight=sine+.5" "mid_lr_weight=1.5" "up_lr_weight=cosine+.5"',
            {
                "block_lr_zero_threshold": 0.1,
                "down_lr_weight": "sine+.5",
                "mid_lr_weight": "1.5",
                "up_lr_weight": "cosine+.5",
            },
        ),
        (
            f'--network_args "block_dims={DIMS}" "conv_block_dims={DIMS}"',
            {"block_dims": DIMS, "conv_block_dims": DIMS},
        ),
        (
            '--network_module=lycoris.kohya --network_args "algo=lora" "conv_dim=1" "use_cp=True" "dora_wd=True" '
            '"bypass_mode=True" "use_scalar=False" "constraint=None"',
            {
                "network_module": "lycoris.kohya",
                "conv_dim": 1,
                "use_tucker": True,
                "dora_wd": True,
                "bypass_mode": True,
            },
        ),
        (
            "--base_weights a.safetensors 'b c.safetensors' --base_weights_multiplier 0.5 1 --scale_weight_norms=1",
            {
                "base_weights": ["a.safetensors", "b c.safetensors"],
                "base_weights_multiplier": ["0.5", "1"],
                "scale_weight_norms": 1.0,
            },
        ),
        ('--network_args "conv_dim=4" "conv_alpha=1"', {"conv_dim": 4, "conv_alpha": 1.0}),
        (
            "--vae_batch_size=0 --scale_weight_norms 0 --max_train_epochs=0 --network_args loraplus_lr_ratio=0",
            {
                "vae_batch_size": 1,
                "scale_weight_norms": None,
                "max_train_epochs": None,
                "loraplus_lr_ratio": None,
            },
        ),
        ('--network_args "conv_dim = 4" "dropout=0"', {"conv_dim": 4, "network_dropout": None}),
        (
            '--network_module lycoris.kohya --network_args "preset=attn-mlp" "dropout=0.2" "algo=lora"',
            {"preset": "attn-mlp", "network_dropout": 0.2, "algo": "locon"},
        ),
        (
            "--network_module=lycoris.kohya --network_args algo=diag-oft constrain=0.5",
            {"algo": "diag-oft", "constraint": 0.5},
        ),
        (
            '--optimizer_type=adafactor --optimizer_args "relative_step=True" "scale_parameter=True" "warmup_init=True"',
            {
                "optimizer_type": "AdaFactor",
                "optimizer_args": ["relative_step=True", "scale_parameter=True", "warmup_init=True"],
            },
        ),
        (
            '--optimizer_type=adafactor --optimizer_args "relative_step=False" --lr_scheduler="constant_with_warmup" '
            "--max_grad_norm=0.0",
            {
                "optimizer_type": "AdaFactor",
                "optimizer_args": ["relative_step=False"],
                "lr_scheduler": "constant_with_warmup",
                "max_grad_norm": 0.0,
            },
        ),
        (
            "--optimizer_args weight_decay=0.01 betas=.9,.999",
            {"optimizer_args": ["weight_decay=0.01", "betas=.9,.999"]},
        ),
        (
            "--resolution=1024,1024 --max_train_epochs=40 --lr_scheduler=constant_with_warmup --max_token_length=225 "
            "--caption_extension=.txt --vae_batch_size=4 --bucket_reso_steps=32 --clip_skip=2 --prior_loss_weight=0 "
            "--network_dim=128 --network_alpha=64 --shuffle_caption --noise_offset=0.1 --use_8bit_adam "
            "--network_train_unet_only --unet_lr=2e-5 --text_encoder_lr=1e-6 --lr_scheduler_num_cycles=1 --enable_bucket "
            "--min_bucket_reso=512 --max_bucket_reso=1536 --gradient_accumulation_steps=1 --lr_warmup_steps=100 "
            "--caption_dropout_every_n_epochs=0 --caption_dropout_rate=0 --caption_tag_dropout_rate=0.1",
            {
                "optimizer_type": "AdamW8bit",
                "prior_loss_weight": 0.0,
                "resolution": "1024,1024",
                "lr_warmup_steps": 100,
            },
        ),
        ("--learning_rate 2e-4 --seed 42", {"learning_rate": 2e-4, "seed": 42}),
        ("--cache_latents=false", {"cache_latents": False}),
        ("--text_encoder_lr 1e-5 1e-5", {"text_encoder_lr": 1e-5}),
        ("--text_encoder_lr 1e-5", {"text_encoder_lr": 1e-5}),
        ("--caption_extention=.txt", {"caption_extension": ".txt"}),
        ("--optimizer_type=", {"optimizer_type": "AdamW"}),
        ("--caption_prefix=--odd--", {"caption_prefix": "--odd--"}),
        ("--seed 1 --seed 2", {"seed": 2}),
        (
            "--learning 1E-3 --train_b=2 --network_w a.safetensors",
            {"learning_rate": 1e-3, "train_batch_size": 2},
        ),
    ],
)
def test_what_people_type(more: str, wanted: dict[str, object]) -> None:
    line = LORA.replace('--optimizer_type="AdamW8bit" ', "") + " " + more
    flat = parse(line).flat()
    assert {key: flat[key] for key in wanted} == wanted


def test_a_file_is_overridden_only_by_what_is_typed(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        "[a]\nlearning_rate = 1e-5\nmax_train_steps = 100\ncache_latents = true\nuse_8bit_adam = true\n"
        'network_args = ["conv_dim=4", "conv_alpha=2"]\nrank_dropout = 0.1\n',
        encoding="utf-8",
    )
    settings = parse(
        f"--config_file {tmp_path / 'run'} --learning_rate 2e-4 --cache_latents=false --optimizer_type=AdamW",
        False,
    )
    assert settings.changed() == {
        "learning_rate": 2e-4,
        "max_train_steps": 100,
        "conv_dim": 4,
        "conv_alpha": 2.0,
        "rank_dropout": 0.1,
    }
    replaced = parse(f"--config_file={file} --network_args conv_dim=8", False)
    assert (replaced.network.conv_dim, replaced.network.conv_alpha, replaced.network.rank_dropout) == (
        8,
        None,
        0.1,
    )


def test_options_that_need_nothing_are_told() -> None:
    line = "--tokenizer_cache_dir=tok --persistent_data_loader_workers --lowram --skip_cache_check --cache_info --v2"
    command = parse_command_line(shlex.split(line), complete=False)
    assert command.settings == Settings()
    assert len(command.notes) == 6
    assert all("needs nothing here: " in note.what for note in command.notes)


def test_names_may_be_cut_short_and_that_is_told() -> None:
    command = parse_command_line(["--gradient_c", "--network_al", "2"], complete=False)
    assert command.settings.changed() == {"gradient_checkpointing": True, "network_alpha": 2.0}
    assert [note.what for note in command.notes] == [
        "--gradient_c is read as --gradient_checkpointing",
        "--network_al is read as --network_alpha",
    ]


def test_a_settings_file_may_have_no_ending_or_a_loud_one(tmp_path: Path) -> None:
    for name in ("bare", "LOUD.TOML"):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf[a]\r\nseed = 7\r\noutput_dir = 'C:\\runs'\r\n")
        settings = parse(f"--config_file {tmp_path / name}", False)
        assert settings.changed() == {"seed": 7, "output_dir": "C:\\runs"}


def test_another_name_is_told() -> None:
    command = parse_command_line(["--use_8bit_adam"], complete=False)
    assert [note.what for note in command.notes] == ["use_8bit_adam is read as optimizer_type = AdamW8bit"]
    assert "use_8bit_adam and optimizer_type=AdaFactor exclude each other" in fault(
        "--use_8bit_adam --optimizer_type=AdaFactor"
    )


@pytest.mark.parametrize(
    ("line", "said", "advice"),
    [
        ("--learing_rate=1e-4", "unknown option --learing_rate", "Did you mean --learning_rate?"),
        ("--learning-rate=1e-4", "unknown option --learning-rate", "Did you mean --learning_rate?"),
        ("--alpha=1", "unknown option --alpha", "Did you mean --network_alpha?"),
        ("--cache_lat", "--cache_lat may mean --cache_latents, --cache_latents_to_disk", "the whole name"),
        ("--no_cache_latents", "unknown option --no_cache_latents", "write --cache_latents=false"),
        ("--zero3_init_flag", "Atelier does not have --zero3_init_flag", "fsdp splits up weights too"),
        ("--debug_dataset", "Atelier does not have --debug_dataset", "tools/probe_data.py"),
        ("--dataset_class=a.B", "Atelier does not have --dataset_class", "dataset files are read"),
        ("--save_last_n_steps=-3", "save_last_n_steps: -3 is out of range", ""),
        ("--optimizer_type AdanW", "there is no optimizer 'AdanW'; did you mean AdamW?", ""),
        ("--optimizer_type LBFGS", "LBFGS cannot be used: it evaluates the loss several times", ""),
        ("--lr_scheduler cosin", "there is no schedule 'cosin'; did you mean cosine?", ""),
        ("--lr_scheduler greedy", "greedy cannot be used: it needs a measured value", ""),
        ("--lr_scheduler_type LambdaLR", "LambdaLR cannot be used: it needs a function", ""),
        ("--lr_scheduler_type CosineAnealingLR", "did you mean CosineAnnealingLR?", ""),
        ("--optimizer_args lr=1", "optimizer_args: unknown key lr", "give it as learning_rate"),
        ("--lr_scheduler_args T_max=1", "lr_scheduler_args: unknown key T_max", "takes no arguments"),
        ("--network_dim", "--network_dim needs a value", ""),
        ("--output_dir my folder", "--output_dir: expected one value, got 2 ('my', 'folder')", "quotes"),
        ("--cache_latents yes", "cache_latents: expected true or false, got text ('yes')", ""),
        ("stray --seed 1", "'stray' belongs to no option", ""),
        ("--network_args conv_dim", "network_args: 'conv_dim' is not of the form key=value", ""),
        ("--network_args conv_dims=4", "network_args: unknown key conv_dims", "Did you mean conv_dim?"),
        ("--network_args colour=4", "network_args: unknown key colour", "known are algo"),
        ("--network_args conv_dim=x", "conv_dim: expected a whole number, got text ('x')", ""),
        ("--network_args conv_dim=4 --conv_dim=8", "conv_dim is given twice", ""),
        ("--optimizer_args weight_decay", "optimizer_args: 'weight_decay' is not of the form key=value", ""),
        ("--optimizer_args weight_decay=a.b", "the value of 'weight_decay=a.b' cannot be read", ""),
        (
            "--optimizer_args weigth_decay=1",
            "optimizer_args: unknown key weigth_decay",
            "Did you mean weight_decay?",
        ),
        (
            "--network_module=networks.dilora",
            "network_module: text ('networks.dilora') is not one of: networks.lora, networks.lora_fa",
            "",
        ),
        ("--learning_rate -1e-4", "learning_rate: -0.0001 is out of range; allowed: 0 to 100", ""),
        ("--config_file", "--config_file needs a value", ""),
        ("--config_file /nowhere/run", "Settings file not found: /nowhere/run.toml", ""),
        ("-seed 1", "'-seed' belongs to no option", "--seed"),
    ],
)
def test_what_is_said_of_wrong_lines(line: str, said: str, advice: str) -> None:
    text = fault(line)
    assert said in text and advice in text


def test_file_line_and_rules_are_told_in_one_list(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("seed = 1.5\ndim_from_weights = true\nmasked_loss = true\n", encoding="utf-8")
    text = fault(f"--config_file {file} --rank 4 --network_dim 0", complete=True)
    for part in (
        "line 1: seed",
        "--rank",
        "Did you mean --network_dim?",
        "network_dim: 0",
        "no base model",
        "no pictures",
    ):
        assert part in text
    assert "masked_loss" in text and "dim_from_weights needs a LoRA file" in text


def test_an_unreadable_file_is_the_only_thing_told(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("a: 1", encoding="utf-8")
    assert "no base model" not in fault(f"--config_file {tmp_path / 'run.toml'}", complete=True)


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_command_line(["--seed", "1", "--help"], prog="train_network.py")
    shown = capsys.readouterr().out
    assert ended.value.code == 0 and shown.startswith("usage: train_network.py")
    assert shown == help_text("train_network.py") + "\n"
    assert all(
        f"  --{key}" in shown and declared.info.help[:20] in shown for key, declared in declarations().items()
    )


def test_the_script_ends_with_2_and_says_what_is_wrong(root: Path, tmp_path: Path) -> None:
    words = [sys.executable, str(root / "tools" / "train_network.py"), "--learing_rate=1"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "error: command line: unknown option --learing_rate" in done.stderr
    assert "Traceback" not in done.stderr and "usage:" not in done.stderr


def actions(*words: str) -> ParsedCommand:
    return parse_command_line(words, complete=True, actions=True)


def test_settings_can_be_written_in_place_of_training(tmp_path: Path) -> None:
    parsed = actions("--config_file", str(tmp_path / "run"), "--output_config", "--network_dim=8")
    assert parsed.actions == Actions(output_config=tmp_path / "run.toml")
    assert parsed.settings.changed() == {"network_dim": 8}, "a base model may be missing"


def test_an_existing_file_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("seed = 1\n")
    with pytest.raises(InputError, match=r"run.toml exists already"):
        actions("--config_file", str(tmp_path / "run"), "--output_config")
    with pytest.raises(InputError, match="--output_config needs a file to write"):
        actions("--output_config", "--network_dim=8")
    assert (tmp_path / "run.toml").read_text() == "seed = 1\n"


def test_a_dry_run_is_asked_for_by_switches() -> None:
    whole = ("--pretrained_model_name_or_path=m", "--train_data_dir=d")
    assert actions(*whole, "--dry_run").actions == Actions(dry_run=True)
    assert actions(*whole, "--dry_run=true", "--json").actions == Actions(dry_run=True, json=True)
    assert actions(*whole, "--dry_run=false").actions == Actions()
    with pytest.raises(InputError, match="--dry_run takes no value"):
        actions(*whole, "--dry_run", "now")
    with pytest.raises(InputError, match="unknown option --dry_run"):
        parse_command_line([*whole, "--dry_run"])
