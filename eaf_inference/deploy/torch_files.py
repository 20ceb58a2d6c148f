"""TorchScript and ``torch.export`` files. Pickles in them are never loaded: they can run any code."""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from eaf_inference.deploy.exported import Export, library, short
from eaf_inference.deploy.program_code import code_in
from eaf_inference.deploy.torch_export import export_network, translate
from eaf_inference.errors import DeploymentRefused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from eaf_inference.deploy.example import ExampleInputs
    from eaf_inference.deploy.exported import Reference
    from eaf_inference.inference.recipe import Recipe

__all__ = ["export_program", "export_script", "read_program", "read_script"]

# What a torch.export archive may hold. Compiled code for AOTInductor, among others, is not loaded.
_PARTS = re.compile(
    r"[^/]+/(data/(weights|constants)/(weight_\d+|tensor_\d+|model_(weights|constants)_config\.json)"
    r"|data/sample_inputs/model\.pt|models/model\.json|archive_format|archive_version|byteorder|\.data/\w+"
    r"|\.(format_version|storage_alignment))"
)


def read_script(path: Path) -> Any:
    """Load a TorchScript file.

    Raises
    ------
    DeploymentRefused
        Torch does not load it.
    """
    torch = library("torch", "to read a TorchScript file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(str(path), map_location="cpu")
    except Exception as error:
        raise DeploymentRefused(f"torch.jit.load does not read {path}: {short(error)}") from error


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


def read_program(path: Path) -> Any:
    """Load a ``torch.export`` file, after checking that nothing in it is unpickled freely or run as Python code.

    Raises
    ------
    DeploymentRefused
        It holds pickles or code, or torch does not load it.
    """
    torch = library("torch", "to read a torch.export file")
    content = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        if len(set(names)) < len(names):
            raise _refused(path, "it holds two files of one name")
        for name in names:
            if not _PARTS.fullmatch(name):
                raise _refused(path, f"it holds {name!r}, which is not loaded, since it may run code")
            if name.endswith(".json"):
                _check_description(path, name, archive.read(name))
            elif name.endswith(".pt"):
                try:
                    torch.load(io.BytesIO(archive.read(name)), weights_only=True)
                except Exception as error:
                    raise _refused(path, "its example inputs are pickled objects, which may run code") from error
    try:
        return torch.export.load(io.BytesIO(content))
    except Exception as error:
        raise _refused(path, f"torch.export.load says: {short(error)}") from error


def _check_description(path: Path, name: str, content: bytes) -> None:
    try:
        described = json.loads(content)
        if (code := code_in(described)) is not None:
            raise _refused(path, f"{code[:100]!r} in {name} may be code")
        stored = described.get("config", {}).items() if name.endswith("_config.json") else ()
        if pickled := [each for each, one in stored if one.get("use_pickle") is not False]:
            raise _refused(path, f"{pickled[0]!r} is pickled in it, and pickles may run code")
    except (ValueError, AttributeError, RecursionError) as error:
        raise _refused(path, f"{name} is damaged") from error


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
    translate(torch, program, path, input_names=list(names or inputs), output_names=outputs)
    data = path.with_name("model.onnx.data")
    return Export(
        files={"model.onnx": path} | ({data.name: data} if data.exists() else {}),
        backend="onnxruntime",
        onnx=path,
        source=f"torch.export program, torch {torch.__version__.partition('+')[0]}",
        reference=_reference(torch, program, names or tuple(inputs), outputs),
    )


def _reference(torch: Any, program: Any, names: Sequence[str], outputs: Sequence[str]) -> Reference:
    """Return a function that calls the program with arrays."""
    tree = torch.utils._pytree  # noqa: SLF001  (its public form cannot read the program's arguments)
    device = next((each.device for each in program.state_dict.values()), "cpu")

    def scores(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        tensors = [torch.from_numpy(np.ascontiguousarray(arrays[name])).to(device) for name in names]
        positional, named = tree.tree_unflatten(tensors, program.call_spec.in_spec)
        with torch.no_grad():
            values = tree.tree_leaves(program.module()(*positional, **named))
        return {name: value.cpu().numpy() for name, value in zip(outputs, values, strict=True)}

    return scores


def _refused(path: Path, why: str) -> DeploymentRefused:
    return DeploymentRefused(
        f"{path} cannot be read as a torch.export file: {why}. Save the program again with torch.export.save and "
        "this version of torch, or export it with torch.onnx.export and deploy the ONNX file."
    )
