"""Another metadata for the same tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from backend.errors import InputError
from backend.system.identify import identify
from backend.weights.metadata import content_hashes
from backend.weights.reading import open_file
from backend.weights.report import Report, check_output
from backend.weights.streaming import Progress, copied, silent, write_planned


@dataclass(frozen=True)
class EditMetadata:
    """A copy of a file with other metadata."""

    model: Path
    save_to: Path
    set: Mapping[str, str] = field(default_factory=lambda: dict[str, str]())
    remove: Sequence[str] = ()
    strip: bool = False
    """Leave out everything but what other programs need to use the file."""
    overwrite: bool = False


_NEEDED = (
    "ss_v2", "ss_base_model_version", "ss_network_module", "ss_network_dim", "ss_network_alpha",
    "ss_network_args", "modelspec.architecture", "modelspec.prediction_type", "modelspec.sai_model_spec",
    "modelspec.resolution", "atelier.components", "format",
)  # fmt: skip


def edit_metadata(job: EditMetadata, progress: Progress = silent) -> Report:
    """Write a copy with other metadata; tensors are the same to the byte.

    Raises:
        InputError: not a safetensors file, keys that are not there, or an output that may not be written.
    """
    output = check_output(job.save_to, [job.model], job.overwrite)
    if output.suffix != ".safetensors":
        raise InputError("only a .safetensors file has metadata", where=str(output), key="save_to")
    file = open_file(job.model)
    kept = {k: v for k, v in file.metadata.items() if not job.strip or k in _NEEDED}
    missing = [key for key in job.remove if key not in file.metadata]
    if missing:
        raise InputError(f"{job.model.name} has no metadata {missing[0]}", key="remove")
    result = {k: v for k, v in {**kept, **job.set}.items() if k not in job.remove}
    if any(key.startswith("sshs_") for key in result) or identify(job.model).kind == "lora":
        tensors = {name: stored.read(None) for name, stored in file.tensors.items()}
        result |= content_hashes(tensors, result)
    write_planned(output, [copied(stored) for stored in file.tensors.values()], result, progress)
    gone = sorted(file.metadata.keys() - result.keys())
    report = Report("edit_metadata", output)
    report.facts = {"kept": len(result), "removed": ", ".join(gone) or "nothing", "set": ", ".join(job.set)}
    return report
