"""Dataset files (TOML or JSON, as sd-scripts reads them) and what they ask for.

A value is taken from the subset, else its dataset, else [general], else the settings. Every
problem of a file is collected with its line before anything is said.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from backend.data import positions, schema
from backend.data.report import Report, listing
from backend.data.schema import KEYS
from backend.data.specs import CAPTION_KEYS, DatasetSpec, Defaults, Levels, make_dataset, make_subset
from backend.data.types import Dataset, DatasetPlan, Subset

SUFFIXES = (".toml", ".json")
LARGEST = 16_000_000
"""Bytes of a dataset file that is read; a larger one is something else."""


def read_config(path: Path, defaults: Defaults, report: Report) -> list[DatasetSpec]:
    """The datasets a file asks for. What is wrong with it goes into ``report``."""
    reader = _Reader(path, defaults, report)
    return reader.datasets() if reader.load() else []


class _Reader:
    """Reads one file; keeps its text to find lines in."""

    def __init__(self, path: Path, defaults: Defaults, report: Report) -> None:
        self.path, self.defaults, self.report = path, defaults, report
        self.text = ""
        self.lines: dict[positions.Path, int] = {}
        self.data: dict[str, Any] = {}

    def load(self) -> bool:
        """Read and parse; False when there is nothing to go on with."""
        if self.path.suffix.lower() not in SUFFIXES:
            self._file_problem("is neither .toml nor .json")
            return False
        try:
            size = self.path.stat().st_size
            if size > LARGEST:
                self._file_problem(f"has {size:,} bytes", "Choose the file that names the pictures' folders.")
                return False
            self.text = self.path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            self._file_problem(f"is not UTF-8 (byte {error.start})", "Save it as UTF-8.")
            return False
        except OSError as error:
            what = "was not found" if isinstance(error, FileNotFoundError) else _reason(error)
            self._file_problem(f"{what}: {self.path}", _did_you_mean(self.path))
            return False
        return self._parse_json() if self.path.suffix.lower() == ".json" else self._parse_toml()

    def _parse_toml(self) -> bool:
        import tomlkit
        from tomlkit.exceptions import ParseError, TOMLKitError

        try:
            self.data = tomlkit.parse(self.text).unwrap()
        except ParseError as error:
            self._bad_syntax(error.line, error.col, str(error).partition(" at line")[0])
            return False
        except TOMLKitError as error:
            line = positions.toml_duplicate(self.text)
            if line is not None:
                self._bad_syntax(line, 1, str(error))
            else:
                self._file_problem(f"is not valid TOML: {error}")
            return False
        except RecursionError:
            self._file_problem("is nested too deeply")
            return False
        self.lines = positions.toml_lines(self.text)
        return True

    def _parse_json(self) -> bool:
        try:
            data = json.loads(self.text)
        except json.JSONDecodeError as error:
            self._bad_syntax(error.lineno, error.colno, error.msg)
            return False
        except RecursionError:
            self._file_problem("is nested too deeply")
            return False
        if not isinstance(data, dict):
            self._file_problem("holds no table with 'datasets'")
            return False
        self.data = cast(dict[str, Any], data)
        self.lines = positions.json_lines(self.text)
        return True

    def datasets(self) -> list[DatasetSpec]:
        for name in self.data.keys() - {"general", "datasets"}:
            self._unknown(name, (name,), ("general", "datasets", *KEYS), "at the top of the file")
        general = self._table(self.data.get("general", {}), ("general",), "g")
        found = self._array(self.data.get("datasets"), ("datasets",))
        if not found:
            self._file_problem("has no [[datasets]]", "Add a [[datasets]] table with [[datasets.subsets]].")
        return [spec for i, table in enumerate(found) if (spec := self._dataset(table, i, general))]

    def _dataset(self, table: dict[str, Any], index: int, general: Mapping[str, Any]) -> DatasetSpec | None:
        where: positions.Path = ("datasets", index)
        own = self._table({k: v for k, v in table.items() if k != "subsets"}, where, "d")
        found = self._array(table.get("subsets"), (*where, "subsets"))
        if not found:
            self.report.problem(
                f"Dataset {index + 1} has no subsets.",
                where=self._where(where),
                why="Pictures are named in subsets.",
                next="Add a [[datasets.subsets]] table with image_dir below it.",
                key="dataset_config",
            )
        self._check_kinds(found, where)
        subsets: list[Subset] = []
        for i, values in enumerate(found):
            subset = self._subset(values, (*where, "subsets", i), own, general)
            if subset is not None:
                subsets.append(subset)
        levels = Levels(self.defaults, own, general)
        spec = make_dataset(levels, self._unique(subsets, where), self.report, self._where(where))
        return spec if subsets else None

    def _check_kinds(self, tables: list[dict[str, Any]], where: positions.Path) -> None:
        """All subsets of a dataset have a metadata file or none; with control pictures, all have some."""
        kinds = ["metadata_file" in table for table in tables]
        if any(kinds) and not all(kinds):
            self.report.problem(
                "Subsets with and without metadata_file cannot be mixed in one dataset.",
                where=self._where((*where, "subsets", kinds.index(False))),
                next="Put them into two [[datasets]].",
                key="dataset_config",
            )
        for i, table in enumerate(tables):
            if self.defaults.control and "conditioning_data_dir" not in table:
                self.report.problem(
                    "A subset has no conditioning_data_dir.",
                    where=self._where((*where, "subsets", i)),
                    why="What is trained learns from a second picture beside each picture.",
                    next='Name the folder of those pictures: conditioning_data_dir = "...".',
                    key="dataset_config",
                )

    def _subset(
        self,
        table: dict[str, Any],
        where: positions.Path,
        dataset: Mapping[str, Any],
        general: Mapping[str, Any],
    ) -> Subset | None:
        own = self._table(table, where, "s")
        levels = Levels(self.defaults, own, dataset, general)
        if levels.get("cache_info"):
            self.report.note(
                "cache_info writes into the picture folders and is not needed: facts about files are kept in "
                "Atelier's own cache.",
                where=self._where(where, "cache_info"),
            )
        if levels.get("num_repeats") < 1:
            self.report.note(
                f"{own.get('image_dir')} is left out: its num_repeats is {levels.get('num_repeats')}.",
                where=self._where(where),
            )
            return None
        masks = self._masks(own, where)
        metadata = None
        if "metadata_file" in own:
            metadata = self._place(own["metadata_file"], (*where, "metadata_file"), file=True)
            self._refuse_beside(own, ("is_reg", "conditioning_data_dir"), "metadata_file", where)
            if metadata is None:
                return None
        if "image_dir" not in own and metadata is None:
            if "image_dir" not in table:
                self.report.problem(
                    "A subset has no image_dir.",
                    where=self._where(where),
                    key="dataset_config",
                    next='Name the folder of its pictures: image_dir = "...".',
                )
            return None
        image_dir = metadata.parent if metadata else None
        if "image_dir" in own:
            image_dir = self._place(own["image_dir"], (*where, "image_dir"))
        if image_dir is None:
            return None
        return make_subset(
            levels,
            image_dir,
            class_tokens=levels.get("class_tokens"),
            is_reg=bool(own.get("is_reg")),
            alpha_mask=bool(levels.get("alpha_mask")) and masks is None,
            masks=masks,
            metadata=metadata,
        )

    def _masks(self, own: Mapping[str, Any], where: positions.Path) -> Path | None:
        """The mask folder of a subset, when it names one and may."""
        if "conditioning_data_dir" not in own:
            return None
        place = (*where, "conditioning_data_dir")
        if not self.defaults.masked_loss and not self.defaults.control:
            self.report.problem(
                "conditioning_data_dir holds masks here, which need masked_loss.",
                where=self._where(place),
                next="Switch masked_loss on, or remove the key.",
                key="masked_loss",
            )
        self._refuse_beside(own, ("is_reg", "alpha_mask"), "conditioning_data_dir", where)
        return self._place(own["conditioning_data_dir"], place)

    def _refuse_beside(
        self, own: Mapping[str, Any], others: tuple[str, ...], name: str, where: positions.Path
    ) -> None:
        for other in others:
            if own.get(other):
                self.report.problem(
                    f"{other} and {name} cannot stand in one subset.",
                    where=self._where((*where, other)),
                    next="Remove one of them.",
                    key="dataset_config",
                )

    def _unique(self, subsets: list[Subset], where: positions.Path) -> tuple[Subset, ...]:
        """Without folders named twice; the first stays."""
        kept: dict[tuple[Path | None, ...], Subset] = {}
        for subset in subsets:
            place = (subset.metadata_file or subset.image_dir, subset.conditioning_data_dir)
            if place in kept:
                self.report.note(
                    f"{place[0]} stands twice in one dataset and is used once, as first written.",
                    where=self._where(where),
                )
            kept.setdefault(place, subset)
        return tuple(kept.values())

    def _table(self, table: Any, where: positions.Path, level: str) -> dict[str, Any]:
        """The values of a table that are as they should be."""
        if not isinstance(table, dict):
            self.report.problem("expected a table here.", where=self._where(where), key="dataset_config")
            return {}
        checked: dict[str, Any] = {}
        for name, value in cast(dict[str, Any], table).items():
            key = KEYS.get(name)
            place = (*where, name)
            if key is None:
                self._unknown(name, place, tuple(KEYS), f"in {schema.LEVEL_NAMES[level]}")
            elif level not in key.levels:
                self.report.problem(
                    f"{name} cannot stand in {schema.LEVEL_NAMES[level]}.",
                    where=self._where(place),
                    next=f"Move it to {schema.levels_text(key)}.",
                    key="dataset_config",
                )
            elif self._value_fits(name, key, value, place):
                checked[name] = schema.read_value(key, value)
        return checked

    def _value_fits(self, name: str, key: schema.Key, value: Any, place: positions.Path) -> bool:
        try:
            checked = schema.read_value(key, value)
        except schema.ValueProblem as problem:
            self.report.problem(f"{name}: {problem}.", where=self._where(place), key="dataset_config")
            return False
        return name != "custom_attributes" or self._attributes_fit(checked, place)

    def _attributes_fit(self, table: dict[str, Any], place: positions.Path) -> bool:
        unknown = [name for name in table if name not in schema.ATTRIBUTES]
        for name in unknown:
            self._unknown(name, (*place, name), tuple(schema.ATTRIBUTES), "in custom_attributes")
        wrong = [name for name in schema.ATTRIBUTES if not isinstance(table.get(name, True), bool)]
        for name in wrong:
            self.report.problem(
                f"custom_attributes.{name}: expected true or false.",
                where=self._where((*place, name)),
                key="dataset_config",
            )
        return not unknown and not wrong

    def _array(self, value: Any, where: positions.Path) -> list[dict[str, Any]]:
        name = ".".join(part for part in where if isinstance(part, str))
        items = cast(list[Any], value) if isinstance(value, list) else []
        if value is not None and (not isinstance(value, list) or not all(isinstance(i, dict) for i in items)):
            self.report.problem(
                f"{where[-1]}: expected an array of tables.",
                where=self._where(where),
                key="dataset_config",
                next=f"Write [[{name}]] with double brackets.",
            )
        return [item for item in items if isinstance(item, dict)]

    def _place(self, text: str, where: positions.Path, file: bool = False) -> Path | None:
        """A folder (or file) named in the file: beside it first, then below the working directory."""
        given = Path(text.strip()).expanduser()
        tried = list(dict.fromkeys([self.path.parent.resolve() / given, Path.cwd() / given]))
        found = next((place for place in tried if (place.is_file() if file else place.is_dir())), None)
        if found is not None:
            return found.resolve()
        there = any(place.exists() for place in tried)
        wrong = "is a folder; a file is needed" if file else "is a file; a folder is needed"
        what = wrong if there else "was not found"
        self.report.problem(
            f"{where[-1]} {what}: {given}",
            where=self._where(where),
            key="dataset_config",
            why="" if there or len(tried) == 1 else f"Looked for {' and '.join(map(str, tried))}.",
            next=_did_you_mean(tried[0]),
        )
        return None

    def _unknown(self, name: str, where: positions.Path, known: tuple[str, ...], place: str) -> None:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        self.report.problem(
            f"unknown key {name} {place}.",
            where=self._where(where),
            key="dataset_config",
            next=f"Did you mean {near[0]}?" if near else "Remove it.",
        )

    def _bad_syntax(self, line: int, column: int, what: str) -> None:
        rows = self.text.splitlines()
        shown = rows[line - 1].strip() if 0 < line <= len(rows) else ""
        self.report.problem(
            f"{what.rstrip('.')}.",
            where=f"{self.path}, line {line}, column {column}",
            why=f"The line reads: {shown}" if shown else "",
            next="Correct that line.",
            key="dataset_config",
        )

    def _file_problem(self, what: str, next: str = "") -> None:
        self.report.problem(f"The dataset file {what}", where=str(self.path), next=next, key="dataset_config")

    def _where(self, where: positions.Path, *more: str) -> str:
        line = positions.find_line(self.text, self.lines, (*where, *more))
        return f"{self.path}, line {line}" if line else str(self.path)


def dataset_toml(plan: DatasetPlan) -> str:
    """The plan's datasets as a TOML file with absolute paths; reading it gives the same plan."""
    import tomlkit

    datasets = [
        {
            **_validation_table(dataset),
            "resolution": list(dataset.resolution),
            "batch_size": dataset.batch_size,
            "enable_bucket": dataset.enable_bucket,
            "min_bucket_reso": dataset.min_bucket_reso,
            "max_bucket_reso": dataset.max_bucket_reso,
            "bucket_reso_steps": dataset.bucket_reso_steps,
            "bucket_no_upscale": dataset.bucket_no_upscale,
            "network_multiplier": dataset.network_multiplier,
            "subsets": [_subset_table(subset) for subset in dataset.subsets],
        }
        for dataset in plan.datasets
    ]
    return tomlkit.dumps({"datasets": datasets})


