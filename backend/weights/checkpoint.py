"""A base model as a table of tensors in the original single-file layout, whatever it is stored as."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from backend.errors import InputError
from backend.families.spots import Spot, known_families, spots
from backend.system.identify import ModelFile, identify
from backend.weights.reading import Stored, TensorFile, open_file


@dataclass(frozen=True)
class Checkpoint:
    """A base model's tensors by their original names."""

    path: Path
    facts: ModelFile
    tensors: Mapping[str, Stored]
    metadata: Mapping[str, str]

    @property
    def family(self) -> str:
        return self.facts.family

    @property
    def predicts_v(self) -> bool:
        return self.facts.prediction == "v"

    def spots(self) -> list[Spot]:
        """Where the modules lie that networks name."""
        return spots(self.family, self.tensors.keys())


def yaml_note(family: str, predicts_v: bool, path: Path) -> list[str]:
    """What to say of a written SD 2.x file: older programs do not look into files for what they are."""
    if family != "sd2":
        return []
    kind = "v2-inference-v.yaml" if predicts_v else "v2-inference.yaml"
    named = f"Stability's {kind} beside it, named {path.stem}.yaml"
    return [f"older programs take an SD 2.x file for an SD 1.x one without {named}"]


def open_checkpoint(path: Path, families: Collection[str] | None = None) -> Checkpoint:
    """Open a base model. Inpainting and other variants are welcome: only their tensors count here.

    Raises:
        InputError: it is no base model, of a family that is not known here, or damaged.
    """
    found = identify(path)
    if found.kind != "base":
        article = "an" if found.title[:1].lower() in "aeiou" else "a"
        raise InputError(
            f"this is {article} {found.title}, not a base model", where=str(path), next="choose a base model"
        )
    allowed = families or known_families()
    if found.family not in allowed:
        raise InputError(
            f"this is {found.title}; supported: {', '.join(allowed)}", where=str(path), why=found.why_not
        )
    if path.is_dir():
        raise InputError(
            f"{path.name} is a diffusers folder; a single file is needed here",
            where=str(path),
            next="turn it into one with tools/convert_diffusers20_original_sd.py first",
        )
    file = open_file(path)
    _require_original(file)
    return Checkpoint(path, found, file.tensors, file.metadata)


def _require_original(file: TensorFile) -> None:
    if not any(name.startswith("model.diffusion_model.") for name in file.tensors):
        raise InputError(
            f"{file.path.name} holds a U-Net alone, without the layout of a whole model",
            where=str(file.path),
            next="use the whole checkpoint",
        )
