"""Class pictures for DreamBooth and its like, drawn by the base model before training.

What the model shows of the general class is what it shall not forget, so that its own pictures of it are
the best lesson (prior preservation, Ruiz et al. 2022, section 4.2). They go into the regularisation folder
and stay there: a later run finds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from backend import keyed
from backend.data.folders import class_pictures, look, repeats_and_words
from backend.errors import InputError, RunFault
from backend.generate.pictures import safe_name
from backend.generate.request import Request
from backend.jobs.events import Sink
from backend.settings import Settings, check, check_files
from backend.wholefile import write_text

STEPS = 30
BATCH = 4
"""Pictures drawn in one pass."""


class Halted(Exception):
    """The user pressed Stop while class pictures were drawn; those that are there stay."""


def _never() -> bool:
    return False


def draw_class_pictures(settings: Settings, events: Sink, should_stop: Callable[[], bool] = _never) -> None:
    """Draw what is missing of ``num_class_images``; nothing where the folder holds enough.

    Raises:
        InputError: settings or files are wrong.
        RunFault: a picture came out unusable.
        Halted: the user stopped.
    """
    wanted = settings.dataset
    if not wanted.num_class_images or not wanted.reg_data_dir or wanted.dataset_config:
        return
    folder = Path(wanted.reg_data_dir.strip()).expanduser()
    there = class_pictures(folder) if folder.is_dir() else 0
    missing = wanted.num_class_images - there
    if missing <= 0:
        return
    problems = [*check(settings).errors, *check_files(settings)]
    if problems:
        raise InputError(problems)
    target = place(folder, wanted.class_prompt or "")
    target.mkdir(parents=True, exist_ok=True)
    events.emit("phase", name="class pictures", title=f"Drawing {missing} class pictures into {target.name}")
    _draw(settings, target, there, missing, events, should_stop)


def place(folder: Path, prompt: str) -> Path:
    """Where new pictures go: beside those that are there, or into a folder named by the prompt."""
    contents = look(folder) if folder.is_dir() else None
    numbered = [name for name in contents.folders if repeats_and_words(name)] if contents else []
    if numbered:
        return folder / numbered[0]
    if (contents and contents.pictures) or repeats_and_words(folder.name):
        return folder
    return folder / safe_name(f"1_{prompt.strip()}")


def requests(settings: Settings, first: int, count: int) -> Iterator[Request]:
    """Of picture ``first`` on, each with a seed of its own, at the size that is trained."""
    size = settings.dataset.resolution or (None, None)
    for index in range(first, first + count):
        seed = keyed.key(settings.schedule.seed or 0, "class picture", index) % 2**32
        yield Request(
            prompt=settings.dataset.class_prompt or "",
            width=size[0],
            height=size[1],
            seed=seed,
            steps=STEPS,
            sampler="euler_a",
            batch=BATCH,
            clip_skip=settings.model.clip_skip,
            vae=settings.model.vae or "",
        )


def _draw(
    settings: Settings, target: Path, first: int, count: int, events: Sink, should_stop: Callable[[], bool]
) -> None:
    from backend.generate import engine, pictures
    from backend.generate.parameters import parameters_text
    from backend.generate.warm import Warm

    def say(**facts: object) -> None:
        if facts.get("note"):
            events.emit("note", text=str(facts["note"]))

    chosen, warm = settings.sd3, Warm()
    files = {"clip_l": chosen.clip_l, "clip_g": chosen.clip_g, "t5xxl": chosen.t5xxl}
    encoders = {name: Path(file).expanduser() for name, file in files.items() if file}
    base = Path(settings.model.pretrained_model_name_or_path).expanduser()
    try:
        model, attachments = warm.use(base, say, encoders)
        asked = list(requests(settings, first, count))
        drawn = engine.draw(model, asked, should_stop=should_stop, attachments=attachments)
        for done, picture in enumerate(drawn, start=1):
            if picture.fault:
                raise RunFault(
                    f"a class picture cannot be used: {picture.fault}",
                    next="try the prompt in Generate, or give class pictures of your own as reg_data_dir",
                    key="class_prompt",
                )
            path = target / f"class_{picture.request.seed:010d}.png"
            pictures.save(picture.image, path, parameters_text(picture.request))
            caption = path.with_suffix(settings.dataset.caption_extension)
            write_text(caption, settings.dataset.class_prompt or "")
            events.emit("progress", phase="class pictures", done=done, total=count, unit="pictures")
    except engine.Stopped:
        raise Halted from None
    finally:
        warm.unload()
