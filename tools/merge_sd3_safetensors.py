"""Put SD 3's parts, which also come as files of their own, into one file.

    python tools/merge_sd3_safetensors.py --dit sd3.safetensors --clip_l l.safetensors \\
        --clip_g g.safetensors --t5xxl t5.safetensors --output whole.safetensors

Parts that are not given are taken from --dit as far as it has them.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    from backend.weights.command import add_precisions, finish, parser
    from backend.weights.parts import JoinParts, run

    found = parser(__doc__)
    add_precisions(found, merging=False, unset="of the output [as stored]")
    found.add_argument("--dit", type=Path, required=True, help="the base model, or its transformer alone")
    for name in ("vae", "clip_l", "clip_g", "t5xxl"):
        found.add_argument(f"--{name}", type=Path, help="a file of this part")
    found.add_argument("--output", type=Path, default=Path("merged_model.safetensors"), help="[%(default)s]")
    found.add_argument("--device", help="changes nothing: tensors go from file to file [cpu]")
    options = found.parse_args()
    job = JoinParts(
        dit=options.dit,
        output=options.output,
        vae=options.vae,
        clip_l=options.clip_l,
        clip_g=options.clip_g,
        t5xxl=options.t5xxl,
        save_precision=options.save_precision,
        overwrite=options.overwrite,
    )
    return finish(lambda progress: run(job, progress), options)


if __name__ == "__main__":
    sys.exit(run_main(main))
