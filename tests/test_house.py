"""The house keeps to its plan: who may import whom, how long things are, what is never written."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from tests import house

HEAVY = {
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "accelerate",
    "peft",
    "onnxruntime",
    "tensorboard",
    "bitsandbytes",
    "xformers",
}
PURE = {"pydantic", "pydantic_core", "tomlkit", "psutil"}
DATA_WITHOUT_TORCH = ("config", "scan", "captions", "buckets", "types", "tokens")

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "app": ("ui", "backend.errors", "backend.settings", "backend.jobs", "backend.system"),
    "ui": (
        "ui", "backend.errors", "backend.settings", "backend.jobs", "backend.data", "backend.system",
        "backend.generate.prompts", "backend.generate.request", "backend.generate.protocol",
        "backend.generate.grid", "backend.generate.grid_files", "backend.generate.grid_values", "backend.generate.grid_votes", "backend.generate.gallery",
        "backend.generate.parameters", "backend.generate.samplers",
        "backend.annotate.settings", "backend.annotate.options", "backend.annotate.tagrules",
        "backend.annotate.cleanrules", "backend.annotate.cleaning", "backend.annotate.models", "backend.annotate.folders",
        "backend.annotate.runs",
    ),
    "backend.errors": ("backend.messages",),
    "backend.messages": (),
    "backend.keyed": (),
    "backend.wholefile": (),
    "backend.filelock": ("backend.errors",),
    "backend.settings": ("backend.settings", "backend.errors", "backend.system"),
    "backend.jobs": ("backend.jobs", "backend.errors", "backend.system"),
    "backend.system": ("backend.system", "backend.errors"),
    "backend.data": ("backend.data", "backend.errors", "backend.keyed", "backend.families.base", "backend.settings", "backend.jobs.events", "backend.system"),
    "backend.families": ("backend.families", "backend.errors", "backend.keyed", "backend.system", "backend.data.tokens", "backend.data.emphasis"),
    "backend.networks": ("backend.networks", "backend.errors", "backend.keyed", "backend.system"),
    "backend.weights": ("backend.weights", "backend.__version__", "backend.errors", "backend.keyed", "backend.families", "backend.networks", "backend.data", "backend.settings", "backend.jobs.attended", "backend.jobs.events", "backend.jobs.files", "backend.system"),
    "backend.train": ("backend", ),
    "backend.generate": ("backend.generate", "backend.errors", "backend.keyed", "backend.families", "backend.networks", "backend.data", "backend.settings", "backend.jobs.events", "backend.system"),
    "backend.annotate": ("backend.annotate", "backend.errors", "backend.keyed", "backend.data", "backend.settings", "backend.jobs.attended", "backend.jobs.control", "backend.jobs.events", "backend.jobs.files", "backend.system"),
    "backend.demo": ("backend",),
    "tools": ("backend", "tools"),
    "tools.make_reference": ("backend", "ui.docs.reference"),
}  # fmt: skip
"""For each part, which of our own modules it may import. Longer names go before shorter ones."""
FOR_ALL = ("backend.wholefile", "backend.filelock", "backend.messages")
"""Small helpers on the standard library alone."""
NEVER: dict[str, tuple[str, ...]] = {
    "backend.train": ("backend.demo", "backend.annotate"),
    "backend.demo": ("tools",),
}
"""Exceptions from the table above."""
STANDARD_ONLY = (
    "backend/system/install.py",
    "backend/system/installation.py",
    "backend/system/packages.py",
    "backend/system/pip_runner.py",
    "backend/system/probe.py",
    "backend/system/doctor.py",
    "backend/system/devices.py",
)


def part_of(module: str) -> str:
    found = [part for part in MAY_IMPORT if module == part or module.startswith(part + ".")]
    assert found, f"{module} belongs to no part of the house"
    return max(found, key=len)


def within(module: str, parts: tuple[str, ...]) -> bool:
    return any(module == part or module.startswith(part + ".") for part in parts)


def own_imports() -> list[tuple[str, house.Import]]:
    files = [path for path in house.sources() if house.module_name(path) != "backend"]
    pairs = [(part_of(house.module_name(path)), item) for path in files for item in house.imports_of(path)]
    return [
        (part, item) for part, item in pairs if item.module.split(".")[0] in {"app", "ui", "backend", "tools"}
    ]


def test_the_parts_import_only_whom_they_may() -> None:
    pairs = own_imports()
    assert len(pairs) > 100
    breaches = [str(item) for part, item in pairs if not within(item.module, (*MAY_IMPORT[part], *FOR_ALL))]
    breaches += [str(item) for part, item in pairs if within(item.module, NEVER.get(part, ()))]
    assert not breaches, "\n".join(breaches)


def test_families_do_not_know_each_other() -> None:
    base = house.ROOT / "backend" / "families"
    packages = {path.name for path in base.iterdir() if (path / "load.py").exists()}
    assert packages
    breaches = [
        str(item)
        for package in packages
        for path in (base / package).rglob("*.py")
        for item in house.imports_of(path)
        if within(item.module, tuple(f"backend.families.{other}" for other in packages - {package}))
    ]
    assert not breaches, "\n".join(breaches)


def third_party(item: house.Import) -> str:
    top = item.module.split(".")[0]
    return "" if top in sys.stdlib_module_names or top in {"backend", "ui", "tools", "app"} else top


@pytest.mark.parametrize("folder", ["backend/settings", "backend/jobs"])
def test_settings_and_jobs_use_small_pure_packages_only(folder: str) -> None:
    files = [path for path in house.sources() if path.is_relative_to(house.ROOT / folder)]
    assert files
    found = {
        str(item) for path in files for item in house.imports_of(path) if third_party(item) not in PURE | {""}
    }
    assert not found


def test_what_runs_before_the_installation_uses_the_standard_library_only() -> None:
    files = [
        house.ROOT / name
        for name in (
            *STANDARD_ONLY,
            "backend/system/paths.py",
            "backend/__init__.py",
            "backend/system/__init__.py",
        )
    ]
    found = {
        str(item) for path in files for item in house.imports_of(path) if third_party(item) and item.at_start
    }
    assert not found


def test_the_page_and_the_parts_without_torch_import_no_heavy_library() -> None:
    light = [
        house.ROOT / "app.py",
        house.ROOT / "ui",
        house.ROOT / "backend" / "settings",
        house.ROOT / "backend" / "jobs",
        house.ROOT / "backend" / "system",
    ]
    light += [house.ROOT / "backend" / "data" / f"{name}.py" for name in DATA_WITHOUT_TORCH]
    light += [house.ROOT / "backend" / "data" / "lint"]
    files = [path for path in house.sources() if any(path.is_relative_to(place) for place in light)]
    found = [str(item) for path in files for item in house.imports_of(path) if third_party(item) in HEAVY]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "module",
    [
        "ui.page",
        "backend.settings",
        "backend.jobs.process",
        "backend.system.doctor",
        "backend.data.scan",
        "backend.data.lint",
    ],
)
def test_importing_loads_no_heavy_library(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=house.ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_files_are_short() -> None:
    lengths = {path: len(house.code_lines(path)) for path in house.sources()}
    assert len(lengths) > 50
    too_long = [
        f"{path.relative_to(house.ROOT)}: {count}"
        for path, count in lengths.items()
        if count > 400 and not house.is_table(path)
    ]
    assert not too_long, "\n".join(too_long)


def test_the_loop_reads_like_prose() -> None:
    assert 0 < len(house.code_lines(house.ROOT / "backend" / "train" / "loop.py")) <= 250
    assert 0 < len((house.ROOT / "app.py").read_text(encoding="utf-8").splitlines()) < 80


def test_functions_are_short_and_take_few_parameters() -> None:
    functions = house.functions()
    median = statistics.median(function.lines for function in functions)
    print(f"{len(functions)} functions, median {median} lines")
    assert not [str(function) for function in functions if function.lines > 80 or function.parameters > 10]
    assert median < 12


# Written in pieces, so that this file does not find itself.
UNFINISHED = re.compile(
    r"\b(TO"
    + r"DO|FIX"
    + r"ME|XX"
    + r"X)\b|(?i:not "
    + r"implemented|place"
    + r"holder text|for "
    + r"now[,.])"
)
HOSTS = re.compile(
    r"download\.py" + r"torch\.org|py" + r"pi\.org|files\.python" + r"hosted|registry\.n" + r"pmjs"
)


def written_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=house.ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("the files are not in a git checkout")
    endings = {".py", ".md", ".toml", ".txt", ".sh", ".bat", ".js", ".css", ".html", ".yaml", ".json"}
    paths = (house.ROOT / line for line in listed.stdout.splitlines())
    return [
        path
        for path in paths
        if path.suffix in endings and path.is_file() and "assets" not in path.relative_to(house.ROOT).parts
    ]


def test_nothing_is_left_for_later() -> None:
    found = [
        f"{path.relative_to(house.ROOT)}:{number} {line.strip()[:80]}"
        for path in written_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if UNFINISHED.search(line) or HOSTS.search(line)
    ]
    assert not found, "\n".join(found)


def test_every_option_is_read_somewhere() -> None:
    from backend.settings import declarations

    rules = {"length.py", "secrets.py"}  # use options; the rest of the package only declares and judges them
    files = [path for path in house.sources() if "settings" not in path.parts or path.name in rules]
    words = {word for path in files for word in house.words_read(path)}
    unread = [key for key in declarations() if key not in words]
    assert not unread, f"options that nothing reads: {', '.join(unread)}"
