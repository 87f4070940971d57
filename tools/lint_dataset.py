"""The dataset doctor: finds trouble in a dataset before training does.

    python tools/lint_dataset.py dataset.toml
    python tools/lint_dataset.py "train/10_sks dog" --trigger sks --json
    python tools/lint_dataset.py dataset.toml --fix exact_duplicate          shows what the fix would do
    python tools/lint_dataset.py dataset.toml --fix exact_duplicate --yes    does it
    python tools/lint_dataset.py dataset.toml --undo                         takes the last fix back

Nothing is ever deleted: a fix moves files to a folder _excluded, writes anew beside the original, or
changes the dataset file. Exit code: 0 for nothing or notes, 1 for warnings, 2 for errors.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import InputError, run_main


def main() -> int:
    args = _arguments()
    if args.undo:
        return _undo(args)
    if args.fix:
        return _fix(args)
    found = _lint(args)
    if args.json:
        print(json.dumps(found.as_dict(), indent=1))
    else:
        from backend.data.lint import show

        for line in show.report(found, lambda finding: _command(args, "--fix", finding.rule)):
            print(line)
    return found.exit_code


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source", metavar="CONFIG_OR_FOLDER", help="a dataset file, a training config or a folder"
    )
    parser.add_argument("--trigger", metavar="WORD", help="the word that stands for the subject")
    parser.add_argument(
        "--control", action="store_true", help="conditioning_data_dir holds pictures that guide, not masks"
    )
    parser.add_argument("--json", action="store_true", help="the findings as JSON")
    parser.add_argument("--fix", nargs="+", metavar="RULE", default=[], help="fix what these rules found")
    parser.add_argument("--yes", action="store_true", help="make the fix; without it, it is only shown")
    parser.add_argument("--undo", action="store_true", help="take the last fix of this dataset back")
    return parser.parse_args()


def _lint(args: argparse.Namespace):
    from backend.data.lint import lint

    progress = _progress if sys.stderr.isatty() else None
    found = lint(args.source, trigger=args.trigger, control=args.control, progress=progress)
    if progress:
        print("\r" + " " * 40 + "\r", end="", file=sys.stderr)
    return found


def _progress(phase: str, done: int, total: int) -> None:
    print(f"\r{phase} {done} of {total}   ", end="", file=sys.stderr, flush=True)


def _fix(args: argparse.Namespace) -> int:
    """Fix one rule after the other; each is looked at anew, since a fix may cure or move what follows."""
    from backend.data.lint import RULES, show

    unknown = [rule for rule in args.fix if rule not in {known.id for known in RULES}]
    if unknown:
        known = ", ".join(rule.id for rule in RULES if rule.cure)
        raise InputError(f"There is no rule {', '.join(unknown)}.", next=f"Rules with a fix: {known}.")
    for rule in args.fix:
        finding = _lint(args).get(rule)
        if finding is None or finding.fix is None:
            print(f"{rule}: nothing to fix")
            continue
        print(f"{rule}: {finding.fix.description}")
        for line in show.changes(finding.fix.preview()):
            print(line)
        if args.yes:
            done = finding.fix.apply()
            print(f"  done in {done.files} steps; taken back with: {_command(args, '--undo', yes=False)}")
    if not args.yes:
        print(f"Nothing was changed. To do it: {_command(args, '--fix', *args.fix)}")
    return 0


def _undo(args: argparse.Namespace) -> int:
    from backend.data.lint import pending, roots_of

    fixes = pending(roots_of(args.source))
    if not fixes:
        raise InputError(f"No fix of {args.source} is left to take back.")
    left = fixes[0].apply()
    print(f"{fixes[0].rule}: taken back ({fixes[0].description})" if not left else f"{fixes[0].rule}:")
    for sentence in left:
        print(f"  {sentence}")
    return 1 if left else 0


def _command(args: argparse.Namespace, *more: str, yes: bool = True) -> str:
    words = ["python", "tools/lint_dataset.py", args.source, *more]
    words += ["--trigger", args.trigger] if args.trigger else []
    words += ["--control"] if args.control else []
    return shlex.join([*words, "--yes"] if yes else words)


if __name__ == "__main__":
    sys.exit(run_main(main))
