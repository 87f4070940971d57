"""All training options, one model per concern.

Names and defaults are sd-scripts' where it has the option. The order of fields is the order in the
form and in the reference.
"""

from __future__ import annotations

from typing import Any, Literal

from backend.settings import optimizers, schedules
from backend.settings.methods import BESIDE, GUIDED, METHODS, NETWORK, SIZED, TEXTUAL, UNGUIDED, WHOLE
from backend.settings.option import Section, option
from backend.settings.types import Fraction01, Resolution, Steps, TextList, read_face_range

_TEXTS = (*NETWORK, *WHOLE)
"""Methods that can train text encoders as they train the rest."""
_DIFFUSION = ("sd1", "sd2", "sdxl")
"""Families that remove noise step by step; the others follow a flow."""


class ModelSettings(Section):
    """The model that is taught."""

    title = "Model"

    training_method: str = option(
        "network", "What is trained", "A LoRA is small, quick to train and works with other models. Training the whole model learns more and takes many times the memory and disk space.",
        level="basic", choices=tuple(METHODS), choice_titles=tuple(one.title for one in METHODS.values()), resume="impossible",
    )  # fmt: skip
    pretrained_model_name_or_path: str = option(
        "", "Base model", "The model to teach: a .safetensors or .ckpt file, or a diffusers folder.",
        level="basic", path="file",
    )  # fmt: skip
    vae: str | None = option(
        None, "Other VAE", "A VAE file to use in place of the one inside the base model.", path="file"
    )
    v_parameterization: bool = option(
        False, "v-prediction", "The base model predicts v instead of noise. Files that say so are recognised.",
        level="expert", families=("sd1", "sd2", "sdxl"),
    )  # fmt: skip
    prediction_type: Literal["epsilon", "v"] | None = option(
        None, "What it predicts", "epsilon is noise, v is as v-prediction. Empty: what the file says, which a trial finds out for SD 2.x files that say nothing.",
        level="expert", families=("sd1", "sd2", "sdxl"),
    )  # fmt: skip
    clip_skip: int | None = option(
        None, "CLIP skip", "Use the text encoder's layer this many from the end; anime models often want 2.",
        ge=1, le=12, families=("sd1", "sd2"),
    )  # fmt: skip
    max_token_length: Literal[75, 150, 225] | None = option(
        None, "Caption length", "Tokens of a caption that are read: 75 when empty, or 150 or 225 in chunks of 75.",
        unit="tokens", families=_DIFFUSION,
    )  # fmt: skip
    weighted_captions: bool = option(
        False, "Emphasis in captions", "(word) counts more, [word] less, (word:1.2) as much as it says; \\( is a bracket.",
        level="expert",
    )  # fmt: skip


