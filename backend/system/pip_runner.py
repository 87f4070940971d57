"""Running pip: with its output in a log, a line that shows what it is busy with, and its failures in words.

For :mod:`backend.system.install`, so on the standard library only.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence

from backend.system.installation import InstallError, Place

MISLEADING = ("PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_REQUIREMENT")


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
