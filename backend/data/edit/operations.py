"""What can be done to many captions at once: a table of pure functions on text.

A caption of several lines is worked on line by line. Tags are what stands between separators; blanks
around them do not count, and a tag is named in any case of letters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from backend.data.edit.types import compile_regex
from backend.errors import InputError

Values = Mapping[str, str]
LineEdit = Callable[[str, Values, str], str]
"""(line, values of the fields, separator) -> line."""


@dataclass(frozen=True)
class Operation:
    """One kind of bulk edit, as a page offers it."""

    name: str
    title: str
    fields: Mapping[str, str] = field(default_factory=dict[str, str])
    """Field -> its label."""
    optional: tuple[str, ...] = ()
    """Fields that may be empty."""
    creates: bool = False
    """Pictures without a caption file get one."""


def split_tags(line: str, separator: str) -> list[str]:
    """The tags of a line, without blanks around them, empty ones left out."""
    return [tag for part in line.split(separator) if (tag := part.strip())]


def join_tags(tags: Sequence[str], separator: str) -> str:
    """'a, b': the separator and a blank, unless it ends with one or is a blank itself."""
    return (separator if separator[-1:].isspace() else f"{separator} ").join(tags)


def run(name: str, text: str, values: Values, separator: str = ",") -> str:
    """``text`` after the operation. Raises InputError for values that cannot be used."""
    operation = checked(name, values)
    if operation.name == "fill":
        return text if text.strip() else values["text"]
    edit = _EDITS[name]
    if not text.strip():
        return edit("", values, separator) if operation.creates else text
    # Line ends stay as they were written.
    parts = re.split(r"(\r\n|\r|\n)", text)
    return "".join(
        part if place % 2 or not part.strip() else edit(part, values, separator)
        for place, part in enumerate(parts)
    )


def checked(name: str, values: Values) -> Operation:
    """The operation of that name. Raises InputError when there is none or a field is empty or wrong."""
    operation = OPERATIONS.get(name)
    if operation is None:
        raise InputError(f"there is no operation {name!r}", next=f"use one of {', '.join(OPERATIONS)}")
    for key, label in operation.fields.items():
        if key not in operation.optional and not values.get(key, "").strip(" \t"):
            raise InputError(f"{operation.title}: the field {label!r} is empty", key=key)
    if name == "regex":
        _check_replacement(compile_regex(values["pattern"]), values.get("with", ""))
    return operation


def _check_replacement(pattern: re.Pattern[str], replacement: str) -> None:
    """A replacement may name groups that the expression does not have. Raises InputError."""
    try:
        re.compile(f"(?:{pattern.pattern})|", pattern.flags).sub(replacement, "")
    except (re.error, IndexError) as error:
        raise InputError(
            f"the replacement {replacement!r} cannot be used: {error}",
            next=r"name a group of the expression as \1, and write a backslash as \\",
            key="with",
        ) from None


def title_of(name: str, values: Values) -> str:
    """The edit in words: 'Add tag in front: 1girl'."""
    said = " -> ".join(f"{values[key]!r}" for key in OPERATIONS[name].fields if values.get(key))
    return f"{OPERATIONS[name].title}: {said}" if said else OPERATIONS[name].title


def _same(one: str, other: str) -> bool:
    return one.strip().casefold() == other.strip().casefold()


def _has(line: str, tag: str, separator: str) -> bool:
    return any(_same(own, tag) for own in split_tags(line, separator))


def _new_tags(line: str, values: Values, separator: str) -> list[str]:
    """The tags of the field that the line lacks."""
    return [tag for tag in split_tags(values["tag"], separator) if not _has(line, tag, separator)]


def _add_front(line: str, values: Values, separator: str) -> str:
    new = _new_tags(line, values, separator)
    return join_tags([*new, *([line.strip()] if line.strip() else [])], separator) if new else line


def _add_back(line: str, values: Values, separator: str) -> str:
    new = _new_tags(line, values, separator)
    before = line.strip().removesuffix(separator.strip() or separator).rstrip()
    return join_tags([*([before] if before else []), *new], separator) if new else line


def _remove(line: str, values: Values, separator: str) -> str:
    unwanted = split_tags(values["tag"], separator)
    tags = split_tags(line, separator)
    kept = [tag for tag in tags if not any(_same(tag, one) for one in unwanted)]
    return line if len(kept) == len(tags) else join_tags(kept, separator)


def _replace(line: str, values: Values, separator: str) -> str:
    tags = split_tags(line, separator)
    if not any(_same(tag, values["tag"]) for tag in tags):
        return line
    new = [values["with"].strip() if _same(tag, values["tag"]) else tag for tag in tags]
    return join_tags([tag for tag in dict.fromkeys(new) if tag], separator)


def _replace_text(line: str, values: Values, separator: str) -> str:
    return line.replace(values["text"], values.get("with", ""))


def _regex(line: str, values: Values, separator: str) -> str:
    return compile_regex(values["pattern"]).sub(values.get("with", ""), line)


def _sort(line: str, values: Values, separator: str) -> str:
    tags = split_tags(line, separator)
    ordered = sorted(tags, key=str.casefold)
    return line if ordered == tags else join_tags(ordered, separator)


def _deduplicate(line: str, values: Values, separator: str) -> str:
    tags = split_tags(line, separator)
    kept: dict[str, str] = {}
    for tag in tags:
        kept.setdefault(tag.casefold(), tag)
    return line if len(kept) == len(tags) else join_tags(list(kept.values()), separator)


def _trigger_first(line: str, values: Values, separator: str) -> str:
    tags = split_tags(line, separator)
    first = [tag for tag in tags if _same(tag, values["tag"])]
    if not first or _same(tags[0], values["tag"]):
        return line
    return join_tags([*first, *(tag for tag in tags if not _same(tag, values["tag"]))], separator)


def _change_separator(line: str, values: Values, separator: str) -> str:
    tags = split_tags(line, separator)
    return join_tags(tags, values["to"]) if len(tags) > 1 else line


def _lower_case(line: str, values: Values, separator: str) -> str:
    return line.lower()


def _underscores(line: str, values: Values, separator: str) -> str:
    """Underscores between letters become blanks; faces such as ^_^ and o_o stay."""
    tags = line.split(separator)
    return separator.join(tag if _is_face(tag.strip()) else tag.replace("_", " ") for tag in tags)


def _is_face(tag: str) -> bool:
    return len(tag) <= 3 or not re.search(r"[^\W_]{2}", tag)


_EDITS: Mapping[str, LineEdit] = {
    "add_front": _add_front,
    "add_back": _add_back,
    "remove": _remove,
    "replace": _replace,
    "replace_text": _replace_text,
    "regex": _regex,
    "sort": _sort,
    "deduplicate": _deduplicate,
    "trigger_first": _trigger_first,
    "change_separator": _change_separator,
    "lower_case": _lower_case,
    "underscores": _underscores,
}

_ALL = (
    Operation("add_front", "Add tag in front", {"tag": "Tag"}, creates=True),
    Operation("add_back", "Add tag at the end", {"tag": "Tag"}, creates=True),
    Operation("remove", "Remove tag", {"tag": "Tag"}),
    Operation("replace", "Replace tag", {"tag": "Tag", "with": "New tag"}),
    Operation("replace_text", "Replace text", {"text": "Text", "with": "New text"}, optional=("with",)),
    Operation(
        "regex", "Replace by expression", {"pattern": "Expression", "with": "New text"}, optional=("with",)
    ),
    Operation("trigger_first", "Move trigger word to the front", {"tag": "Trigger word"}),
    Operation("sort", "Sort tags"),
    Operation("deduplicate", "Remove doubled tags"),
    Operation("change_separator", "Change separator", {"to": "New separator"}),
    Operation("lower_case", "Lower case"),
    Operation("underscores", "Underscores to blanks"),
    Operation("fill", "Fill empty captions", {"text": "Text"}, creates=True),
)
OPERATIONS: Mapping[str, Operation] = {operation.name: operation for operation in _ALL}
"""Name -> operation, in the order in which a page lists them."""
