"""Fields of kohya_ss's form that are called otherwise here, or that need no option here."""

from __future__ import annotations

from collections.abc import Mapping

RENAMED: Mapping[str, str] = {
    "LyCORIS_preset": "preset",
    "constrain": "constraint",
    "conv_alphas": "conv_block_alphas",
    "conv_dims": "conv_block_dims",
    "image_folder": "train_data_dir",
    "lora_network_weights": "network_weights",
    "max_resolution": "resolution",
    "optimizer": "optimizer_type",
    "sd3_clip_l_dropout_rate": "clip_l_dropout_rate",
    "sd3_clip_l": "clip_l",
    "sd3_disable_mmap_load_safetensors": "disable_mmap_load_safetensors",
    "sd3_enable_scaled_pos_embed": "enable_scaled_pos_embed",
    "sd3_fused_backward_pass": "fused_backward_pass",
    "sd3_t5_dropout_rate": "t5_dropout_rate",
    "sd3_t5xxl": "t5xxl",
    "sd3_text_encoder_batch_size": "text_encoder_batch_size",
    "t5xxl_lr": "text_encoder_lr3",
    "use_cp": "use_tucker",
}
"""Field of the form -> option, with the same meaning."""

METHODS: Mapping[str, frozenset[str]] = {
    "network": frozenset({"LoRA_type", "network_dim", "network_alpha"}),
    "textual_inversion": frozenset({"token_string", "init_word", "template"}),
    "finetune": frozenset(
        {"image_folder", "train_dir", "dataset_repeats", "generate_caption_database", "create_caption"}
    ),
    "dreambooth": frozenset({"learning_rate_te", "learning_rate_te1", "learning_rate_te2"}),
}
"""Training method -> fields that only its page of the form has; the first that fits counts."""

FORM_ONLY: Mapping[str, str] = {
    "batch_size": "latents are encoded by the training itself",
    "caption_metadata_filename": "it is used together with the training folder",
    "create_buckets": "buckets are made by the training itself",
    "create_caption": "captions are read straight from their files",
    "file_path": "a note of the form",
    "full_path": "pictures are found wherever they lie",
    "generate_caption_database": "captions are read straight from their files",
    "generate_image_buckets": "buckets are made by the training itself",
    "headless": "a note of the form",
    "latent_metadata_filename": "it is used together with the training folder",
    "lowvram": "sd-scripts has removed it",
    "mem_eff_save": "files are written piece by piece anyway",
    "model_list": "a note of the form",
    "multi_gpu": "num_processes says it",
    "print_only": "a note of the form",
    "save_as": "a note of the form",
    "save_as_bool": "a note of the form",
    "sdxl": "the kind of model is read from its file",
    "sdxl_checkbox": "the kind of model is read from its file",
    "sd3_checkbox": "the kind of model is read from its file",
    "use_latent_files": "it is used together with the training folder",
    "v2": "the kind of model is read from its file",
}
"""Field -> why there is nothing to do for it."""

KINDS: Mapping[str, tuple[str, str]] = {
    "Standard": ("networks.lora", ""),
    "Kohya LoCon": ("networks.lora", ""),
    "LoCon": ("lycoris.kohya", "locon"),
    "LoRA-FA": ("networks.lora_fa", ""),
    "Kohya DyLoRA": ("networks.dylora", ""),
    "Kohya LoHa": ("lycoris.kohya", "loha"),
    "Kohya LoKr": ("lycoris.kohya", "lokr"),
    "LyCORIS/BOFT": ("lycoris.kohya", "boft"),
    "LyCORIS/Diag-OFT": ("lycoris.kohya", "diag-oft"),
    "LyCORIS/DyLoRA": ("lycoris.kohya", "dylora"),
    "LyCORIS/GLoRA": ("lycoris.kohya", "glora"),
    "LyCORIS/LoCon": ("lycoris.kohya", "locon"),
    "LyCORIS/LoHa": ("lycoris.kohya", "loha"),
    "LyCORIS/LoKr": ("lycoris.kohya", "lokr"),
    "LyCORIS/Native Fine-Tuning": ("lycoris.kohya", "full"),
    "LyCORIS/iA3": ("lycoris.kohya", "ia3"),
}
"""LoRA type of the form -> network module, and LyCORIS' kind."""
WITHOUT_CONVOLUTIONS = frozenset({"Standard", "LoRA-FA"})
"""Types for which the form does not hand over the rank of convolutions."""

FAMILIES_ABSENT: Mapping[str, str] = {
    "anima_checkbox": "Anima",
    "flux1_checkbox": "FLUX.1",
    "hunyuan_image_checkbox": "HunyuanImage",
    "lumina_checkbox": "Lumina",
}
"""Switch of the form -> a kind of model that is not trained here."""
_FLUX = """
    ae apply_t5_attn_mask double_blocks_to_swap discrete_flow_shift flux_fused_backward_pass
    guidance_scale img_attn_dim img_mlp_dim img_mod_dim in_dims model_prediction_type single_blocks_to_swap
    single_dim single_mod_dim split_mode timestep_sampling train_blocks train_double_block_indices
    train_single_block_indices txt_attn_dim txt_mlp_dim txt_mod_dim
"""
FAMILY_FIELDS: Mapping[str, tuple[str, ...]] = {
    "anima_checkbox": ("anima_", "lllite_"),
    "flux1_checkbox": ("flux1_", *_FLUX.split()),
    "hunyuan_image_checkbox": ("hunyuan_",),
    "lumina_checkbox": ("lumina_",),
}
"""Switch -> names, or beginnings that end in '_', of fields that only count for that kind of model."""

ELSEWHERE: Mapping[str, str] = {
    "leco_denoise_guidance_scale": "LECO is not trained here",
    "max_denoising_steps": "LECO is not trained here",
    "prompts_file": "LECO is not trained here",
    "train_lora_ggpo": "this kind of noise on the weights is not there",
    "ggpo_beta": "it counts with train_lora_ggpo only",
    "ggpo_sigma": "it counts with train_lora_ggpo only",
    "show_timesteps": "it only draws a diagram in sd-scripts",
    "show_timesteps_resolution": "it only draws a diagram in sd-scripts",
    "train_inpainting": "inpainting models are not trained here",
}
"""Fields with nothing that corresponds to them."""
