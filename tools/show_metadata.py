"""Show what a model file says about itself, and change it in a copy.

    python tools/show_metadata.py --model lora.safetensors
    python tools/show_metadata.py --model lora.safetensors --settings > again.toml
    python tools/show_metadata.py --model lora.safetensors --save_to clean.safetensors --strip

Prints the metadata as JSON. --settings prints what the file was trained with as a settings file for
train_network.py. With --save_to a copy is written with other metadata; the tensors are the same.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import InputError, run_main


def main() -> int:
    from backend.weights.command import finish, parser

    found = parser(__doc__)
    found.add_argument("--model", type=Path, required=True, help="a safetensors file")
    found.add_argument("--settings", action="store_true", help="print the training settings as TOML")
    found.add_argument("--save_to", type=Path, help="write a copy with other metadata")
    found.add_argument("--strip", action="store_true", help="keep only what other programs need")
    found.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="entries to set")
    found.add_argument("--remove", nargs="*", default=[], metavar="KEY", help="entries to take out")
    options = found.parse_args()
    if options.save_to is None:
        if options.strip or options.set or options.remove:
            raise InputError("--save_to is missing: a file is never changed, a copy is written")
        return _show(options)
    from backend.weights.editing import EditMetadata, edit_metadata

    job = EditMetadata(
        options.model,
        options.save_to,
        dict(map(_entry, options.set)),
        options.remove,
        options.strip,
        options.overwrite,
    )
    return finish(lambda progress: edit_metadata(job, progress), options)


def _show(options: argparse.Namespace) -> int:
    from backend.settings.imports.metadata import settings_of
    from backend.system.headers import read_header

    metadata = read_header(options.model).metadata
    if options.settings:
        trained = settings_of(metadata)
        print(trained.toml(metadata.get("ss_output_name", options.model.stem)), end="")
        for note in trained.notes:
            print(f"note: {note}", file=sys.stderr)
        return 0
    readable = {key: _readable(text) for key, text in sorted(metadata.items())}
    print(json.dumps(readable, ensure_ascii=False, indent=2))
    return 0


def _entry(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign:
        raise InputError(f"--set {text}: expected KEY=VALUE")
    return key, value


def _readable(text: str) -> object:
    """Tables inside the texts are shown as tables."""
    if text[:1] not in "[{":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


if __name__ == "__main__":
    sys.exit(run_main(main))
