"""Taggers and captioners: which there are, where they lie, and how they get there.

Nothing is fetched unless it was asked for by name, and never when ``HF_HUB_OFFLINE`` is set; then, or
when the network fails, people are told what to download, how large it is, and where to put it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from backend.errors import EnvironmentFault, InputError, Problem
from backend.system.paths import REPOSITORY, home

Say = Callable[[str], None]
Kind = Literal["tagger", "captioner"]
BUNDLED = "bundled"


@dataclass(frozen=True)
class Known:
    """A model that people use."""

    name: str
    """On the hub."""
    title: str
    megabytes: int
    """About, from its number of parameters and their precision; the hub tells exactly before a download."""
    note: str = ""


TAGGERS: tuple[Known, ...] = (
    Known("SmilingWolf/wd-swinv2-tagger-v3", "WD SwinV2 v3", 470, "a good first choice"),
    Known("SmilingWolf/wd-vit-tagger-v3", "WD ViT v3", 380),
    Known("SmilingWolf/wd-convnext-tagger-v3", "WD ConvNeXt v3", 400),
    Known(
        "SmilingWolf/wd-eva02-large-tagger-v3",
        "WD EVA02 large v3",
        1260,
        "the most exact, and slow without a card",
    ),
    Known("SmilingWolf/wd-vit-large-tagger-v3", "WD ViT large v3", 1260),
    Known("SmilingWolf/wd-v1-4-moat-tagger-v2", "WD 1.4 MOAT v2", 330),
    Known("SmilingWolf/wd-v1-4-convnext-tagger-v2", "WD 1.4 ConvNeXt v2", 390),
    Known("SmilingWolf/wd-v1-4-convnextv2-tagger-v2", "WD 1.4 ConvNeXtV2 v2", 390),
    Known("SmilingWolf/wd-v1-4-swinv2-tagger-v2", "WD 1.4 SwinV2 v2", 450),
    Known("SmilingWolf/wd-v1-4-vit-tagger-v2", "WD 1.4 ViT v2", 370),
)
CAPTIONERS: tuple[Known, ...] = (
    Known("Salesforce/blip-image-captioning-large", "BLIP large", 1900, "short sentences"),
    Known("Salesforce/blip-image-captioning-base", "BLIP base", 990, "short sentences, quick"),
    Known("florence-community/Florence-2-base", "Florence-2 base", 470, "a sentence or a paragraph, quick"),
    Known("florence-community/Florence-2-large", "Florence-2 large", 1600, "a sentence or a paragraph"),
    Known("microsoft/git-base-coco", "GIT base", 710, "short sentences, quick"),
    Known("microsoft/git-large-textcaps", "GIT large, TextCaps", 1600, "also reads writing"),
    Known("Salesforce/blip2-opt-2.7b", "BLIP-2, OPT 2.7B", 15000, "needs a card with 8 GB or more"),
    Known("HuggingFaceTB/SmolVLM-Instruct", "SmolVLM", 4500, "does as your prompt says"),
    Known(
        "Qwen/Qwen2.5-VL-3B-Instruct",
        "Qwen2.5-VL 3B",
        7500,
        "does as your prompt says; a card with 10 GB or more",
    ),
)
_FOLDERS: dict[Kind, Path] = {
    "tagger": REPOSITORY / "models" / "demo" / "tagger",
    "captioner": REPOSITORY / "models" / "demo" / "captioner",
}
_TAGGER_FILES = ("model.onnx", "selected_tags.csv")
_CAPTIONER_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.bin")
_OLD_BLIP = {
    "model_large_caption.pth": "Salesforce/blip-image-captioning-large",
    "model_base_caption_capfilt_large.pth": "Salesforce/blip-image-captioning-base",
}
"""BLIP's own files -> the same weights in the layout of transformers."""


def captioners_folder() -> Path:
    """Where downloaded captioners lie, each in a folder of its name."""
    return home() / "models" / "captioners"


def taggers_folder() -> Path:
    """Where the page keeps downloaded taggers."""
    return home() / "models" / "taggers"


def folder_name(name: str) -> str:
    """A hub name as one folder's name: owner_model."""
    return name.replace("/", "_")


def find_tagger(name: str, model_dir: Path) -> Path | None:
    """The folder of a tagger that is on this machine, None when it has to be downloaded.

    Looked for: the bundled one; ``name`` as a folder; ``model_dir`` with one tagger, or with a folder of the
    tagger's name; the hub's own cache. Raises InputError for a folder that holds no tagger.
    """
    given = _given(name, "tagger")
    if given is not None:
        return given
    for place in (
        model_dir / folder_name(name),
        model_dir / name.rpartition("/")[2],
        model_dir,
        taggers_folder() / folder_name(name),
    ):
        if (place.expanduser() / "model.onnx").is_file():
            return place.expanduser().resolve()
    return _cached(name, "model.onnx")


def find_captioner(name: str) -> Path | None:
    """The folder of a captioner that is on this machine, None when it has to be downloaded. As above."""
    given = _given(name, "captioner")
    if given is not None:
        return given
    place = captioners_folder() / folder_name(name)
    return place if (place / "config.json").is_file() else _cached(name, "config.json")


def hub_name(weights: str) -> str:
    """The hub's name for what people give as captioner, where it is one of BLIP's own files."""
    return _OLD_BLIP.get(weights.replace("\\", "/").rpartition("/")[2], weights)


def is_there(kind: Kind, name: str) -> bool:
    """Whether a model can be used without a download."""
    try:
        return (find_tagger(name, taggers_folder()) if kind == "tagger" else find_captioner(name)) is not None
    except InputError:
        return False


