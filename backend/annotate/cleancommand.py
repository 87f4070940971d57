"""The command line that cleans captions and tags, in a metadata file or beside pictures."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from backend.annotate import cleaning, cleanrules, folders, metadata
from backend.annotate.jobs import write_cleaned
from backend.data.edit.terminal import ProgressLine
from backend.errors import InputError
from backend.wholefile import write_text


def main(description: str | None) -> int:
    """Run ``clean_captions_and_tags.py``."""
    given = _parser(description).parse_args()
    if given.write_rules is not None:
        return _write_rules(given.write_rules)
    if given.train_data_dir is not None:
        return _undo(given) if given.undo else _folder(given, _rules(given))
    if given.in_json is None or given.out_json is None:
        raise InputError("IN_JSON and OUT_JSON are needed, or --train_data_dir")
    return _file(given, _rules(given))


def _rules(given: argparse.Namespace) -> Sequence[cleanrules.Rule]:
    return cleanrules.read_rules(given.rules) if given.rules else cleanrules.RULES


def _write_rules(path: Path) -> int:
    if path.exists():
        raise InputError(f"{path} exists already", next="choose another name")
    write_text(path, json.dumps(cleanrules.as_dicts(cleanrules.RULES), ensure_ascii=False, indent=1) + "\n")
    print(f"{len(cleanrules.RULES)} rules written into {path}")
    return 0


def _file(given: argparse.Namespace, rules: Sequence[cleanrules.Rule]) -> int:
    entries, changes = cleaning.clean_entries(metadata.read(given.in_json), rules)
    if given.debug:
        for key, which, before, after in changes:
            print(f"{key} {which}\n  - {before}\n  + {after}")
    kept = write_cleaned(given.in_json, given.out_json, entries, given.overwrite)
    print(f"changed {len(changes)} texts of {len(entries)} pictures; written into {given.out_json}")
    if kept is not None:
        print(f"note: what stood there is kept as {kept.name}")
    return 0


def _folder(given: argparse.Namespace, rules: Sequence[cleanrules.Rule]) -> int:
    folder: Path = given.train_data_dir
    if given.debug:
        tried = folders.try_cleaning(folder, given.caption_extension, rules, recursive=given.recursive)
        for change in tried.preview.changes:
            print(f"{change.path.name}\n  - {change.before}\n  + {change.after}")
    with ProgressLine("cleaning", "texts") as progress:
        done, left = folders.clean_folder(
            folder, given.caption_extension, rules, recursive=given.recursive, progress=progress
        )
    print(f"changed {len(done.written)} texts")
    for name, why in left:
        print(f"left: {name} {why}")
    if done.edit is not None:
        name = shlex.quote(str(folder))
        print(f"taken back with: python tools/clean_captions_and_tags.py --undo --train_data_dir {name}")
    return 4 if left else 0


def _undo(given: argparse.Namespace) -> int:
    done = folders.undo(given.train_data_dir, given.caption_extension)
    if done is None:
        raise InputError(f"no change in {given.train_data_dir} is left to take back")
    print(f"{done.title}: {len(done.written)} files are as they were")
    return 4 if done.failed else 0


def _parser(description: str | None) -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("in_json", type=Path, nargs="?", help="metadata to read")
    found.add_argument("out_json", type=Path, nargs="?", help="metadata to write")
    found.add_argument("--rules", type=Path, help="a JSON file of rules instead of those of Atelier")
    found.add_argument("--write_rules", type=Path, help="write the rules into this file and end")
    found.add_argument("--overwrite", action="store_true", help="OUT_JSON may be IN_JSON")
    found.add_argument("--train_data_dir", type=Path, help="clean the texts beside these pictures instead")
    found.add_argument("--caption_extension", default=".txt", help="their ending [%(default)s]")
    found.add_argument("--recursive", action="store_true", help="and those in folders inside")
    found.add_argument("--undo", action="store_true", help="take back the last change in that folder")
    found.add_argument("--debug", action="store_true", help="show every change")
    return found
