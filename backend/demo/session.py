"""The demo: the whole main job on a small model, from pictures to a LoRA you can see."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.demo import sets, subject
from backend.demo.describing import describe
from backend.demo.progress import Progress, clock
from backend.errors import Problem, RunFault
from backend.jobs import control
from backend.jobs.follow import Follower, RunView
from backend.jobs.process import create_and_start
from backend.jobs.runs import Run
from backend.settings import Settings, read_preset, to_toml
from backend.system.paths import REPOSITORY, runs_root

BUNDLED = REPOSITORY / "models" / "demo" / "atelier-demo.safetensors"
"""Trained by ``tools/make_demo.py`` on the demo's own world of shapes and colours."""
PRESET = REPOSITORY / "presets" / "sd15" / "demo.toml"
NAME = "demo-creature"
PROMPTS = (
    (f"{subject.TRIGGER} on a blue background", 11),
    (f"{subject.TRIGGER} in a meadow", 12),
    ("a red circle on a white background", 13),
)
"""What is drawn before and after, with seeds: the subject, the subject elsewhere, something else."""
DRAW_STEPS = 20
SAMPLER = "dpmsolver++"
"""The one that the small model was judged by."""
GUIDANCE = 3.0
"""So small a model overdoes it at the usual 7."""
_LOOK_SECONDS = 0.25


@dataclass(frozen=True)
class Outcome:
    """Where the demo left what it made."""

    run: Run
    lora: Path
    picture: Path


def run_demo(steps: int, progress: Progress, model: Path | None = None) -> Outcome:
    """Prepare, train for ``steps`` steps, and compare, with ``model`` or the small one.

    :raises AtelierError: with the trainer's own problems when training does not come to its end.
    """
    folder = runs_root() / "demo-data"
    pictures = prepare_pictures(folder, progress)
    model = model or prepare_model(folder, progress)
    run = create_and_start(runs_root(), NAME, to_toml(demo_settings(model, pictures, steps)))
    progress.say(f"3. Training a LoRA in {run.path}")
    view = follow(run, progress)
    lora = result_of(view)
    progress.say("4. Drawing the same prompts without and with the LoRA")
    return Outcome(run, lora, draw_comparison(model, lora, run.path / "before-after.png", progress))


def prepare_pictures(folder: Path, progress: Progress) -> Path:
    """Draw and describe the dataset, and put class pictures to it; returns the folder to train on.

    The class pictures lie in the training folder, two of seven. As regularisation pictures they would be half
    of what is shown: more than is needed here, and time that the subject does not get.

    :raises InputError: when the bundled tagger or captioner is missing.
    """
    progress.say("1. Drawing twelve pictures of a creature that no model knows, and describing them")
    pictures = subject.make_dataset(folder / "pictures")
    shown = pictures / subject.FOLDER
    progress.show("Describing", 0, len(subject.PICTURES))
    found = describe(shown, subject.TRIGGER, lambda done, of: progress.show("Describing", done, of))
    sets.make_regularisation(pictures)
    progress.say(f"  {shown}")
    for name, text in list(found.items())[:3]:
        progress.say(f"    {name}  {text}")
    return pictures


def prepare_model(folder: Path, progress: Progress) -> Path:
    """The bundled small model; where it is missing, one of the same shape with random weights."""
    if BUNDLED.is_file():
        progress.say("2. The small model that comes with Atelier")
        progress.say(f"  {BUNDLED}")
        return BUNDLED
    model = folder / "small-model.safetensors"
    if model.is_file():
        progress.say("2. The small model is there already")
    else:
        from backend.demo.tiny import build_tiny_sd15

        progress.say("2. Making a small model of Stable Diffusion's shape, its weights random")
        build_tiny_sd15(model)
    progress.say(f"  {model}")
    return model


def sample_line(prompt: str, seed: int) -> str:
    """A line of ``sample_prompts`` that is drawn as the demo draws."""
    side = subject.SIZE
    return f"{prompt} --d {seed} --w {side} --h {side} --s {DRAW_STEPS} --l {GUIDANCE:g} --ss {SAMPLER}"


def demo_settings(model: Path, pictures: Path, steps: int) -> Settings:
    """The demo preset with this model, these pictures and so many steps."""
    changes: dict[str, Any] = {
        "pretrained_model_name_or_path": str(model),
        "train_data_dir": str(pictures),
        "caption_extension": ".txt",
        "output_name": NAME,
        "max_train_steps": steps,
        "sample_prompt_text": sample_line(*PROMPTS[0]),
        "sample_every_n_steps": max(50, steps // 4),
    }
    return read_preset(PRESET).settings.replace(**changes)


def follow(run: Run, progress: Progress) -> RunView:
    """Show a run until it ends; returns its last view. Ctrl+C stops the training in a valid state.

    :raises RunFault: when it did not finish.
    """
    follower = Follower(run)
    try:
        while True:
            view = follower.update()
            show(view, progress)
            if not view.state.active and view.state.state != "created":
                break
            time.sleep(_LOOK_SECONDS)
    except KeyboardInterrupt:
        control.stop(run)
        progress.say("Stopping: the training finishes its step and saves.")
        raise
    view = follower.update()
    show(view, progress)
    if view.state.state != "finished":
        raise _ended_early(view)
    return view


def _ended_early(view: RunView) -> RunFault:
    """The trainer's own problems, or that it was stopped."""
    names = Problem.__dataclass_fields__
    problems = [
        Problem(**{name: value for name, value in problem.items() if name in names})
        for problem in view.state.problems
    ]
    log = f"the log is {view.run.log}"
    return RunFault(problems or Problem(f"the training ended early ({view.state.state})", next=log))


def show(view: RunView, progress: Progress) -> None:
    """One line of progress out of a view."""
    if view.phase == "training" or (view.step and not view.goal):
        words = f"{view.step}/{view.total}"
        if view.average is not None:
            words += f"  loss {view.average:.3f}"
        if view.seconds_per_step:
            words += f"  {1 / view.seconds_per_step:.1f} it/s"
        if view.eta:
            words += f"  {clock(view.eta)} left"
        progress.show(view.phase_title or "Training", view.step, view.total, words)
    elif view.phase_title:
        progress.show(view.phase_title, view.done, view.goal)


def result_of(view: RunView) -> Path:
    """The LoRA file that a finished run names."""
    assert view.result is not None, "a finished run without a result"
    named = Path(view.run.path, view.result["path"]).expanduser()
    if named.is_file():
        return named
    raise RunFault("the LoRA file is gone", where=str(named), next="run the demo again")


def draw_comparison(model: Path, lora: Path, target: Path, progress: Progress) -> Path:
    """Draw :data:`PROMPTS` without and with the LoRA onto one sheet at ``target``."""
    from backend.demo.compare import draw_pairs, sheet
    from backend.generate.request import Request

    requests = [
        Request(
            prompt=prompt,
            width=subject.SIZE,
            height=subject.SIZE,
            seed=seed,
            steps=DRAW_STEPS,
            scale=GUIDANCE,
            sampler=SAMPLER,
        )
        for prompt, seed in PROMPTS
    ]
    total = 2 * len(requests)
    progress.show("Drawing", 0, total)
    pairs = draw_pairs(model, lora, requests, lambda done, of: progress.show("Drawing", done, of))
    references = [
        subject.draw(pose, scene, index) for index, (pose, scene) in enumerate(subject.PICTURES[:4])
    ]
    sheet(pairs, references).save(target)
    return target
