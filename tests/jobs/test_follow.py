"""Following a run: everything that is written is seen once, and little is kept."""

from __future__ import annotations

import json
import math
import random
import time
from pathlib import Path

import pytest

from backend.jobs.curve import Curve
from backend.jobs.events import EventLog, read_events
from backend.jobs.follow import Follower, inside
from backend.jobs.logtext import LogTail, printable
from backend.jobs.runs import Run


def step(events: EventLog, number: int, total: int = 100, loss: float = 0.1, **fields: object) -> None:
    events.emit(
        "step", step=number, total=total, loss=loss, **{"lr": {"unet": 1e-4}, "seconds": 0.5, **fields}
    )


def test_the_view_grows_with_the_events(run: Run) -> None:
    events, follower = EventLog(run.events), Follower(run)
    assert follower.update().step == 0
    events.emit("plan", steps=100, epochs=4, images=12)
    events.emit("phase", name="caching", title="Caching latents")
    events.emit("progress", phase="caching", done=3, total=12, unit="pictures")
    view = follower.update()
    assert (view.total, view.epochs, view.phase_title, view.done, view.goal) == (
        100,
        4,
        "Caching latents",
        3,
        12,
    )
    events.emit("phase", name="train", title="Training")
    step(events, 1, epoch=1, epochs=4, grad_norm=0.4, images_per_second=2.0)
    view = follower.update()
    assert (view.step, view.goal, view.grad_norm, view.images_per_second) == (1, 0, 0.4, 2.0)
    assert view.lr == {"unet": 1e-4}
    events.emit("progress", phase="sampling", done=1, total=4, unit="pictures")
    view = follower.update()
    assert (view.phase, view.phase_title, view.goal) == ("sampling", "", 4)


def test_half_a_line_waits_and_damaged_or_unknown_records_are_passed_over(run: Run) -> None:
    follower = Follower(run)
    with run.events.open("w") as file:
        file.write('{"t": 1, "type": "step", "step": 1, "total": 5, "loss": 0.1}\n{"t": 2, "type": "st')
        file.flush()
        assert follower.update().step == 1
        file.write('ep", "step": 2, "total": 5, "loss": 0.1}\n')
        file.write('garbage\n{"type": "step"}\n{"type": "step", "step": "x"}\n{"type": "dance"}\n[]\n')
        file.write('{"type": "sample", "path": "../../secret.png"}\n{"type": "saved"}\n')
        file.write('{"type": "step", "step": 3, "total": 5, "loss": null}\n')
    view = follower.update()
    assert (view.step, view.loss, len(view.samples), len(view.saved)) == (3, None, 0, 0)
    assert [bucket.last for bucket in view.curve.buckets] == [1, 2]


@pytest.mark.parametrize(
    ("path", "expected"),
    [("samples/a.png", "samples/a.png"), ("samples\\a.png", "samples/a.png"), ("../a.png", None),
     ("/etc/passwd", None), ("C:\\a.png", None), ("", None), ("a/../../b", None)],
)  # fmt: skip
def test_sample_paths_stay_inside_the_run(path: str, expected: str | None) -> None:
    assert inside(path) == expected


def test_time_left_leaves_out_pauses(run: Run, program, until) -> None:
    from backend.jobs import control, process

    code = (
        'events.emit("state", state="running")\n'
        'for s in range(1, 41): events.emit("step", step=s, total=100, loss=0.1, seconds=60 if s % 10 == 0 else 2)\n'
        "time.sleep(30)"
    )
    process.start(run, program(code)(run))
    until(run, "running")
    time.sleep(0.2)
    assert Follower(run).update().eta == pytest.approx(120)
    thread = control.stop_now(run, grace=1)
    assert thread is not None
    thread.join(10)
    assert Follower(run).update().eta is None


def test_a_resumed_run_replaces_what_it_does_again(run: Run) -> None:
    events, follower = EventLog(run.events), Follower(run)
    for number in range(1, 21):
        step(events, number, loss=1.0)
    events.emit("saved", step=10, epoch=1, kind="step", path="checkpoints/a-10.safetensors")
    events.emit("error", problems=[{"what": "out of memory"}])
    follower.update()
    events.emit("state", state="starting")
    for number in range(11, 16):
        step(events, number, loss=0.5)
    events.emit("saved", step=10, epoch=1, kind="step", path="checkpoints/a-10.safetensors")
    view = follower.update()
    assert [bucket.last for bucket in view.curve.buckets] == list(range(1, 16))
    assert [bucket.mean for bucket in view.curve.buckets[9:12]] == [1.0, 0.5, 0.5]
    assert len(view.saved) == 1
    assert not view.messages


def test_measurements_on_pictures_held_out_are_a_curve_of_their_own(run: Run) -> None:
    events = EventLog(run.events)
    for number, loss in ((10, 0.4), (20, 0.3), (20, 0.2), (30, None)):
        events.emit("validation", step=number, loss=loss)
    view = Follower(run).update()
    assert [(point.last, point.mean) for point in view.validation.buckets] == [(10, 0.4), (20, 0.2)]
    assert not view.curve.buckets


