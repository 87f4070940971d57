"""What is to be installed, and whether it is: requirement files, the stamp, the card.

For :mod:`backend.system.install`, so on the standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TORCH = "torch==2.13.0"
VERSIONS = ((3, 10), (3, 13))
NEEDED_GB = {"cpu": 3.0, "cuda": 12.0}
"""Free disk space in GB that an installation takes, with some air."""


class InstallError(Exception):
    """An installation that cannot go on; the text is for people."""


@dataclass(frozen=True)
class Place:
    """Where things are."""

    root: Path

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    @property
    def python(self) -> Path:
        return self.venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def stamp(self) -> Path:
        return self.venv / "atelier-installed.json"

    @property
    def notes(self) -> Path:
        """Folder of the log, the lock and working files."""
        return self.root / ".atelier"

    @property
    def log(self) -> Path:
        return self.notes / "install.log"


def requirement_files(place: Place, variant: str, dev: bool) -> list[Path]:
    """The requirement files that apply."""
    names = ["requirements.txt"]
    names += ["requirements/cuda.txt"] if variant == "cuda" else []
    names += ["requirements/dev.txt"] if dev else []
    return [place.root / name for name in names]


def fingerprint(place: Place, variant: str, dev: bool) -> dict[str, str]:
    """What decides whether an installation is still the right one."""
    files = [*requirement_files(place, variant, dev), place.root / "requirements" / "constraints.txt"]
    hashes = {file.name: hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in files}
    return {"torch": TORCH, "variant": variant, "python": venv_version(place), **hashes}


def circumstances() -> dict[str, str]:
    """What may change the variant; when it is as before, no card has to be looked for."""
    return {"asked": os.environ.get("ATELIER_TORCH", ""), "tool": str(bool(shutil.which("nvidia-smi")))}


def venv_version(place: Place) -> str:
    """The Python version that ``.venv`` was made with, or an empty text."""
    try:
        text = (place.venv / "pyvenv.cfg").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(r"^version(?:_info)?\s*=\s*(\d+\.\d+)", text, re.MULTILINE)
    return found.group(1) if found else ""


def read_stamp(place: Place) -> dict[str, Any]:
    """The stamp's content; empty when there is none or it cannot be read."""
    try:
        stamp = json.loads(place.stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(place: Place, variant: str, dev: bool, missing: list[str]) -> None:
    """Say that everything is installed. The last thing of all."""
    stamp = {
        "variant": variant,
        "circumstances": circumstances(),
        "installed": fingerprint(place, variant, dev),
        "missing": missing,
    }
    working = place.stamp.with_suffix(".part")
    working.write_text(json.dumps(stamp, indent=1), encoding="utf-8")
    working.replace(place.stamp)


def is_current(place: Place, dev: bool) -> bool:
    """Whether everything that the requirements name was installed, by the stamp."""
    stamp = read_stamp(place)
    if not stamp or stamp.get("circumstances") != circumstances():
        return False
    return _covers(stamp, fingerprint(place, str(stamp.get("variant")), dev))


def _covers(stamp: dict[str, Any], wanted: dict[str, str]) -> bool:
    installed = stamp.get("installed")
    return isinstance(installed, dict) and all(installed.get(key) == value for key, value in wanted.items())


def find_variant() -> str:
    """``cuda`` when ``nvidia-smi`` lists a card (or ``ATELIER_TORCH`` asks for it), else ``cpu``."""
    asked = os.environ.get("ATELIER_TORCH", "")
    if asked in NEEDED_GB:
        return asked
    if asked:
        raise InstallError(f"ATELIER_TORCH is '{asked}'; it can be 'cpu' or 'cuda', or be left out.")
    tool = shutil.which("nvidia-smi")
    if tool is None or platform.system() == "Darwin":
        return "cpu"
    try:
        listed = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=30, errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        return "cpu"
    return "cuda" if listed.returncode == 0 and "GPU " in listed.stdout else "cpu"
