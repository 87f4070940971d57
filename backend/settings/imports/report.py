"""What became of each key of an imported file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from backend.errors import Problem
from backend.settings.check import judge
from backend.settings.declare import declarations
from backend.settings.dialect import translate
from backend.settings.secrets import is_secret
from backend.settings.settings import DEFAULTS, Settings, read_own

Fate = Literal["taken", "changed", "idle", "unsupported"]
"""Taken as written; taken under another name or with another value; of no effect; not possible here."""
Source = Literal["kohya_ss", "sd-scripts", "command line", "metadata"]
_HIDDEN = "*****"


@dataclass(frozen=True)
class Entry:
    """One key of the file."""

    key: str
    """As the file calls it."""
    value: str
    """As the file has it, for people."""
    fate: Fate
    target: str = ""
    """Our option, or several with commas between; empty when there is none."""
    now: str = ""
    """What the option is set to."""
    why: str = ""


@dataclass(frozen=True)
class Imported:
    """Settings out of a file, and the report."""

    source: Source
    settings: Settings
    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...] = ()
    """What these settings still need, or contradict, before a run can start with them."""
    given: frozenset[str] = frozenset()
    """Options that the file sets, whatever their value."""

    def of(self, fate: Fate) -> list[Entry]:
        """The entries of one kind, in the file's order."""
        return [entry for entry in self.entries if entry.fate == fate]


@dataclass
class Sheet:
    """Settings and report while a file is read."""

    values: dict[str, Any] = field(default_factory=dict[str, Any])
    entries: list[Entry] = field(default_factory=list[Entry])

    def take(self, key: str, value: Any, target: str, now: Any, why: str = "") -> bool:
        """Set ``target`` to ``now`` because the file says ``key = value``. False when it cannot be."""
        if target in self.values and self.values[target] != now:
            self.refuse(key, value, f"{target} is {spell(target, self.values[target])} already")
            return False
        # Arguments are judged beside what they are arguments of.
        found = read_own({**self.values, target: now}, {}).problems
        problem = next((one for one in found if one.key == target), None)
        if problem is not None:
            self.refuse(key, value, _without_key(target, problem))
            return False
        self.values[target] = now
        fate: Fate = "changed" if why or key != target else "taken"
        self._add(key, value, fate, target, spell(target, now), why)
        return True

    def idle(self, key: str, value: Any, why: str) -> None:
        """The key changes nothing here."""
        self._add(key, value, "idle", why=why)

    def changed(self, key: str, value: Any, why: str, target: str = "", now: str = "") -> None:
        """The key is followed in another way than by setting one option."""
        self._add(key, value, "changed", target, now, why)

    def refuse(self, key: str, value: Any, why: str) -> None:
        """What the key asks for cannot be done."""
        self._add(key, value, "unsupported", why=why)

    def dialect(self, key: str, value: Any) -> None:
        """A key in sd-scripts' own words, or ours."""
        found = translate({key: value}, lambda _: "")
        if found.problems:
            self.refuse(key, value, " ".join(map(_sentences, found.problems)))
        elif not found.values:
            self.idle(key, value, found.notes[0].what if found.notes else "it changes nothing")
        elif list(found.values) == [key]:
            self.take(key, value, key, found.values[key])
        else:
            self._several(key, value, found.values)

    def finish(self, source: Source, order: Iterable[str] = ()) -> Imported:
        """The report, in the file's ``order``, with what the rules between options say of the whole."""
        places = {key: place for place, key in enumerate(order)}
        self.entries.sort(key=lambda entry: places.get(entry.key, len(places)))
        reading = read_own(self.values, {})
        assert not reading.problems, "every value was read when it was taken"
        errors = judge(reading.settings, complete=False).errors
        return Imported(source, reading.settings, tuple(self.entries), tuple(errors), frozenset(self.values))

    def _several(self, key: str, value: Any, targets: Mapping[str, Any]) -> None:
        """One key that stands for other options, as ``network_args`` does."""
        wrong = read_own(targets, {}).problems
        clash = [name for name, now in targets.items() if self.values.get(name, now) != now]
        if clash:
            self.refuse(key, value, f"{', '.join(clash)} is set already")
            return
        bad = {problem.key for problem in wrong}
        good = {name: now for name, now in targets.items() if name not in bad}
        self.values |= good
        if good:
            shown = ", ".join(spell(name, now) for name, now in good.items())
            self._add(key, value, "changed", ", ".join(good), shown, f"it stands for {', '.join(good)}")
        for problem in wrong:
            self.refuse(key, targets[problem.key or ""], problem.what)

    def _add(self, key: str, value: Any, fate: Fate, target: str = "", now: str = "", why: str = "") -> None:
        self.entries.append(Entry(key, spell(key, value), fate, target, now, why))


def spell(key: str, value: Any) -> str:
    """A value for people; secrets stay hidden."""
    if value is None or value == "" or value == []:
        return ""
    if is_secret(key):
        return _HIDDEN
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))  # type: ignore[reportUnknownArgumentType]
    return str(value)


def is_default(key: str, value: Any) -> bool:
    """Whether an option is at its default with this value, however it is written."""
    reading = read_own({key: value}, {})
    return not reading.problems and reading.settings.flat()[key] == DEFAULTS[key]


def is_blank(value: Any) -> bool:
    """What a form sends for a field that is empty, off or zero."""
    return value in ("", None, False, 0, "0", "0.0", "False", "None") or value == []


def is_readable(key: str, value: Any) -> bool:
    """Whether an option can take the value."""
    return not read_own({key: value}, {}).problems


def by_declaration(names: Iterable[str]) -> list[str]:
    """Options in the order of their declarations, so that arguments follow what they belong to."""
    places = {key: place for place, key in enumerate(declarations())}
    return sorted(names, key=lambda name: places.get(name, len(places)))


def _sentences(problem: Problem) -> str:
    return ". ".join(part for part in (problem.what, problem.next) if part)


def _without_key(key: str, problem: Problem) -> str:
    return problem.what.removeprefix(f"{key}: ")
