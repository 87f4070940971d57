"""All checks and tests, as ``./launch.sh test`` runs them: lint, format, types, spelling, pytest.

Further arguments go to pytest in place of the usual choice: ``./launch.sh test tests/data -k bucket``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
CHECKS = {
    "lint": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "."],
    "types": ["pyright"],
    "spelling": ["codespell_lib", "."],
}
USUAL = "not slow and not gpu"
FAILED = Path(".pytest_cache", "v", "cache", "lastfailed")
BROWSER_TESTS = "tests/browser/"
FEW = 3


def find_browser() -> str | None:
    """A Chromium that Playwright can drive."""
    return next((path for path in map(shutil.which, BROWSERS) if path), None)


def ensure_browser() -> str | None:
    """Find Chromium; on a Linux with apt install it when that needs no password."""
    found = find_browser()
    apt = shutil.which("apt-get")
    if found or apt is None or not sys.platform.startswith("linux"):
        return found
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if prefix and not _runs([*prefix, "true"]):
        return None
    print("Installing Chromium for the browser tests (apt-get), about 100 MB to fetch", flush=True)
    if not _runs([*prefix, apt, "update", "-qq"]):
        print("apt-get update failed; trying with what is known")
    _runs([*prefix, apt, "install", "-y", "-qq", "--no-install-recommends", "chromium"])
    return find_browser()


def _runs(command: list[str]) -> bool:
    """Run a command of the system without asking anything; what it says is shown when it fails."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            stdin=subprocess.DEVNULL,
        )
    except OSError:
        return False
    if done.returncode:
        print("\n".join((done.stdout + done.stderr).strip().splitlines()[-3:]), flush=True)
    return done.returncode == 0


def run_check(name: str, arguments: list[str]) -> bool:
    """Run one of the checks; its output is shown when it finds something."""
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace")
    print(f"{name}: {'ok' if done.returncode == 0 else 'found something'}", flush=True)
    if done.returncode:
        print(done.stdout + done.stderr, flush=True)
    return done.returncode == 0


def run_pytest(arguments: list[str]) -> tuple[bool, str]:
    """Run pytest, showing what it prints; returns whether it passed and its closing line."""
    command = [sys.executable, "-m", "pytest", "--durations=10", *arguments]
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    last = ""
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        text=True, errors="replace", env=environment,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
    return process.returncode == 0, last


def failed_tests(cache: Path) -> list[str]:
    """What pytest wrote down as failed in its last run, by node id; empty where it wrote nothing."""
    try:
        return sorted(json.loads(cache.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return []


def deserves_another_try(failed: list[str]) -> bool:
    """Whether only a few tests of the page failed: a busy machine can make a browser late, nothing else."""
    return 0 < len(failed) <= FEW and all(name.startswith(BROWSER_TESTS) and "::" in name for name in failed)


def try_alone(failed: list[str]) -> tuple[bool, str]:
    """Run the failed tests of the page once more, one after another with nothing beside them.

    What fails again has failed. What passes is named, so that it can be made steady.
    """
    print("\nOnce more, alone: " + ", ".join(failed), flush=True)
    passed, closing = run_pytest(failed)
    if passed:
        print("UNSTEADY (failed beside other work, passed alone): " + ", ".join(failed), flush=True)
    return passed, closing


def usual_arguments(browser: str | None) -> list[str]:
    """Everything but what takes long, a card, or a browser that is not there."""
    choice = USUAL if browser else f"{USUAL} and not browser"
    workers = max(1, min(4, os.cpu_count() or 1))
    spread = ["-n", str(workers), "--dist", "loadfile"] if workers > 1 else []
    return ["--cache-clear", "-m", choice, *spread]


def main() -> int:
    """Run everything; exit status 0 when all is well."""
    started = time.monotonic()
    chosen = sys.argv[1:]
    browser = ensure_browser()
    passed: dict[str, bool] = {}
    if browser is None:
        print("No Chromium was found: the browser tests are left out. Install chromium to run them.")
        passed["browser"] = not os.environ.get("CI")
    if not chosen:
        passed |= {name: run_check(name, command) for name, command in CHECKS.items()}
    passed["tests"], closing = run_pytest(chosen or usual_arguments(browser))
    if not passed["tests"] and not chosen and deserves_another_try(again := failed_tests(ROOT / FAILED)):
        passed["tests"], alone = try_alone(again)
        closing += f"\nalone: {alone}"
    failed = [name for name, good in passed.items() if not good]
    print(f"\n{closing}")
    print(f"{'FAILED: ' + ', '.join(failed) if failed else 'All well'} ({time.monotonic() - started:.0f} s)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
