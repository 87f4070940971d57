"""The table of rules: what each looks for, how grave it is, what cures it, which options it concerns."""

from __future__ import annotations

from backend.data.lint import about_captions, about_files, about_masks, about_sizes, about_words, cures
from backend.data.lint.rule import Rule

_MISSING_CAPTION = ("class_tokens", "caption_extension")
_BUCKETS = ("enable_bucket", "resolution")
_MASKS = ("masked_loss",)
_TRIGGER = ("class_tokens",)

RULES: tuple[Rule, ...] = (
    # Files
    Rule(
        "unreadable", "error", "picture cannot be read", "pictures cannot be read",
        about_files.unreadable, cures.exclude, ("skip_broken_images",),
    ),
    Rule(
        "unsupported", "warning", "picture of a kind that is not used", "pictures of kinds that are not used",
        about_files.unsupported, cures.convert_unsupported,
    ),
    Rule(
        "wrong_ending", "note", "picture has the wrong ending", "pictures have the wrong ending",
        about_files.wrong_ending, cures.right_ending,
    ),
    Rule(
        "rotated", "note", "picture is stored rotated", "pictures are stored rotated",
        about_files.rotated, cures.convert("upright"),
    ),
    Rule("cmyk", "note", "picture is CMYK", "pictures are CMYK", about_files.cmyk, cures.convert("in sRGB")),
    Rule(
        "profile_broken", "warning", "picture has a broken colour profile",
        "pictures have a broken colour profile", about_files.broken_profiles, cures.convert("in sRGB"),
    ),
    Rule(
        "deep", "note", "picture has 16 bits a channel", "pictures have 16 bits a channel",
        about_files.deep, cures.convert("with 8 bits"),
    ),
    Rule(
        "animated", "warning", "picture is an animation", "pictures are animations",
        about_files.animated, cures.convert("of the first frame"),
    ),
    Rule(
        "transparent", "note", "picture is partly transparent", "pictures are partly transparent",
        about_files.transparent, cures.convert("on white"), ("alpha_mask",),
    ),
    Rule(
        "exact_duplicate", "warning", "picture is there twice", "pictures are there more than once",
        about_files.exact_copies, cures.exclude,
    ),
    Rule(
        "near_duplicate", "warning", "picture is nearly another", "pictures are nearly others",
        about_files.near_copies, cures.exclude,
    ),
    Rule(
        "reg_leak", "warning", "regularisation picture is a training picture",
        "regularisation pictures are training pictures", about_files.in_both_parts, cures.exclude,
        ("reg_data_dir",),
    ),
    Rule(
        "validation_leak", "warning", "validation picture is a training picture",
        "validation pictures are training pictures", about_files.held_out_and_trained, cures.exclude,
        ("validation_split",),
    ),
    Rule(
        "shared_caption", "warning", "picture shares its caption with another of the same name",
        "pictures share captions with others of the same name", about_files.one_caption_for_two,
        cures.exclude,
    ),
    Rule(
        "name_control", "warning", "file name holds characters that cannot be seen",
        "file names hold characters that cannot be seen", about_files.odd_names, cures.clean_names,
    ),
    Rule(
        "unicode_twins", "warning", "file has a name that looks like another's",
        "files have names that look like others'", about_files.twins, cures.part_twins,
    ),
    # Sizes
    Rule(
        "too_small", "warning", "picture is far too small and left out",
        "pictures are far too small and left out",
        about_sizes.far_too_small, cures.exclude, ("resolution",),
    ),
    Rule(
        "upscaled", "warning", "picture would be enlarged", "pictures would be enlarged",
        about_sizes.enlarged,
        cures.first_of(cures.setting(enable_bucket=True, bucket_no_upscale=True), cures.exclude),
        ("bucket_no_upscale", "resolution"),
    ),
    Rule(
        "cropped", "warning", "picture would lose much to the cut", "pictures would lose much to the cut",
        about_sizes.cut_much,
        cures.first_of(
            about_sizes.where_buckets_are_off(cures.setting(enable_bucket=True)),
            about_sizes.where_buckets_are_on(cures.exclude),
        ),
        _BUCKETS,
    ),
    Rule(
        "small_bucket", "note", "bucket holds fewer pictures than a batch",
        "buckets hold fewer pictures than a batch", about_sizes.small_buckets, None,
        ("train_batch_size", "bucket_reso_steps"),
    ),
    # Captions
    Rule(
        "caption_missing", "warning", "picture has no caption", "pictures have no caption",
        about_captions.missing_in_some, cures.exclude, _MISSING_CAPTION,
    ),
    Rule(
        "no_captions", "error", "folder has neither captions nor words for them",
        "folders have neither captions nor words for them", about_captions.missing_everywhere, None,
        _MISSING_CAPTION,
    ),
    Rule(
        "caption_empty", "warning", "caption is empty", "captions are empty", about_captions.empty,
        cures.exclude
    ),
    Rule(
        "caption_encoding", "error", "caption is not UTF-8", "captions are not UTF-8",
        about_captions.of_kind("encoding"),
        cures.captions("Write {} as UTF-8; the originals stay beside as .bak.", cures.to_utf8),
    ),
    Rule(
        "caption_unreadable", "error", "caption cannot be read", "captions cannot be read",
        about_captions.of_kind("unreadable"),
    ),
    Rule(
        "caption_folder", "warning", "caption is a folder", "captions are folders",
        about_captions.of_kind("folder"), cures.exclude_files,
    ),
    Rule(
        "caption_huge", "warning", "caption is far too large", "captions are far too large",
        about_captions.of_kind("huge"), cures.exclude_files,
    ),
    Rule(
        "caption_control", "note", "caption holds control characters", "captions hold control characters",
        about_captions.control_letters,
        cures.captions("Take them out of {}; the originals stay beside as .bak.", cures.without_control),
    ),
    Rule(
        "caption_lines", "note", "caption has lines that are not used",
        "captions have lines that are not used",
        about_captions.only_first_line, None, ("enable_wildcard",),
    ),
    Rule(
        "caption_cut", "warning", "caption is cut off", "captions are cut off", about_captions.too_long, None,
        ("max_token_length",),
    ),
    Rule(
        "trigger_missing", "warning", "caption lacks the trigger word", "captions lack the trigger word",
        about_words.trigger_missing,
        cures.captions("Put the trigger word in front of {}; the originals stay beside as .bak.",
        cures.with_trigger),
        _TRIGGER,
    ),
    Rule(
        "trigger_spelling", "warning", "caption spells the trigger word otherwise",
        "captions spell the trigger word otherwise", about_words.trigger_misspelt,
        cures.captions("Spell it the same in {}; the originals stay beside as .bak.",
        cures.one_spelling), _TRIGGER,
    ),
    Rule(
        "tag_everywhere", "note", "tag stands in every caption", "tags stand in every caption",
        about_words.tags_everywhere,
    ),
    Rule(
        "tag_once", "note", "tag stands in one caption only", "tags stand in one caption only",
        about_words.tags_once,
    ),
    # Masks
    Rule(
        "mask_missing", "error", "picture has no mask", "pictures have no mask",
        about_masks.missing, cures.exclude, _MASKS,
    ),
    Rule(
        "mask_unreadable", "error", "mask cannot be read", "masks cannot be read",
        about_masks.unreadable, cures.exclude, _MASKS,
    ),
    Rule(
        "mask_shape", "error", "mask has another shape than its picture",
        "masks have another shape than their pictures",
        about_masks.other_shape, cures.exclude, _MASKS,
    ),
    Rule(
        "mask_size", "note", "mask has another size than its picture",
        "masks have another size than their pictures",
        about_masks.other_size, None, _MASKS,
    ),
    Rule(
        "mask_black", "error", "mask is all black", "masks are all black",
        about_masks.black, cures.exclude, (*_MASKS, "alpha_mask"),
    ),
    Rule(
        "mask_inverted", "warning", "mask looks inverted", "masks look inverted",
        about_masks.inverted, cures.invert_masks, _MASKS,
    ),
    Rule(
        "mask_spare", "note", "mask belongs to no picture", "masks belong to no picture",
        about_masks.spare, cures.exclude_files, _MASKS,
    ),
)  # fmt: skip
