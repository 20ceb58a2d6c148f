"""TorchScript and ``torch.export`` files.

Pickles in them are never loaded, since they can run any code, and operators that open files are refused.
"""

from __future__ import annotations

import io
import json
import re
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from eaf_inference.deploy.archives import DAMAGED, copied
from eaf_inference.deploy.exported import Export, library, short
from eaf_inference.deploy.program_code import code_in, reach_of_script
from eaf_inference.deploy.saved import onnx_files
from eaf_inference.deploy.torch_export import export_network, translate
from eaf_inference.errors import DeploymentRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from eaf_inference.deploy.example import ExampleInputs
    from eaf_inference.deploy.exported import Reference
    from eaf_inference.inference.recipe import Recipe

__all__ = ["export_program", "export_script", "read_program", "read_script"]

# What a torch.export archive may hold. Compiled code for AOTInductor, among others, is not loaded.
_PROGRAM_PARTS = re.compile(
    r"[^/]+/(data/(weights|constants)/(weight_\d+|tensor_\d+|model_(weights|constants)_config\.json)"
    r"|data/sample_inputs/model\.pt|models/model\.json|archive_format|archive_version|byteorder|\.data/\w+"
    r"|\.(format_version|storage_alignment))"
)
# What a TorchScript archive may hold; its pickles are read by C++ code that makes no Python objects.
_SCRIPT_PARTS = re.compile(
    r"[^/]+/(\w+\.pkl|\w+/\d+|(?P<code>code/[\w./]+\.py)(\.debug_pkl)?|extra/.+|version|byteorder|\.data/\w+"
    r"|\.(format_version|storage_alignment))"
)