def _validation_table(dataset: Dataset) -> dict[str, Any]:
    table: dict[str, Any] = {"validation_split": dataset.validation_split}
    if dataset.validation_seed is not None:
        table["validation_seed"] = dataset.validation_seed
    return table


def _subset_table(subset: Subset) -> dict[str, Any]:
    masks = subset.conditioning_data_dir
    table: dict[str, Any] = {
        "image_dir": str(subset.image_dir),
        "metadata_file": str(subset.metadata_file) if subset.metadata_file else None,
        "conditioning_data_dir": str(masks) if masks else None,
        "num_repeats": subset.num_repeats,
        "class_tokens": subset.class_tokens,
        "caption_extension": subset.caption_extension,
        "is_reg": subset.is_reg or None,
        "alpha_mask": None if masks else subset.alpha_mask,
        "flip_aug": subset.flip_aug,
        "color_aug": subset.color_aug,
        "random_crop": subset.random_crop,
        "face_crop_aug_range": list(subset.face_crop_aug_range) if subset.face_crop_aug_range else None,
        "custom_attributes": dict(subset.custom_attributes) or None,
        "resize_interpolation": subset.resize_interpolation,
        "prior_loss_weight": float(subset.prior_loss_weight),
        **{name: getattr(subset.captions, name) for name in CAPTION_KEYS},
    }
    return {name: value for name, value in table.items() if value is not None}


def _did_you_mean(path: Path) -> str:
    """A sentence with the nearest name beside ``path``."""
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f"The folder {path.parent} does not exist either." if not path.parent.exists() else ""
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    return f"Did you mean {listing(near)}?" if near else "Check the path."


def _reason(error: OSError) -> str:
    return f"cannot be read ({(error.strerror or str(error)).lower()})"