class DatasetSettings(Section):
    """The pictures and captions, and how they are brought to size."""

    title = "Pictures and captions"

    train_data_dir: str | None = option(
        None, "Picture folder",
        "Folder of pictures, or a folder with sub-folders named like '10_sks dog' (repeats, then the words that stand for it).",
        level="basic", path="folder",
    )  # fmt: skip
    reg_data_dir: str | None = option(
        None, "Regularisation folder", "Pictures of the general class, in sub-folders like '1_dog', so that it is not forgotten.",
        path="folder", methods=UNGUIDED,
    )  # fmt: skip
    num_class_images: int | None = option(None, "Class pictures", "Before training, the base model itself draws pictures into the regularisation folder until it holds this many; 100 to 300 for one subject.", ge=1, le=100_000, unit="pictures", methods=(*_TEXTS, "textual_inversion"))
    class_prompt: str | None = option(None, "Prompt of class pictures", "What they show, such as photo of a dog. It is their caption as well.", per_run=True, methods=(*_TEXTS, "textual_inversion"))
    conditioning_data_dir: str | None = option(
        None, "Guide pictures", "Folder of the pictures that guide, one for each picture and of its name. They are cut and mirrored as their picture is.",
        level="basic", path="folder", methods=GUIDED,
    )  # fmt: skip
    dataset_config: str | None = option(
        None, "Dataset file", "A dataset TOML or JSON as sd-scripts reads it; used instead of the folders above.", path="file"
    )
    in_json: str | None = option(
        None, "Metadata file", "A .json or .jsonl file that names the pictures (from the picture folder on) and their captions, as fine-tuning scripts write it.", path="file", level="expert", methods=UNGUIDED
    )
    dataset_repeats: int = option(1, "Repeats", "Times each picture is seen in an epoch when its folder name gives no number.", ge=1, le=100_000)
    class_tokens: str | None = option(
        None, "Caption for pictures without one", "For example 'sks dog'. Folder names like '10_sks dog' already say it.", level="basic", per_run=True
    )
    resolution: Resolution = option(
        None, "Resolution", "Training size as one number or 'width,height'. Empty: the model's own (512 for SD 1.x and 2.x, 768 for 2.x that predicts v, 1024 for SDXL and SD 3).",
        level="basic", unit="px", suggestions=("512", "640", "768", "1024"),
    )  # fmt: skip
    train_batch_size: int = option(1, "Batch size", "Pictures in one step. More needs more memory and trains steadier.", ge=1, le=4096)
    enable_bucket: bool = option(False, "Aspect buckets", "Keep each picture's shape by grouping pictures of like shape.")
    min_bucket_reso: int = option(256, "Smallest bucket side", "No bucket side is shorter.", ge=8, le=16_384, unit="px", level="expert", show_if=(("enable_bucket", (True,)),))
    max_bucket_reso: int = option(1024, "Longest bucket side", "No bucket side is longer.", ge=8, le=16_384, unit="px", level="expert", show_if=(("enable_bucket", (True,)),))
    bucket_reso_steps: int = option(64, "Bucket step", "Bucket sides are multiples of this.", ge=8, le=1024, unit="px", level="expert", show_if=(("enable_bucket", (True,)),))
    bucket_no_upscale: bool = option(False, "Never enlarge", "Small pictures keep their size and get buckets of their own.", show_if=(("enable_bucket", (True,)),))
    resize_interpolation: Literal["lanczos", "nearest", "bilinear", "linear", "bicubic", "cubic", "area", "box"] | None = option(
        None, "Resize filter", "Empty: area for shrinking, Lanczos for enlarging.", level="expert"
    )
    color_aug: bool = option(False, "Vary colours", "Slightly other hue, saturation, brightness and gamma at every visit. Not with cached latents.", level="expert")
    random_crop: bool = option(False, "Cut at random", "What does not fit the training size is cut off somewhere else at every visit. Not with cached latents.", level="expert",
        note="SDXL is told the cut that really happened.")  # fmt: skip
    face_crop_aug_range: str | None = option(None, "Cut around the face", "Cut this many times as wide as the face, such as 2,4, for files named like photo_320_240_64_64 (middle and size of the face). Not with buckets or cached latents.", level="expert", check=read_face_range)
    flip_aug: bool = option(False, "Mirror at random", "Half of the visits show the picture mirrored. Not for subjects with a left and a right.")
    alpha_mask: bool = option(False, "Transparency is a mask", "Transparent parts of a picture do not count in the loss.")
    caption_extension: str = option(".caption", "Caption files end in", "The other of .caption and .txt is found as well.", suggestions=(".txt", ".caption"))
    caption_separator: str = option(",", "Tag separator", "What stands between tags.", level="expert")
    shuffle_caption: bool = option(False, "Shuffle tags", "A new order of tags at every visit, so that order means nothing.")
    keep_tokens: int = option(0, "Tags kept in front", "This many leading tags are never shuffled or dropped.", ge=0, le=255)
    keep_tokens_separator: str = option("", "Keep-front separator", "Text before this mark in a caption is never shuffled, for example |||.", level="expert")
    secondary_separator: str | None = option(None, "Secondary separator", "Tags joined with this stay together when shuffled, for example ;;;.", level="expert")
    enable_wildcard: bool = option(False, "Wildcards", "{a|b} in a caption becomes one of them; of several lines one is taken.", level="expert")
    caption_prefix: str | None = option(None, "Caption prefix", "Put before every caption.", level="expert")
    caption_suffix: str | None = option(None, "Caption suffix", "Put after every caption.", level="expert")
    caption_dropout_rate: Fraction01 = option(0.0, "Drop captions", "Share of visits without a caption.", ge=0, le=1, methods=TEXTUAL)
    caption_dropout_every_n_epochs: int = option(0, "Drop captions every n epochs", "In every n-th epoch no picture has a caption. 0: never.", ge=0, level="expert", unit="epochs", methods=TEXTUAL)
    caption_tag_dropout_rate: Fraction01 = option(0.0, "Drop tags", "Share of tags left out at a visit.", ge=0, le=1, methods=TEXTUAL)
    token_warmup_min: int = option(1, "Tag warm-up: first tags", "Tags at the start of the warm-up.", ge=0, level="expert")
    token_warmup_step: float = option(0, "Tag warm-up: steps", "Steps until all tags are used; below 1 a share of all steps. 0: off.", ge=0, level="expert")
    validation_split: Fraction01 = option(0.0, "Held out for validation", "Share of the pictures that is not trained on, to measure the model by. A picture is never on both sides. 0: none.", ge=0, le=1, level="expert")
    validation_seed: int | None = option(None, "Validation seed", "Another number holds out other pictures. Empty: always the same ones.", ge=0, le=2**63 - 1, level="expert")
    validate_every_n_steps: int | None = option(None, "Measure every n steps", "Measure the loss on the pictures held out every so many steps, beside the ends of epochs.", ge=1, le=100_000_000, unit="steps", level="expert", resume="safe")
    validate_every_n_epochs: int | None = option(None, "Measure every n epochs", "Measure the loss on the pictures held out at the end of every so many epochs. Empty: of every one.", ge=1, le=1_000_000, unit="epochs", level="expert", resume="safe")
    max_validation_steps: int | None = option(None, "Batches measured", "Most batches of held out pictures that are measured each time. Empty: all.", ge=1, le=1_000_000, level="expert", resume="safe")
    skip_broken_images: bool = option(False, "Leave out broken pictures", "Pictures that cannot be read are left out and listed. Off: training does not start until they are repaired or moved.", resume="safe")
    max_data_loader_n_workers: int = option(8, "Loading threads", "Threads that read pictures ahead. The result does not depend on it.", ge=0, le=64, level="expert", resume="safe")


class CachingSettings(Section):
    """What is computed once and kept."""

    title = "Caching"

    cache_latents: bool = option(False, "Cache latents", "Encode each picture once. Saves memory and most of the time.")
    cache_latents_to_disk: bool = option(False, "... on disk", "Keep the latents for the next run. They are found by content, so they are never stale.", resume="safe")
    use_npz_caches: bool = option(False, "Use sd-scripts' caches", "Take latents from sd-scripts' .npz files beside the pictures when size and mirroring agree, with SD 3 encoded captions as well. They do not say which model made them, so switch it on only when it was this one.", level="expert")
    vae_batch_size: int = option(1, "Pictures encoded at once", "For caching latents.", ge=1, le=256, level="expert", resume="safe")
    cache_text_encoder_outputs: bool = option(False, "Cache text", "Encode captions once and free the text encoder. It cannot be trained then.", methods=TEXTUAL)
    cache_text_encoder_outputs_to_disk: bool = option(False, "... on disk", "Keep encoded captions for the next run.", level="expert", resume="safe", methods=TEXTUAL)
    text_encoder_batch_size: int | None = option(None, "Captions encoded at once", "For caching text; the training batch size when empty.", ge=1, le=1024, level="expert", resume="safe", methods=TEXTUAL)
    caption_variants: int | None = option(
        None, "Caption variants", "With cached text and anything random in captions: different versions kept of each caption. Empty: 8, or 1 when nothing is random.",
        ge=1, le=1000, level="expert", methods=TEXTUAL,
    )  # fmt: skip


_Shown = tuple[tuple[str, tuple[Any, ...]], ...]


def _modules(*names: str) -> _Shown:
    return (("network_module", names),)


