"""The page of all options, made from their declarations, in the reader's language.

``tools/make_reference.py`` keeps it in English as ``docs/options.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from backend.settings.declare import SECTIONS, Declared, declarations
from backend.settings.dialect import NEEDS_NOTHING, RENAMED
from backend.settings.settings import DEFAULTS
from ui.i18n import DEFAULT, language, said, t
from ui.i18n.options import option_texts


def reference() -> str:
    """The whole page as Markdown."""
    texts = option_texts(language())
    lines = [f"# {t('docs.title_options')}", "", t("docs.options_about"), ""]
    columns = _cells(t(f"docs.column_{name}") for name in ("option", "type", "default", "allowed", "does"))
    for name in SECTIONS:
        lines += [f"## {texts[f'group.{name}.title']}", "", texts[f"group.{name}.help"], ""]
        lines += [columns, "|---|---|---|---|---|"]
        lines += [_row(one, texts) for one in declarations().values() if one.section == name]
        lines.append("")
    return "\n".join([*lines, *_dialect()])


def _cells(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _row(declared: Declared, texts: Mapping[str, str]) -> str:
    place, info = f"option.{declared.key}", declared.info
    words = f"**{texts[f'{place}.label']}{t('form.full_stop')}** {texts[f'{place}.help']}"
    help = " ".join(filter(None, (words.replace("\\", "\\\\"), _applies(declared), said(info.note))))
    return _cells((f"`{declared.key}`", _type(declared), _default(declared), _allowed(declared, texts), help))


def _type(declared: Declared) -> str:
    return t(f"docs.type_{declared.info.path or declared.kind}")


def _default(declared: Declared) -> str:
    value = DEFAULTS[declared.key]
    if isinstance(value, bool):
        return t("form.on" if value else "form.off")
    return "" if value in (None, "", []) else f"`{value}`"


def _allowed(declared: Declared, texts: Mapping[str, str]) -> str:
    if declared.choices:
        return ", ".join(f"`{choice}`" for choice in declared.choices)
    unit = declared.info.unit and texts[f"unit.{declared.info.unit}"]
    return " ".join(filter(None, (_range(declared), unit)))


def _range(declared: Declared) -> str:
    bounds = declared.bounds
    if language() == DEFAULT:
        return bounds.text()
    low, high = (None if end is None else f"{end:.15g}" for end in (bounds.low, bounds.high))
    if low and high and not (bounds.low_open or bounds.high_open):
        return t("docs.range", low=low, high=high)
    least = low and t("form.above" if bounds.low_open else "form.from", value=low)
    most = high and t("form.below" if bounds.high_open else "form.to", value=high)
    return " ".join(filter(None, (least, most)))


def _applies(declared: Declared) -> str:
    info = declared.info
    parts = [t("docs.families", names=", ".join(info.families))] if info.families else []
    parts += [t("docs.methods", names=", ".join(declared.methods))] if declared.methods else []
    if info.show_if:
        parts.append(t("docs.counts_with", names=t("docs.and").join(f"`{key}`" for key, _ in info.show_if)))
    return " ".join([*parts, "*network_args*"] if info.network_arg else parts)


def _dialect() -> Iterator[str]:
    yield f"## {t('docs.renamed')}"
    yield ""
    yield _cells((t("docs.column_name"), t("docs.column_becomes")))
    yield "|---|---|"
    for name, (target, value) in sorted(RENAMED.items()):
        yield f"| `{name}` | `{target}`" + (f" = `{value}` |" if value else " |")
    for name, reason in sorted(NEEDS_NOTHING.items()):
        yield f"| `{name}` | {t('docs.needs_nothing', reason=said(reason))} |"
    yield ""
    yield t("docs.refused")
    yield ""
