"""What this machine calculates with, found without loading torch.

Cards are asked of ``nvidia-smi``, which comes with NVIDIA's driver; the kind of torch is read from its
files. Standard library only, so that the page and the doctor may use it before anything is installed.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

BF16_CAPABILITY = (8, 0)
"""Cards from this compute capability on (RTX 30 series) calculate in bf16 (NVIDIA, CUDA guide)."""
OLDEST_DRIVER = {11: (450, 80), 12: (525, 60), 13: (580, 65)}
"""Oldest driver for each major version of CUDA (NVIDIA, CUDA release notes, minor version compatibility)."""
_QUERY = "name,memory.total,memory.free,driver_version,compute_cap"


@dataclass(frozen=True)
class Card:
    """One NVIDIA card."""

    name: str
    memory_total: int
    """Bytes."""
    memory_free: int
    """Bytes."""
    driver: str
    capability: tuple[int, int] | None = None
    """Compute capability; ``None`` when the driver does not tell."""

    @property
    def bf16(self) -> bool:
        """Whether it calculates in bf16."""
        return self.capability is not None and self.capability >= BF16_CAPABILITY


@dataclass(frozen=True)
class TorchBuild:
    """Which torch is installed."""

    version: str
    cuda: str | None
    """The CUDA version it was built for; ``None`` for the build that knows no cards."""


@dataclass(frozen=True)
class Memory:
    """Main memory in bytes."""

    total: int
    free: int


def cards(timeout: float = 20.0) -> tuple[Card, ...]:
    """The NVIDIA cards; empty when there is no driver, no card, or they are hidden from us."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "-") in ("", "-1"):
        return ()
    return parse_cards(_asked(f"--query-gpu={_QUERY}", timeout))


def _asked(query: str, timeout: float) -> str:
    """What the driver answers, a line for each card or program; '' where nobody answers in time."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    command = [tool, query, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def parse_cards(text: str) -> tuple[Card, ...]:
    """Cards from ``nvidia-smi --query-gpu=name,memory.total,memory.free,driver_version,compute_cap``."""
    found = (_parse_card(line) for line in text.splitlines())
    return tuple(card for card in found if card is not None)


def _parse_card(line: str) -> Card | None:
    parts = [part.strip() for part in line.rsplit(",", 4)]
    if len(parts) != 5 or not parts[0]:
        return None
    name, total, free, driver, capability = parts
    return Card(name, _mebibytes(total), _mebibytes(free), driver, _pair(capability))


def _mebibytes(text: str) -> int:
    return int(text) * 2**20 if text.isdigit() else 0


def _pair(text: str) -> tuple[int, int] | None:
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found.group(1)), int(found.group(2))) if found else None


@dataclass(frozen=True)
class Load:
    """What a card is doing at this moment."""

    busy: int | None
    """Share of time in which it calculated, per cent; ``None`` when the driver does not tell."""
    memory_used: int
    """Bytes, by all programs."""
    memory_total: int
    """Bytes."""


def load(timeout: float = 5.0) -> tuple[Load, ...]:
    """What the NVIDIA cards are doing; empty where there is no driver or no card."""
    return parse_load(_asked("--query-gpu=utilization.gpu,memory.used,memory.total", timeout))


def parse_load(text: str) -> tuple[Load, ...]:
    """Cards from ``nvidia-smi --query-gpu=utilization.gpu,memory.used,memory.total``."""
    rows = ([part.strip() for part in line.split(",")] for line in text.splitlines())
    return tuple(
        Load(int(busy) if busy.isdigit() else None, _mebibytes(used), _mebibytes(total))
        for busy, used, total in (row for row in rows if len(row) == 3)
    )


@dataclass(frozen=True)
class Holder:
    """A program that holds memory of a card."""

    pid: int
    name: str
    memory: int | None
    """Bytes; ``None`` when the driver does not tell, as on Windows."""

    def text(self) -> str:
        """``python (pid 4711)``."""
        return f"{self.name} (pid {self.pid})"


def holders(timeout: float = 5.0) -> tuple[Holder, ...]:
    """Programs that calculate on the NVIDIA cards, this one left out, those with the most memory first."""
    found = parse_holders(_asked("--query-compute-apps=pid,process_name,used_memory", timeout))
    return tuple(one for one in found if one.pid != os.getpid())


def parse_holders(text: str) -> tuple[Holder, ...]:
    """Programs from ``nvidia-smi --query-compute-apps=pid,process_name,used_memory``, largest first."""
    rows = (re.fullmatch(r"\s*(\d+)\s*,\s*(.+?)\s*,\s*([^,]*?)\s*", line) for line in text.splitlines())
    found = [
        Holder(int(row[1]), re.split(r"[\\/]", row[2])[-1], _mebibytes(row[3]) or None) for row in rows if row
    ]
    return tuple(sorted(found, key=lambda one: -(one.memory or 0)))


def torch_build() -> TorchBuild | None:
    """The installed torch, read from its files; ``None`` when there is none."""
    try:
        distribution = metadata.distribution("torch")
        text = Path(str(distribution.locate_file("torch/version.py"))).read_text(encoding="utf-8")
    except (metadata.PackageNotFoundError, OSError):
        return None
    version = re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE)
    cuda = re.search(r"^cuda\b[^=\n]*= '([^']+)'", text, re.MULTILINE)
    return TorchBuild(version.group(1) if version else distribution.version, cuda.group(1) if cuda else None)


def driver_too_old(card: Card, build: TorchBuild) -> str | None:
    """The driver that torch's CUDA needs, when the card's is older."""
    driver = _pair(card.driver)
    needed = OLDEST_DRIVER.get(int((build.cuda or "0").split(".")[0]))
    if driver is None or needed is None or driver >= needed:
        return None
    return ".".join(str(part) for part in needed)


def memory() -> Memory | None:
    """Main memory; ``None`` when the system does not tell without further libraries."""
    try:
        import psutil
    except ImportError:
        return _memory_of_linux()
    now = psutil.virtual_memory()
    return Memory(int(now.total), int(now.available))


def _memory_of_linux() -> Memory | None:
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    found = dict(re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE))
    if not {"MemTotal", "MemAvailable"} <= found.keys():
        return None
    return Memory(int(found["MemTotal"]) * 1024, int(found["MemAvailable"]) * 1024)


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def summary(found: tuple[Card, ...], build: TorchBuild | None) -> str:
    """One line for people: what training will use, and why when it is not a card."""
    card = found[0] if found else None
    if card is None:
        text = "No GPU found (driver: none): training uses the processor"
    elif build is None:
        text = f"{_named(card)}; PyTorch is not installed"
    elif build.cuda is None:
        text = f"{_named(card)}, but PyTorch {build.version} was built for the processor only"
    elif needed := driver_too_old(card, build):
        text = f"{_named(card)}, but its driver {card.driver} is too old; CUDA {build.cuda} needs {needed}"
    else:
        text = _named(card)
    return text


def _named(card: Card) -> str:
    return f"{card.name}, {card.memory_total / 2**30:.0f} GB"