def _kinds(*algorithms: str) -> _Shown:
    return (*_LYCORIS, ("algo", algorithms))


_LYCORIS = _modules("lycoris.kohya")
_LORA = _modules("networks.lora")
_OFT = _modules("networks.oft")
_BLOCKS = _modules("networks.lora", "networks.lora_fa")
_CONV = _modules("networks.lora", "networks.lora_fa", "networks.dylora", "lycoris.kohya")
_DROPS = _modules("networks.lora", "networks.lora_fa", "lycoris.kohya")
_DORA = _modules("networks.lora", "lycoris.kohya")
_PLUS = _modules("networks.lora", "networks.dylora", "lycoris.kohya")


class NetworkSettings(Section):
    """The small network that learns (LoRA)."""

    title = "Network"
    on_resume = "impossible"
    methods = NETWORK

    network_module: str = option(
        "networks.lora", "Network", "LoRA suits most. DyLoRA can be cut to lower ranks afterwards, OFT turns weights, LyCORIS has further kinds.",
        choices=("networks.lora", "networks.lora_fa", "networks.dylora", "networks.oft", "lycoris.kohya"), level="advanced",
    )  # fmt: skip
    algo: str = option("locon", "LyCORIS kind", "LoHa and LoKr make small files, diag-oft and boft turn weights, full and norm change them directly.",
        choices=("locon", "loha", "lokr", "ia3", "dylora", "diag-oft", "boft", "glora", "full", "norm"), show_if=_LYCORIS, network_arg=True)  # fmt: skip
    preset: str = option("full", "LyCORIS layers", "Which layers are trained; full has more than a LoRA with convolutions.",
        choices=("full", "full-lin", "attn-mlp", "attn-only", "unet-only", "unet-transformer-only", "unet-convblock-only", "ia3"), show_if=_LYCORIS, network_arg=True)  # fmt: skip
    network_dim: int | None = option(None, "Rank", "Size of the LoRA: 4 to 16 for a subject, more for styles. 4 when empty; of a ControlNet-LLLite 64.", ge=1, le=1024, level="basic", methods=SIZED)
    network_alpha: float = option(1.0, "Alpha", "The LoRA counts alpha / rank as strong. Half the rank is a common choice.", ge=0, le=10_000)
    conv_dim: int | None = option(None, "Convolution rank", "Also train the 3x3 convolutions with this rank: better for styles, larger files. With LyCORIS the rank when empty.", ge=1, le=1024, show_if=_CONV, network_arg=True)
    conv_alpha: float | None = option(None, "Convolution alpha", "As alpha, for the 3x3 convolutions. 1 when empty, with LyCORIS alpha.", ge=0, le=10_000, show_if=_CONV, network_arg=True)
    network_dropout: float | None = option(None, "Dropout", "Share of the LoRA's inner values left out at each step.", ge=0, lt=1, level="expert", resume="changes", methods=SIZED)
    rank_dropout: float | None = option(None, "Rank dropout", "Share of ranks left out at each step.", ge=0, lt=1, level="expert", show_if=_DROPS, network_arg=True, resume="changes")
    module_dropout: float | None = option(None, "Module dropout", "Chance that a module is left out for a step.", ge=0, lt=1, level="expert", show_if=_DROPS, network_arg=True, resume="changes")
    rank_dropout_scale: bool = option(False, "Rescale after rank dropout", "What is left counts more by as much as was left out.", level="expert", show_if=_kinds("locon", "loha", "lokr", "glora", "full"), network_arg=True, resume="changes")
    scale_weight_norms: float | None = option(None, "Max norm", "After each step no module's change is longer than this; 1 is a good start against over-training.", gt=0, le=10_000, level="expert", resume="changes")
    dora_wd: bool = option(False, "DoRA", "Trains the lengths of weights and their directions apart: often closer to full fine-tuning, slower.", show_if=_DORA, network_arg=True)
    wd_on_output: bool = option(True, "DoRA on outputs", "Lengths of rows, as the paper has it; off: of columns.", level="expert", show_if=(("dora_wd", (True,)), *_kinds("locon", "loha", "lokr")), network_arg=True)
    use_rslora: bool = option(False, "Rank-stabilised", "The LoRA counts alpha / square root of the rank, so high ranks do not fade.", level="expert", show_if=_LORA, network_arg=True)
    rs_lora: bool = option(False, "Rank-stabilised (LyCORIS)", "The change counts alpha / square root of the rank.", level="expert", show_if=_kinds("locon", "loha", "lokr", "glora"), network_arg=True)
    unit: int | None = option(None, "DyLoRA unit", "Ranks that are trained together; the rank is a multiple of it. 1 when empty.", ge=1, le=1024, show_if=(("network_module", ("networks.dylora",)),), network_arg=True)
    enable_all_linear: bool = option(False, "OFT on all linear layers", "Off: only on the attention's own.", show_if=_OFT, network_arg=True)
    enable_conv: bool = option(False, "OFT on convolutions", "Also turn the weights of resnets and samplers.", show_if=_OFT, network_arg=True)
    use_tucker: bool = option(False, "Tucker decomposition", "Smaller files for convolutions: a core between two thin parts.", show_if=_kinds("locon", "loha", "lokr"), network_arg=True)
    use_scalar: bool = option(False, "Trained scalar", "One trained factor in place of a part that starts at 0.", level="expert", show_if=_kinds("locon", "loha", "lokr", "glora"), network_arg=True)
    factor: int = option(-1, "LoKr factor", "Size of the small matrix; -1 is as even as can be. A small factor means more numbers.", ge=-1, le=4096, show_if=_kinds("lokr"), network_arg=True)
    full_matrix: bool = option(False, "LoKr without ranks", "The large matrix is trained whole.", level="expert", show_if=_kinds("lokr"), network_arg=True)
    decompose_both: bool = option(False, "LoKr: both by rank", "The small matrix is a product of two thin ones as well.", level="expert", show_if=_kinds("lokr"), network_arg=True)
    block_size: int | None = option(None, "LyCORIS DyLoRA unit", "Ranks that are trained together; the ranks are multiples of it. 4 when empty.", ge=1, le=1024, show_if=_kinds("dylora"), network_arg=True)
    constraint: float | None = option(None, "Limit of the rotation", "Keeps rotations small; 0 or empty leaves them free.", ge=0, le=10_000, show_if=_kinds("diag-oft", "boft"), network_arg=True)
    rescaled: bool = option(False, "Rotation and lengths", "Also train the length of each output.", show_if=_kinds("diag-oft", "boft"), network_arg=True)
    train_on_input: bool = option(False, "iA3 on inputs", "Scale what goes into every layer instead of what comes out; the layers of the preset ia3 choose by themselves.", level="expert", show_if=_kinds("ia3"), network_arg=True)
    train_norm: bool = option(False, "Norm layers too", "Also train the norm layers inside the U-Net's blocks.", show_if=_LYCORIS, network_arg=True)
    bypass_mode: bool = option(False, "Beside the weights", "Compute the change beside each layer: more exact in half precision, slower in large batches.", level="expert", show_if=_kinds("locon", "loha", "lokr", "ia3", "diag-oft", "boft", "glora", "full"), resume="changes", network_arg=True)
    block_dims: str | None = option(None, "Ranks by block", "One rank for each block: 25 numbers for SD, 23 for SDXL; 0 leaves a block out.", level="expert", show_if=_BLOCKS, network_arg=True)
    block_alphas: str | None = option(None, "Alphas by block", "As many numbers as blocks; alpha for all when empty.", level="expert", show_if=_BLOCKS, network_arg=True)
    conv_block_dims: str | None = option(None, "Convolution ranks by block", "As ranks by block, for the 3x3 convolutions.", level="expert", show_if=_BLOCKS, network_arg=True)
    conv_block_alphas: str | None = option(None, "Convolution alphas by block", "As alphas by block, for the 3x3 convolutions.", level="expert", show_if=_BLOCKS, network_arg=True)
    down_lr_weight: str | None = option(
        None, "Rate of down blocks", "Factors of the learning rate, 12 for SD, 9 for SDXL, or a curve: cosine, sine, linear, reverse_linear, zeros, with +number after it.",
        level="expert", show_if=_BLOCKS, network_arg=True,
    )  # fmt: skip
    mid_lr_weight: str | None = option(None, "Rate of the middle", "One factor for SD, 3 for SDXL.", level="expert", show_if=_BLOCKS, network_arg=True)
    up_lr_weight: str | None = option(None, "Rate of up blocks", "As for the down blocks, deepest first.", level="expert", show_if=_BLOCKS, network_arg=True)
    block_lr_zero_threshold: float | None = option(None, "Smallest rate factor", "Blocks whose factor is not above this are left out. 0 when empty.", ge=0, le=1000, level="expert", show_if=_BLOCKS, network_arg=True)
    loraplus_lr_ratio: float | None = option(None, "LoRA+ ratio", "The weights that start at 0 learn this many times faster; 16 is the paper's (Hayou et al. 2024).", gt=0, le=10_000, level="expert", show_if=_PLUS, network_arg=True)
    loraplus_unet_lr_ratio: float | None = option(None, "LoRA+ ratio of the U-Net", "LoRA+ ratio when empty.", gt=0, le=10_000, level="expert", show_if=_PLUS, network_arg=True)
    loraplus_text_encoder_lr_ratio: float | None = option(None, "LoRA+ ratio of the text encoder", "LoRA+ ratio when empty.", gt=0, le=10_000, level="expert", show_if=_PLUS, network_arg=True)
    base_weights: TextList = option((), "LoRAs to build on", "LoRA files that are merged into the model before training.", level="expert", resume="changes")
    base_weights_multiplier: TextList = option((), "Their strengths", "One number for each of these files; 1 when left out.", level="expert", resume="changes")
    network_args: TextList = option((), "More network arguments", "key=value pairs, as sd-scripts takes them.", level="expert")
    network_weights: str | None = option(None, "Start from file", "Go on from the weights of this LoRA, or ControlNet-LLLite where that is trained.", path="file", resume="safe", methods=SIZED)
    dim_from_weights: bool = option(False, "Rank from that file", "Take rank and alpha of every module from the file to start from.", level="expert")
    network_train_unet_only: bool = option(False, "U-Net only", "Leave the text encoder as it is.")
    network_train_text_encoder_only: bool = option(False, "Text encoder only", "Leave the U-Net as it is.", level="expert")


