"""`eaf-inference demo`: run the quickstart notebook on a facility of its own, and return its measurements."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eaf_facility.local.single_user import up
from eaf_facility.process.server import ignore
from eaf_inference.errors import ConfigurationError, InferenceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from eaf_inference.discovery.local_facility import LocalFacility

__all__ = ["NOTEBOOKS", "Executed", "demo", "execute"]

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"  # in a source checkout only
_CELL_SECONDS = 600
_KERNEL_ENVIRONMENT = {"ORT_DISABLE_TELEMETRY": "1"}  # ONNX Runtime would report each session to Microsoft


@dataclass(frozen=True, slots=True)
class Executed:
    """An executed notebook: its path, that of its HTML, and the summary that it displayed."""

    notebook: Path
    html: Path
    summary: Mapping[str, Any]


def demo(output: Path, *, progress: Callable[[str], None] = ignore) -> Executed:
    """Start a facility, run the quickstart on it, and stop it.

    Parameters
    ----------
    output : Path
        Directory for the executed notebook and its HTML.
    progress : callable
        Called with a short line for each step.

    Raises
    ------
    ConfigurationError
        The notebook is missing, because this is not a source checkout.
    InferenceError
        A cell failed. The message has its error, and the partly executed notebook is kept.
    """
    notebook = NOTEBOOKS / "quickstart.ipynb"
    if not notebook.exists():
        raise ConfigurationError(f"{notebook} does not exist. The demo needs a clone of the project: `make demo`.")
    with up(gateway=False, progress=progress) as facility:
        return execute(notebook, output, facility.description, progress=progress)


def execute(
    notebook: Path, output: Path, facility: LocalFacility, *, progress: Callable[[str], None] = ignore
) -> Executed:
    """Run a notebook in its own directory, so that it discovers this facility."""
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
        extra_arguments=["--log-level=ERROR"],  # the kernel's warnings would mix with the progress lines
        record_timing=False,  # so that a stored notebook changes only with its outputs
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
    """Return the summary from the metadata of the output of the cell tagged ``summary``."""
    for cell in content.cells:
        if "summary" in cell.metadata.get("tags", []):
            for shown in cell.outputs:
                if "summary" in shown.get("metadata", {}):
                    summary: dict[str, Any] = json.loads(json.dumps(shown.metadata["summary"]))
                    return summary
    raise ConfigurationError("The notebook has no cell tagged 'summary' with a 'summary' in its output's metadata.")
