"""The English that translations start from, and how far they have come.

What the backend says is read out of its source, as templates (see :mod:`backend.messages`). One that
has no translation is shown in English and stands in ``untranslated.txt``, which may only become
shorter. ``translated.json`` remembers of which English each text of the page was translated, so that
a change to it is seen.
"""

from __future__ import annotations

import ast
import json
import re
import string
from collections.abc import Iterator, Mapping, Set
from functools import cache
from hashlib import blake2b
from pathlib import Path

from backend import messages
from backend.settings import list_presets
from backend.settings.rules import RULES
from backend.system.paths import REPOSITORY
from ui.i18n import catalogue
from ui.i18n.language import DEFAULT, NAMES
from ui.i18n.options import english

UNTRANSLATED = Path(__file__).parent / "untranslated.txt"
RECORD = Path(__file__).parent / "translated.json"

SPEAKERS = {
    "AtelierError",
    "DecodeError",
    "Difference",
    "Dropped",
    "Finding",
    "EnvironmentFault",
    "Fix",
    "HeaderError",
    "Hit",
    "InputError",
    "InstallError",
    "Known",
    "Operation",
    "Problem",
    "Rule",
    "RunFault",
    "StorageFault",
    "ValueError",
    "ValueProblem",
    "_damaged",
    "_fault",
    "_file_problem",
    "_hit",
    "_misfit",
    "_problem",
    "_problems",
    "_shape",
    "_unreadable",
    "_warn",
    "append",
    "emit",
    "error",
    "failure",
    "fix",
    "hit",
    "idle",
    "note",
    "noted",
    "option",
    "phase",
    "problem",
    "refuse",
    "say",
    "tell",
    "told",
    "warn",
    "warning",
}
"""Functions and classes whose texts people read."""
_NOT_READ = {
    "id",
    "key",
    "keys",
    "detail",
    "kind",
    "change",
    "when",
    "find",
    "cure",
    "severity",
    "name",
    "found",
}
"""Their arguments that are no sentences."""
_SPOKEN_LATER = {"advice", "fix", "named", "reason", "text", "what", "why"}
"""Variables that are given to those."""


_CODE = re.compile(r"\\[bs]|\.[*+]|\|\w+\)|\)\?|= \?|like \?")
"""What only expressions and queries hold."""


def spoken_templates(root: Path = REPOSITORY / "backend") -> dict[str, str]:
    """Every template in the backend's source -> ``file:line`` of its first place, in order."""
    found: dict[str, str] = {}
    for path in sorted(root.rglob("*.py")):
        # Options of the form have keys, see ui/i18n/options.py.
        speakers = SPEAKERS - {"option"} if path.name.startswith("sections") else SPEAKERS
        for line, template in _templates(ast.parse(path.read_text(encoding="utf-8")), speakers):
            found.setdefault(template, f"{path.relative_to(REPOSITORY).as_posix()}:{line}")
    return found


def _templates(tree: ast.AST, speakers: Set[str]) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and any(_name(target) in _SPOKEN_LATER for target in node.targets):
            yield from _in(node.value)
        if isinstance(node, ast.Call) and _name(node.func) in speakers:
            label = _name(node.func) == "option" and len(node.args) > 1 and _template(node.args[1])
            if label:
                yield node.lineno, label
            spoken = [*node.args, *(word.value for word in node.keywords if word.arg not in _NOT_READ)]
            for part in spoken:
                yield from _in(part)


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _in(node: ast.expr) -> Iterator[tuple[int, str]]:
    """The texts that an argument may be; those inside of calls are found by the calls themselves."""
    template = _template(node)
    if template is not None:
        if is_sentence(template):
            yield node.lineno, template
        return
    for inner in _alternatives(node):
        yield from _in(inner)