class OptimizerSettings(Section):
    """How weights move."""

    title = "Optimizer"

    optimizer_type: str = option("AdamW", "Optimizer", "AdamW suits most; AdamW8bit needs less memory; Prodigy finds its own rate. A class of torch.optim or any module.Class may be named as well.",
        choices=optimizers.NAMES, open=True, check=optimizers.read_optimizer, resume="impossible")  # fmt: skip
    optimizer_args: TextList = option((), "Optimizer arguments", "key=value pairs, for example weight_decay=0.01 betas=.9,.999.", level="expert")
    learning_rate: float = option(2e-6, "Learning rate", "How far each step moves. 1e-4 is usual for a LoRA, 1 with Prodigy and D-Adaptation.", ge=0, le=100, level="basic",
        note="The default is sd-scripts' and is low for a LoRA.")  # fmt: skip
    unet_lr: float | None = option(None, "Learning rate of the U-Net", "Learning rate when empty; 0 leaves it untrained.", ge=0, le=100, methods=NETWORK)
    text_encoder_lr: float | None = option(None, "Learning rate of the text encoder", "Learning rate when empty; 0 leaves it untrained.", ge=0, le=100, several=True, methods=_TEXTS)
    text_encoder_lr1: float | None = option(None, "... of CLIP-L", "Models with several text encoders: the first one's own rate. That of the text encoder when empty; 0 leaves it untrained.", ge=0, le=100, level="expert", families=("sdxl", "sd3"), methods=_TEXTS)
    text_encoder_lr2: float | None = option(None, "... of OpenCLIP-bigG", "The second text encoder's own rate, as above.", ge=0, le=100, level="expert", families=("sdxl", "sd3"), methods=_TEXTS)
    text_encoder_lr3: float | None = option(None, "... of T5", "The third text encoder's own rate, where it is trained at all.", ge=0, le=100, level="expert", families=("sd3",), methods=_TEXTS)
    ema_decay: float | None = option(None, "Average the weights (EMA)", "Results and samples are a running mean of the weights, of which this share stays at each step: 0.99 to 0.9999, the more the longer the run. Steadier than the last weights. It begins with less and grows as (1 + n) / (10 + n).", ge=0, lt=1, level="expert")
    ema_start: int = option(0, "Average from step", "Steps before averaging begins.", ge=0, le=100_000_000, unit="steps", level="expert")
    max_grad_norm: float = option(1.0, "Gradient clipping", "Longest gradient allowed; 0 switches it off.", ge=0, le=1e6, level="expert")


