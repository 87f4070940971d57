"""Settings out of other programs' files, with a report of what became of every key.

Understood are saved forms and presets of kohya_ss (JSON), settings files of sd-scripts and of ours
(TOML), command lines of sd-scripts, and the ``ss_*`` metadata of trained files.
"""

from backend.settings.imports.read import import_metadata, import_text
from backend.settings.imports.report import Entry, Fate, Imported, Source

__all__ = ["Entry", "Fate", "Imported", "Source", "import_metadata", "import_text"]
