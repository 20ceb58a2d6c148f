"""Check an installed wheel in an environment without Node. Run by ``make dist``, outside of the source tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import files
from importlib.util import find_spec
from pathlib import Path

PARTS = (  # of every wheel
    "eaf_inference/static/widget.js",
    "etc/dask/eaf_inference.yaml",
    "etc/jupyter/jupyter_server_config.d/eaf_inference.json",
    "share/jupyter/labextensions/eaf-inference/install.json",
    "share/jupyter/labextensions/eaf-inference/package.json",
    "share/jupyter/labextensions/eaf-inference/static/style.js",
)


def run(*command: str) -> str:
    """Run a program of this environment and return what it printed, on both streams."""
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, f"{command} ended with {result.returncode}: {result.stderr}"
    return result.stdout + result.stderr


def main() -> None:
    """Fail with an AssertionError that names what the wheel lacks."""
    assert shutil.which("node") is None, "Node is on PATH"
    import eaf_inference

    where = Path(eaf_inference.__file__).parent
    assert where.is_relative_to(sys.prefix), f"eaf_inference was imported from {where}, not from the wheel"
    assert find_spec("benchmarks") is None, "the wheel brought the benchmarks"
    installed = [path.as_posix() for path in files("eaf-inference") or ()]
    for part in PARTS:
        assert any(path.endswith(part) for path in installed), f"{part} is not in the wheel"

    for name in ("EAF_TRITON_URL", "TRITON_URL", "TRITON_SERVICE_HOST", "SONIC_LOCAL_BALANCER_HOST"):
        os.environ.pop(name, None)
    try:
        eaf_inference.connect("grpc://127.0.0.1:1", timeout=2.0)  # nothing listens on port 1
    except eaf_inference.errors.NoServerFound as error:
        message = str(error)
    else:
        message = "connect() raised no error"
    assert "127.0.0.1:1" in message, message

    version = run("eaf-inference", "--version")
    assert eaf_inference.__version__ in version, version
    listed = run("jupyter", "labextension", "list")
    assert "eaf-inference v" in listed, listed
    extensions = run("jupyter", "server", "extension", "list")
    assert "eaf_inference.server" in extensions, extensions
    print(f"{version.strip()}: installed without Node, with its JupyterLab extension and without the benchmarks")


if __name__ == "__main__":
    main()