def _runs(*names: str) -> _Shown:
    return (("lr_scheduler", names),)


class ScheduleSettings(Section):
    """How long, and how the learning rate runs."""

    title = "Length and schedule"

    max_train_steps: int = option(1600, "Steps", "Optimizer steps in all. Epochs, when given, win.", ge=1, le=100_000_000, unit="steps")
    max_train_epochs: int | None = option(None, "Epochs", "Times through all pictures and repeats; decides the number of steps when given.", ge=1, le=1_000_000, level="basic", unit="epochs")
    gradient_accumulation_steps: int = option(1, "Accumulate batches", "Batches that make one step; like a larger batch in less memory.", ge=1, le=4096)
    lr_scheduler: str = option("constant", "Schedule", "How the learning rate runs over the steps. All but constant, piecewise_constant and adafactor can warm up.",
        choices=schedules.NAMES, check=schedules.read_schedule)  # fmt: skip
    lr_warmup_steps: Steps = option(0, "Warm-up", "Steps of rising rate: a number, a share below 1, or a percentage.", ge=0, le=100_000_000, unit="steps")
    lr_decay_steps: Steps = option(0, "Decay", "Last steps of warmup_stable_decay, in which the rate falls: a number, a share below 1, or a percentage.", ge=0, le=100_000_000, unit="steps", level="expert", show_if=_runs("warmup_stable_decay"))
    lr_scheduler_num_cycles: int = option(1, "Cycles", "Times that the rate starts again; of cosine_with_min_lr and warmup_stable_decay, half waves.", ge=1, le=10_000, level="expert", show_if=_runs("cosine_with_restarts", "cosine_with_min_lr", "warmup_stable_decay"))
    lr_scheduler_power: float = option(1.0, "Power", "1 falls in a straight line, 2 fast at first, 0.5 late.", ge=0, le=100, level="expert", show_if=_runs("polynomial"))
    lr_scheduler_timescale: int | None = option(None, "Time scale", "Steps in which the rate falls to 1 / square root of 2. The warm-up's steps when empty, 10000 without one.", ge=1, le=100_000_000, unit="steps", level="expert", show_if=_runs("inverse_sqrt"))
    lr_scheduler_min_lr_ratio: float | None = option(None, "Lowest rate", "Share of the learning rate at the end. 0 when empty with warmup_stable_decay.", ge=0, le=1, level="expert", show_if=_runs("cosine_with_min_lr", "warmup_stable_decay"))
    lr_scheduler_type: str = option("", "Other schedule", "A class of torch.optim.lr_scheduler, or any module.Class, in place of the schedule above.", suggestions=schedules.TORCH_NAMES, level="expert", check=schedules.read_class)
    lr_scheduler_args: TextList = option((), "Schedule arguments", "key=value pairs: step_rules=1:100,0.1:200,0.01 of piecewise_constant, lr_end of polynomial, warmup_type and decay_type of warmup_stable_decay, or what the other schedule takes.", level="expert")
    seed: int | None = option(None, "Seed", "The same seed gives the same result. When empty one is drawn, shown and kept.", ge=0, le=2**63 - 1)


_HELD: _Shown = (("diff_output_preservation", (True,)),)


