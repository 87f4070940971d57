"""Files that the Generate page offers: models used before, and networks that runs made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from backend.jobs.events import read_events
from backend.jobs.runs import Run, list_runs
from ui.context import Context
from ui.i18n import t

FORM = "generate"
_RUNS_SHOWN = 12
_FILES_SHOWN = 8
_TAIL = 256 * 1024
_MODELS = (".safetensors", ".ckpt")


def trained_files(run: Run, most: int = _FILES_SHOWN) -> list[Path]:
    """Network files a run made, its result first, then the newest."""
    end = run.events.stat().st_size if run.events.is_file() else 0
    records, _ = read_events(run.events, max(0, end - _TAIL))
    results = [Path(str(record.get("path"))) for record in records if record["type"] == "result"]
    folder = run.path / "checkpoints"
    files = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [path for path in dict.fromkeys([*results[-1:], *files[:most]]) if path.exists()]


def models(context: Context) -> list[str]:
    """Base models used before, here or for training."""
    own = context.drafts.recent(FORM).get("model", [])
    trained = context.drafts.recent("train").get("pretrained_model_name_or_path", [])
    return list(dict.fromkeys([*own, *trained]))


def loras(context: Context) -> list[tuple[str, str]]:
    """(label, path) of what can be tried: results and checkpoints of runs, files used before."""
    found: dict[str, str] = {}
    for run in list_runs(context.runs)[:_RUNS_SHOWN]:
        for path in trained_files(run):
            label = f"{path.name}  \u00b7  {run.name}"
            found.setdefault(str(path), label if found else t("gen.last_result", label=label))
    for path in context.drafts.recent(FORM).get("lora", []):
        found.setdefault(path, Path(path).name)
    return [(label, path) for path, label in found.items()]


def find(context: Context, name: str, base: bool) -> str:
    """The file that goes by a name in a picture's text: among those known, then beside them; '' if none."""
    known = models(context) if base else [path for _, path in loras(context)]
    for path in _beside(known):
        if path.stem == name or path.name == name:
            return str(path)
    return ""


def _beside(known: list[str]) -> Iterator[Path]:
    """The known files, then others in their folders."""
    paths = [Path(path) for path in known]
    yield from (path for path in paths if path.exists())
    for folder in dict.fromkeys(path.parent for path in paths):
        try:
            yield from sorted(path for path in folder.iterdir() if path.suffix.lower() in _MODELS)
        except OSError:
            continue
