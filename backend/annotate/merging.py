"""The command lines that take captions and tags into a metadata file."""

from __future__ import annotations

import argparse
from pathlib import Path

from backend.annotate import metadata


def main(description: str | None, which: metadata.Which, extension: str) -> int:
    """Run ``merge_captions_to_metadata.py`` or its sister for tags."""
    options = _parser(description, extension).parse_args()
    target: Path = options.out_json
    source: Path | None = options.in_json or (target if target.exists() else None)
    if options.in_json is None and source is not None:
        print(f"adding to {target}")
    entries = metadata.read(source) if source is not None else {}
    done = metadata.merge(
        options.train_data_dir,
        entries,
        which,
        options.caption_extension,
        full_path=options.full_path,
        recursive=options.recursive,
    )
    if options.debug:
        for key in list(done.entries):
            print(f"{key}: {done.entries[key].get(which, '')}")
    done.kept = metadata.write(target, done.entries)
    print(done.text())
    print(f"written into {target}")
    if done.texts == 0:
        print(f"note: no text here ends with {options.caption_extension}{_others(options.train_data_dir)}")
    return 4 if done.failed else 0


def _others(folder: Path) -> str:
    """'; there are .txt files' where texts have another ending than was looked for."""
    known = (".txt", ".caption", ".cap")
    endings = sorted({path.suffix for path in folder.expanduser().iterdir()} & set(known))
    return f"; there are {' and '.join(endings)} files" if endings else ""


def _parser(description: str | None, extension: str) -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("train_data_dir", type=Path, help="folder of pictures")
    found.add_argument("out_json", type=Path, help="the metadata file to write: .json or .jsonl")
    found.add_argument("--in_json", type=Path, help="metadata to start from [OUT_JSON where it exists]")
    found.add_argument(
        "--caption_extension",
        "--caption_extention",
        default=extension,
        help="ending of the texts [%(default)s]",
    )
    found.add_argument(
        "--full_path",
        action="store_true",
        help="name pictures by their whole path, for several folders in one file",
    )
    found.add_argument("--recursive", action="store_true", help="look into folders inside")
    found.add_argument("--debug", action="store_true", help="show every text")
    return found