class LossSettings(Section):
    """What counts as an error, and the noise."""

    title = "Loss and noise"

    loss_type: Literal["l2", "l1", "huber", "smooth_l1"] = option("l2", "Loss", "How far a prediction is from its target. Huber kinds forgive single bad pictures.", level="expert")
    huber_schedule: Literal["snr", "exponential", "constant"] = option("snr", "Huber schedule", "How the Huber bound runs over noise levels.", level="expert", show_if=(("loss_type", ("huber", "smooth_l1")),))
    huber_c: float = option(0.1, "Huber bound", "Errors below it count squared, above it linearly.", gt=0, le=100, level="expert", show_if=(("loss_type", ("huber", "smooth_l1")),))
    huber_scale: float = option(1.0, "Huber scale", "Multiplies the bound.", gt=0, le=1000, level="expert", show_if=(("loss_type", ("huber", "smooth_l1")),),
        note="It counts in every schedule; sd-scripts ignores it in the default one.")  # fmt: skip
    min_snr_gamma: float | None = option(None, "Min-SNR gamma", "Balances noise levels; 5 is the paper's value (Hang et al. 2023).", families=_DIFFUSION, gt=0, le=1000)
    scale_v_pred_loss_like_noise_pred: bool = option(False, "Scale the v loss", "Weigh a v-prediction loss like a noise loss.", families=_DIFFUSION, level="expert", show_if=(("v_parameterization", (True,)),))
    v_pred_like_loss: float | None = option(None, "Add a v-like loss", "Add this share of a v-like loss to a noise loss.", families=_DIFFUSION, gt=0, le=1000, level="expert")
    debiased_estimation_loss: bool = option(False, "Debiased estimation", "Weigh the loss by 1 / sqrt(SNR) (Yu et al. 2023).", families=_DIFFUSION, level="expert")
    zero_terminal_snr: bool = option(False, "Zero terminal SNR", "No signal is left at the last noise level, for models trained so; wants v-prediction (Lin et al. 2023).", families=_DIFFUSION, level="expert",
        note="Loss weights follow the changed schedule; sd-scripts computes them from the old one.")  # fmt: skip
    noise_offset: float | None = option(None, "Noise offset", "Lets the model learn very dark and very bright pictures; 0.03 to 0.1.", families=_DIFFUSION, ge=0, le=1)
    noise_offset_random_strength: bool = option(False, "Random offset strength", "The offset varies between 0 and its value.", families=_DIFFUSION, level="expert",
        note="Each picture has its own strength; in sd-scripts a batch has one.")  # fmt: skip
    adaptive_noise_scale: float | None = option(None, "Adaptive offset", "Add this times the mean of each latent channel to the offset.", families=_DIFFUSION, ge=-100, le=100, level="expert")
    multires_noise_iterations: int | None = option(None, "Multi-resolution noise", "Add coarser noise this many times; 6 to 10. Like an offset, but finer.", families=_DIFFUSION, ge=0, le=64, level="expert")
    multires_noise_discount: float = option(0.3, "Multi-resolution discount", "How much each coarser noise counts.", families=_DIFFUSION, ge=0, le=1, level="expert")
    ip_noise_gamma: float | None = option(None, "Input perturbation", "Noise added to the input only; 0.1 is the paper's value (Ning et al. 2023).", families=_DIFFUSION, ge=0, le=10, level="expert")
    ip_noise_gamma_random_strength: bool = option(False, "Random perturbation strength", "The perturbation varies between 0 and its value.", families=_DIFFUSION, level="expert",
        note="Each picture has its own strength; in sd-scripts a batch has one.")  # fmt: skip
    min_timestep: int = option(0, "Lowest timestep", "Noise levels below are not trained.", ge=0, le=999, level="expert")
    max_timestep: int = option(1000, "Highest timestep", "Noise levels from here on are not trained.", ge=1, le=1000, level="expert")
    masked_loss: bool = option(False, "Masked loss", "Use mask pictures of a dataset file (conditioning_data_dir) to weigh the loss.", methods=UNGUIDED)
    masked_loss_normalize: bool = option(False, "Mean over the mask", "A picture with a small mask counts as much as one with a large one. Off: as much less as its mask is smaller, as in sd-scripts.", level="expert", methods=UNGUIDED)
    diff_output_preservation: bool = option(False, "Preserve the class", "While the subject is learnt, the class (dog of 'sks dog') is held to what the base model shows, without regularisation pictures. A step takes more than twice the time, and more memory.", methods=NETWORK)
    diff_output_preservation_class: str | None = option(None, "Class to preserve", "The words that take the subject's place in captions, such as dog.", show_if=_HELD, per_run=True, methods=NETWORK)
    diff_output_preservation_trigger: str | None = option(None, "Words of the subject", "What is replaced in captions, such as sks dog. Empty: the words of the folder's name (class_tokens).", show_if=_HELD, per_run=True, methods=NETWORK)
    diff_output_preservation_multiplier: float = option(1.0, "How strongly", "How much it counts beside the lesson.", ge=0, le=1000, show_if=_HELD, methods=NETWORK)
    prior_loss_weight: float = option(1.0, "Weight of regularisation pictures", "How much they count beside the subject's.", ge=0, le=1000, methods=(*_TEXTS, "textual_inversion"))


class PrecisionSettings(Section):
    """Numbers, memory and speed."""

    title = "Precision and memory"

    mixed_precision: Literal["no", "fp16", "bf16"] = option("no", "Precision", "bf16 on new cards, fp16 on older ones, no on a processor.")
    full_fp16: bool = option(False, "Everything in fp16", "Trained weights and gradients in fp16 as well: less memory, less exact. Needs fp16 as precision.", level="expert")
    full_bf16: bool = option(False, "Everything in bf16", "Trained weights and gradients in bf16 as well: less memory, less exact. Needs bf16 as precision.", level="expert")
    fp8_base: bool = option(False, "Base model in 8 bits", "Keeps the weights of the base model in 8 bits, half the memory of fp16, and computes in the precision above.", level="expert", methods=BESIDE)
    fp8_base_unet: bool = option(False, "... but not its text encoder", "Only the U-Net or transformer in 8 bits.", level="expert", methods=BESIDE)
    gradient_checkpointing: bool = option(False, "Gradient checkpointing", "Much less memory for about a quarter more time.", resume="safe")
    cpu_offload_checkpointing: bool = option(False, "... in the computer's memory", "What checkpointing keeps waits outside the card: less memory of the card, slower.", level="expert", resume="safe", show_if=(("gradient_checkpointing", (True,)),))
    fused_backward_pass: bool = option(False, "Step while going back", "Each weight is changed as soon as its gradient is there, so that gradients are never all in memory. AdaFactor only, without accumulation.", level="expert", resume="changes",
        note="Gradient clipping looks at each weight alone then, as in sd-scripts.")  # fmt: skip
    mem_eff_attn: bool = option(False, "Attention in parts", "Computes attention for a part of the picture at a time: less memory on cards for which PyTorch has no sparing kernel, slower on others.", level="expert", resume="changes")
    xformers: bool = option(False, "xformers attention", "Memory-saving attention of the xformers library, when installed.", level="expert", resume="changes")
    sdpa: bool = option(False, "PyTorch attention", "PyTorch's own fast attention. It is always used unless xformers is asked for.", level="expert", resume="safe")
    no_half_vae: bool = option(False, "VAE in full precision", "For VAEs that give black pictures in half precision. One that overflows goes into full precision by itself.")
    highvram: bool = option(False, "Keep all on the card", "VAE and text encoders stay on the card though steps do not need them: samples start sooner.", level="expert", resume="safe")
    torch_compile: bool = option(False, "Compile", "Has PyTorch compile the U-Net or transformer: the first steps take minutes, later ones less time. Not for short runs.", level="expert", resume="changes")
    dynamo_backend: str = option("inductor", "Compiler", "What compiles; inductor makes real speed, eager and aot_eager are for finding faults.", level="expert", resume="changes",
        choices=("no", "eager", "aot_eager", "inductor", "aot_ts_nvfuser", "nvprims_nvfuser", "cudagraphs", "ofi", "fx2trt", "onnxrt", "tensort", "tensorrt", "ipex", "tvm"))  # fmt: skip
    dynamo_mode: Literal["default", "reduce-overhead", "max-autotune"] = option("default", "Compiler's mode", "More effort when compiling for more speed afterwards; for inductor.", level="expert", resume="changes", show_if=(("torch_compile", (True,)), ("dynamo_backend", ("inductor",))))
    dynamo_use_fullgraph: bool = option(False, "Compile in one piece", "Fails where the model cannot be compiled as a whole.", level="expert", resume="changes", show_if=(("torch_compile", (True,)),))
    dynamo_use_dynamic: bool = option(False, "Compile for all sizes", "One compilation for all bucket sizes instead of one each.", level="expert", resume="changes", show_if=(("torch_compile", (True,)),))
    allow_fallback: bool = option(False, "Use replacements", "When this machine cannot do what is asked (8-bit optimizer, xformers, fp16), use the replacement and say so, instead of stopping.", resume="safe")


