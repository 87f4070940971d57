"""Makes and keeps ``.venv``: what both launchers share.

Runs on the Python that a launcher found, before anything is installed, so it uses the standard
library only and imports nothing of ours:

    python -I backend/system/install.py check      is everything installed? (exit status 0: yes)
    python -I backend/system/install.py install    make it so
    python -I backend/system/install.py update     fetch the newest Atelier, then the same

``--dev`` adds what the tests need. A stamp inside ``.venv`` holds what was installed; it is removed
before the first change and written after the last, so a half-done installation is always taken up again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

TORCH = "torch==2.13.0"
UV = "uv==0.13.8"
VERSIONS = ((3, 10), (3, 13))
NEEDED_GB = {"cpu": 3.0, "cuda": 12.0}
"""Free disk space in GB that an installation takes, with some air."""
SIZES = {"cpu": "about 0.5 GB to fetch", "cuda": "about 3.5 GB to fetch"}
ONNX = {"cpu": "onnxruntime", "cuda": "onnxruntime-gpu"}
"""The two share one folder and break each other: only one may be installed."""
MISLEADING = ("PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_REQUIREMENT")
VENV_CONTENTS = {"bin", "Scripts", "include", "Include", "lib", "Lib", "lib64", "share", "etc", "pyvenv.cfg"}


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


def say(text: str) -> None:
    """One line for the person who waits."""
    print(text, flush=True)


def clean_environment() -> dict[str, str]:
    """The environment without what would make pip or Python look elsewhere."""
    kept = {key: value for key, value in os.environ.items() if key not in MISLEADING}
    return {**kept, "PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1", "PIP_PROGRESS_BAR": "off"}


def run_logged(place: Place, command: Sequence[str], show: bool = True) -> list[str]:
    """Run a command with its output in the log; returns the lines.

    :raises subprocess.CalledProcessError: when it fails; ``output`` holds the lines.
    """
    lines: list[str] = []
    place.notes.mkdir(exist_ok=True)
    with place.log.open("a", encoding="utf-8") as log:
        log.write(f"\n$ {' '.join(command)}\n")
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            text=True, encoding="utf-8", errors="replace", env=clean_environment(), cwd=place.root,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.rstrip())
                log.write(line)
                _show_progress(line, show)
    _end_progress(show)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(command), output="\n".join(lines))
    return lines


def _show_progress(line: str, show: bool) -> None:
    """On a terminal, one line that changes: what pip is busy with."""
    found = re.match(r"\s*(Collecting|Downloading|Building|Installing collected packages)[ :]*(\S*)", line)
    if not (show and found and sys.stdout.isatty()):
        return
    doing = found.group(1).split()[0].lower()
    what = "" if doing == "installing" else found.group(2).split("/")[-1].rstrip(",")
    print(f"\r    {doing + ' ' + what:<70.70}", end="", flush=True)


def _end_progress(show: bool) -> None:
    if show and sys.stdout.isatty():
        print(f"\r{'':<74}\r", end="", flush=True)


def pip(place: Place, *arguments: str, show: bool = True) -> list[str]:
    """Run the pip of ``.venv``."""
    command = [str(place.python), "-m", "pip", "--disable-pip-version-check", "--no-input", "--no-color"]
    return run_logged(place, [*command, *arguments], show)


REASONS = (
    (
        r"No matching distribution found for (\S+)",
        "{0}: no file fits this Python, or none can be reached",
    ),
    (r"Failed (?:building wheel for|to build) '?([\w.-]+)", "{0} could not be built on this machine"),
    (r"(No space left on device)", "the disk is full"),
    (r"(?:Permission denied|Access is denied)[^']*'?([^'\n]*)", "no permission to write {0}"),
    (r"(THESE PACKAGES DO NOT MATCH THE HASHES)", "a file arrived damaged"),
    (
        r"(conflicting dependencies|ResolutionImpossible)",
        "two packages exclude each other",
    ),
)
OFFLINE = re.compile(
    "Name or service not known|getaddrinfo failed|nodename nor servname|Temporary failure in name|"
    "Network is unreachable|Connection refused|Connection timed out|NewConnectionError"
)


def explain(output: str) -> str:
    """Which package failed and why, from what pip printed."""
    collected = re.findall(r"^\s*Collecting (\S+)", output, re.MULTILINE)
    at = f" (at {collected[-1]})" if collected else ""
    for pattern, text in REASONS:
        found = re.search(pattern, output)
        if found:
            offline = " (no network connection was possible)" if OFFLINE.search(output) else ""
            return text.format(found.group(1)) + offline
    return f"the network cannot be reached{at}" if OFFLINE.search(output) else f"pip gave no reason{at}"


def failure(what: str, error: subprocess.CalledProcessError, place: Place) -> InstallError:
    """The error for people: what, why, the last lines, what to do."""
    output = str(error.output or "")
    last = [line for line in output.splitlines() if line.strip() and not line.startswith("WARNING")][-4:]
    return InstallError(
        f"{what}: {explain(output)}.\n   Last lines:\n"
        + "".join(f"     {line[:160]}\n" for line in last)
        + f"   Everything is in {place.log}.\n"
        "-> Put that right and start again: what is already installed is kept."
    )


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


def torch_build(place: Place) -> str | None:
    """``cpu`` or ``cuda``: what kind of torch of the right version ``.venv`` holds, if any."""
    for file in place.venv.glob("**/site-packages/torch/version.py"):
        text = file.read_text(encoding="utf-8")
        if re.search(rf"__version__ = '{re.escape(TORCH.split('==')[1])}(\+\w+)?'", text):
            return "cuda" if re.search(r"^cuda\b[^=\n]*= '", text, re.MULTILINE) else "cpu"
    return None


def install_torch(place: Place, variant: str) -> None:
    """Install torch: from a wheel at hand, else from PyTorch's own index (uv knows it), else plainly."""
    present = torch_build(place)
    if present == variant:
        return
    again = ["--force-reinstall"] if present else []
    if variant == "cpu" and _works(place, ["install", "--no-index", "--no-deps", *again, TORCH]):
        say(f"  {TORCH}, from a file at hand")
        return
    say(f"  {TORCH} for {'NVIDIA cards' if variant == 'cuda' else 'the processor'}, {SIZES[variant]}")
    if platform.system() != "Darwin" and _with_uv(place, variant):
        return
    try:
        pip(place, "install", "--prefer-binary", *again, TORCH)
    except subprocess.CalledProcessError as error:
        raise failure(f"Could not install {TORCH}", error, place) from error
    if variant == "cuda" and torch_build(place) != "cuda":
        say("  Only the build for the processor could be had; 'update' tries again for the card")


