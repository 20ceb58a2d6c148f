"""Pieces of HTML for what a notebook shows.

They use JupyterLab's own CSS variables, so they fit every theme. They escape all text, including characters that
would reorder or hide the text around them.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from eaf_inference._text import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

__all__ = ["code", "column", "dim", "escape", "page", "span", "table"]

# The page of an output takes the keyboard's focus, so that a wide table can be scrolled without a mouse.
# Styles are inline because JupyterLab removes <style> from an untrusted notebook. From style attributes it removes
# what uses a CSS variable; size, alignment and weight stay, and the text takes the page's colours.
_PAGE = (
    "font-family: var(--jp-ui-font-family, sans-serif); font-size: var(--jp-ui-font-size1, 13px); "
    "color: var(--jp-ui-font-color1, inherit); line-height: 1.5; max-width: 100%; overflow-x: auto; "
    "--eaf-dim: var(--jp-ui-font-color2, inherit); "
    "--eaf-good: color-mix(in srgb, var(--jp-success-color1, #388e3c) 70%, var(--jp-ui-font-color0, currentcolor)); "
    "--eaf-bad: color-mix(in srgb, var(--jp-error-color1, #d32f2f) 70%, var(--jp-ui-font-color0, currentcolor))"
)
_SPANS = {
    "title": "font-weight: 600",
    "dim": "color: var(--eaf-dim)",
    "good": "color: var(--eaf-good)",
    "bad": "color: var(--eaf-bad); font-weight: 600",
}
_CELL = "padding: 2px 12px 2px 0; border: none; vertical-align: baseline; text-align: "
_HEAD = f"font-weight: 500; color: var(--eaf-dim); {_CELL}"
_CODE = (
    "font-family: var(--jp-code-font-family, monospace); font-size: 0.95em; padding: 0; color: inherit; "
    "background: none"
)
_TABLE = "border-collapse: collapse; margin: 4px 0; font-size: inherit"


def escape(text: str) -> str:
    """Return the text as HTML on one line."""
    return html.escape(printable(text))


def span(kind: str, text: str) -> str:
    """Return the text in one of the styles title, dim, good and bad."""
    return f'<span style="{_SPANS[kind]}">{escape(text)}</span>'


def dim(text: str) -> str:
    """Return the text in the colour of secondary text."""
    return span("dim", text)


def code(text: object, *, folds: bool = False) -> str:
    """Return a name or a type in the code font, on one line unless it `folds`."""
    if not str(text):
        return ""
    space = "normal; overflow-wrap: anywhere" if folds else "nowrap"
    return f'<code style="{_CODE}; white-space: {space}">{escape(str(text))}</code>'


def column(cell: str) -> str:
    """Return a cell as wide as its content, up to a limit where even a name without spaces wraps."""
    return (
        '<div style="width: max-content; max-width: min(22em, 45vw); white-space: normal; overflow-wrap: anywhere">'
        f"{cell}</div>"
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Collection[int] = ()) -> str:
    """Return a table of cells that are HTML already; the columns in `numbers` align right."""

    def line(cells: Sequence[str], tag: str, style: str) -> str:
        return "".join(
            f'<{tag} style="{style}{"right" if place in numbers else "left"}">{cell}</{tag}>'
            for place, cell in enumerate(cells)
        )

    row_start = '<tr style="background: none">'
    head = f"<thead>{row_start}{line(heads, 'th', _HEAD)}</tr></thead>" if heads else ""
    body = "".join(f"{row_start}{line(row, 'td', _CELL)}</tr>" for row in rows)
    return f'<table style="{_TABLE}">{head}<tbody>{body}</tbody></table>'


def page(body: str) -> str:
    """Return an output with this body, in the project's font and colours."""
    return f'<div class="eaf-inference" tabindex="0" style="{_PAGE}">{body}</div>'
