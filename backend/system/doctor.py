"""``./launch.sh doctor``: what is installed, what will and will not work, one line each with the fix.

Loads nothing heavy itself and needs nothing but the standard library: libraries are tried in a process of
their own, so that a broken one costs a line and not the report.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from backend.system import devices, probe
from backend.system.paths import REPOSITORY, cache_root, home, runs_root

Level = Literal["ok", "note", "bad"]
MARKS: dict[Level, str] = {"ok": "  ok  ", "note": " note ", "bad": " BAD  "}

BASE = {
    "gradio": "gradio", "torch": "torch", "diffusers": "diffusers", "transformers": "transformers",
    "accelerate": "accelerate", "safetensors": "safetensors", "numpy": "numpy", "pillow": "PIL",
    "opencv-python-headless": "cv2", "pydantic": "pydantic", "tomlkit": "tomlkit", "psutil": "psutil",
}  # fmt: skip
"""Packages that nothing works without, and the names they are imported by."""
OPTIONAL = {
    "onnxruntime": ("tagging pictures", "./launch.sh update"),
    "tensorboard": ("TensorBoard logs", "./launch.sh update"),
    "bitsandbytes": ("8-bit optimizers", "AdamW works instead"),
    "xformers": ("xformers attention", "PyTorch's own attention works instead"),
}
PORT = 7860
LOW_SPACE = 5.0
"""GB below which a training may not find room for its results and restore points."""

_TRY = """
import contextlib, io, json, sys
result = {}
with contextlib.redirect_stdout(io.StringIO()):
    for name in sys.argv[1:]:
        try:
            module = __import__(name)
            result[name] = ""
        except BaseException as error:
            result[name] = f"{type(error).__name__}: {error}".splitlines()[0]
facts = {}
torch = sys.modules.get("torch")
if torch is not None and hasattr(torch, "cuda"):
    try:
        facts["available"] = torch.cuda.is_available()
        facts["architectures"] = torch.cuda.get_arch_list()
        facts["mps"] = torch.backends.mps.is_available()
    except Exception as error:
        facts["error"] = str(error)
print(json.dumps({"imports": result, "torch": facts}))
"""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    level: Level
    name: str
    text: str
    fix: str = ""

    def line(self) -> str:
        fix = f"  -> {self.fix}" if self.fix else ""
        return f"[{MARKS[self.level]}] {self.name:<20} {self.text}{fix}"


@dataclass
class Facts:
    """What was found on this machine; tests put in their own."""

    python: tuple[int, int, int] = (3, 11, 0)
    python_64_bit: bool = True
    executable: str = ""
    system: str = ""
    environment: dict[str, str] = field(default_factory=dict[str, str])
    versions: dict[str, str] = field(default_factory=dict[str, str])
    """Installed packages, by the name they are installed by."""
    broken: dict[str, str] = field(default_factory=dict[str, str])
    """Packages that are installed and cannot be imported, with the error."""
    cards: tuple[devices.Card, ...] = ()
    torch: devices.TorchBuild | None = None
    torch_facts: dict[str, Any] = field(default_factory=dict[str, Any])
    memory: devices.Memory | None = None
    processor: str = ""
    free_disk: int | None = None
    """Bytes."""
    unwritable: dict[str, str] = field(default_factory=dict[str, str])
    """Folders that Atelier writes into and cannot, with the reason."""
    port_owner: str | None = None
    """Who holds the page's port; ``None`` when it is free."""


def gather() -> Facts:
    """Look at this machine. Takes a few seconds: the libraries are tried."""
    versions = _versions([*BASE, *OPTIONAL, "onnxruntime-gpu"])
    imports = [name for package, name in BASE.items() if package in versions]
    imports += [name for name in OPTIONAL if name in versions or f"{name}-gpu" in versions]
    tried = _try_imports(imports)
    return Facts(
        python=(sys.version_info[0], sys.version_info[1], sys.version_info[2]),
        python_64_bit=sys.maxsize > 2**32,
        executable=sys.executable,
        system=f"{platform.system()} {platform.release()} ({platform.machine()})",
        environment=dict(os.environ),
        versions=versions,
        broken={name: error for name, error in tried.get("imports", {}).items() if error},
        cards=devices.cards(),
        torch=devices.torch_build(),
        torch_facts=tried.get("torch", {}),
        memory=devices.memory(),
        processor=devices.processor(),
        free_disk=_free_disk(),
        unwritable=_unwritable([home(), runs_root(), cache_root(), Path(tempfile.gettempdir())]),
        port_owner=port_owner(PORT),
    )


