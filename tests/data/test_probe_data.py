"""The probe's command line, and what the dataset engine may import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def probe(root: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(root / "tools" / "probe_data.py"), *args],
        capture_output=True,
        text=True,
        cwd=root.parent,
    )


def test_buckets_give_the_same_structure(root: Path, tmp_path: Path) -> None:
    source, out = root / "tests" / "golden" / "buckets.json", tmp_path / "r.json"
    assert probe(root, "buckets", "--in", str(source), "--out", str(out)).returncode == 0
    given, answered = json.loads(source.read_text()), json.loads(out.read_text())
    assert len(given) == len(answered)
    for theirs, ours in zip(given, answered, strict=True):
        assert ours["settings"] == theirs["settings"]
        assert ours.get("predefined") == theirs.get("predefined")
        differing = [
            a["size"]
            for a, b in zip(theirs["assign"], ours["assign"], strict=True)
            if (a["size"], a["bucket"], a["resized"]) != (b["size"], b["bucket"], b["resized"])
        ]
        assert differing in ([], [[63, 64]])


def test_captions_give_the_same_cases(root: Path, tmp_path: Path) -> None:
    source, out = root / "tests" / "golden" / "captions.json", tmp_path / "r.json"
    assert probe(root, "captions", "--in", str(source), "--out", str(out)).returncode == 0
    given, answered = json.loads(source.read_text()), json.loads(out.read_text())
    assert [{**case, "result": None} for case in answered] == [{**case, "result": None} for case in given]
    plain = [i for i, case in enumerate(given) if case["subset"] == {}]
    assert plain and all(answered[i]["result"] == given[i]["result"] for i in plain)


def test_bad_input_is_said_in_words(root: Path, tmp_path: Path) -> None:
    done = probe(root, "buckets", "--in", str(tmp_path / "no.json"), "--out", str(tmp_path / "r.json"))
    assert done.returncode == 2 and "no.json" in done.stderr and "Traceback" not in done.stderr
    (tmp_path / "bad.json").write_text('{"a": 1}')
    done = probe(root, "captions", "--in", str(tmp_path / "bad.json"), "--out", str(tmp_path / "r.json"))
    assert done.returncode == 2 and "bad.json" in done.stderr and "Traceback" not in done.stderr


def test_planning_loads_nothing_heavy(root: Path) -> None:
    code = (
        "import sys, backend.data, backend.data.plan, backend.data.config, backend.data.captions; "
        "print([m for m in ('torch', 'numpy', 'PIL', 'cv2', 'diffusers', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == "[]", done.stderr
