"""Show what a model takes and gives, as text and in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eaf_inference._html import code, dim, escape, page, span, table
from eaf_inference._text import printable
from eaf_inference.inference.records import taken

if TYPE_CHECKING:
    from eaf_inference.inference.spec import ModelSpec, TensorSpec

__all__ = ["as_html", "as_text"]


def as_text(spec: ModelSpec, where: str, note: str) -> str:
    """Describe a model on the server at this URL, with a note for the user."""
    version = f" version {spec.version}" if spec.version else ""
    lines = [f"<Model {spec.name!r}{version} on {where}"]
    lines += [f"  {head} {'; '.join(each)}" for head, each in _parts(spec)]
    if note:
        lines.append(f"  {note}")
    return "\n".join(map(printable, lines)) + ">"


def as_html(spec: ModelSpec, where: str, note: str) -> str:
    """Return the same for a notebook."""
    rows = [(dim(head), "<br>".join(map(escape if head == "takes" else code, each))) for head, each in _parts(spec)]
    if note:
        rows.append((dim("note"), escape(note)))
    version = f"version {spec.version} " if spec.version else ""
    return page(f"{span('title', spec.name)} {dim(f'{version}on')} {code(where)}{table((), rows)}")


def _parts(spec: ModelSpec) -> list[tuple[str, list[str]]]:
    parts = [
        ("takes", taken(spec)),
        ("collections", [str(each) for each in spec.collections]),
        ("gives", [_with_classes(spec, tensor) for tensor in spec.outputs]),
        ("leaves out", [*spec.left_out]),
    ]
    return [(head, each) for head, each in parts if each]


def _with_classes(spec: ModelSpec, output: TensorSpec) -> str:
    classes = spec.labels.get(output.name)
    return f"{output} ({', '.join(classes)})" if classes else str(output)
