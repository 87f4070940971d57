"""Write docs/options.md, the reference of all options, from their declarations.

python tools/make_reference.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main
from backend.settings.declare import SECTIONS, Declared, declarations
from backend.settings.dialect import NEEDS_NOTHING, RENAMED
from backend.settings.settings import DEFAULTS

TARGET = Path(__file__).resolve().parent.parent / "docs" / "options.md"

INTRODUCTION = """\
# All options

The same names serve the form, the command line (`--learning_rate 1e-4`) and TOML files
(`learning_rate = 1e-4`, under any heading or none). Names and defaults are those of sd-scripts
wherever it has the option. This page is made by `python tools/make_reference.py`.

- **Switches** are given as `--cache_latents` on the command line and `true` or `false` in a file;
  `--cache_latents=false` switches one off again that a file switches on.
- **Lists** are given as `--optimizer_args weight_decay=0.01 betas=.9,.999` on the command line and
  `["weight_decay=0.01", "betas=.9,.999"]` in a file.
- Options marked *network_args* may stand in `network_args` as well, as sd-scripts takes them.
- `--config_file run.toml` reads a file; what is typed beside it wins.
- An empty default means that the option is left to the program, as its text says.
"""


_TYPES = {
    "bool": "switch",
    "int": "whole number",
    "float": "number",
    "textlist": "list",
    "resolution": "size",
}


def reference() -> str:
    """The whole page."""
    lines = [INTRODUCTION]
    for name, section in SECTIONS.items():
        lines += [f"## {section.title}", "", str(section.__doc__), ""]
        lines += ["| option | type | default | allowed | what it does |", "|---|---|---|---|---|"]
        lines += [_row(one) for one in declarations().values() if one.section == name]
        lines.append("")
    return "\n".join([*lines, *_dialect()])


def _row(declared: Declared) -> str:
    info = declared.info
    help = " ".join(filter(None, (f"**{info.label}.** {info.help}", _applies(declared), info.note)))
    cells = (f"`{declared.key}`", _type(declared), _default(declared), _allowed(declared), help)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _type(declared: Declared) -> str:
    if declared.info.path:
        return {"file": "file", "folder": "folder", "output": "folder to write", "written": "file to write"}[
            declared.info.path
        ]
    return _TYPES.get(declared.kind, declared.kind)


def _default(declared: Declared) -> str:
    value = DEFAULTS[declared.key]
    if isinstance(value, bool):
        return "on" if value else "off"
    return "" if value in (None, "", []) else f"`{value}`"


def _allowed(declared: Declared) -> str:
    if declared.choices:
        return ", ".join(f"`{choice}`" for choice in declared.choices)
    return " ".join(filter(None, (declared.bounds.text(), declared.info.unit)))


def _applies(declared: Declared) -> str:
    info = declared.info
    parts = [f"Families: {', '.join(info.families)}."] if info.families else []
    parts += [f"Methods: {', '.join(declared.methods)}."] if declared.methods else []
    if info.show_if:
        parts.append(f"Counts with {' and '.join(f'`{key}`' for key, _ in info.show_if)}.")
    return " ".join([*parts, "*network_args*"] if info.network_arg else parts)


def _dialect() -> Iterator[str]:
    yield "## Names of sd-scripts that are read otherwise"
    yield ""
    yield "| name | what becomes of it |"
    yield "|---|---|"
    for name, (target, value) in sorted(RENAMED.items()):
        yield f"| `{name}` | `{target}`" + (f" = `{value}` |" if value else " |")
    for name, reason in sorted(NEEDS_NOTHING.items()):
        yield f"| `{name}` | needs nothing here: {reason} |"
    yield ""
    yield "Every other option of sd-scripts that is not in the tables above is refused by name,"
    yield "unless its value changes nothing."
    yield ""


def main() -> int:
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    TARGET.write_text(reference(), encoding="utf-8", newline="\n")
    print(f"{TARGET}: {len(declarations())} options")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
