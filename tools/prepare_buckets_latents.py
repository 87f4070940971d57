"""Write the bucket of each picture into fine-tuning metadata, and encode the pictures into the cache.

python tools/prepare_buckets_latents.py --full_path FOLDER meta_clean.json meta_lat.json model.safetensors

An OUT_JSON that exists is kept under another name beside the new one.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import InputError, run_main


def main() -> int:
    options = _parser().parse_args()
    from backend.train.prepare import encode_metadata
    from backend.train.prepare_metadata import BucketRequest

    request = BucketRequest(
        options.train_data_dir,
        options.in_json,
        options.out_json,
        _resolution(options.max_resolution),
        options.min_bucket_reso,
        options.max_bucket_reso,
        options.bucket_reso_steps,
        options.bucket_no_upscale,
        options.full_path,
        options.flip_aug,
        options.alpha_mask not in ("", "False", "false", "0"),
        options.recursive,
    )
    for name in ("v2", "skip_existing"):
        if getattr(options, name):
            print(f"note: {name} needs nothing here: {_NEEDS_NOTHING[name]}")
    return encode_metadata(
        request,
        options.model_name_or_path,
        options.mixed_precision,
        options.batch_size,
        options.max_data_loader_n_workers,
    )


_NEEDS_NOTHING = {
    "v2": "the kind of model is read from its file",
    "skip_existing": "what is in the cache already is always found",
}


def _resolution(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"\s*(\d+)\s*(?:[,xX]\s*(\d+))?\s*", text)
    if not match:
        raise InputError(
            f"max_resolution: {text!r} is not a size", next="write 512,512", key="max_resolution"
        )
    return int(match[1]), int(match[2] or match[1])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("train_data_dir", type=Path)
    parser.add_argument("in_json", type=Path)
    parser.add_argument("out_json", type=Path)
    parser.add_argument("model_name_or_path")
    parser.add_argument(
        "--v2", action="store_true", help="needs nothing: the kind of model is read from its file"
    )
    parser.add_argument("--batch_size", type=int, default=1, help="pictures encoded at once [%(default)s]")
    parser.add_argument("--max_data_loader_n_workers", type=int, help="threads that decode pictures")
    parser.add_argument("--max_resolution", default="512,512", help="training size [%(default)s]")
    parser.add_argument("--min_bucket_reso", type=int, default=256, help="[%(default)s]")
    parser.add_argument("--max_bucket_reso", type=int, default=1024, help="[%(default)s]")
    parser.add_argument("--bucket_reso_steps", type=int, default=64, help="[%(default)s]")
    parser.add_argument("--bucket_no_upscale", action="store_true")
    parser.add_argument(
        "--mixed_precision", choices=("no", "fp16", "bf16"), default="no", help="[%(default)s]"
    )
    parser.add_argument("--full_path", action="store_true", help="name new entries by their whole path")
    parser.add_argument("--flip_aug", action="store_true", help="encode mirrored pictures as well")
    parser.add_argument("--alpha_mask", default="", help="pictures have masks in their alpha channel")
    parser.add_argument(
        "--skip_existing", action="store_true", help="needs nothing: what is there is always found"
    )
    parser.add_argument("--recursive", action="store_true", help="look into folders inside")
    return parser


if __name__ == "__main__":
    sys.exit(run_main(main))
