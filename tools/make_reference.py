"""Write docs/options.md, the reference of all options, from their declarations.

python tools/make_reference.py
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main
from backend.settings.declare import declarations
from ui.docs.reference import reference

TARGET = Path(__file__).resolve().parent.parent / "docs" / "options.md"


def main() -> int:
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    TARGET.write_text(reference(), encoding="utf-8", newline="\n")
    print(f"{TARGET}: {len(declarations())} options")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
