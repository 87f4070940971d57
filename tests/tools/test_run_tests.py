"""Which failures the test command tries again, and how it finds them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.run_tests import FEW, deserves_another_try, failed_tests

PAGE = "tests/browser/test_some_page.py::test_it[one]"


@pytest.mark.parametrize(
    ("failed", "again"),
    [
        ([], False),
        ([PAGE], True),
        ([PAGE, "tests/data/test_buckets.py::test_it"], False),
        (["tests/browser/test_some_page.py"], False),
        ([PAGE + str(n) for n in range(FEW)], True),
        ([PAGE + str(n) for n in range(FEW + 1)], False),
    ],
    ids=["none", "page", "page-and-other", "unreadable-file", "few", "many"],
)
def test_only_a_few_tests_of_the_page_are_tried_again(failed: list[str], again: bool) -> None:
    assert deserves_another_try(failed) is again


def test_the_failed_ones_are_read_from_what_pytest_wrote(tmp_path: Path) -> None:
    written = tmp_path / "lastfailed"
    assert failed_tests(written) == []
    written.write_text("{ cut")
    assert failed_tests(written) == []
    written.write_text(json.dumps({"b": True, "a": True}))
    assert failed_tests(written) == ["a", "b"]
