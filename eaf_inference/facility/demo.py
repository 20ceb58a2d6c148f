"""The main job, end to end: a facility, the quickstart notebook on it, and what the notebook measured."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eaf_inference.errors import ConfigurationError, InferenceError
from eaf_inference.facility.machine import up
from eaf_inference.facility.processes import ignore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from eaf_inference.local import LocalFacility

__all__ = ["NOTEBOOKS", "Executed", "demo", "execute"]

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"  # a source checkout's; not part of the wheel
_CELL_SECONDS = 600
_KERNEL_ENVIRONMENT = {"ORT_DISABLE_TELEMETRY": "1"}  # ONNX Runtime would report each session to its makers


@dataclass(frozen=True, slots=True)
class Executed:
    """A notebook that ran: where it and its HTML are, and the summary that it showed."""

    notebook: Path
    html: Path
    summary: Mapping[str, Any]


def demo(output: Path, *, progress: Callable[[str], None] = ignore) -> Executed:
    """Start a facility, run the quickstart on it, stop it.

    Parameters
    ----------
    output : Path
        Directory for the executed notebook and its HTML.
    progress : callable
        Called with a short line whenever there is something new to wait for.

    Raises
    ------
    ConfigurationError
        There is no notebook here: this is no source checkout.
    InferenceError
        A cell failed; the message has its error, and the notebook is kept as far as it came.
    """
    notebook = NOTEBOOKS / "quickstart.ipynb"
    if not notebook.exists():
        raise ConfigurationError(f"There is no {notebook}. The demo runs from a clone of the project: `make demo`.")
    with up(gateway=False, progress=progress) as facility:
        return execute(notebook, output, facility.description, progress=progress)


def execute(
    notebook: Path, output: Path, facility: LocalFacility, *, progress: Callable[[str], None] = ignore
) -> Executed:
    """Run a notebook beside its data, with this facility as the one that it finds."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError
    from nbconvert import HTMLExporter

    content = nbformat.read(notebook, as_version=4)
    title = "starting the kernel"

    def on_cell_start(cell: Any, cell_index: int) -> None:
        nonlocal title
        if cell.cell_type == "markdown":
            title = cell.source.splitlines()[0].lstrip("# ")
            return
        progress(f"notebook, cell {cell_index + 1} of {len(content.cells)}: {title}")

    client = NotebookClient(
        content,
        timeout=_CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(notebook.parent)}},
        on_cell_start=on_cell_start,
        extra_arguments=["--log-level=ERROR"],  # of the kernel, whose remarks would fall between the progress
        record_timing=False,  # a stored notebook changes only where what it shows does
        store_widget_state=False,
    )
    output.mkdir(parents=True, exist_ok=True)
    executed, html = output / notebook.name, (output / notebook.name).with_suffix(".html")
    try:
        client.execute(env={**os.environ, **_KERNEL_ENVIRONMENT, "EAF_TRITON_URL": ",".join(facility.urls)})
    except CellExecutionError as error:
        raise InferenceError(
            f"A cell of {notebook.name} failed: {error.ename}: {error.evalue}\nSee {executed}"
        ) from None
    finally:
        nbformat.write(content, executed)
    html.write_text(HTMLExporter().from_notebook_node(content)[0], encoding="utf-8")
    return Executed(executed, html, _summary(content))


def _summary(content: Any) -> dict[str, Any]:
    """What the cell tagged ``summary`` shows as a table, from the metadata of its output."""
    for cell in content.cells:
        if "summary" in cell.metadata.get("tags", []):
            for shown in cell.outputs:
                if "summary" in shown.get("metadata", {}):
                    summary: dict[str, Any] = json.loads(json.dumps(shown.metadata["summary"]))
                    return summary
    raise ConfigurationError("The notebook has no cell tagged 'summary' whose output has its numbers as metadata.")