def known(kind: Kind) -> tuple[Known, ...]:
    """The models that people use."""
    return TAGGERS if kind == "tagger" else CAPTIONERS


def tagger(name: str, model_dir: Path, say: Say, *, download: bool, again: bool = False) -> Path:
    """The folder of a tagger, fetched when it is not there and ``download`` allows it.

    Raises:
        InputError: the name is neither a folder nor a hub name.
        EnvironmentFault: it is not there and cannot be fetched; says how to get it.
    """
    found = _given(name, "tagger") if again else find_tagger(name, model_dir)
    if found is not None:
        return found
    target = model_dir.expanduser() / folder_name(name)
    return _fetched(
        "tagger", name, target, (*_TAGGER_FILES, "tag_mapping.json"), say, download=download, again=again
    )


def captioner(name: str, say: Say, *, download: bool) -> Path:
    """The folder of a captioner; as :func:`tagger`."""
    found = find_captioner(name)
    if found is not None:
        return found
    return _fetched(
        "captioner", name, captioners_folder() / folder_name(name), _CAPTIONER_FILES, say, download=download
    )


def _given(name: str, kind: Kind) -> Path | None:
    """The bundled model, or a folder that was named; None for a hub name. Raises InputError."""
    key = "repo_id" if kind == "tagger" else "caption_weights"
    if name == BUNDLED:
        return _FOLDERS[kind]
    sign = "model.onnx" if kind == "tagger" else "config.json"
    place = Path(name).expanduser()
    if place.is_dir():
        if not (place / sign).is_file():
            raise InputError(f"{place} holds no {kind}: {sign} is missing", key=key)
        return place.resolve()
    if place.is_file():
        raise InputError(
            f"{place.name} is a file; a {kind} is a folder with {sign}",
            next="give the folder, or a name on the hub",
            key=key,
        )
    if not _is_hub_name(name):
        raise InputError(f"there is no folder {name!r}, and it is no name on the hub (owner/model)", key=key)
    return None


def _is_hub_name(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 2 and all(part and part[0] not in ".~" and "\\" not in part for part in parts)


def _cached(name: str, sign: str) -> Path | None:
    """The model in the hub's cache, which other programs fill, too."""
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(name, sign)
    except ValueError as error:  # what the hub's rules for names forbid
        raise InputError(f"{name!r} is no name on the hub", why=str(error)) from None
    return Path(found).parent if isinstance(found, str) else None


def _fetched(
    kind: Kind,
    name: str,
    target: Path,
    files: Sequence[str],
    say: Say,
    *,
    download: bool,
    again: bool = False,
) -> Path:
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
    if not download or offline:
        raise EnvironmentFault(
            _how_to_get(kind, name, target, "it is not on this machine, and downloads are off")
        )
    sizes = _sizes_of(name)
    # Weights that are there in both forms are fetched in one.
    wanted = [one for one in files if one != "*.bin" or not any(n.endswith(".safetensors") for n in sizes)]
    say(f"{name} is not on this machine: downloading {_size_of(name, sizes, wanted)} into {target}")
    try:
        from huggingface_hub import snapshot_download

        snapshot_download(name, local_dir=target, allow_patterns=wanted, force_download=again)
    except Exception as error:  # the network fails in many ways
        why = (str(error).strip() or repr(error)).splitlines()[0]
        raise EnvironmentFault(_how_to_get(kind, name, target, why)) from None
    sign = "model.onnx" if kind == "tagger" else "config.json"
    if not (target / sign).is_file():
        raise InputError(
            f"{name} holds no {kind}: {sign} is missing",
            where=str(target),
            next="choose another, or download the folder with it by hand and give that folder",
            key="repo_id" if kind == "tagger" else "caption_weights",
        )
    return target


def _sizes_of(name: str) -> dict[str, int]:
    """File -> bytes as the hub says it; empty when it cannot be asked."""
    from huggingface_hub import HfApi

    # What fails here fails again in the download itself, which says so.
    with contextlib.suppress(Exception):
        facts: Any = HfApi().model_info(name, files_metadata=True, timeout=10)
        return {str(one.rfilename): int(one.size or 0) for one in facts.siblings}
    return {}


def _size_of(name: str, sizes: Mapping[str, int], wanted: Sequence[str]) -> str:
    """'390 MB' as the hub says it, else about what the table says."""
    total = sum(size for file, size in sizes.items() if any(fnmatch(file, one) for one in wanted))
    return _megabytes(round(total / 1e6)) if total else about(name)


def about(name: str) -> str:
    """'about 390 MB', '' for a model that is not in the tables."""
    found = next((one for one in (*TAGGERS, *CAPTIONERS) if one.name == name), None)
    return f"about {_megabytes(found.megabytes)}" if found else ""


def _megabytes(size: int) -> str:
    return f"{size} MB" if size < 1000 else f"{size / 1000:.1f} GB"


def _how_to_get(kind: Kind, name: str, target: Path, why: str) -> Problem:
    files = " and ".join(_TAGGER_FILES) if kind == "tagger" else "all its .json, .txt and .safetensors files"
    size = about(name)
    return Problem(
        f"the {kind} {name} is missing{f' (a download of {size})' if size else ''}",
        why=why,
        next=f"with a network: allow the download. Without: get {files} of https://huggingface.co/{name} "
        f"on another machine and put them into {target}. The small one that comes with Atelier needs no "
        f"download: {BUNDLED}",
        key="repo_id" if kind == "tagger" else "caption_weights",
    )
