"""The doctor's command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from backend.demo.planted import Planted, files

ROOT = Path(__file__).resolve().parents[2]


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "lint_dataset.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_report_and_exit_codes(planted: Planted, clean: Planted) -> None:
    done = run(planted.config)
    assert done.returncode == 2, done.stderr
    assert "[!!] 3 pictures cannot be read" in done.stdout
    assert "cut_off.png: is cut off" in done.stdout
    assert "bell\\x07.png" in done.stdout and "\x07" not in done.stdout
    assert "--fix exact_duplicate --yes" in done.stdout

    done = run(clean.config)
    assert done.returncode == 0 and "Nothing found." in done.stdout

    (clean.config.parent / "subject" / "good_0.txt").write_text("", encoding="utf-8")
    assert run(clean.config).returncode == 1


def test_json_is_the_same_data(planted: Planted) -> None:
    done = run(planted.config, "--json")
    data = json.loads(done.stdout)
    assert done.returncode == data["exit_code"] == 2
    told = {
        one["rule"]: {Path(example["path"]).name for example in one["examples"]} for one in data["findings"]
    }
    assert told == planted.faults


def test_a_fix_is_shown_then_made_then_taken_back(planted: Planted) -> None:
    folder = planted.config.parent
    before = dict(files(folder))
    shown = run(planted.config, "--fix", "exact_duplicate", "deep")
    assert shown.returncode == 0 and "Nothing was changed" in shown.stdout and "_excluded" in shown.stdout
    assert dict(files(folder)) == before

    made = run(planted.config, "--fix", "exact_duplicate", "deep", "--yes")
    assert made.returncode == 0, made.stderr
    assert (folder / "subject" / "_excluded" / "twice_b.png").is_file()
    assert (folder / "subject" / "deep.png.bak").is_file()

    assert "deep: taken back" in run(planted.config, "--undo").stdout
    assert "exact_duplicate: taken back" in run(planted.config, "--undo").stdout
    assert dict(files(folder)) == before
    last = run(planted.config, "--undo")
    assert last.returncode == 2 and "No fix of" in last.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--fix", "spelling"), "There is no rule spelling"),
        (("--fix", "tag_once"), "tag_once: nothing to fix"),
    ],
)
def test_rules_without_a_fix(planted: Planted, words: tuple[str, ...], said: str) -> None:
    done = run(planted.config, *words)
    assert said in done.stdout + done.stderr


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    done = run(tmp_path / "nowhere")
    assert done.returncode == 2 and "nowhere" in done.stderr and "Traceback" not in done.stderr