class SavingSettings(Section):
    """Results and restore points."""

    title = "Saving"
    on_resume = "safe"

    output_name: str | None = option(None, "Name", "Name of the result, without ending.", level="basic", per_run=True)
    output_dir: str | None = option(None, "Output folder", "Where results go. Empty: into the run's own folder.", path="output")
    save_model_as: Literal["safetensors", "ckpt", "pt", "diffusers", "diffusers_safetensors"] = option("safetensors", "File kind", "safetensors is safe and carries the settings. A whole model can be a diffusers folder; pt is for what is small.", level="expert",
        note="For a whole model sd-scripts takes what the base model is when it is empty.")  # fmt: skip
    save_precision: Literal["float", "fp16", "bf16"] | None = option(None, "Precision of the file", "As trained when empty; fp16 halves the file.")
    save_every_n_epochs: int | None = option(None, "Save every n epochs", "Keep a file every so many epochs.", ge=1, unit="epochs")
    save_every_n_steps: int | None = option(None, "Save every n steps", "Keep a file every so many steps.", ge=1, unit="steps")
    save_n_epoch_ratio: int | None = option(None, "Save n times", "Keep a file so many times over the run, at the ends of epochs; wins over every n epochs.", ge=1, level="expert")
    save_last_n_epochs: int | None = option(None, "Keep last epoch files", "Only so many files of epochs stay; older ones are removed when a new one is there.", ge=1, level="expert")
    save_last_n_epochs_state: int | None = option(None, "Keep last epoch states", "As for the files, for the restore points beside them. Empty: as many as files.", ge=1, level="expert")
    save_last_n_steps: int | None = option(None, "Keep files of last steps", "Files of steps stay while they are at most so many steps old (a count of steps, not of files).", ge=1, unit="steps", level="expert")
    save_last_n_steps_state: int | None = option(None, "Keep states of last steps", "As for the files, for the restore points beside them. Empty: as for the files.", ge=1, unit="steps", level="expert")
    save_last_n_step_files: int | None = option(None, "Keep last step files", "Only so many files of steps stay.", ge=1, level="expert")
    save_state: bool = option(False, "Save state too", "Keep a restore point beside each saved file.")
    save_state_on_train_end: bool = option(False, "Save state at the end", "Keep a restore point when training ends, so that it can go on later.")
    recovery_minutes: float = option(10.0, "Restore point every", "A rolling restore point inside the run folder, for crashes and power cuts. 0: none.", ge=0, le=10_000, unit="min", level="expert")
    resume: str | None = option(None, "Resume from state", "A state folder to go on from.", path="folder", level="expert")
    resume_changed_dataset: bool = option(False, "Resume with other pictures", "Go on though pictures or repeats were added or removed since: in the same share of the epoch, and it is said how many. Off: such a run is not resumed.", level="expert")
    initial_step: int | None = option(None, "First step", "Count on from this step: names, schedule and epochs go on from there, also in place of a resumed state's own count.", ge=0, le=100_000_000, unit="steps", level="expert",
        note="Steps, file names and the learning rate go on from it; in sd-scripts only the epoch does.")  # fmt: skip
    initial_epoch: int | None = option(None, "First epoch", "As the first step, given as an epoch (1 is the first). The step wins when both are given.", ge=1, le=1_000_000, unit="epochs", level="expert")
    skip_until_initial_step: bool = option(False, "Skip pictures to the first step", "Also leave out the pictures that the epoch of the first step has before it. A resumed run always does.", level="expert")


class MetadataSettings(Section):
    """What the result says of itself."""

    title = "Metadata"
    on_resume = "safe"

    no_metadata: bool = option(False, "No metadata", "Leave settings out of the result file.", level="expert")
    training_comment: str | None = option(None, "Comment", "Kept in the result's metadata.", level="expert")
    metadata_title: str | None = option(None, "Title", "Shown by programs that read modelspec. The name when empty.", level="expert", per_run=True)
    metadata_author: str | None = option(None, "Author", "Who made it.", level="expert")
    metadata_description: str | None = option(None, "Description", "What it is for.", level="expert", per_run=True)
    metadata_license: str | None = option(None, "Licence", "Under which terms it may be used.", level="expert")
    metadata_tags: str | None = option(None, "Tags", "Words with commas between them.", level="expert", per_run=True)
    metadata_usage_hint: str | None = option(None, "Usage hint", "How to use it well.", level="expert", per_run=True)
    metadata_trigger_phrase: str | None = option(None, "Trigger phrase", "The words that call it up.", level="expert", per_run=True)
    metadata_thumbnail: str | None = option(None, "Thumbnail", "A picture that is kept inside the file, made small when it is large.", path="file", level="expert")
    metadata_merged_from: str | None = option(None, "Merged from", "Titles of the models it was made of.", level="expert", per_run=True)
    metadata_preprocessor: str | None = option(None, "Preprocessor", "What pictures must go through first.", level="expert")
    metadata_is_negative_embedding: bool = option(False, "Negative embedding", "It is meant for the negative prompt.", level="expert")