def _versions(names: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _try_imports(names: Sequence[str]) -> dict[str, Any]:
    """Import each in one other process. One that ends the process is found by trying each alone."""
    done = _run_try(names)
    if done is not None or len(names) < 2:
        return done or {"imports": dict.fromkeys(names, "it ends Python or takes minutes")}
    parts = [_try_imports([name]) for name in names]
    imports = {name: error for part in parts for name, error in part["imports"].items()}
    facts = {key: value for part in parts for key, value in part.get("torch", {}).items()}
    return {"imports": imports, "torch": facts}


def _run_try(names: Sequence[str]) -> dict[str, Any] | None:
    try:
        command = [sys.executable, "-c", _TRY, *names]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=180)
        return json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError):
        return None


def _free_disk() -> int | None:
    try:
        return shutil.disk_usage(home()).free
    except OSError:
        return None


def _unwritable(folders: Iterable[Path]) -> dict[str, str]:
    found: dict[str, str] = {}
    for folder in folders:
        existing = folder
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
        try:
            with tempfile.TemporaryFile(dir=existing):
                pass
        except OSError as error:
            found[str(folder)] = error.strerror or str(error)
    return found


def port_owner(port: int) -> str | None:
    """Who listens on a port of this machine; ``None`` when nobody does."""
    with socket.socket() as test:
        test.settimeout(1.0)
        if test.connect_ex(("127.0.0.1", port)) != 0:
            return None
    try:
        import psutil

        for connection in psutil.net_connections("tcp"):
            listens = connection.status == "LISTEN" and tuple(connection.laddr)[1:2] == (port,)
            if listens and connection.pid:
                return f"pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    except Exception:
        # Without the right to look at other people's processes there is no name to give.
        return "another program"
    return "another program"


def examine(facts: Facts) -> list[Finding]:
    """The report's lines, from facts."""
    parts = (_python, _packages, _cards, _training, _extras, _folders, _port)
    return [finding for part in parts for finding in part(facts)]


def _python(facts: Facts) -> Iterator[Finding]:
    version = ".".join(str(part) for part in facts.python)
    reason = str(probe.reason(facts.python, facts.python_64_bit, True))
    if reason:
        yield Finding("bad", "Python", reason, "install 64-bit Python 3.12 and start again")
    else:
        yield Finding("ok", "Python", f"{version}, {facts.executable}")
    yield Finding("ok", "System", facts.system)
    for name in ("PYTHONPATH", "PYTHONHOME"):
        if facts.environment.get(name):
            text = f"is set to {facts.environment[name]}: libraries from there may be used"
            yield Finding("note", name, text, "start with launch.sh or launch.bat, which leave it out")
    hub = facts.environment.get("HF_HOME", "")
    if hub and Path(hub).exists() and not Path(hub).is_dir():
        yield Finding(
            "note", "HF_HOME", f"names a file, not a folder: {hub}", "unset it; Atelier needs no hub"
        )


def _packages(facts: Facts) -> Iterator[Finding]:
    missing = [name for name in BASE if name not in facts.versions]
    if missing:
        text = f"not installed: {', '.join(missing)}"
        yield Finding("bad", "Packages", text, "start launch.sh or launch.bat once; it installs them")
    present = [f"{name} {version}" for name, version in facts.versions.items() if name in BASE]
    if present:
        yield Finding("ok", "Packages", ", ".join(present))
    for package, name in BASE.items():
        if name in facts.broken:
            text = f"installed but does not start: {facts.broken[name]}"
            yield Finding("bad", package, text, "./launch.sh update installs it again")


def _cards(facts: Facts) -> Iterator[Finding]:
    if facts.memory:
        gigabytes = f"{facts.memory.free / 2**30:.1f} of {facts.memory.total / 2**30:.1f} GB memory free"
        yield Finding("ok", "Processor", f"{facts.processor}, {gigabytes}")
    if not facts.cards:
        yield Finding(
            "note", "GPU", "No GPU found (driver: none)",
            "the demo works without; for real models use an NVIDIA card with a current driver",
        )  # fmt: skip
    for card in facts.cards:
        yield _card(card, facts)


def _card(card: devices.Card, facts: Facts) -> Finding:
    bf16 = "bf16" if card.bf16 else "no bf16: use fp16"
    memory = f"{card.memory_free / 2**30:.1f} of {card.memory_total / 2**30:.1f} GB free"
    named = f"{card.name}, {memory}, driver {card.driver}, {bf16}"
    build = facts.torch
    if build is None:
        return Finding("note", "GPU", named)
    if build.cuda is None:
        text = f"{named}; but torch {build.version} was built for the processor only"
        return Finding("bad", "GPU", text, "./launch.sh update installs the build for CUDA")
    needed = devices.driver_too_old(card, build)
    if needed:
        text = f"{named}; the driver is too old: torch {build.version} uses CUDA {build.cuda}"
        return Finding("bad", "GPU", text, f"install NVIDIA's driver {needed} or newer")
    if _unknown_to_torch(card, facts.torch_facts.get("architectures", [])):
        text = f"{named}; torch {build.version} was not built for compute capability {_dotted(card)}"
        return Finding("bad", "GPU", text, "use a PyTorch build that names this card, or ATELIER_TORCH=cpu")
    return Finding("ok", "GPU", named)


