"""Tell what is not translated: ``python -m ui.i18n``. ``--accept`` takes the translations as they are now.

Before that every changed text is looked at in each language: tests fail until it is accepted.
"""

from __future__ import annotations

import argparse
import sys

from ui.i18n import sources


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ui.i18n", description="Tell what is not translated.")
    parser.add_argument("--accept", action="store_true", help="take the translations as they are now")
    options = parser.parse_args()
    if options.accept:
        sources.accept()
    for key in sources.changed():
        print(f"changed: {key}: {sources.page_texts()[key]}")
    for text in sources.unused():
        print(f"not said any more: {text!r}")
    for text in sources.missing():
        print(f"{sources.wanted()[text]}: {text!r}")
    print(f"{len(sources.missing())} of {len(sources.wanted())} messages are not translated")
    return 0


if __name__ == "__main__":
    sys.exit(main())
