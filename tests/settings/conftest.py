"""Values for every option, made from its declaration."""

from __future__ import annotations

from typing import Any

from backend.settings.declare import Declared

COMPANIONS: dict[str, dict[str, Any]] = {
    "resume_from_huggingface": {"resume": "ann/cats/cat-state"},
    "dim_from_weights": {"network_weights": "lora.safetensors"},
    "adaptive_noise_scale": {"noise_offset": 0.1},
    "base_weights_multiplier": {"base_weights": ["a.safetensors", "b.safetensors"]},
    "lr_scheduler_args": {"lr_scheduler": "polynomial"},
    "scale_v_pred_loss_like_noise_pred": {"v_parameterization": True},
    "diff_output_preservation": {"diff_output_preservation_class": "dog"},
    "full_fp16": {"mixed_precision": "fp16"},
    "full_bf16": {"mixed_precision": "bf16"},
    "fp8_base": {"mixed_precision": "bf16"},
    "fp8_base_unet": {"mixed_precision": "bf16"},
    "fused_backward_pass": {"optimizer_type": "AdaFactor"},
    "num_class_images": {"class_prompt": "a dog", "reg_data_dir": "class pictures"},
    "num_machines": {"num_processes": 32, "main_process_ip": "10.0.0.1", "main_process_port": 29500},
    "machine_rank": {
        "num_machines": 32,
        "num_processes": 64,
        "main_process_ip": "10.0.0.1",
        "main_process_port": 29500,
    },
}
"""Options that a rule allows only together with others."""


def companions(declared: Declared) -> dict[str, Any]:
    """What an option needs beside it to be allowed."""
    method = (
        {}
        if not declared.methods or "network" in declared.methods
        else {"training_method": declared.methods[0]}
    )
    return {**method, **COMPANIONS.get(declared.key, {})}


def other_value(declared: Declared) -> Any:
    """A value that is allowed and is not the default, as it is written."""
    if declared.kind == "bool":
        return not declared.default
    if declared.kind == "choice":
        return next(choice for choice in declared.choices if choice != declared.default)
    if declared.kind == "int":
        return next(n for n in (16, 3, 32) if n in declared.bounds and n != declared.default)
    if declared.kind == "float":
        return 0.25
    if declared.info.path:
        return "/data/my pictures/日本語 #1 [x] 'q' %.file"
    special = {
        "base_weights": ["/data/my LoRAs/日本語.safetensors", "b.safetensors"],
        "base_weights_multiplier": ["0.5", "1"],
        "optimizer_args": ["weight_decay=0.05", "betas=.9,.99"],
        "output_name": "Mein Größter_1",
        "face_crop_aug_range": "2,4.5",
        "block_lr": "1e-5",
        "emb_dims": "2,3,4,5,0,7",
        "train_block_indices": "0-3,7",
        "lr_scheduler_type": "CosineAnnealingLR",
        "lr_scheduler_args": ["lr_end=1e-6"],
    }
    by_kind = {"text": 'two lines\n"quoted" \\ 日本語 $HOME', "resolution": "512,768", "steps": 0.1}
    return special.get(declared.key) or by_kind[declared.kind]
