"""Makes and keeps ``.venv``: what both launchers share.

Runs on the Python that a launcher found, before anything is installed, so it and what it imports use the
standard library only:

    python -I backend/system/install.py check      is everything installed? (exit status 0: yes)
    python -I backend/system/install.py install    make it so
    python -I backend/system/install.py update     fetch the newest Atelier, then the same

``--dev`` adds what the tests need. A stamp inside ``.venv`` holds what was installed; it is removed
before the first change and written after the last, so a half-done installation is always taken up again.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

if not __package__:  # run as a file, by -I without any folder of ours to import from
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from backend.system.installation import (
    NEEDED_GB,
    VERSIONS,
    InstallError,
    Place,
    find_variant,
    is_current,
    read_stamp,
    write_stamp,
)
from backend.system.packages import check_imports, install_base, install_extras, install_file, install_torch
from backend.system.pip_runner import failure, run_logged, say

VENV_CONTENTS = {"bin", "Scripts", "include", "Include", "lib", "Lib", "lib64", "share", "etc", "pyvenv.cfg"}


def ensure_venv(place: Place) -> None:
    """Make ``.venv``, or make it anew when its Python does not run any more."""
    if _venv_works(place):
        return
    if place.venv.is_symlink() or (place.venv.exists() and not place.venv.is_dir()):
        raise InstallError(f"{place.venv} is not a folder. Move it away and start again.")
    if place.venv.is_dir():
        strange = sorted({item.name for item in place.venv.iterdir()} - VENV_CONTENTS - {place.stamp.name})
        if strange:
            raise InstallError(f"{place.venv} holds files that are not ours ({strange[0]}). Move it away.")
        say("  The Python inside .venv does not run any more; making it anew")
    say(f"  Making .venv with Python {platform.python_version()}")
    command = [sys.executable, "-I", "-m", "venv", "--clear", str(place.venv)]
    try:
        run_logged(place, command, show=False)
    except subprocess.CalledProcessError as error:
        raise failure("Could not make .venv", error, place) from error


def _venv_works(place: Place) -> bool:
    low, high = (f"({major}, {minor})" for major, minor in VERSIONS)
    test = f"import sys, pip; sys.exit(not {low} <= sys.version_info[:2] <= {high})"
    try:
        command = [str(place.python), "-I", "-c", test]
        return subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def check_space(place: Place, variant: str) -> None:
    """:raises InstallError: when the disk has no room for the installation."""
    if read_stamp(place) or (place.venv / "pyvenv.cfg").exists():
        return
    free = shutil.disk_usage(place.root).free / 1e9
    if free < NEEDED_GB[variant]:
        raise InstallError(
            f"{place.root} has {free:.1f} GB free and the installation takes {NEEDED_GB[variant]:.0f} GB.\n"
            "-> Free some space, or put the folder on another disk."
        )


def install(place: Place, dev: bool) -> None:
    """Bring ``.venv`` to what the requirement files say."""
    variant = find_variant()
    check_space(place, variant)
    say(f"Installing Atelier into {place.venv} (once; next time it starts at once)")
    ensure_venv(place)
    place.stamp.unlink(missing_ok=True)
    install_torch(place, variant)
    install_base(place, variant)
    missing = install_extras(place) if variant == "cuda" else []
    if dev:
        say("  What the tests need, about 0.1 GB to fetch")
        install_file(place, place.root / "requirements" / "dev.txt", "Could not install what the tests need")
    check_imports(place)
    write_stamp(place, variant, dev, missing)
    say("Installed.")


def update(place: Place) -> None:
    """Fetch the newest Atelier when it came by git. The caller installs afterwards.

    :raises InstallError: when git refuses, for example because files were changed by hand.
    """
    git = shutil.which("git")
    if git is None or not (place.root / ".git").exists():
        say("This folder did not come by git: put the files of a newer Atelier over it.")
        return
    say("Fetching the newest Atelier")
    try:
        lines = run_logged(place, [git, "pull", "--ff-only"], show=False)
    except subprocess.CalledProcessError as error:
        raise InstallError(f"git could not update: {str(error.output).strip()}") from error
    say(f"  {lines[-1] if lines else 'done'}")


def lock(place: Place) -> IO[str]:
    """Keep a second start from installing at the same time. Held until the file is closed."""
    place.notes.mkdir(exist_ok=True)
    file = (place.notes / "install.lock").open("w", encoding="utf-8")
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise InstallError("Another start is installing already. Wait until it is done.") from error
    return file


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="install.py")
    parser.add_argument("verb", choices=("check", "install", "update"))
    parser.add_argument("--dev", action="store_true", help="with what the tests need")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2])
    options = parser.parse_args(arguments)
    place = Place(options.root)
    if options.verb == "check":
        return 0 if is_current(place, options.dev) else 1
    try:
        with lock(place):
            if options.verb == "update":
                update(place)
                place.stamp.unlink(missing_ok=True)
            elif not is_current(place, options.dev):
                install(place, options.dev)
        if options.verb == "update":
            # The files just fetched may hold a newer version of this one.
            command = [sys.executable, "-I", str(Path(__file__)), "install", "--root", str(options.root)]
            return subprocess.run(command).returncode
    except InstallError as error:
        say(f"error: {error}")
        return 3
    except OSError as error:
        say(f"error: {error.filename or place.root}: {error.strerror}")
        say("-> Atelier must be able to write into its own folder.")
        return 3
    except KeyboardInterrupt:
        say("\nStopped. Start again to go on where it stopped.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
