"""One theme, light and dark: warm paper, ink, and a single quiet accent. System fonts only."""

from __future__ import annotations

from gradio.themes import Base

_SANS = (
    "ui-sans-serif",
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "Roboto",
    "Noto Sans",
    "Helvetica Neue",
    "sans-serif",
)
_MONO = ("ui-monospace", "SFMono-Regular", "Cascadia Mono", "Consolas", "Noto Sans Mono", "monospace")

_COLOURS = {
    "body_background_fill": ("#faf8f5", "#181715"),
    "background_fill_primary": ("#ffffff", "#211f1c"),
    "background_fill_secondary": ("#f2efe9", "#2b2925"),
    "block_background_fill": ("#ffffff", "#211f1c"),
    "block_border_color": ("#e5e0d8", "#3a3731"),
    "border_color_primary": ("#e0dad0", "#403c35"),
    "border_color_accent": ("#1d6b74", "#6fc2ca"),
    "body_text_color": ("#25221d", "#ece8e1"),
    "body_text_color_subdued": ("#6b655b", "#a8a195"),
    "input_background_fill": ("#ffffff", "#1c1b18"),
    "input_border_color": ("#ddd7cc", "#403c35"),
    "input_placeholder_color": ("#716b60", "#989184"),
    "color_accent_soft": ("#e3f0f1", "#20393c"),
    "link_text_color": ("#1d6b74", "#6fc2ca"),
    "button_primary_background_fill": ("#1d6b74", "#6fc2ca"),
    "button_primary_background_fill_hover": ("#175860", "#8bd0d7"),
    "button_primary_text_color": ("#ffffff", "#10292c"),
    "button_secondary_background_fill": ("#ffffff", "#211f1c"),
    "button_secondary_background_fill_hover": ("#f2efe9", "#2b2925"),
    "button_secondary_text_color": ("#25221d", "#ece8e1"),
    "button_secondary_border_color": ("#e0dad0", "#403c35"),
    "error_text_color": ("#b3261e", "#ff9d92"),
    "slider_color": ("#1d6b74", "#6fc2ca"),
}
"""Gradio's variable -> colour on light and on dark. Text reaches a contrast of 4.5 on its ground."""


def theme() -> Base:
    """The theme for ``launch``."""
    made = Base(
        neutral_hue="stone",
        primary_hue="teal",
        radius_size="md",
        font=list(_SANS),
        font_mono=list(_MONO),
    )
    colours = {name: light for name, (light, _) in _COLOURS.items()}
    colours |= {f"{name}_dark": dark for name, (_, dark) in _COLOURS.items()}
    return made.set(
        **colours,
        color_accent="#2b8a94",
        block_border_width="0px",
        block_shadow="none",
        button_primary_shadow="none",
        button_large_radius="8px",
        button_small_radius="8px",
    )


def variables() -> str:
    """The same colours and fonts as style sheet, for pages that are not Gradio's."""
    light = "".join(f"--{name.replace('_', '-')}: {colour}; " for name, (colour, _) in _COLOURS.items())
    dark = "".join(f"--{name.replace('_', '-')}: {colour}; " for name, (_, colour) in _COLOURS.items())
    fonts = f"--font: {_listed(_SANS)}; --font-mono: {_listed(_MONO)}; "
    return f":root {{ color-scheme: light; {light}{fonts}}} .dark {{ color-scheme: dark; {dark}}}"


def _listed(fonts: tuple[str, ...]) -> str:
    return ", ".join(f'"{font}"' if " " in font else font for font in fonts)