def _dotted(card: devices.Card) -> str:
    return ".".join(str(part) for part in card.capability or ())


def _unknown_to_torch(card: devices.Card, architectures: Sequence[str]) -> bool:
    """A card runs code of its own major version at or below its own, or PTX of any below it."""
    if not architectures or card.capability is None:
        return False
    for architecture in architectures:
        kind, _, digits = architecture.partition("_")
        digits = "".join(char for char in digits if char.isdigit())
        built = (int(digits[:-1]), int(digits[-1])) if len(digits) > 1 else (0, 0)
        same_major = built[0] == card.capability[0]
        if built <= card.capability and (same_major or kind == "compute"):
            return False
    return True


def _training(facts: Facts) -> Iterator[Finding]:
    build = facts.torch
    if build is None or "torch" in facts.broken:
        fix = "start launch.sh or launch.bat once"
        yield Finding("bad", "Training device", "will not work without torch", fix)
        return
    kind = f"CUDA {build.cuda}" if build.cuda else "the processor"
    yield Finding("ok", "PyTorch", f"{build.version}, built for {kind}")
    if facts.torch_facts.get("available"):
        yield Finding("ok", "Training device", "on the card")
    elif facts.cards and build.cuda:
        why = facts.torch_facts.get("error", "torch does not see the card")
        yield Finding(
            "bad", "Training device", f"only on the processor: {why}", "update NVIDIA's driver and restart"
        )
    else:
        text = "on the processor: small models in minutes, Stable Diffusion at minutes a step"
        yield Finding("note", "Training device", text)


def _extras(facts: Facts) -> Iterator[Finding]:
    both = [name for name in ("onnxruntime", "onnxruntime-gpu") if name in facts.versions]
    if len(both) == 2:
        yield Finding(
            "bad", "ONNX", "onnxruntime and onnxruntime-gpu exclude each other", "./launch.sh update"
        )
    for name, (what, fix) in OPTIONAL.items():
        version = facts.versions.get(name) or facts.versions.get(f"{name}-gpu")
        if version is None:
            yield Finding("note", name, f"not installed; without it: no {what}", fix)
        elif name in facts.broken:
            yield Finding("note", name, f"{version} does not start ({facts.broken[name]}); no {what}", fix)
        else:
            yield Finding("ok", name, f"{version}: {what}")


def _folders(facts: Facts) -> Iterator[Finding]:
    for folder, reason in facts.unwritable.items():
        fix = "give yourself the right to write there, or set ATELIER_HOME (TMPDIR) to another folder"
        yield Finding("bad", "Folder", f"cannot write into {folder}: {reason}", fix)
    if facts.free_disk is None:
        return
    free = facts.free_disk / 1e9
    if free < LOW_SPACE:
        yield Finding("note", "Disk", f"{free:.1f} GB free", "free some space before a long training")
    else:
        yield Finding("ok", "Disk", f"{free:.0f} GB free; results go to {runs_root()}")


def _port(facts: Facts) -> Iterator[Finding]:
    if facts.port_owner is None:
        yield Finding("ok", "Port", f"{PORT} is free")
    else:
        text = f"{PORT} is in use by {facts.port_owner}; the page takes the next free one"
        yield Finding("note", "Port", text, "--port chooses another")


def base_works(findings: Iterable[Finding]) -> bool:
    """Whether the page opens and something can be trained, if only on the processor."""
    vital = {"Python", "Packages", "Folder", "Training device", *BASE}
    return not any(finding.level == "bad" and finding.name in vital for finding in findings)


def main() -> int:
    """Print the report; exit status 0 when the base works, else 3."""
    print(f"Atelier in {REPOSITORY}\n", flush=True)
    findings = examine(gather())
    for finding in findings:
        print(finding.line())
    works = base_works(findings)
    others = sum(finding.level == "bad" for finding in findings)
    print()
    if not works:
        print("Something that everything needs is missing: see the lines marked BAD.")
    elif others:
        print("The base works. The lines marked BAD say what does not, and what to do.")
    else:
        print("Everything that this machine can do works.")
    return 0 if works else 3


if __name__ == "__main__":
    sys.exit(main())
