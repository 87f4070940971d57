"""The launchers: real runs of launch.sh in copies of the project, and the shape of launch.bat."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

VERBS = ("demo", "doctor", "test", "update")
needs_bash = pytest.mark.skipif(sys.platform == "win32" or not shutil.which("bash"), reason="needs bash")


@pytest.fixture
def checkout(root: Path, tmp_path: Path) -> Path:
    """The launcher and what it needs, in a folder with spaces, letters and signs."""
    folder = tmp_path / "año (ä) 漢字 & so on!"
    (folder / "backend" / "system").mkdir(parents=True)
    for name in (
        "launch.sh",
        "backend/__init__.py",
        "backend/system/__init__.py",
        "backend/system/install.py",
        "backend/system/installation.py",
        "backend/system/packages.py",
        "backend/system/pip_runner.py",
        "backend/system/probe.py",
    ):
        shutil.copy2(root / name, folder / name)
    shutil.copy2(root / "requirements.txt", folder)
    shutil.copytree(root / "requirements", folder / "requirements")
    (folder / "app.py").write_text(
        "import os, sys; print('page', sys.argv[1:], os.environ.get('PYTHONPATH'))"
    )
    return folder


def installed(checkout: Path) -> Path:
    """Give the checkout a ``.venv`` that its stamp calls complete."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(checkout / ".venv")], check=True)
    code = "from backend.system import installation as i; from pathlib import Path; i.write_stamp(i.Place(Path('.').resolve()), 'cpu', False, [])"
    subprocess.run([sys.executable, "-c", code], cwd=checkout, check=True, env=plain_environment())
    return checkout


def plain_environment(**more: str) -> dict[str, str]:
    dropped = {"PYTHONPATH", "PYTHONHOME", "ATELIER_TORCH", "ATELIER_PYTHON"}
    return {**{key: value for key, value in os.environ.items() if key not in dropped}, **more}


def launch(checkout: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(checkout / "launch.sh"), *arguments], cwd="/", text=True, capture_output=True,
        env=plain_environment(**environment), stdin=subprocess.DEVNULL, timeout=120,
    )  # fmt: skip


def fake_python(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def only_tools(tmp_path: Path) -> Path:
    """A folder for PATH with what the launcher needs and no Python."""
    folder = tmp_path / "path"
    folder.mkdir()
    for tool in ("bash", "sh", "dirname", "sed", "uname", "awk", "cat", "printf", "env"):
        found = shutil.which(tool)
        if found:
            (folder / tool).symlink_to(found)
    return folder


@needs_bash
def test_the_second_start_installs_nothing_and_passes_flags_on(checkout: Path) -> None:
    done = launch(installed(checkout), "--port", "7999", "--no-browser", PYTHONPATH="/elsewhere")
    assert done.returncode == 0, done.stderr
    assert "page ['--port', '7999', '--no-browser'] None" in done.stdout
    assert done.stdout.startswith("PYTHONPATH is set (/elsewhere)")
    assert "Install" not in done.stdout


@needs_bash
def test_no_python_is_said_in_the_first_line(checkout: Path, only_tools: Path) -> None:
    done = launch(checkout, PATH=str(only_tools))
    assert done.returncode == 3
    assert done.stdout.startswith("error: no Python was found")
    assert "->" in done.stdout


@needs_bash
@pytest.mark.parametrize("said", ["Python 3.8.2 is too old", "Python 3.12.1 is a 32-bit program"])
def test_a_python_that_does_not_fit_is_named_in_the_first_line(
    checkout: Path, only_tools: Path, said: str
) -> None:
    fake_python(only_tools, "python3", f"echo '{said}'; exit 1")
    fake_python(only_tools, "python", f"echo '{said}'; exit 1")
    done = launch(checkout, PATH=str(only_tools))
    assert done.returncode == 3
    assert done.stdout.splitlines()[0] == f"error: {said}"
    assert done.stdout.count(said) == 1


@needs_bash
def test_a_name_that_is_no_python_is_passed_over(checkout: Path, only_tools: Path) -> None:
    fake_python(only_tools, "python3.13", "exit 127")
    fake_python(only_tools, "python3.10", 'case "$*" in *probe*) exit 0;; esac; echo "chosen $*"; exit 3')
    done = launch(checkout, PATH=str(only_tools))
    assert "chosen -I backend/system/install.py install" in done.stdout
    assert done.returncode == 3


@needs_bash
def test_an_unknown_word_shows_what_can_be_done(checkout: Path) -> None:
    done = launch(checkout, "start")
    assert done.returncode == 2
    assert "'start' is not something" in done.stdout
    assert all(f"./launch.sh {verb}" in done.stdout for verb in VERBS)


@needs_bash
def test_ci_runs_the_test_command(root: Path) -> None:
    run = root / ".ci" / "run"
    assert os.access(run, os.X_OK)
    assert "exec bash launch.sh test" in run.read_text()
    assert os.access(root / "launch.sh", os.X_OK)
    assert subprocess.run(["bash", "-n", str(root / "launch.sh")]).returncode == 0


@pytest.fixture(scope="module")
def bat() -> str:
    path = Path(__file__).resolve().parent.parent / "launch.bat"
    data = path.read_bytes()
    assert data.count(b"\n") == data.count(b"\r\n") > 50, "launch.bat needs CRLF line endings"
    return data.decode("ascii").replace("\r\n", "\n")


def commands(bat: str) -> list[str]:
    return [line.strip() for line in bat.splitlines() if line.strip() and not line.lower().startswith("rem ")]


def test_bat_quotes_every_path(bat: str) -> None:
    assert bat.count("%~dp0") == 1
    assert 'pushd "%~dp0"' in bat
    for line in commands(bat):
        for name in ("%VENV_PYTHON%", "%INSTALL%", "%ATELIER_PYTHON%"):
            assert line.count(name) == line.count(f'"{name}"'), line


def test_bat_leaves_exclamation_marks_alone(bat: str) -> None:
    assert "DisableDelayedExpansion" in bat
    assert "EnableDelayedExpansion" not in bat


def test_bat_knows_every_verb_and_every_label_it_jumps_to(bat: str) -> None:
    for verb in VERBS:
        assert f'if /i "%~1"=="{verb}" goto :{verb}' in bat
    labels = set(re.findall(r"^:(\w+)$", bat, re.MULTILINE))
    jumps = set(re.findall(r"(?:goto|call) :(\w+)", bat))
    assert jumps <= labels
    assert labels <= jumps


def test_bat_reads_no_errorlevel_inside_a_block(bat: str) -> None:
    # Inside brackets cmd puts the value in before the block runs.
    assert not [line for line in commands(bat) if line.endswith("(")]


def test_bat_ends_every_path_before_the_helpers(bat: str) -> None:
    main = bat.split("rem -----")[0]
    assert main.rstrip().endswith("exit /b 3")
    assert main.count("popd") >= 2
    assert "pause" in main


def test_line_endings_are_kept_by_git(root: Path) -> None:
    text = (root / ".gitattributes").read_text()
    assert "*.bat text eol=crlf" in text
    assert "*.sh text eol=lf" in text
