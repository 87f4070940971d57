"""Whole command lines that people know from sd-scripts: each is read, and nothing forbids it."""

from __future__ import annotations

import re
import shlex

import pytest

from backend.settings import check, parse_command_line
from backend.settings.imports import import_text
from backend.settings.methods import METHODS

PLACES = "--pretrained_model_name_or_path=M --output_dir=O --output_name=N"
LORA = (
    f"train_network.py {PLACES} --dataset_config=D.toml --save_model_as=safetensors --prior_loss_weight=1.0 "
    '--max_train_steps=400 --learning_rate=1e-4 --optimizer_type="AdamW8bit" --xformers --mixed_precision="fp16" '
    "--cache_latents --gradient_checkpointing --save_every_n_epochs=1 --network_module=networks.lora"
)
SDXL = (
    f"sdxl_train_network.py {PLACES} --dataset_config=D.toml --save_model_as=safetensors --network_module=networks.lora "
    "--network_dim=32 --network_alpha=16 --learning_rate=1e-4 --unet_lr=1e-4 --text_encoder_lr1=1e-5 --text_encoder_lr2=1e-5 "
    '--optimizer_type="AdamW8bit" --lr_scheduler="constant" --max_train_epochs=10 --save_every_n_epochs=1 '
    '--mixed_precision="bf16" --gradient_checkpointing --cache_text_encoder_outputs --cache_latents'
)
SD3 = (
    f"sd3_train_network.py {PLACES} --clip_l=L --clip_g=G --t5xxl=T --dataset_config=D.toml --save_model_as=safetensors "
    "--network_module=networks.lora --network_dim=16 --network_alpha=1 --learning_rate=1e-4 "
    '--optimizer_type="AdamW8bit" --lr_scheduler="constant" --sdpa --max_train_epochs=10 --save_every_n_epochs=1 '
    '--mixed_precision="fp16" --gradient_checkpointing --weighting_scheme="sigma_sqrt" --blocks_to_swap=32'
)
DREAMBOOTH = (
    f"train_db.py {PLACES} --train_data_dir=T --reg_data_dir=R --prior_loss_weight=1.0 --resolution=512 "
    "--train_batch_size=1 --learning_rate=1e-6 --max_train_steps=1600 --use_8bit_adam --xformers "
    '--mixed_precision="bf16" --cache_latents --gradient_checkpointing'
)
LYCORIS = (
    f"train_network.py {PLACES} --train_data_dir=T --network_module=lycoris.kohya "
    '--network_args "conv_dim=1" "conv_alpha=1" "use_tucker=True" "dora_wd=True" "bypass_mode=True" '
    "--resolution=1024,1024 --max_train_epochs=40 --lr_scheduler=constant_with_warmup --max_token_length=225 "
    "--caption_extension=.txt --vae_batch_size=4 --bucket_reso_steps=32 --clip_skip=2 --prior_loss_weight=0 "
    "--network_dim=128 --network_alpha=64 --shuffle_caption --noise_offset=0.1 --adaptive_noise_scale=0.0375 "
    "--noise_offset_random_strength --use_8bit_adam --network_train_unet_only --unet_lr=2e-5 --text_encoder_lr=1e-6 "
    "--lr_scheduler_num_cycles=1 --enable_bucket --min_bucket_reso=512 --max_bucket_reso=1536 "
    "--gradient_accumulation_steps=1 --lr_warmup_steps=100 --caption_dropout_every_n_epochs=0 "
    "--caption_dropout_rate=0 --caption_tag_dropout_rate=0.1"
)
DIMS = "2,4,4,4,8,8,8,8,12,12,12,12,16,12,12,12,12,8,8,8,8,4,4,4,2"
LINES = (
    LORA,
    f'{LORA} --network_args "conv_dim=4"',
    f'{LORA} --network_module=networks.dylora --network_dim=16 --network_args "unit=4"',
    f"{LORA} --network_module=networks.dylora --network_dim=32 --network_alpha=16 "
    '--network_args "conv_dim=32" "conv_alpha=16" "unit=8"',
    f'{LORA} --network_args "down_lr_weight=0.5,0.5,0.5,0.5,1.0,1.0,1.0,1.0,1.5,1.5,1.5,1.5" "mid_lr_weight=2.0" '
    '"up_lr_weight=1.5,1.5,1.5,1.5,1.0,1.0,1.0,1.0,0.5,0.5,0.5,0.5"',
    f'{LORA} --network_args "block_lr_zero_threshold=0.1" "down_lr_weight=sine+.5" "mid_lr_weight=1.5" '
    '"up_lr_weight=cosine+.5"',
    f'{LORA} --network_args "block_dims={DIMS}" "conv_block_dims={DIMS}"',
    LYCORIS,
    f"{LYCORIS} --max_train_steps=2 --max_train_epochs=",
    DREAMBOOTH,
    f"{DREAMBOOTH} --resolution=768,512 --train_batch_size=20 --learning_rate=5e-6 --save_every_n_epochs=1 --save_state "
    '--save_precision="bf16" --logging_dir=logs --enable_bucket --min_bucket_reso=384 --max_bucket_reso=1280 '
    "--color_aug --flip_aug --seed 42 --cache_latents=false",
    SDXL,
    SD3,
    f'{SD3} --network_args "context_attn_dim=2" "context_mlp_dim=3" "context_mod_dim=4" "x_attn_dim=5" "x_mlp_dim=6" '
    '"x_mod_dim=7" "verbose=True"',
    f'{SD3} --network_module=networks.lora_sd3 --network_args "emb_dims=[2,3,4,5,6,7]"',
    f'{SD3} --network_args "train_block_indices=1,2,6-8"',
    f'{LORA} --optimizer_type=adafactor --optimizer_args "relative_step=True" "scale_parameter=True" "warmup_init=True"',
    f'{LORA} --optimizer_type=adafactor --optimizer_args "relative_step=False" --lr_scheduler="constant_with_warmup" '
    "--max_grad_norm=0.0",
    f"{LORA} --optimizer_type=RMSprop",
    f"{LORA} --optimizer_type=bitsandbytes.optim.lamb.LAMB",
    f"{LORA} --optimizer_args weight_decay=0.01 betas=.9,.999",
)
METHOD_OF = {tool: name for name, method in METHODS.items() for tool in method.tools.values()}


def read(line: str, reverse: bool = False) -> dict[str, object]:
    """The changed settings of a line, its options in the other order if asked for."""
    prog, *words = shlex.split(line)
    starts = [place for place, word in enumerate(words) if word.startswith("--")]
    options = [words[a:b] for a, b in zip(starts, [*starts[1:], len(words)], strict=True)]
    last = {
        re.split("=", option[0], maxsplit=1)[0]: option for option in options
    }  # the last of equals counts
    ordered = list(last.values())[:: -1 if reverse else 1]
    argv = [word for option in ordered for word in option]
    command = parse_command_line(argv, prog=prog, method=METHOD_OF.get(prog, "network"))
    assert check(command.settings).errors == []
    return command.settings.changed()


@pytest.mark.parametrize("line", LINES, ids=range(len(LINES)))
def test_a_line_is_read_in_any_order_and_from_paper(line: str) -> None:
    settings = read(line)
    assert settings == read(line, reverse=True)
    pasted = "accelerate launch --num_cpu_threads_per_process 1 " + line.replace(" --", " ^\r\n  --")
    found = import_text(pasted)
    assert not found.of("unsupported") and not found.problems
    assert found.settings.changed() == {**settings, "num_cpu_threads_per_process": 1}
