"""A dataset with every fault the doctor knows, and one without any: to look at, and for tests.

Made from a seed out of pictures of the demo world; the same seed gives the same files. What was planted is
told as rule -> names of the files that break it.
"""

from __future__ import annotations

import io
import random
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from backend.demo.world import random_scene, render

TRIGGER = "zorvek"
WORDS = f"{TRIGGER} robot"
SIDE = 128

_CONFIG = f"""\
[general]
caption_extension = ".txt"
resolution = {SIDE}
enable_bucket = true
min_bucket_reso = 64
max_bucket_reso = 256

[[datasets]]
batch_size = 1

[[datasets.subsets]]
image_dir = "subject"
class_tokens = "{WORDS}"

[[datasets.subsets]]
image_dir = "tagged"
class_tokens = "{WORDS}"

[[datasets.subsets]]
image_dir = "regular"
class_tokens = "robot"
is_reg = true

[[datasets.subsets]]
image_dir = "masked"
conditioning_data_dir = "masks"
class_tokens = "{WORDS}"

[[datasets.subsets]]
image_dir = "cutouts"
class_tokens = "{WORDS}"
alpha_mask = true

[[datasets.subsets]]
image_dir = "bare"

[[datasets]]
batch_size = 4

[[datasets.subsets]]
image_dir = "batches"
class_tokens = "{WORDS}"

[[datasets]]
batch_size = 1
validation_split = 0.5

[[datasets.subsets]]
image_dir = "held"
class_tokens = "{WORDS}"
"""


@dataclass
class Planted:
    """A made dataset."""

    config: Path
    faults: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    """Rule -> names of the files (or folders) it must find."""


def plant(folder: Path, seed: int = 0) -> Planted:
    """Make the dataset with every fault in ``folder``, which is made and must not exist or be empty."""
    maker = _Maker(folder, seed)
    for part in (_subject, _subject_captions, _tagged, _regular, _masked, _cutouts, _bare, _batches, _held):
        part(maker)
    return maker.planted(_CONFIG)


def plant_nothing(folder: Path, seed: int = 0) -> Planted:
    """Make a dataset of the same kind without a fault."""
    maker = _Maker(folder, seed)
    for i in range(8):
        maker.picture("subject", f"good_{i}.png")
    for i in range(4):
        maker.picture("regular", f"class_{i}.png", words="robot")
        maker.picture("masked", f"masked_{i}.png")
        maker.save("masks", f"masked_{i}.png", _disc(SIDE))
    places = ("subject", "regular", "masked")
    tables = [table for table in _CONFIG.split("[[datasets.subsets]]") if table.strip()]
    kept = [table for table in tables[1:] if any(f'"{place}"' in table for place in places)]
    return maker.planted("[[datasets.subsets]]".join([tables[0], *kept]))


