"""What goes into ``.venv``: torch for the machine, what Atelier is built on, extras for cards.

For :mod:`backend.system.install`, so on the standard library only.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from backend.system.installation import TORCH, InstallError, Place
from backend.system.pip_runner import explain, failure, pip, run_logged, say

UV = "uv==0.13.8"
SIZES = {"cpu": "about 0.5 GB to fetch", "cuda": "about 3.5 GB to fetch"}
ONNX = {"cpu": "onnxruntime", "cuda": "onnxruntime-gpu"}
"""The two share one folder and break each other: only one may be installed."""


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
    install_file(place, file, "Could not install what Atelier needs")


def _has_package(place: Place, name: str) -> bool:
    return any(place.venv.glob(f"**/site-packages/{name.replace('-', '_')}-*.dist-info"))


def install_file(place: Place, file: Path, what: str) -> None:
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