class SamplingSettings(Section):
    """Pictures drawn while training."""

    title = "Sample pictures"
    on_resume = "safe"

    sample_prompt_text: str = option("", "Sample prompts", "One prompt a line, with options like --n bad --w 512 --h 512 --d 1 --s 20 --l 7.", level="basic", multiline=True, per_run=True)
    sample_prompts: str | None = option(None, "Sample prompt file", "A .txt, .json or .toml file of prompts.", path="file", level="expert")
    sample_every_n_steps: int | None = option(None, "Sample every n steps", "Draw the prompts every so many steps.", ge=1, unit="steps")
    sample_every_n_epochs: int | None = option(None, "Sample every n epochs", "Draw the prompts every so many epochs.", ge=1, unit="epochs")
    sample_at_first: bool = option(False, "Sample before the first step", "To see where the model starts.")
    sample_sampler: str = option("ddim", "Sampler", "How samples are drawn.", choices=("ddim", "pndm", "lms", "euler", "euler_a", "heun", "dpm_2", "dpm_2_a", "dpmsolver", "dpmsolver++", "dpmsingle", "k_lms", "k_euler", "k_euler_a", "k_dpm_2", "k_dpm_2_a"))


class TrackingSettings(Section):
    """Logs for other programs. The page needs none of them."""

    title = "Logs"
    on_resume = "safe"

    log_with: Literal["tensorboard", "wandb", "all"] | None = option(None, "Log with", "tensorboard, wandb (Weights & Biases, to be installed), or both. A log folder alone means tensorboard.", level="expert")
    logging_dir: str | None = option(None, "Log folder", "Write logs into a new folder inside this one. Empty: inside the run's own folder.", path="output")
    log_prefix: str | None = option(None, "Log folder prefix", "Put before the date in the log folder's name.", level="expert")
    log_tracker_name: str | None = option(None, "Tracker name", "Folder of the TensorBoard log, project of wandb; network_train when empty.", level="expert")
    log_tracker_config: str | None = option(None, "Tracker file", "A TOML file with a table [wandb] or [tensorboard] of further arguments.", path="file", level="expert")
    log_config: bool = option(False, "Log the settings", "Keep the settings with the logs, without keys and folders.", level="expert")
    wandb_run_name: str | None = option(None, "wandb run name", "Name of the run there; one is made up when empty.", level="expert", per_run=True)
    wandb_api_key: str | None = option(None, "wandb key", "Used for this run only and written nowhere. Without it, the one of 'wandb login'.", level="expert", secret=True)
    console_log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] | None = option(None, "Log level", "What the terminal shows: WARNING leaves out all but warnings and errors. INFO when empty.", level="expert")
    console_log_file: str | None = option(None, "Terminal log file", "Write the terminal's lines to the end of this file instead; errors and progress still show.", path="written", level="expert")
    console_log_simple: bool = option(False, "Plain terminal lines", "No time and level in the log file, no line that is written over.", level="expert")


class HubSettings(Section):
    """Upload to Hugging Face. Nothing is sent anywhere without a repository named here."""

    title = "Hugging Face"
    on_resume = "safe"

    huggingface_repo_id: str | None = option(None, "Repository", "Upload every saved file here, as user/name. It is made when it is not there.", level="expert")
    huggingface_repo_type: Literal["model", "dataset", "space"] | None = option(None, "Kind of repository", "A model repository when empty.", level="expert")
    huggingface_path_in_repo: str | None = option(None, "Folder in the repository", "Files go into this folder of it.", level="expert")
    huggingface_token: str | None = option(None, "Token", "With the right to write. Used for this run only and written nowhere. Without it, HF_TOKEN or the one of 'hf auth login'.", level="expert", secret=True)
    huggingface_repo_visibility: Literal["public", "private"] | None = option(None, "Visibility", "Of a repository that is made: private unless public is chosen.", level="expert")
    save_state_to_huggingface: bool = option(False, "Upload states too", "Also upload the restore points that are saved beside files.", level="expert")
    resume_from_huggingface: bool = option(False, "Resume from Hugging Face", "The state to resume from is a folder of a repository: user/name/folder, with :revision and :type behind it if need be.", level="expert")
    async_upload: bool = option(False, "Upload beside training", "Train on while files are uploaded; the result is always waited for.", level="expert")


class LaunchSettings(Section):
    """Several cards or machines. One process each, started by accelerate."""

    title = "Several cards and machines"

    num_processes: int = option(1, "Processes", "One for each card, over all machines. Together they take that many batches at each step.", ge=1, le=4096,
        note="Processes share each batch, so all have pictures of one size; in sd-scripts each draws batches of its own.")  # fmt: skip
    gpu_ids: str | None = option(None, "Cards", "Numbers of the cards to use, such as 0,1. All when empty.", level="expert")
    num_machines: int = option(1, "Machines", "Start the same training on each, with a number of its own.", ge=1, le=1024, level="expert")
    machine_rank: int = option(0, "Number of this machine", "From 0, which is the one that writes the files.", ge=0, le=1023, level="expert")
    main_process_ip: str | None = option(None, "Address of machine 0", "As the others reach it.", level="expert")
    main_process_port: int | None = option(None, "Port of machine 0", "A free one is taken when empty or 0; several machines need the same number.", ge=0, le=65_535, level="expert")
    num_cpu_threads_per_process: int | None = option(None, "Processor threads of each", "The launcher's own rule when empty.", ge=1, le=1024, level="expert")
    extra_accelerate_launch_args: str | None = option(None, "More for accelerate launch", "Further options, as one would type them.", level="expert")
    ddp_timeout: int | None = option(None, "Longest wait for another", "Minutes until an exchange between processes counts as failed; the library's own when empty.", ge=1, le=100_000, unit="min", level="expert")
    ddp_gradient_as_bucket_view: bool = option(False, "Gradients share memory", "Saves the memory of one copy of the gradients.", level="expert")
    ddp_static_graph: bool = option(False, "Steps are alike", "Faster when every step uses the same weights: not with module_dropout.", level="expert")
