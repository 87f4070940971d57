"""Settings of a run: declared once, read from TOML, command line and form, and checked."""

from backend.settings.check import Verdict, check, judge
from backend.settings.command import ParsedCommand, parse_command_line, to_command_line
from backend.settings.convert import convert
from backend.settings.declare import declarations
from backend.settings.paths import check_files, output_conflicts
from backend.settings.presets import (
    Preset,
    delete_preset,
    list_presets,
    read_preset,
    rename_preset,
    restore_preset,
    save_preset,
)
from backend.settings.schema import schema
from backend.settings.settings import Reading, Settings, read_values
from backend.settings.tomlfile import read_toml, read_toml_with_notes, to_toml, write_toml

__all__ = [
    "ParsedCommand",
    "Preset",
    "Reading",
    "Settings",
    "Verdict",
    "check",
    "check_files",
    "convert",
    "declarations",
    "delete_preset",
    "judge",
    "list_presets",
    "output_conflicts",
    "parse_command_line",
    "read_preset",
    "read_toml",
    "read_toml_with_notes",
    "read_values",
    "rename_preset",
    "restore_preset",
    "save_preset",
    "schema",
    "to_command_line",
    "to_toml",
    "write_toml",
]
