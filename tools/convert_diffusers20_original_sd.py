"""Convert a base model: .ckpt, .safetensors and diffusers folders into each other.

    python tools/convert_diffusers20_original_sd.py model.ckpt model.safetensors --fp16
    python tools/convert_diffusers20_original_sd.py model.safetensors folder
    python tools/convert_diffusers20_original_sd.py folder model.safetensors --vae better_vae.safetensors

An output without an ending becomes a diffusers folder. The family is read from the file.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import InputError, run_main


def main() -> int:
    from backend.weights.command import check_family, finish, parser
    from backend.weights.convert import Convert, read_metadata, run

    found = parser(__doc__)
    found.add_argument("model_to_load", type=Path, help="the model")
    found.add_argument("model_to_save", type=Path, help="a file name, or a folder's name without an ending")
    found.add_argument("--v1", action="store_true", help="the model is SD 1.x (it says so itself, too)")
    found.add_argument("--v2", action="store_true", help="the model is SD 2.x (it says so itself, too)")
    found.add_argument(
        "--unet_use_linear_projection", action="store_true", help="the U-Net's projections are read from it"
    )
    for name in ("fp16", "bf16", "float"):
        found.add_argument(f"--{name}", action="store_true", help=f"save in {name}")
    found.add_argument("--save_precision_as", choices=("no", "fp16", "bf16", "float"), default="no")
    found.add_argument("--keep_precision", action="store_true", help="save as stored [float]")
    found.add_argument("--epoch", type=int, default=0, help="written into a .ckpt [%(default)s]")
    found.add_argument("--global_step", type=int, default=0, help="written into a .ckpt [%(default)s]")
    found.add_argument("--metadata", help="JSON object of further metadata")
    found.add_argument("--variant", help="in the file names of a folder: fp16")
    found.add_argument(
        "--reference_model", type=Path, help="a folder whose scheduler and tokenizer are taken"
    )
    found.add_argument("--use_safetensors", action="store_true", help="folders are always written so")
    found.add_argument("--vae", type=Path, help="a VAE that takes the place of the model's own")
    found.add_argument("--prune_ema", action="store_true", help="leave out what only training needs")
    options = found.parse_args()
    chosen = [name for name in ("fp16", "bf16", "float") if getattr(options, name)]
    if options.save_precision_as != "no":
        chosen.append(options.save_precision_as)
    if len(set(chosen)) + options.keep_precision > 1:
        raise InputError("more than one precision", next="choose one of --fp16, --bf16, --float")
    if options.v1 or options.v2:
        family = "sd1" if options.v1 else "sd2"
        check_family(options.model_to_load, (family,), "--v1" if options.v1 else "--v2")
    job = Convert(
        model_to_load=options.model_to_load,
        model_to_save=options.model_to_save,
        precision=None if options.keep_precision else (chosen[0] if chosen else "float"),
        vae=options.vae,
        prune_ema=options.prune_ema,
        metadata=read_metadata(options.metadata),
        epoch=options.epoch,
        global_step=options.global_step,
        variant=options.variant,
        reference_model=options.reference_model,
        overwrite=options.overwrite,
    )
    return finish(lambda progress: run(job, progress), options)


if __name__ == "__main__":
    sys.exit(run_main(main))