def _works(place: Place, arguments: Sequence[str]) -> bool:
    try:
        pip(place, *arguments, show=False)
    except subprocess.CalledProcessError:
        return False
    return True


def _with_uv(place: Place, variant: str) -> bool:
    """uv picks the build that fits the card's driver by itself."""
    if not _works(place, ["install", "--only-binary", ":all:", UV]):
        return False
    backend = "auto" if variant == "cuda" else "cpu"
    command = [str(place.python), "-m", "uv", "pip", "install", "--python", str(place.python)]
    again = ["--reinstall-package", "torch"] if torch_build(place) else []
    try:
        run_logged(place, [*command, "--torch-backend", backend, *again, TORCH])
    except subprocess.CalledProcessError:
        return False
    return True


def install_base(place: Place, variant: str) -> None:
    """Install requirements.txt; with a card the onnxruntime for cards takes the other's place."""
    other = ONNX["cpu" if variant == "cuda" else "cuda"]
    if _has_package(place, other):
        pip(place, "uninstall", "-y", *ONNX.values(), show=False)
    lines = (place.root / "requirements.txt").read_text(encoding="utf-8").splitlines()
    if variant == "cuda":
        lines = [line for line in lines if not line.startswith(ONNX["cpu"] + "==")]
    place.notes.mkdir(exist_ok=True)
    file = place.notes / "requirements.txt"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    say("  What Atelier is built on (page, models, pictures), about 0.3 GB to fetch")
    _install_file(place, file, "Could not install what Atelier needs")


def _has_package(place: Place, name: str) -> bool:
    return any(place.venv.glob(f"**/site-packages/{name.replace('-', '_')}-*.dist-info"))


def _install_file(place: Place, file: Path, what: str) -> None:
    constraints = place.root / "requirements" / "constraints.txt"
    try:
        pip(place, "install", "--prefer-binary", "-c", str(constraints), "-r", str(file))
    except subprocess.CalledProcessError as error:
        raise failure(what, error, place) from error


def install_extras(place: Place) -> list[str]:
    """Install requirements/cuda.txt one by one; what fails is told and left out.

    :return: the packages that could not be installed.
    """
    missing: list[str] = []
    lines = (place.root / "requirements" / "cuda.txt").read_text(encoding="utf-8").splitlines()
    for line in (line.split("#")[0].strip() for line in lines):
        if not line:
            continue
        say(f"  {line.split(';')[0]}")
        try:
            pip(place, "install", "--prefer-binary", line)
        except subprocess.CalledProcessError as error:
            missing.append(line.split("==")[0])
            say(f"    left out: {explain(str(error.output))}")
    if not _has_package(place, ONNX["cuda"]):
        base = (place.root / "requirements.txt").read_text(encoding="utf-8").splitlines()
        pip(place, "install", *[line for line in base if line.startswith(ONNX["cpu"] + "==")])
    return missing


def check_imports(place: Place) -> None:
    """:raises InstallError: when what was installed does not start."""
    say("  Trying it")
    try:
        command = [str(place.python), "-I", "-c", "import torch, onnxruntime, gradio, diffusers"]
        run_logged(place, command, show=False)
    except subprocess.CalledProcessError as error:
        last = str(error.output).strip().splitlines()[-1:]
        told = f"Everything was installed, but it does not start: {' '.join(last)}"
        if os.name == "nt":
            told += "\n-> Install Microsoft's Visual C++ Redistributable (x64) and start again."
        raise InstallError(told) from error


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
        _install_file(place, place.root / "requirements" / "dev.txt", "Could not install what the tests need")
    check_imports(place)
    write_stamp(place, variant, dev, missing)
    say("Installed.")


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
