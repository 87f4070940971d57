"""Options of what is trained beside a model and is no network of its layers: words, and guides."""

from __future__ import annotations

from backend.settings.option import Section, option


class WordSettings(Section):
    """The word that is taught to the text encoder (textual inversion). The model itself stays as it is."""

    title = "Textual inversion"
    on_resume = "impossible"
    methods = ("textual_inversion",)

    token_string: str | None = option(
        None,
        "Word",
        "The word that is taught, such as mycat: it has to stand in every caption. In other programs the name of the file is the word.",
        level="basic",
        per_run=True,
    )
    init_word: str | None = option(
        None,
        "Begin as",
        "The word whose meaning it starts with, such as cat. Empty: from chance.",
        level="basic",
        per_run=True,
        resume="safe",
    )
    num_vectors_per_token: int = option(
        1,
        "Vectors",
        "How many vectors stand for the word: 1 to 4 for a thing, up to 12 for much detail. Each takes the place of a word in prompts.",
        level="basic",
        ge=1,
        le=75,
    )
    use_object_template: bool = option(
        False,
        "Captions for a thing",
        "Captions are sentences such as 'a photo of a mycat', another one at every visit; caption files are not read.",
        level="basic",
        resume="changes",
    )
    use_style_template: bool = option(
        False,
        "Captions for a style",
        "Captions are sentences such as 'a painting in the style of mycat'; caption files are not read.",
        level="basic",
        resume="changes",
    )
    weights: str | None = option(
        None,
        "Start from file",
        "Go on from the vectors of this textual inversion.",
        path="file",
        resume="safe",
    )
    xti: bool = option(False, "Vectors for each layer (XTI)", "Each of the U-Net's 16 layers of cross-attention gets vectors of its own (P+, Voynov et al. 2023): learns closer and keeps prompts better; few other programs read such files. A step encodes text 16 times.", level="expert", families=("sd1", "sd2"))  # fmt: skip


class GuideSettings(Section):
    """A light ControlNet: what is drawn follows a second picture, such as outlines."""

    title = "ControlNet-LLLite"
    on_resume = "impossible"
    methods = ("lllite",)

    cond_emb_dim: int | None = option(
        None,
        "Numbers of the guide picture",
        "How much of the guide picture each place holds: 32 for outlines, 16 for depth. 32 when empty.",
        ge=2,
        le=1024,
    )