def read_script(path: Path, copy: Path) -> Any:
    """Load a TorchScript file, after checking that nothing in it reads or writes other files.

    Parameters
    ----------
    path : pathlib.Path
    copy : pathlib.Path
        Where the file is written that is loaded: what was checked.

    Raises
    ------
    DeploymentRefused
        Its code reaches out of the model, or torch does not load it.
    """
    torch = library("torch", "to read a TorchScript file")
    if why := copied(path, copy, _wrong_in_script):
        raise DeploymentRefused(
            f"{path} is not loaded: {why}. Save the network again with torch.jit.save. If you trust the file, load "
            "it yourself and pass what you get: triton.deploy(name, torch.jit.load(FILE), …)."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(str(copy), map_location="cpu")
    except Exception as error:
        raise DeploymentRefused(f"torch.jit.load does not read {path}: {short(error)}") from error


def _wrong_in_script(name: str, content: Callable[[], bytes]) -> str:
    found = _SCRIPT_PARTS.fullmatch(name)
    if found is None:
        return f"it holds {name[:100]!r}, which torch.jit.save does not write"
    if found["code"] and name.endswith(".py") and (call := reach_of_script(content().decode())):
        return (
            f"its code in {name[:100]} uses {call[:100]!r}, which may reach out of the model, into files for instance"
        )
    return ""


def export_script(
    script: Any, path: Path | None, directory: Path, arrays: ExampleInputs | None, recipe: Recipe | None
) -> Export:
    """Convert a TorchScript module to ONNX; if that fails and it is a file, it is served by Triton's PyTorch backend.

    Raises
    ------
    DeploymentRefused
        It cannot be converted, and there is no file.
    """
    torch = library("torch", "to export TorchScript")
    source = f"TorchScript, torch {torch.__version__.partition('+')[0]}"
    if arrays is None:
        why = "there is no example to convert it with"
    else:
        try:
            made = export_network(script, directory, arrays, recipe)
        except DeploymentRefused as error:
            if path is None:
                raise
            why = str(error)
        else:
            return Export(
                files=made.files,
                backend=made.backend,
                onnx=made.onnx,
                source=source,
                remarks=made.remarks,
                reference=made.reference,
            )
    assert path is not None  # noqa: S101  (a module in memory has been exported or refused)
    return Export(
        files={"model.pt": path},
        backend="pytorch",
        source=source,
        remarks=(
            (
                f"The TorchScript file is not converted to ONNX ({why}). It is served by Triton's PyTorch backend, "
                "whose inputs and outputs must be called NAME__0, NAME__1 and so on, and its scores cannot be "
                "computed here."
            ),
        ),
    )


def read_program(path: Path, copy: Path) -> Any:
    """Load a ``torch.export`` file, after checking that nothing in it is unpickled freely or run as Python code.

    Parameters
    ----------
    path : pathlib.Path
    copy : pathlib.Path
        Where the file is written that is loaded: what was checked.

    Raises
    ------
    DeploymentRefused
        It holds pickles or code, or torch does not load it.
    """
    torch = library("torch", "to read a torch.export file")

    def wrong(name: str, content: Callable[[], bytes]) -> str:
        if not _PROGRAM_PARTS.fullmatch(name):
            return f"it holds {name[:100]!r}, which is not loaded, since it may run code"
        if name.endswith(".json"):
            return _wrong_in_description(name, content())
        if name.endswith(".pt"):
            try:
                torch.load(io.BytesIO(content()), weights_only=True)
            except DAMAGED:
                raise
            except Exception:  # noqa: BLE001  (torch raises errors of many kinds)
                return "its example inputs are pickled objects, which may run code"
        return ""

    if why := copied(path, copy, wrong):
        raise _refused(path, why)
    try:
        return torch.export.load(str(copy))
    except Exception as error:
        raise _refused(path, f"torch.export.load says: {short(error)}") from error


def _wrong_in_description(name: str, content: bytes) -> str:
    try:
        described = json.loads(content)
        if (code := code_in(described)) is not None:
            return f"{code[:100]!r} in {name} may be code"
        stored = described.get("config", {}).items() if name.endswith("_config.json") else ()
        if pickled := [each for each, one in stored if one.get("use_pickle") is not False]:
            return f"{pickled[0]!r} is pickled in it, and pickles may run code"
    except (ValueError, AttributeError, RecursionError):
        return f"{name} is damaged"
    return ""


def export_program(program: Any, directory: Path, names: tuple[str, ...], recipe: Recipe | None) -> Export:
    """Convert a ``torch.export.ExportedProgram`` to ONNX; which axes are free was decided when it was exported.

    Parameters
    ----------
    program : torch.export.ExportedProgram
    directory : pathlib.Path
    names : tuple of str
        Of the inputs; empty for those of the program.
    recipe : Recipe or None

    Raises
    ------
    DeploymentRefused
        Torch cannot convert it.
    """
    torch = library("torch", "to export a program")
    library("onnxscript", "to convert a torch.export program to ONNX")
    inputs = list(program.graph_signature.user_inputs)
    number = len(program.graph_signature.user_outputs)
    if names and len(names) != len(inputs):
        raise DeploymentRefused(
            f"The program takes {len(inputs)} inputs, {', '.join(map(str, inputs))}, and {len(names)} are named: "
            f"{', '.join(names)}. Expected a name for each, in the program's order."
        )
    given = () if recipe is None else recipe.output_names
    numbered = [f"output_{place}" for place in range(number)]
    outputs = list(given) if len(given) == number else ["output"] if number == 1 else numbered
    path = directory / "model.onnx"
    try:
        translate(torch, program, path, input_names=list(names or inputs), output_names=outputs)
    except DeploymentRefused as error:
        raise DeploymentRefused(
            f"The torch.export program cannot be converted to ONNX: {error}. Expected one that torch.onnx.export "
            "takes: deploy the network itself, or export it yourself and deploy the ONNX file."
        ) from error
    return Export(
        files=onnx_files(path),
        backend="onnxruntime",
        onnx=path,
        source=f"torch.export program, torch {torch.__version__.partition('+')[0]}",
        reference=_reference(torch, program, names or tuple(inputs), outputs),
    )


def _reference(torch: Any, program: Any, names: Sequence[str], outputs: Sequence[str]) -> Reference:
    """Return a function that calls the program with arrays."""
    tree = torch.utils._pytree  # noqa: SLF001  (its public form cannot read the program's arguments)
    module = cache(program.module)  # making one may take longer than calling it
    device = next((each.device for each in program.state_dict.values()), "cpu")

    def scores(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        tensors = [torch.from_numpy(np.ascontiguousarray(arrays[name])).to(device) for name in names]
        positional, named = tree.tree_unflatten(tensors, program.call_spec.in_spec)
        with torch.no_grad():
            values = tree.tree_leaves(module()(*positional, **named))
        return {name: value.cpu().numpy() for name, value in zip(outputs, values, strict=True)}

    return scores


def _refused(path: Path, why: str) -> DeploymentRefused:
    return DeploymentRefused(
        f"{path} cannot be read as a torch.export file: {why}. Save the program again with torch.export.save and "
        "this version of torch, or export it with torch.onnx.export and deploy the ONNX file."
    )
