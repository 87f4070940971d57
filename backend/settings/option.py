"""How one training option is declared.

An option is one field of one pydantic model in this package, made with :func:`option`. Its key,
type and range come from the field itself; everything a person sees or chooses by comes from the
:class:`OptionInfo` beside it. Command line, TOML, form, presets, docs and checks derive from the
two and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

Level = Literal["basic", "advanced", "expert"]
PathKind = Literal["file", "folder", "output", "written"]
"""Something to read, a folder to write into, or a file to write."""
ResumeEffect = Literal["safe", "changes", "impossible"]
"""What it means to resume a run with another value: the same result, another one, or it cannot be."""


@dataclass(frozen=True)
class OptionInfo:
    """What people are told about an option and where it shows."""

    label: str
    """A few words, as the form's label."""
    help: str
    """One or two sentences: what it does, and when to change it."""
    level: Level = "advanced"
    unit: str = ""
    choices: tuple[str, ...] = ()
    """Allowed values, when they are a fixed list. An empty list allows any."""
    choice_titles: tuple[str, ...] = ()
    """The choices in the form's words, where their names do not tell enough."""
    open: bool = False
    """Other texts than the choices are allowed; ``check`` reads them."""
    suggestions: tuple[str, ...] = ()
    """Values offered in the form; others are allowed."""
    path: PathKind | None = None
    """The value is a path of this kind. Paths are trimmed and shown resolved."""
    families: tuple[str, ...] = ()
    """Families it applies to; empty: all."""
    methods: tuple[str, ...] = ()
    """Training methods it applies to; empty: those of its section."""
    show_if: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    """(key, values): the form hides the field unless each key has one of its values."""
    multiline: bool = False
    secret: bool = False
    """Never written to logs, metadata or exported settings."""
    per_run: bool = False
    """It names one run's subject or result: blanks around it are cut off, and presets leave it out,
    as they do paths and secrets."""
    several: bool = False
    """sd-scripts takes one value for each text encoder; as many equal values are read as one."""
    network_arg: bool = False
    """sd-scripts takes it inside ``--network_args "key=value"``; here it is an option as well."""
    check: Callable[[Any], Any] | None = None
    """Reads a text that has a form of its own; raises ValueError saying what was expected."""
    resume: ResumeEffect | None = None
    """What another value means for a resumed run; None: as for the section."""
    note: str = ""
    """One sentence for the reference where the result differs from sd-scripts' for the same value."""


def option(
    default: Any,
    label: str,
    help: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    **info: Any,
) -> Any:
    """Declare an option. Bounds are checked on reading; ``info`` is :class:`OptionInfo`'s rest."""
    meta = OptionInfo(label=label, help=help, **info)
    return Field(default, ge=ge, gt=gt, le=le, lt=lt, json_schema_extra={"atelier": meta})  # type: ignore[dict-item]


def info_of(field: FieldInfo) -> OptionInfo:
    """The :class:`OptionInfo` that :func:`option` put beside a field."""
    extra = field.json_schema_extra
    assert isinstance(extra, dict), "a setting that was not declared with option()"
    info = extra["atelier"]
    assert isinstance(info, OptionInfo)
    return info


class Section(BaseModel):
    """Base of the settings models: typed, frozen, and no unknown keys.

    A subclass's ``title`` is its heading in form, command line and reference, and its docstring the
    sentence under it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=False, allow_inf_nan=False)
    title: ClassVar[str]
    on_resume: ClassVar[ResumeEffect] = "changes"
    """What another value of its options means for a resumed run, where they do not say."""
    methods: ClassVar[tuple[str, ...]] = ()
    """Training methods that its options apply to, where they do not say; empty: all."""
