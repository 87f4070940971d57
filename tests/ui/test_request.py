"""What a caller may get wrong is said, with the field that it is in, and nothing is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ui.calls import callable_from_page
from ui.context import Context
from ui.drafts import Drafts
from ui.files import FileBrowser
from ui.tabs.runs import RunsPage


def answer(data: Any) -> dict[str, Any]:
    """A call that uses its fields as calls do."""

    def use(data: dict[str, Any]) -> dict[str, Any]:
        return {"values": dict(data["values"]), "page": int(data.get("page") or 1)}

    return callable_from_page(use)(data)


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({}, "values"),
        ({"values": None}, "values"),
        ({"values": [1]}, "values"),
        ({"values": "text"}, "values"),
        ({"values": {}, "page": "../.."}, "page"),
        ({"values": {}, "page": [1]}, "page"),
        ({"values": {"train_data_dir": "/data/a\0b"}}, "train_data_dir"),
        ({"values": {"loras": [{"file": "\ud800"}]}}, "file"),
        ({"values": {"a\0": 1}}, "a\0"),
    ],
)
def test_a_wrong_field_is_named(data: dict[str, Any], field: str) -> None:
    reply = answer(data)
    (problem,) = reply["problems"]
    assert problem["key"] == field and not problem["detail"] and "values" not in reply


def test_what_is_no_object_is_refused() -> None:
    assert answer([1])["problems"][0]["what"] and answer(None)["problems"][0]["what"]


def test_what_is_meant_goes_through() -> None:
    reply = answer({"values": {"train_data_dir": "/data/日本語 😀 [%&'#]"}, "page": "2", "more": None})
    assert reply["problems"] == [] and reply["page"] == 2


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "/etc", "a\0b", "x" * 5000])
def test_nothing_outside_is_read_or_written(tmp_path: Path, path: str) -> None:
    (tmp_path / "runs").mkdir()
    drafts = Drafts(tmp_path / "drafts")
    files = FileBrowser((tmp_path,), drafts)
    for method in files.methods():
        reply = callable_from_page(method)({"path": path, "key": "train_data_dir"})
        assert "passwd" not in str({key: value for key, value in reply.items() if key != "problems"})
    page = RunsPage(Context(tmp_path, tmp_path / "runs", drafts))
    for method in (page.card, page.throw_away, page.again, page.fork, page.remark):
        (problem,) = callable_from_page(method)({"run": path, "file": path})["problems"]
        assert problem["what"] and not problem["detail"]
    assert list((tmp_path / "runs").iterdir()) == []