def test_what_changed_before_a_resume_is_a_message(run: Run) -> None:
    events, follower = EventLog(run.events), Follower(run)
    row = {
        "what": "learning_rate",
        "before": "0.1",
        "now": "0.2",
        "effect": "changes",
        "key": "learning_rate",
    }
    events.emit("differences", step=6, rows=[row])
    events.emit("differences", step=7, rows=[{**row, "what": "save_state", "effect": "safe"}])
    found = [(one.kind, one.text) for one in follower.update().messages]
    assert found == [
        ("warning", "changed since the restore point of step 6: learning_rate was 0.1, is 0.2"),
        ("note", "changed since the restore point of step 7: save_state was 0.1, is 0.2"),
    ]


def test_equal_messages_are_counted_and_not_repeated(run: Run) -> None:
    events = EventLog(run.events)
    for _ in range(500):
        events.emit("warning", text="caption cut")
        events.emit("note", text="done")
    messages = Follower(run).update().messages
    assert [(message.text, message.count) for message in messages] == [("caption cut", 500), ("done", 1)]


def test_a_hundred_thousand_steps_are_read_quickly_and_kept_small(run: Run) -> None:
    line = '{"t": %d, "type": "step", "step": %d, "total": 100000, "loss": %.4f, "lr": {"unet": 1e-4}, "seconds": 0.5}\n'
    values = [random.Random(1).random() for _ in range(100)]
    with run.events.open("w") as file:
        for number in range(1, 100_001):
            file.write(line % (number, number, 9.5 if number == 77_777 else values[number % 100]))
    follower, before, calls = Follower(run), time.process_time(), 0
    while (view := follower.update(budget=0.2)).catching_up:
        calls += 1
    assert view.step == 100_000
    assert calls > 0, "one call must not take the whole file"
    assert time.process_time() - before < 6
    assert len(view.curve.buckets) <= 500
    assert max(bucket.high for bucket in view.curve.buckets) == 9.5
    assert sum(bucket.count for bucket in view.curve.buckets) == 100_000
    before = time.process_time()
    follower.update()
    assert time.process_time() - before < 0.05


def test_smoothing_starts_at_the_first_value_and_follows(run: Run) -> None:
    curve = Curve()
    for number in range(1, 1001):
        curve.add(number, 1.0 if number <= 500 else 0.0, total=1000)
    assert curve.buckets[0].smooth == pytest.approx(1.0)
    assert curve.buckets[-1].smooth < 0.01
    curve.add(1001, math.inf)
    assert curve.buckets[-1].last == 1000
    reduced = curve.reduced(60)
    assert len(reduced) <= 60
    assert (reduced[0].first, reduced[-1].last, reduced[0].high, reduced[-1].low) == (1, 1000, 1.0, 0.0)


def test_the_log_folds_progress_and_shows_no_codes_secrets_or_home(monkeypatch) -> None:
    tail = LogTail(keep=5)
    tail.feed("loading\n\rsteps:  10%|#  | 1/10 [00:01<00:09, 1.0it/s]")
    tail.feed("\rsteps:  20%|## | 2/10 [00:02<00:08, 1.0it/s]")
    assert tail.lines() == ["loading", "steps:  20%|## | 2/10 [00:02<00:08, 1.0it/s]"]
    tail.feed("\n\x1b[31msaved\x1b[0m \x07\u202egnp\n")
    tail.feed(f"token hf_{'a' * 30} in {Path.home()}/models and {Path.home()}\n")
    assert tail.lines()[2:] == ["saved gnp", "token hf_[hidden] in ~/models and ~"]
    assert tail.end == 4
    for number in range(20):
        tail.feed(f"line {number}\n")
    assert tail.since(0) == (19, [f"line {number}" for number in range(15, 20)])
    assert tail.since(23) == (23, ["line 19"])
    assert tail.since(99) == (24, [])
    assert printable("a\tb\nc") == "a\tb\nc"


def test_a_character_cut_in_two_by_a_read_comes_whole(run: Run) -> None:
    follower, text = Follower(run), "画像を読み込み中\n".encode()
    with run.log.open("wb", buffering=0) as file:
        for position in range(len(text)):
            file.write(text[position : position + 1])
            follower.update()
    assert follower.update().log.lines() == ["画像を読み込み中"]


def test_only_the_end_of_a_huge_log_is_read(run: Run) -> None:
    run.log.write_bytes(b"".join(b"line %d of a long night\n" % number for number in range(200_000)))
    view = Follower(run).update()
    assert view.log_start > 0
    assert view.log.lines()[-1] == "line 199999 of a long night"
    assert len(view.log.lines()) == 400


def test_reading_in_parts_gives_every_record_once(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text(
        "".join(json.dumps({"type": "note", "n": n, "x": "y" * (n % 50)}) + "\n" for n in range(500))
    )
    seen, offset = [], 0
    while True:
        records, after = read_events(path, offset, limit=300)
        seen += [record["n"] for record in records]
        if after == offset:
            break
        assert after - offset < 500
        offset = after
    assert seen == list(range(500))
