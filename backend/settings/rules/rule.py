"""What a rule is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from backend.settings.conditions import Condition, Values, keys_of

RuleKind = Literal["error", "note", "change"]


@dataclass(frozen=True)
class Rule:
    """One rule. ``{key}`` in a text stands for that option's value."""

    id: str
    kind: RuleKind
    when: Condition
    what: str
    """What is said when ``when`` holds."""
    next: str = ""
    why: str = ""
    key: str = ""
    """The option that the form jumps to; the first that ``when`` looks at if empty."""
    change: Mapping[str, Any] | Callable[[Values], Mapping[str, Any]] | None = None
    """New values, for a change."""
    complete: bool = False
    """It asks for something that is only needed to start a run."""

    @property
    def field(self) -> str:
        """The option that the form jumps to."""
        condition = self.when
        while not self.key and isinstance(condition[1], tuple):
            condition = condition[1]
        return self.key or condition[0]

    @property
    def keys(self) -> tuple[str, ...]:
        """All options that the rule is about, sorted."""
        return tuple(sorted(keys_of(self.when)))