def _alternatives(node: ast.expr) -> list[ast.expr]:
    """The expressions one of which an expression is, or all of which it holds."""
    match node:
        case ast.IfExp():
            return [node.body, node.orelse]
        case ast.BoolOp() | ast.Dict():
            return list(node.values)
        case ast.Tuple() | ast.List():
            return list(node.elts)
        case ast.GeneratorExp() | ast.ListComp():
            return [node.elt]
        case _:
            return []


def is_sentence(template: str) -> bool:
    """Whether a text is words for people: blanks between words, and enough letters of its own."""
    own = "".join(text for kind, text in messages.parts_of(template) if kind == "text")
    return " " in own.strip() and messages.is_translatable(template) and not _CODE.search(own)


def _template(node: ast.expr) -> str | None:
    """A text, f-string or sum of them as one template; None for anything else."""
    parts = _parts(node)
    if parts is None or not any(isinstance(part, str) for part in parts):
        return None
    count = iter(range(len(parts)))
    return "".join(_escaped(part) if isinstance(part, str) else f"{{{next(count)}}}" for part in parts)


def _parts(node: ast.expr) -> list[str | ast.expr] | None:
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return [str(value.value) if isinstance(value, ast.Constant) else value for value in node.values]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        sides = [_parts(side) or [side] for side in (node.left, node.right)]
        return [*sides[0], *sides[1]]
    return None


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def rule_templates() -> dict[str, str]:
    """Texts of the rules between options, whose values are named: ``{0}`` in place of ``{key}``."""
    texts = [(text, rule.id) for rule in RULES for text in (rule.what, rule.next, rule.why) if text]
    return {numbered(text): f"rule {id}" for text, id in texts}


def numbered(text: str) -> str:
    """A text with ``{name}`` parts as a template."""
    found, count = "", 0
    for own, name, _, _ in string.Formatter().parse(text):
        found += _escaped(own) + (f"{{{count}}}" if name is not None else "")
        count += name is not None
    return found


def preset_texts() -> dict[str, str]:
    """Titles and descriptions of the presets that come with the program."""
    presets = list_presets(REPOSITORY / "no such folder")
    return {
        _escaped(text): preset.path.name
        for preset in presets
        for text in (preset.title, preset.description)
        if text
    }


@cache
def wanted() -> Mapping[str, str]:
    """All templates of the backend -> where they come from."""
    rules = rule_templates()
    spoken = {text: place for text, place in spoken_templates().items() if "settings/rules/" not in place}
    return {**spoken, **rules, **preset_texts()}


def missing() -> list[str]:
    """Templates that lack a translation into one language or more."""
    languages = [name for name in NAMES if name != DEFAULT]
    return sorted(text for text in wanted() if not all(messages.is_known(text, name) for name in languages))


def unused() -> list[str]:
    """Translated templates that nothing says any more."""
    return sorted({text for name in NAMES for text in messages.templates(name)} - wanted().keys())


def page_texts() -> dict[str, str]:
    """Key -> English, of the page and of the options."""
    return {**catalogue(DEFAULT), **english()}


def changed() -> list[str]:
    """Keys whose English is not the one that was translated, or is not translated at all."""
    record: dict[str, str] = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {}
    return sorted(key for key, text in page_texts().items() if record.get(key) != _mark(text))


def accept() -> None:
    """Take all translations as they are for those of today's English."""
    UNTRANSLATED.write_text("".join(f"{text!r}\n" for text in missing()), encoding="utf-8")
    marks = {key: _mark(text) for key, text in page_texts().items()}
    RECORD.write_text(json.dumps(marks, indent=0) + "\n", encoding="utf-8")


def accepted() -> list[str]:
    """The templates that are known to lack a translation."""
    lines = UNTRANSLATED.read_text(encoding="utf-8").splitlines() if UNTRANSLATED.is_file() else []
    return [str(ast.literal_eval(line)) for line in lines]


def _mark(text: str) -> str:
    return blake2b(text.encode(), digest_size=4).hexdigest()
