"""Clean the captions and tags of a metadata file by rules.

    python tools/clean_captions_and_tags.py meta_cap_dd.json meta_clean.json
    python tools/clean_captions_and_tags.py --write_rules rules.json         the rules, to edit
    python tools/clean_captions_and_tags.py --rules rules.json --debug meta_cap_dd.json meta_clean.json

IN_JSON is never written over unless --overwrite says so; what stood under OUT_JSON is kept beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import InputError, run_main


def main() -> int:
    from backend.annotate import cleaning, cleanrules, metadata
    from backend.annotate.jobs import write_cleaned
    from backend.wholefile import write_text

    options = _parser().parse_args()
    if options.write_rules is not None:
        if options.write_rules.exists():
            raise InputError(f"{options.write_rules} exists already", next="choose another name")
        write_text(
            options.write_rules,
            json.dumps(cleanrules.as_dicts(cleanrules.RULES), ensure_ascii=False, indent=1) + "\n",
        )
        print(f"{len(cleanrules.RULES)} rules written into {options.write_rules}")
        return 0
    if options.in_json is None or options.out_json is None:
        raise InputError("IN_JSON and OUT_JSON are needed")
    rules = cleanrules.read_rules(options.rules) if options.rules else cleanrules.RULES
    entries, changes = cleaning.clean_entries(metadata.read(options.in_json), rules)
    if options.debug:
        for key, which, before, after in changes:
            print(f"{key} {which}\n  - {before}\n  + {after}")
    kept = write_cleaned(options.in_json, options.out_json, entries, options.overwrite)
    print(f"changed {len(changes)} texts of {len(entries)} pictures; written into {options.out_json}")
    if kept is not None:
        print(f"note: what stood there is kept as {kept.name}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("in_json", type=Path, nargs="?", help="metadata to read")
    parser.add_argument("out_json", type=Path, nargs="?", help="metadata to write")
    parser.add_argument(
        "--rules", type=Path, help="a JSON file of rules instead of those that come with Atelier"
    )
    parser.add_argument("--write_rules", type=Path, help="write the rules into this file and end")
    parser.add_argument("--overwrite", action="store_true", help="OUT_JSON may be IN_JSON")
    parser.add_argument("--debug", action="store_true", help="show every change")
    return parser


if __name__ == "__main__":
    sys.exit(run_main(main))
