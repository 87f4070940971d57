"""Functions that a script in the page may call, with faults turned into words."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from backend.errors import AtelierError, Problem, of_system
from ui.i18n import said_problem, t
from ui.request import checked

Call = Callable[[dict[str, Any]], dict[str, Any]]


def problem_dicts(problems: Iterable[Problem]) -> list[dict[str, str | None]]:
    """Problems as JSON in the reader's language, each once."""
    return [said_problem(problem.as_dict()) for problem in dict.fromkeys(problems)]


def callable_from_page(method: Call) -> Call:
    """``method`` as a plain function that always answers ``{"problems": [...], ...}``.

    Errors meant for people become problems; any other is our own mistake and is said to be, with
    the technical text folded away.
    """

    def call(data: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"problems": [], **method(checked(data))}
        except AtelierError as error:
            return {"problems": problem_dicts(error.problems)}
        except (OSError, MemoryError) as error:
            return {"problems": problem_dicts(of_system(error).problems)}
        except Exception as error:
            traceback.print_exc()
            problem = Problem(
                t("app.fault", error=repr(error)), next=t("app.fault_next"), detail=traceback.format_exc()
            )
            return {"problems": [problem.as_dict()]}

    call.__name__ = method.__name__
    call.__doc__ = " ".join((inspect.getdoc(method) or "").partition("\n\n")[0].split())
    return call
