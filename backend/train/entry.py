"""What the training scripts of ``tools`` do with their command line."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from backend.errors import InputError
from backend.families import FAMILIES
from backend.settings import ParsedCommand, parse_command_line, write_toml
from backend.settings.methods import tool_of
from backend.settings.secrets import hand_over
from backend.system.identify import identify

SAID: Mapping[str, tuple[str, ...]] = {"v2": ("sd2",)}
"""Options of sd-scripts that say what the base model is -> the families they mean. The file decides
here; when it says another thing, one of the two is a mistake."""


def train_from_line(
    argv: Sequence[str], prog: str, families: Collection[str] = (), method: str = "network"
) -> int:
    """Train, or only write the settings (``--output_config``) or tell the plan (``--dry_run``).

    ``families``: the script is for base models of these alone; empty: of all. ``method``: what it trains.
    Returns the exit code.

    Raises:
        AtelierError: what is wrong, before anything starts.
    """
    command = parse_command_line(argv, prog=prog, actions=True, method=method)
    _require_base(command, prog, families)
    actions = command.actions
    if actions.output_config is not None:
        write_toml(command.settings, actions.output_config)
        print(f"settings written to {actions.output_config}")
        return 0
    if actions.dry_run:
        from backend.train.plan_card import show

        return show(hand_over(command.settings), actions.json, command.notes)
    from backend.train.run import train_from_settings

    return train_from_settings(command.settings, command.notes)


def _require_base(command: ParsedCommand, prog: str, families: Collection[str]) -> None:
    """Refuse a base model of another kind than the script or an option is for."""
    method = command.settings.model.training_method
    path = Path(command.settings.model.pretrained_model_name_or_path).expanduser()
    said = [note.key for note in command.notes if note.key in SAID]
    if not (families or said) or not path.exists():
        return
    base = identify(path)
    if families and base.family not in families:
        raise InputError(
            f"{prog} is for {_titles(families)}; this is {base.title}",
            where=str(path),
            next=f"use tools/{tool_of(method, base.family)}, or choose another base model",
            key="pretrained_model_name_or_path",
        )
    for key in said:
        if key is not None and base.family not in SAID[key]:
            raise InputError(
                f"--{key} says that the base model is {_titles(SAID[key])}; this is {base.title}",
                where=str(path),
                next=f"leave out --{key}, or choose the model that was meant",
                key="pretrained_model_name_or_path",
            )


def _titles(families: Collection[str]) -> str:
    return " or ".join(FAMILIES[name].title for name in families)
