"""Loss and noise."""

from __future__ import annotations

from backend.settings.rules.rule import Rule
from backend.settings.rules.terms import FOLDERS

RULES: tuple[Rule, ...] = (
    Rule(
        "adaptive-needs-offset",
        "error",
        ("all", ("adaptive_noise_scale", "set"), ("noise_offset", "unset")),
        "adaptive_noise_scale needs noise_offset",
        "give a noise_offset as well",
        key="adaptive_noise_scale",
    ),
    Rule(
        "offset-strength-idle",
        "note",
        ("all", ("noise_offset_random_strength", "set"), ("noise_offset", "unset")),
        "noise_offset_random_strength has no effect without noise_offset",
        key="noise_offset_random_strength",
    ),
    Rule(
        "perturbation-strength-idle",
        "note",
        ("all", ("ip_noise_gamma_random_strength", "set"), ("ip_noise_gamma", "unset")),
        "ip_noise_gamma_random_strength has no effect without ip_noise_gamma",
        key="ip_noise_gamma_random_strength",
    ),
    Rule(
        "scale-v-needs-v",
        "error",
        (
            "all",
            ("scale_v_pred_loss_like_noise_pred", "set"),
            ("v_parameterization", "unset"),
            ("not", ("prediction_type", "=", "v")),
        ),
        "scale_v_pred_loss_like_noise_pred is for v-prediction only",
        "switch v_parameterization on, or this off",
        key="scale_v_pred_loss_like_noise_pred",
    ),
    Rule(
        "v-like-excludes-v",
        "error",
        ("all", ("v_pred_like_loss", "set"), ("v_parameterization", "set")),
        "v_pred_like_loss and v_parameterization exclude each other",
        "leave one of them out",
        why="the one adds a v-like loss to noise prediction, the other is v-prediction",
        key="v_pred_like_loss",
    ),
    Rule(
        "predicts-two-things",
        "error",
        ("all", ("v_parameterization", "set"), ("prediction_type", "=", "epsilon")),
        "v_parameterization and prediction_type=epsilon exclude each other",
        "leave one of them out",
        key="prediction_type",
    ),
    Rule(
        "zero-terminal-weights",
        "error",
        (
            "all",
            ("zero_terminal_snr", "set"),
            ("v_parameterization", "unset"),
            ("any", ("debiased_estimation_loss", "set"), ("v_pred_like_loss", "set")),
        ),
        "zero_terminal_snr with noise prediction makes the loss weight infinite at the last timestep",
        "leave out debiased_estimation_loss and v_pred_like_loss, or train v-prediction",
        key="zero_terminal_snr",
    ),
    Rule(
        "zero-terminal-wants-v",
        "note",
        ("all", ("zero_terminal_snr", "set"), ("v_parameterization", "unset")),
        "zero_terminal_snr is meant for v-prediction: there is no noise to predict from pure noise",
        key="zero_terminal_snr",
    ),
    Rule(
        "preserve-what",
        "error",
        ("all", ("diff_output_preservation", "set"), ("diff_output_preservation_class", "unset")),
        "diff_output_preservation needs to know the class",
        "give diff_output_preservation_class: 'dog' where the subject is 'sks dog'",
        key="diff_output_preservation_class",
    ),
    Rule(
        "mask-mean-idle",
        "note",
        ("all", FOLDERS, ("masked_loss_normalize", "set"), ("masked_loss", "unset"), ("alpha_mask", "unset")),
        "masked_loss_normalize has no effect without masked_loss or alpha_mask",
        key="masked_loss_normalize",
    ),
    Rule(
        "timesteps-order",
        "error",
        ("min_timestep", ">", ("key", "max_timestep")),
        "min_timestep {min_timestep} is above max_timestep {max_timestep}",
        "exchange them",
        key="min_timestep",
    ),
)
