"""What every tab of the page needs to know: where things are kept, and for whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from backend.jobs.queue import Keeper
from backend.system.paths import home, runs_root
from ui.calls import Call
from ui.drafts import Drafts
from ui.files import usual_roots


@dataclass(frozen=True)
class Context:
    """Places of this server. One is made by ``app.py`` and given to each tab's ``build``."""

    home: Path
    """Atelier's own folder: presets of the user, drafts, settings."""
    runs: Path
    """Folder of run folders."""
    drafts: Drafts
    allowed: list[str] = field(default_factory=list)
    """Folders whose files may be shown in the page; Gradio holds this same list."""
    roots: tuple[Path, ...] = ()
    """Places in which files and folders may be chosen in the page."""
    helpers: dict[str, Callable[[], bool]] = field(default_factory=dict[str, Callable[[], bool]])
    """Name of a program that keeps a model in memory -> ends it; False when it is busy or not there."""

    offers: dict[str, Call] = field(default_factory=dict[str, Call])
    """Everything that the pages can do, by the name of its endpoint: see ``ui.offers``."""

    safe_tools: bool = False
    """Tools for assistants are offered, made of what changes nothing."""

    @cached_property
    def queue(self) -> Keeper:
        """Starts the trainings that wait, once ``app.py`` has set it going."""
        return Keeper(self.runs)

    def allow(self, folder: Path) -> None:
        """Let the page show pictures of a folder the person chose."""
        place = str(folder.resolve())
        if folder.is_dir() and place not in self.allowed:
            self.allowed.append(place)


def open_context(local: bool = True, safe_tools: bool = False) -> Context:
    """The places as the environment gives them (``ATELIER_HOME``, ``ATELIER_RUNS``, ``ATELIER_ROOTS``).

    ``local``: nobody but this machine reaches the page; ``safe_tools``: assistants get tools.
    """
    runs = runs_root()
    runs.mkdir(parents=True, exist_ok=True)
    outputs = home() / "outputs"
    return Context(
        home(),
        runs,
        Drafts(home() / ".atelier" / "drafts"),
        [str(runs.resolve()), str(outputs.resolve())],
        usual_roots(home(), runs, local),
        safe_tools=safe_tools,
    )
