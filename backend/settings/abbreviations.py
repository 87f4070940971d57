"""Names of options cut short, as sd-scripts' own command line takes them.

Its parser reads ``--network_w`` as ``--network_weights`` when no other option begins so. Lines like
that are in people's notes, so they are read here too.
"""

from __future__ import annotations

from functools import cache

from backend.settings.declare import declarations
from backend.settings.dialect import ABSENT, EVERYDAY, NEEDS_NOTHING, RENAMED

LINE_ONLY = ("config_file", "output_config", "dry_run", "json")
"""Options that have a meaning on a command line only."""


def whole_name(key: str) -> str:
    """The one option that begins with ``key``; ``key`` itself when it is whole, or none or several do."""
    found = begun(key)
    return found[0] if len(found) == 1 else key


@cache
def begun(key: str) -> tuple[str, ...]:
    """The options that ``key`` may be the beginning of; none when it is whole or an everyday word."""
    if len(key) < 2 or key in _whole() or key in EVERYDAY:
        return ()
    first = tuple(name for name in _own() if name.startswith(key))
    return first or tuple(name for name in RENAMED if name.startswith(key))


@cache
def _own() -> tuple[str, ...]:
    """All options but other names of options, and but arguments of networks, which stand in network_args."""
    typed = (key for key, declared in declarations().items() if not declared.info.network_arg)
    return (*typed, *sorted(NEEDS_NOTHING), *sorted(ABSENT - set(LINE_ONLY)), *LINE_ONLY)


@cache
def _whole() -> frozenset[str]:
    return frozenset((*_own(), *declarations(), *RENAMED))
