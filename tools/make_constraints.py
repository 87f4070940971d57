"""Make requirements/constraints.txt anew, after a change of requirements.txt or requirements/dev.txt.

    python tools/make_constraints.py [--uv UV]

uv (https://docs.astral.sh/uv) finds versions for every Python and system; those that stand in the file
already stay where they can. What torch itself brings is left out: it differs with the card.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import EnvironmentFault, run_main
from backend.wholefile import write_text

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "requirements" / "constraints.txt"
HEADER = """\
# Exact versions of everything that requirements.txt and requirements/dev.txt bring along, for every
# Python and system; torch's own are left to torch. Made anew after a change of those two with:
#   python tools/make_constraints.py
"""
_TORCHS_OWN = re.compile(r"(?:torch|triton|setuptools|nvidia-[\w-]+|cuda-[\w-]+)==")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--uv", default="uv", help="the program [%(default)s]")
    options = parser.parse_args()
    write_text(FILE, HEADER + "".join(f"{line}\n" for line in kept(compiled(options.uv))))
    print(f"{FILE.relative_to(ROOT)} is made")
    return 0


def compiled(uv: str) -> str:
    """What uv finds, as text. Raises EnvironmentFault when there is no uv, or it finds nothing."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "constraints.txt"
        target.write_bytes(FILE.read_bytes())  # versions in the output file are kept
        command = [
            uv, "pip", "compile", "--quiet", "--universal", "--python-version", "3.10", "--no-annotate",
            "--no-header", "--output-file", str(target), "requirements.txt", "requirements/dev.txt",
        ]  # fmt: skip
        try:
            subprocess.run(command, cwd=ROOT, check=True)
        except FileNotFoundError:
            raise EnvironmentFault(
                f"there is no {uv} here", next="install uv, or name it with --uv"
            ) from None
        except subprocess.CalledProcessError as error:
            raise EnvironmentFault("uv could not find versions that fit", why=str(error)) from None
        return target.read_text(encoding="utf-8")


def kept(text: str) -> list[str]:
    """Lines of packages, without torch's own and without those that only browsers need."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [line for line in lines if not _TORCHS_OWN.match(line) and "== 'emscripten'" not in line]


if __name__ == "__main__":
    sys.exit(run_main(main))
