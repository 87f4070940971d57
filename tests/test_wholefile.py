"""Files that are whole or not there at all, on a disk that takes no more."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from backend.errors import disk_is_full
from backend.wholefile import write_text
from tests.jobs.test_events import needs_limits, no_room_beyond
from ui.calls import callable_from_page
from ui.drafts import Drafts


@needs_limits
def test_a_write_that_breaks_off_leaves_the_old_file_and_names_it(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    write_text(path, "old")
    with no_room_beyond(1000), pytest.raises(OSError) as caught:
        write_text(path, "new" * 10_000)
    assert caught.value.filename == str(path), "and not a name that nobody knows"
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_keeps_the_form_and_is_said_in_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafts = Drafts(tmp_path)
    drafts.save("train", {"output_name": "old"})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def keep(_: dict[str, object]) -> dict[str, object]:
        drafts.save("train", {"output_name": "new"})
        return {}

    with monkeypatch.context() as patch:
        patch.setattr("backend.wholefile.os.fsync", full)
        (problem,) = callable_from_page(keep)({})["problems"]
    assert "the disk is full" in problem["what"] and "free some space" in problem["next"]
    assert Path(problem["where"]).parent == tmp_path and Path(problem["where"]).suffix == ".json"
    assert Drafts(tmp_path).load("train") == {"output_name": "old"}
    assert disk_is_full(OSError(errno.ENOSPC, "")) and not disk_is_full(OSError(errno.EACCES, ""))