class _Maker:
    """Writes pictures and captions, each picture another, and keeps a list of faults."""

    def __init__(self, folder: Path, seed: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise FileExistsError(f"{folder} is not empty")
        self.folder, self.seed = folder, seed
        self.rng = random.Random(seed)
        self.drawn = 0
        self.faults: dict[str, set[str]] = {}

    def planted(self, config: str) -> Planted:
        path = self.folder / "dataset.toml"
        path.write_text(config, encoding="utf-8")
        return Planted(path, self.faults)

    def fault(self, rule: str, *names: str) -> None:
        self.faults.setdefault(rule, set()).update(names)

    def draw(self, size: tuple[int, int] = (SIDE, SIDE)) -> tuple[Image.Image, str]:
        """A new picture and its caption."""
        scene = random_scene(self.rng)
        self.drawn += 1
        picture = render(scene, self.seed + self.drawn)
        return picture if picture.size == size else picture.resize(size), scene.caption()

    def save(self, place: str, name: str, picture: Image.Image, **options: object) -> Path:
        path = self.folder / place / name
        path.parent.mkdir(exist_ok=True)
        picture.save(path, **options)  # type: ignore[arg-type]
        return path

    def picture(
        self, place: str, name: str, size: tuple[int, int] = (SIDE, SIDE), words: str = WORDS
    ) -> Path:
        """A new picture with a caption."""
        picture, caption = self.draw(size)
        path = self.save(place, name, picture)
        path.with_suffix(".txt").write_text(f"{words}, {caption}", encoding="utf-8")
        return path

    def changed(
        self, rule: str, name: str, change: Callable[[Image.Image], Image.Image], **options: object
    ) -> Path:
        """A picture of the subject that breaks a rule by what it is."""
        picture, caption = self.draw()
        path = self.save("subject", name, change(picture), **options)
        path.with_suffix(".txt").write_text(f"{WORDS}, {caption}", encoding="utf-8")
        self.fault(rule, name)
        return path


def _subject(maker: _Maker) -> None:
    for i in range(6):
        maker.picture("subject", f"good_{i}.png")
    _broken(maker)
    _kinds(maker)
    _copies(maker)
    _names(maker)
    for rule, name, size in (
        ("too_small", "tiny.png", (4, 4)),
        ("upscaled", "small.png", (SIDE // 2, SIDE // 2)),
        ("cropped", "long.png", (1600, 160)),
    ):
        maker.picture("subject", name, size)
        maker.fault(rule, name)


def _broken(maker: _Maker) -> None:
    cut = maker.picture("subject", "cut_off.png")
    data = cut.read_bytes()
    cut.write_bytes(data[: len(data) * 6 // 10])
    maker.picture("subject", "empty.png").write_bytes(b"")
    page = maker.picture("subject", "page.jpg")
    page.write_text("<!DOCTYPE html><title>404</title>", encoding="utf-8")
    maker.fault("unreadable", "cut_off.png", "empty.png", "page.jpg")


def _kinds(maker: _Maker) -> None:
    maker.save("subject", "old.jp2", maker.draw()[0])
    maker.fault("unsupported", "old.jp2")
    maker.changed("wrong_ending", "really_png.jpg", lambda picture: picture, format="PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    turn = Image.Transpose.ROTATE_90
    maker.changed("rotated", "on_side.jpg", lambda picture: picture.transpose(turn), exif=exif, quality=95)
    maker.changed("cmyk", "print.jpg", lambda picture: picture.convert("CMYK"), quality=95)
    maker.changed("deep", "deep.png", _deep)
    frames = [maker.draw()[0] for _ in range(2)]
    maker.changed(
        "animated", "moving.webp", lambda picture: picture, save_all=True, append_images=frames, lossless=True
    )
    maker.changed("transparent", "see_through.png", _see_through)
    maker.changed(
        "profile_broken", "profile.jpg", lambda picture: picture, icc_profile=bytes(200), quality=95
    )


def _copies(maker: _Maker) -> None:
    one = maker.picture("subject", "twice_a.png")
    other = one.with_name("twice_b.png")
    other.write_bytes(one.read_bytes())
    other.with_suffix(".txt").write_text(f"{WORDS}, once more", encoding="utf-8")
    maker.fault("exact_duplicate", "twice_b.png")
    picture, caption = maker.draw()
    for name in ("near_a.png", "near_b.jpg"):
        path = maker.save("subject", name, picture)
        path.with_suffix(".txt").write_text(f"{WORDS}, {caption}", encoding="utf-8")
    maker.fault("near_duplicate", "near_b.jpg")


def _names(maker: _Maker) -> None:
    maker.picture("subject", "pair.png")
    maker.save("subject", "pair.jpg", maker.draw()[0])
    maker.fault("shared_caption", "pair.png")  # both are of one size; the first by name is kept
    with suppress(OSError):  # Windows has no such names
        maker.picture("subject", "bell\x07.png")
        maker.fault("name_control", "bell\x07.png")
    composed = maker.picture("subject", unicodedata.normalize("NFC", "café.png"))
    apart = unicodedata.normalize("NFD", composed.name)
    if not composed.with_name(apart).exists():  # macOS takes both for one name
        maker.picture("subject", apart)
        maker.fault("unicode_twins", composed.name)  # the composed one is sorted behind


def _subject_captions(maker: _Maker) -> None:
    """Pictures that are sound, beside captions that are not."""
    long = f"{WORDS}, " + ", ".join(f"{i} green leaves" for i in range(40))
    texts: dict[str, bytes] = {
        "caption_empty": b"",
        "caption_encoding": f"{WORDS}, 赤いロボット".encode("cp932"),
        "caption_control": f"{WORDS}\x01, in a room".encode(),
        "caption_huge": f"{WORDS}, ".encode() * 80_000,
        "caption_lines": f"{WORDS}, by day\n{WORDS}, by night".encode(),
        "caption_cut": long.encode(),
        "trigger_missing": b"a machine in a garden",
    }
    for rule, data in texts.items():
        path = maker.picture("subject", f"{rule}.png").with_suffix(".txt")
        path.write_bytes(data)
        shown = ("caption_empty", "caption_cut", "trigger_missing")
        maker.fault(rule, f"{rule}.png" if rule in shown else path.name)
    for number, spelling in enumerate(("zorvex robot", "zor_vek robot", "Zorvek robot")):
        path = maker.picture("subject", f"spelt_{number}.png")
        path.with_suffix(".txt").write_text(f"{spelling} beside a tree", encoding="utf-8")
        maker.fault("trigger_spelling", path.name)
    maker.picture("subject", "no_caption.png").with_suffix(".txt").unlink()
    maker.fault("caption_missing", "no_caption.png")
    folder = maker.picture("subject", "caption_folder.png").with_suffix(".txt")
    folder.unlink()
    folder.mkdir()
    maker.fault("caption_folder", folder.name)
    with suppress(OSError):  # not every Windows lets one make links
        link = maker.picture("subject", "caption_unreadable.png").with_suffix(".txt")
        link.unlink()
        link.symlink_to("gone.txt")
        maker.fault("caption_unreadable", link.name)


def _tagged(maker: _Maker) -> None:
    """Lists of tags: one tag in all, one in only one, all others in some."""
    pool = ["metal", "outdoors", "smile", "blue eyes", "sky", "tree"]
    for i in range(8):
        tags = [WORDS, "masterpiece", *(tag for k, tag in enumerate(pool) if (i + k) % 3)]
        tags += ["outdors"] if i == 3 else []
        path = maker.picture("tagged", f"tagged_{i}.png")
        path.with_suffix(".txt").write_text(", ".join(tags), encoding="utf-8")
    maker.fault("tag_everywhere", "tagged_0.png")
    maker.fault("tag_once", "tagged_3.png")


def _regular(maker: _Maker) -> None:
    for i in range(4):
        maker.picture("regular", f"class_{i}.png", words="robot")
    good = maker.folder / "subject" / "good_0.png"
    leak = maker.folder / "regular" / "leak.png"
    leak.write_bytes(good.read_bytes())
    leak.with_suffix(".txt").write_text("robot", encoding="utf-8")
    maker.fault("reg_leak", "leak.png")


def _masked(maker: _Maker) -> None:
    disc = _disc(SIDE)
    masks: dict[str, Image.Image | None] = {
        "good_mask": disc,
        "mask_missing": None,
        "mask_unreadable": disc,
        "mask_shape": disc.resize((SIDE, SIDE // 2)),
        "mask_size": _disc(SIDE // 2),
        "mask_black": Image.new("L", (SIDE, SIDE)),
        "mask_inverted": disc.point(lambda value: 255 - value),
    }
    for rule, mask in masks.items():
        path = maker.picture("masked", f"{rule}.png")
        if mask is not None:
            maker.save("masks", path.name, mask)
        if rule != "good_mask":
            maker.fault(rule, path.name)
    broken = maker.folder / "masks" / "mask_unreadable.png"
    broken.write_bytes(broken.read_bytes()[:100])
    maker.save("masks", "mask_spare.png", disc)
    maker.fault("mask_spare", "mask_spare.png")


def _cutouts(maker: _Maker) -> None:
    for name, alpha in (("cutout.png", _disc(SIDE)), ("nothing.png", Image.new("L", (SIDE, SIDE)))):
        path = maker.picture("cutouts", name)
        with Image.open(io.BytesIO(path.read_bytes())) as picture:
            picture.putalpha(alpha)
            picture.save(path)
    maker.fault("mask_black", "nothing.png")


def _bare(maker: _Maker) -> None:
    for i in range(2):
        maker.picture("bare", f"bare_{i}.png").with_suffix(".txt").unlink()
    maker.fault("no_captions", "bare")


def _batches(maker: _Maker) -> None:
    for i in range(5):
        maker.picture("batches", f"square_{i}.png")
    maker.picture("batches", "tall.png", (SIDE, 3 * SIDE))
    maker.fault("small_bucket", "tall.png")


def _held(maker: _Maker) -> None:
    """Two pictures, of which one is held out; which one follows from the names."""
    one = maker.picture("held", "held_a.png")
    other = one.with_name("held_b.png")
    for suffix in (".png", ".txt"):
        other.with_suffix(suffix).write_bytes(one.with_suffix(suffix).read_bytes())
    maker.fault("validation_leak", "held_b.png")


def _deep(picture: Image.Image) -> Image.Image:
    grey = np.asarray(picture.convert("L")).astype(np.uint16) * 257
    return Image.fromarray(grey)


def _see_through(picture: Image.Image) -> Image.Image:
    seen = picture.convert("RGBA")
    seen.putalpha(_disc(SIDE))
    return seen


def _disc(side: int) -> Image.Image:
    """White in the middle, black around."""
    down, across = np.mgrid[:side, :side] - (side - 1) / 2
    return Image.fromarray(np.where(np.hypot(down, across) < side * 0.4, 255, 0).astype(np.uint8))


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of every file below, sorted: two folders are the same when these are."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(folder)), path.read_bytes()
