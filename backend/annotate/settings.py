"""Every option of captioning and tagging, declared once: command line, form, job and checks follow.

Names and defaults are sd-scripts' where it has the option.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from backend.settings.option import Section, option

Existing = Literal["fill", "replace", "append"]
_SEARCHED = (("beam_search", (True,)),)
_DRAWN = (("beam_search", (False,)),)
"""Ways to write a caption, each of which has options of its own."""


class PictureSettings(Section):
    """Which pictures, and what becomes of text that is there."""

    title: ClassVar[str] = "Pictures"
    train_data_dir: str = option(
        "",
        "Folder of pictures",
        "The pictures to describe. Each text goes into a file beside its picture.",
        level="basic",
        path="folder",
    )
    recursive: bool = option(
        False, "Folders inside, too", "Also looks into the folders inside it, however deep.", level="basic"
    )
    existing: Existing = option(
        "fill",
        "Pictures that have text already",
        "Leave them as they are (fill), add to their text what is new (append), or write over it (replace). "
        "Every run can be undone.",
        level="basic",
        choices=("fill", "append", "replace"),
        choice_titles=("Leave them", "Append", "Replace"),
    )
    batch_size: int = option(
        1, "Batch size", "Pictures at once. More is faster and needs more memory.", ge=1, le=512
    )
    max_data_loader_n_workers: int | None = option(
        None,
        "Decoding threads",
        "Threads that read pictures ahead of the model; empty: as many as suit this machine.",
        ge=0,
        le=64,
    )
    caption_prefix: str = option(
        "", "Text in front", "Put before every text, say your trigger word.", level="basic"
    )
    caption_postfix: str = option("", "Text at the end", "Put after every text.")
    debug: bool = option(False, "Show each text", "Writes every picture's text into the log.", level="expert")


class TaggingSettings(PictureSettings):
    """Which tagger, and which of its tags are kept in which form."""

    title: ClassVar[str] = "Tagging"
    repo_id: str = option(
        "SmilingWolf/wd-v1-4-convnext-tagger-v2",
        "Tagger",
        "A tagger's name on the hub, a folder with model.onnx and its table of tags, or 'bundled' for the "
        "small one that comes with Atelier and knows the demo's world only.",
        level="basic",
    )
    model_dir: str = option(
        "wd14_tagger_model",
        "Folder of taggers",
        "Where downloaded taggers lie, or a folder with one tagger.",
        path="folder",
    )
    force_download: bool = option(
        False, "Download again", "Fetches the tagger anew, say after a broken download.", level="expert"
    )
    caption_extension: str = option(".txt", "File ending", "Ending of the files that are written.")
    thresh: float = option(
        0.35,
        "Threshold",
        "A tag is kept when the tagger is at least so sure of it. Lower gives more tags and more wrong ones.",
        ge=0,
        le=1,
        level="basic",
    )
    general_threshold: float | None = option(
        None, "Threshold for general tags", "Empty: as Threshold.", ge=0, le=1, level="basic"
    )
    character_threshold: float | None = option(
        None, "Threshold for characters", "Empty: as Threshold.", ge=0, le=1, level="basic"
    )
    copyright_threshold: float | None = option(
        None, "Threshold for series", "For taggers that know series. Empty: as Threshold.", ge=0, le=1
    )
    artist_threshold: float | None = option(
        None, "Threshold for artists", "For taggers that know artists. Empty: as Threshold.", ge=0, le=1
    )
    meta_threshold: float | None = option(
        None,
        "Threshold for meta tags",
        "For taggers that know tags such as 'highres'. Empty: as Threshold.",
        ge=0,
        le=1,
    )
    model_threshold: float | None = option(
        None,
        "Threshold for model tags",
        "For taggers that know which model drew a picture. Empty: as Threshold.",
        ge=0,
        le=1,
    )
    remove_underscore: bool = option(
        False, "Blanks for underscores", "long_hair becomes long hair; faces such as ^_^ stay.", level="basic"
    )
    undesired_tags: str = option(
        "", "Unwanted tags", "Tags that are never written, between commas.", level="basic"
    )
    always_first_tags: str | None = option(
        None,
        "Tags to put first",
        "When a picture has one of these, it comes first: 1girl, 1boy.",
        level="basic",
    )
    character_tags_first: bool = option(False, "Characters first", "Characters come before the other tags.")
    character_tag_expand: bool = option(
        False, "Split characters from series", "name_(series) becomes name, series."
    )
    tag_replacement: str | None = option(
        None,
        "Replace tags",
        r"old,new;old,new. A comma or semicolon that belongs to a tag is written \, or \;.",
    )
    caption_separator: str = option(", ", "Separator", "What stands between two tags.")
    use_rating_tags: bool = option(
        False, "Rating first", "Puts the likeliest rating (general, sensitive, ...) in front."
    )
    use_rating_tags_as_last_tag: bool = option(False, "Rating last", "Puts the likeliest rating at the end.")
    use_quality_tags: bool = option(
        False, "Quality first", "Puts the likeliest quality in front, for taggers that judge it."
    )
    use_quality_tags_as_last_tag: bool = option(
        False, "Quality last", "Puts the likeliest quality at the end, for taggers that judge it."
    )
    frequency_tags: bool = option(False, "Count the tags", "Tells at the end how often each tag was written.")
    append_tags: bool = option(
        False, "Append", "The same as append under 'Pictures that have text already'.", level="expert"
    )
    output_path: str | None = option(
        None,
        "Write into one file",
        "A .json or .jsonl file that gets all tags, instead of a file for each picture.",
        path="written",
    )
    onnx: bool = option(
        False, "ONNX", "Needs no choosing: taggers always run in ONNX Runtime.", level="expert"
    )


class CaptioningSettings(PictureSettings):
    """Which captioner, and how it writes."""

    title: ClassVar[str] = "Captioning"
    caption_weights: str = option(
        "Salesforce/blip-image-captioning-large",
        "Captioner",
        "A captioner's name on the hub, a folder in the layout of transformers, or 'bundled' for the small "
        "one that comes with Atelier and knows the demo's world only.",
        level="basic",
    )
    caption_extension: str = option(
        ".caption", "File ending", "Ending of the files that are written.", level="basic"
    )
    prompt: str = option(
        "",
        "Prompt",
        "BLIP, GIT: how each caption begins. Florence-2: <CAPTION>, <DETAILED_CAPTION> or "
        "<MORE_DETAILED_CAPTION>. Models that can be asked: your instruction. Empty: the model's usual one.",
        level="basic",
    )
    beam_search: bool = option(
        False,
        "Beam search",
        "Looks for the likeliest caption; without it captions are drawn by chance (top p).",
        level="basic",
    )
    num_beams: int = option(
        1,
        "Beams",
        "Candidates that beam search keeps; 1 takes the likeliest word each time.",
        ge=1,
        le=32,
        show_if=_SEARCHED,
    )
    top_p: float = option(
        0.9,
        "Top p",
        "Words are drawn among the likeliest that together have this probability.",
        gt=0,
        le=1,
        level="basic",
        show_if=_DRAWN,
    )
    temperature: float = option(
        1.0, "Temperature", "Below 1 stays nearer to the likeliest words.", gt=0, le=5, show_if=_DRAWN
    )
    repetition_penalty: float = option(
        1.0, "Repetition penalty", "Above 1 keeps words from coming again.", ge=1, le=5
    )
    max_length: int = option(
        75, "Longest caption", "In tokens, which are words or parts of words.", ge=1, le=2048, level="basic"
    )
    min_length: int = option(5, "Shortest caption", "In tokens.", ge=0, le=2048, level="basic")
    seed: int = option(
        42, "Seed", "The same seed gives the same captions, whatever the batch size.", ge=0, le=2**63 - 1
    )
    remove_words: bool = option(
        False,
        "Remove talk of writing",
        "Takes out phrases such as 'with the words stop on it', which captioners make up readily.",
        level="basic",
    )


class CleaningSettings(Section):
    """Texts that are cleaned by rules: those beside pictures, or a metadata file."""

    title: ClassVar[str] = "Cleaning"
    train_data_dir: str = option(
        "",
        "Folder of pictures",
        "Its texts are cleaned; every time can be undone. Leave it empty to clean a metadata file.",
        level="basic",
        path="folder",
    )
    recursive: bool = option(
        False, "Folders inside, too", "Also looks into the folders inside it, however deep.", level="basic"
    )
    caption_extension: str = option(
        ".txt", "File ending", "Ending of the texts: .txt or .caption.", level="basic"
    )
    in_json: str = option(
        "", "Metadata file", "A .json or .jsonl file to clean instead of a folder.", path="file"
    )
    out_json: str = option("", "Cleaned metadata", "The file to write.", path="written")
    overwrite: bool = option(
        False,
        "Write over the metadata",
        "The cleaned file may be the same one; the old one is kept beside it.",
    )


class MergingSettings(Section):
    """Texts beside pictures that are taken into a metadata file for fine-tuning."""

    title: ClassVar[str] = "Metadata"
    train_data_dir: str = option(
        "", "Folder of pictures", "The pictures whose texts are taken in.", level="basic", path="folder"
    )
    recursive: bool = option(
        False, "Folders inside, too", "Also looks into the folders inside it, however deep.", level="basic"
    )
    out_json: str = option(
        "", "Metadata file", "The .json or .jsonl file to write.", level="basic", path="written"
    )
    in_json: str = option(
        "",
        "Metadata to start from",
        "Its entries are kept and added to, say those of another folder.",
        path="file",
    )
    caption_extension: str = option(
        ".caption", "Ending of captions", "Empty: no captions are taken in.", level="basic"
    )
    tags_extension: str = option(".txt", "Ending of tags", "Empty: no tags are taken in.", level="basic")
    full_path: bool = option(
        False,
        "Whole paths",
        "Names pictures by their whole path, for several folders in one file.",
        level="basic",
    )


def thresholds(settings: TaggingSettings) -> dict[str, float]:
    """Category -> threshold, with ``thresh`` where none of its own is set."""
    own: dict[str, Any] = {
        name: getattr(settings, f"{name}_threshold")
        for name in ("general", "character", "copyright", "artist", "meta", "model")
    }
    return {name: settings.thresh if value is None else value for name, value in own.items()}


def existing_of(settings: PictureSettings) -> Existing:
    """What becomes of text that is there."""
    if isinstance(settings, TaggingSettings) and settings.append_tags and settings.existing == "fill":
        return "append"
    return settings.existing
