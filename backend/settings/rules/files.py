"""Base model, pictures, and the name of the result."""

from __future__ import annotations

from backend.settings.rules.rule import Rule
from backend.settings.rules.terms import FOLDERS

RULES: tuple[Rule, ...] = (
    Rule(
        "base-model",
        "error",
        ("pretrained_model_name_or_path", "unset"),
        "no base model is chosen",
        "give the file of the model to teach",
        complete=True,
    ),
    Rule(
        "pictures",
        "error",
        ("all", FOLDERS, ("train_data_dir", "unset"), ("in_json", "unset")),
        "no pictures are chosen",
        "give a picture folder (train_data_dir) or a dataset file (dataset_config)",
        key="train_data_dir",
        complete=True,
    ),
    Rule(
        "dataset-file-wins",
        "note",
        (
            "all",
            ("dataset_config", "set"),
            ("any", ("train_data_dir", "set"), ("reg_data_dir", "set"), ("in_json", "set")),
        ),
        "train_data_dir, reg_data_dir and in_json are not used, as there is a dataset file",
        "put the folders into the dataset file, or leave it out",
        key="train_data_dir",
    ),
    Rule(
        "name-is-a-path",
        "error",
        ("output_name", "has any of", "/\\"),
        "output_name: '{output_name}' must be a name without folders",
        "give the folder as output_dir",
    ),
    Rule(
        "name-is-unusable",
        "error",
        (
            "any",
            ("output_name", "has any of", '<>:"|?*'),
            ("output_name", "=", "."),
            ("output_name", "=", ".."),
        ),
        "output_name: '{output_name}' cannot be a file name",
        "use letters, digits, blanks, - and _",
    ),
)
