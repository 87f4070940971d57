"""What a page or a program sent with a call, refused in words where it cannot be meant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from backend.errors import InputError
from ui.i18n import t

_TABLES = frozenset({"values", "options", "order"})
_NUMBERS = frozenset({"page", "per"})
_SURROGATES = range(0xD800, 0xE000)


class Request(dict[str, Any]):
    """The fields of a call. One that is missing is a mistake of the caller, and said to be."""

    def __missing__(self, field: str) -> Any:
        raise InputError(t("app.field_missing", field=field), key=field)


def checked(data: object) -> Request:
    """The fields of a call.

    Raises:
        InputError: they are no object, a table or a number is something else, or a text holds letters
            that no path or text has: a zero byte, or half of a character.
    """
    if not isinstance(data, Mapping):
        raise InputError(t("app.no_fields"))
    given = cast("Mapping[str, Any]", data)
    request = Request({key: value for key, value in given.items() if value is not None or key not in _TABLES})
    for field, value in request.items():
        if field in _TABLES and not isinstance(value, Mapping):
            raise InputError(t("app.field_table", field=field), key=field)
        if field in _NUMBERS and not _is_number(value):
            raise InputError(t("app.field_number", field=field), key=field)
        for place, text in _texts(value, field):
            if any(letter == "\0" or ord(letter) in _SURROGATES for letter in text):
                raise InputError(t("app.field_letters", field=place), key=place)
    return request


def _is_number(value: object) -> bool:
    """Whole, or text of digits; nothing stands for what is usual."""
    return not value or isinstance(value, int) or (isinstance(value, str) and value.strip().isdecimal())


def _texts(value: object, place: str) -> Iterator[tuple[str, str]]:
    """(field, text) of every text in nested lists and tables; an inner one by its own name."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, Mapping):
        for key, inner in cast("Mapping[object, object]", value).items():
            yield str(key).encode("utf-8", "replace").decode(), str(key)
            yield from _texts(inner, str(key))
    elif isinstance(value, (list, tuple)):
        for inner in cast("list[object]", value):
            yield from _texts(inner, place)
