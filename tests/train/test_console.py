"""What the terminal and its log file show."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest

from backend.errors import InputError, Problem
from backend.jobs.events import NoEvents
from backend.settings import Settings
from backend.train.console import Console


def step(number: int, total: int = 9) -> dict[str, Any]:
    return {
        "step": number,
        "total": total,
        "epoch": 1,
        "epochs": 1,
        "loss": 0.5,
        "average": 0.5,
        "seconds": 0.1,
    }


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(stream: io.StringIO, copy: io.StringIO | None = None, **options: Any) -> str:
    console = Console(NoEvents(), stream, copy)
    console.follow(Settings.from_flat(options).tracking)
    console.emit("note", text="one thing")
    for number in range(1, 10):
        console.emit("step", **step(number))
    console.emit("warning", text="odd")
    console.emit("error", problems=[Problem("broken").as_dict()])
    console.close()
    return stream.getvalue()


def test_by_default_everything_but_steps_in_between() -> None:
    lines = shown(io.StringIO()).splitlines()
    assert lines[0] == "note: one thing" and lines[-2:] == ["warning: odd", "error: broken"]
    assert [line.split()[1] for line in lines if line.startswith("step")] == ["1/9", "9/9"]


@pytest.mark.parametrize(
    ("level", "steps", "others"),
    [
        ("DEBUG", 9, ["note", "warning", "error"]),
        ("INFO", 2, ["note", "warning", "error"]),
        ("WARNING", 0, ["warning", "error"]),
        ("ERROR", 0, ["error"]),
        ("CRITICAL", 0, []),
    ],
)
def test_levels(level: str, steps: int, others: list[str]) -> None:
    copy = io.StringIO()
    lines = shown(io.StringIO(), copy, console_log_level=level).splitlines()
    assert len([line for line in lines if line.startswith("step")]) == steps
    assert [line.split(":")[0] for line in lines if not line.startswith("step")] == others
    assert "note: one thing" in copy.getvalue() and "error: broken" in copy.getvalue(), (
        "log.txt has everything"
    )


def test_a_file_takes_the_terminals_lines(tmp_path: Path) -> None:
    file = tmp_path / "new" / "log.txt"
    assert shown(io.StringIO(), console_log_file=str(file)) == "error: broken\n"
    first = file.read_text().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO     note: one thing", first[0])
    assert first[-2].endswith("WARNING  warning: odd") and "step 9/9" in first[-3]
    shown(io.StringIO(), console_log_file=str(file), console_log_simple=True)
    assert file.read_text().splitlines()[len(first)] == "note: one thing", "what was in the file stays"


def test_progress_still_shows_on_a_terminal_beside_the_file(tmp_path: Path) -> None:
    assert "\rstep 9/9" in shown(Terminal(), console_log_file=str(tmp_path / "log"))


def test_plain_lines_are_never_written_over() -> None:
    assert "\r" in shown(Terminal())
    assert "\r" not in shown(Terminal(), console_log_simple=True)


def test_a_file_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        shown(io.StringIO(), console_log_file=str(tmp_path / "log"))


def test_lines_that_find_no_room_end_no_run() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    assert "one thing" in shown(io.StringIO(), Full())
    shown(Full())


def test_a_terminal_that_went_away_is_known_to_the_caller() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        shown(Gone())
