"""Which bucket a picture would get, and what a caption would become.

    python tools/probe_data.py buckets  --in F.json --out R.json
    python tools/probe_data.py captions --in F.json --out R.json

buckets: a list of {"settings": {"no_upscale", "max_reso", "min_size", "max_size", "reso_steps"},
"assign": [{"size": [width, height]}, ...]}; the answer has "bucket" and "resized" for each size.
captions: a list of {"caption", "subset": {caption options}, "current_step", "max_train_steps",
"current_epoch", "python_random_seed"}; the answer has "result" for each.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.data import buckets, captions
from backend.data.types import CaptionRules, Geometry
from backend.errors import InputError, run_main


def probe_buckets(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same groups with our buckets."""
    return [_bucket_group(group) for group in groups]


def _bucket_group(group: dict[str, Any]) -> dict[str, Any]:
    settings = group["settings"]
    rules = buckets.BucketRules(
        resolution=tuple(settings["max_reso"]),
        enable_bucket=True,
        min_bucket_reso=settings["min_size"],
        max_bucket_reso=settings["max_size"],
        bucket_reso_steps=settings["reso_steps"],
        bucket_no_upscale=settings["no_upscale"],
    )
    assigned = [_assigned(buckets.assign(tuple(item["size"]), rules)) for item in group["assign"]]
    answer: dict[str, Any] = {"settings": settings}
    if not rules.bucket_no_upscale:
        sizes = (rules.resolution, rules.min_bucket_reso, rules.max_bucket_reso, rules.bucket_reso_steps)
        answer["predefined"] = [list(size) for size in buckets.predefined(*sizes)]
    answer["assign"] = assigned
    answer["resos_sorted"] = sorted({tuple(item["bucket"]) for item in assigned})
    return answer


def _assigned(geometry: Geometry) -> dict[str, Any]:
    (width, height), (across, down) = geometry.original, geometry.bucket
    left, top = geometry.crop
    return {
        "size": list(geometry.original),
        "bucket": list(geometry.bucket),
        "resized": list(geometry.resized),
        "ar_error": across / down - width / height,
        # Where the bucket really lies in the resized picture.
        "crop_ltrb": [left, top, left + across, top + down],
    }


def probe_captions(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same cases with our results."""
    return [{**case, "result": _caption(case)} for case in cases]


def _caption(case: dict[str, Any]) -> str:
    return captions.process(
        case["caption"],
        CaptionRules(**case.get("subset", {})),
        rng=random.Random(case.get("python_random_seed", 0)),
        step=case.get("current_step", 0),
        total_steps=case.get("max_train_steps", 1),
        epoch=case.get("current_epoch", 1),
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("buckets", "captions"))
    parser.add_argument("--in", dest="source", type=Path, required=True, metavar="F.json")
    parser.add_argument("--out", type=Path, required=True, metavar="R.json")
    args = parser.parse_args()
    probe = probe_buckets if args.what == "buckets" else probe_captions
    try:
        answer = probe(json.loads(args.source.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"cannot read {args.source} ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{args.source} is not a file of {args.what} as described by --help.", detail=repr(error)
        ) from None
    args.out.write_text(json.dumps(answer, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
