"""The network and its arguments."""

from __future__ import annotations

from backend.settings.rules.rule import Rule
from backend.settings.rules.terms import BOTH_ONLY

LYCORIS = ("network_module", "=", "lycoris.kohya")
UNUSED_BY_KIND = {
    "conv_dim": ("ia3", "full", "norm"),
    "conv_alpha": ("ia3", "full", "norm", "diag-oft", "boft"),
    "network_dropout": ("loha", "lokr", "ia3", "dylora", "diag-oft", "boft", "glora", "full", "norm"),
    "rank_dropout": ("ia3", "dylora", "norm"),
    "module_dropout": ("dylora",),
}
"""Size or dropout -> kinds of LyCORIS without it, for which people's files give it all the same."""

RULES: tuple[Rule, ...] = (
    Rule(
        "parts-exclude",
        "error",
        BOTH_ONLY,
        "network_train_unet_only and network_train_text_encoder_only exclude each other",
        "switch one of them off; with both off, both parts are trained",
    ),
    Rule(
        "weights-for-rank",
        "error",
        ("all", ("dim_from_weights", "set"), ("network_weights", "unset")),
        "dim_from_weights needs a LoRA file to take the ranks from",
        "give it as network_weights, or switch dim_from_weights off",
        key="network_weights",
    ),
    Rule(
        "rank-not-used",
        "note",
        ("all", ("dim_from_weights", "set"), ("any", ("network_dim", "set"), ("conv_dim", "set"))),
        "network_dim and conv_dim are not used: dim_from_weights takes the ranks from the file",
        key="dim_from_weights",
    ),
    Rule(
        "alpha-zero",
        "note",
        ("any", ("network_alpha", "=", 0), ("conv_alpha", "=", 0)),
        "an alpha of 0 counts as the rank, which is full strength",
        key="network_alpha",
    ),
    Rule(
        "conv-alpha-idle",
        "note",
        (
            "all",
            ("conv_alpha", "set"),
            ("conv_dim", "unset"),
            ("conv_block_dims", "unset"),
            ("dim_from_weights", "unset"),
            ("network_module", "!=", "lycoris.kohya"),
        ),
        "conv_alpha has no effect without conv_dim",
        "give conv_dim to train the convolutions as well",
    ),
    Rule(
        "strengths-without-files",
        "error",
        ("all", ("base_weights_multiplier", "set"), ("base_weights", "unset")),
        "base_weights_multiplier needs base_weights",
        "give the LoRA files as base_weights, or leave it out",
        key="base_weights_multiplier",
    ),
    Rule(
        "dylora-dropout",
        "change",
        ("all", ("network_dropout", ">", 0), ("network_module", "=", "networks.dylora")),
        "networks.dylora has no use for network_dropout",
        why="it leaves ranks out by itself",
        key="network_dropout",
        change={"network_dropout": None},
    ),
    Rule(
        "oft-dropout",
        "change",
        ("all", ("network_dropout", ">", 0), ("network_module", "=", "networks.oft")),
        "networks.oft has no use for network_dropout",
        why="rotations have no inner values",
        key="network_dropout",
        change={"network_dropout": None},
    ),
    *(
        Rule(
            f"lycoris-{key}",
            "change",
            ("all", LYCORIS, (key, "set"), (key, "!=", 0), ("any", *(("algo", "=", kind) for kind in kinds))),
            f"algo={{algo}} has no use for {key}",
            key=key,
            change={key: None},
        )
        for key, kinds in UNUSED_BY_KIND.items()
    ),
    Rule(
        "oft-text-only",
        "error",
        ("all", ("network_train_text_encoder_only", "set"), ("network_module", "=", "networks.oft")),
        "networks.oft trains the U-Net only",
        "switch network_train_text_encoder_only off, or choose another network",
        key="network_train_text_encoder_only",
    ),
    Rule(
        "dylora-convolutions",
        "error",
        (
            "all",
            ("network_module", "=", "networks.dylora"),
            ("conv_dim", "set"),
            ("network_dim", "set"),
            ("conv_dim", "!=", ("key", "network_dim")),
        ),
        "networks.dylora needs conv_dim to be equal to network_dim",
        "give both the same rank, or leave conv_dim out",
        key="conv_dim",
    ),
    Rule(
        "dylora-unit",
        "error",
        (
            "all",
            ("network_module", "=", "networks.dylora"),
            ("unit", "set"),
            ("network_dim", "set"),
            ("network_dim", "not multiple of", ("key", "unit")),
        ),
        "networks.dylora needs a rank that is a multiple of unit",
        "for example network_dim 16 with unit 4",
        key="unit",
    ),
    Rule(
        "dora-dropout",
        "error",
        ("all", ("dora_wd", "set"), ("network_dropout", ">", 0)),
        "dora_wd cannot be combined with network_dropout",
        "use module_dropout",
        why="DoRA changes the weight as a whole, so there are no inner values to leave out",
        key="network_dropout",
    ),
)
