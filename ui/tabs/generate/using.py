"""What a training made, put into the form of the Generate page with all that it needs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from backend.errors import InputError
from backend.generate.grid_files import taught_word
from backend.generate.protocol import ENCODERS
from backend.jobs.follow import Follower
from backend.jobs.runs import Run, find_run
from backend.settings import Settings, read_toml
from backend.system.identify import identify
from ui.context import Context
from ui.i18n import t
from ui.tabs.generate.drawing import DRAFT
from ui.tabs.generate.fields import known
from ui.tabs.generate.inputs import Inputs

_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_TAG = re.compile(r"<lora:[^>]*>")
"""What puts a network into a prompt; its name may have blanks."""


class UseCalls:
    """What pages that show runs may call. Every method takes and gives JSON."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def use(self, data: dict[str, Any]) -> dict[str, Any]:
        """Put a ``file`` that ``run`` made into the Generate page's form, with its model and words."""
        run = find_run(self.context.runs, str(data.get("run")))
        if run is None:
            raise InputError(t("runs.gone"), next=t("runs.gone_next"))
        file = Path(str(data.get("file") or ""))
        before = known(self.context.drafts.load(DRAFT) or {})
        self.context.drafts.save(DRAFT, before | self._values(run, file, before))
        return {}

    def _values(self, run: Run, file: Path, before: dict[str, Any]) -> dict[str, Any]:
        """What the form has to hold, for a file of whatever kind."""
        kind, settings = identify(file).kind, read_toml(run.config)
        values = _around(settings) | self._acting(kind, file, settings)
        if kind == "base":
            values["model"] = str(file)
        if kind != "lora":
            values["compare"] = False
        words = file.stem if kind == "embedding" else _words(run)
        return values | {"prompt": _prompt(str(before["prompt"]), words, settings)}

    def compare(self, run: Run, file: Path, before: str) -> dict[str, Any]:
        """The form for a look at everything that a run made: its model, size and words, and no networks
        of before. ``file`` is one of them, ``before`` the prompt that stands in the form.

        Raises InputError: the run's settings cannot be read.
        """
        kind, settings = identify(file).kind, read_toml(run.config)
        words = taught_word(file) if kind == "embedding" else _words(run)
        values = _around(settings) | self._acting(kind if kind == "lllite" else "", file, settings)
        return values | {"compare": False, "prompt": _prompt(before, words, settings)}

    def _acting(self, kind: str, file: Path, settings: Settings) -> dict[str, Any]:
        """The file in its place, and nothing else that acts on the model."""
        row = {"path": str(file), "strength": 1}
        guide = {**row, "ratio": 1, "image": self._guide(settings)} if kind == "lllite" else None
        return {
            "loras": [row] if kind == "lora" else [],
            "guides": [guide] if guide else [],
            "embeddings": str(file.parent) if kind == "embedding" else "",
        }

    def _guide(self, settings: Settings) -> str:
        """A guide picture that it has learnt from, to begin with; '' when there is none to be read."""
        folder = Path(settings.dataset.conditioning_data_dir or "").expanduser()
        if not settings.dataset.conditioning_data_dir or not folder.is_dir():
            return ""
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in _PICTURES)
        try:
            return Inputs(self.context).take_file(found[0]) if found else ""
        except InputError:
            return ""


def _around(settings: Settings) -> dict[str, Any]:
    """The model that was taught, as it was loaded, and the size that it was taught at."""
    flat = settings.flat()
    values: dict[str, Any] = {
        "model": settings.model.pretrained_model_name_or_path,
        "vae": settings.model.vae or "",
        "clip_skip": settings.model.clip_skip or 1,
        **{key: flat.get(key) or "" for key in ENCODERS},
    }
    if settings.dataset.resolution:
        values["width"], values["height"] = settings.dataset.resolution
    return values


def _words(run: Run) -> str:
    """The words that a run taught, as its result tells them."""
    follower = Follower(run)
    view = follower.update()
    while view.catching_up:
        view = follower.update()
    usage = str(((view.result or {}).get("facts") or {}).get("usage") or "")
    return " ".join(_TAG.sub(" ", usage).split())


def _prompt(before: str, words: str, settings: Settings) -> str:
    """What was written, with the words in front; else what the run drew first, or the words alone."""
    if before.strip():
        return before if words.lower() in before.lower() else f"{words}, {before}"
    drawn = settings.sampling.sample_prompt_text.strip().splitlines()
    first = drawn[0].partition(" --")[0].strip() if drawn else ""
    return first if first and words.lower() in first.lower() else words or first
