"""Export a torch network to ONNX, with a free batch axis, and compare the export with the network.

Torch has two exporters. The one that traces takes 0.05 to 0.6 s for this field's networks, but it writes the shapes
of the example into attention layers, and only warns where Python code decides by a tensor's values. The other one,
``dynamo``, refuses what it cannot represent, but takes 2 to 20 s. So the first is used if its export gives what the
network gives for other batch sizes and lengths, and no warning comes from the network's own code; or else the second.
Measured with torch 2.13.0 on ParticleNet, MLPs, deep sets, transformers and a GRU.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eaf_inference.deploy.exported import Export, library, reason, short
from eaf_inference.deploy.saved import onnx_files
from eaf_inference.deploy.torch_network import Network, evaluating, plain
from eaf_inference.errors import DeploymentRefused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from eaf_inference.deploy.example import ExampleInputs
    from eaf_inference.inference.recipe import Recipe

__all__ = ["export_network", "forward_names", "translate"]

_OPSET = 17, 18  # of the exporter that traces: ONNX Runtime 1.17 and later; the least of the other one
_LONGER = 5  # constituents, in the comparison
_CLOSE = 1e-4  # where two neighbours are equally near, rounding decides: a few rows may differ …
_FEWEST_ALIKE = 0.8  # … and the served scores are compared more closely later


def forward_names(net: Any) -> list[str]:
    """Return the names of the arrays that a network's ``forward`` takes."""
    net = plain(net)
    schema = getattr(getattr(net, "forward", None), "schema", None)
    if schema is not None:  # TorchScript
        return [each.name for each in schema.arguments[1:]]
    parameters = inspect.signature(net.forward).parameters.values()
    return [each.name for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]


def export_network(net: Any, directory: Path, arrays: ExampleInputs, recipe: Recipe | None) -> Export:
    """Export a ``torch.nn.Module``.

    Parameters
    ----------
    net : torch.nn.Module
        It is left as it was: its mode, its device and its gradients.
    directory : pathlib.Path
    arrays : ExampleInputs
    recipe : Recipe or None
        Names the outputs, if it does.

    Raises
    ------
    DeploymentRefused
        The network does not take the example, or cannot be exported.
    """
    torch = library("torch", "to export a network")
    network = Network.of(plain(net), arrays, recipe)
    path = directory / "model.onnx"
    with evaluating(network.net):
        network.settle()
        remark = _written(torch, network, path)
    return Export(
        files=onnx_files(path),
        backend="onnxruntime",
        onnx=path,
        source=f"torch {torch.__version__.partition('+')[0]}",
        remarks=tuple(filter(None, (*network.remarks, remark))),
        reference=network.reference,
    )


def _written(torch: Any, network: Network, path: Path) -> str:
    """Write the ONNX file with the exporter that gives the right one, and return what to say of it."""
    try:
        doubts = _traced(torch, network, path)
        wrong = _difference(network, path)
    except DeploymentRefused as error:
        doubts, wrong = [], str(error)
    if not wrong and not doubts:
        return ""
    why = wrong or f"its values decide what is computed: {doubts[0]}"
    try:
        _translated(torch, network, path)
    except DeploymentRefused as error:
        raise DeploymentRefused(
            f"The network cannot be exported to ONNX. {error} (Traced instead, {why}.) Expected operations on "
            "tensors alone in forward: replace Python's if, int(), float(), .item() and numpy on tensors by "
            "torch.where, masks and shapes, or export it yourself and deploy the ONNX file."
        ) from error
    if wrong := _difference(network, path):
        raise DeploymentRefused(
            f"The ONNX export does not give what the network gives: {wrong}. Expected the same for every batch size "
            "and length: use sizes from x.shape in forward instead of numbers, or export it yourself and deploy the "
            "ONNX file."
        )
    return ""


def _traced(torch: Any, network: Network, path: Path) -> list[str]:
    """Write the file by tracing, and return the warnings about the network's own code."""
    free = {
        name: {0: "batch"} | ({network.lengths[name]: f"{name}_length"} if name in network.lengths else {})
        for name in network.inputs
    }
    with warnings.catch_warnings(record=True) as caught, _quiet():
        warnings.simplefilter("always")
        try:
            torch.onnx.export(
                network.module(torch),
                tuple(network.tensors(network.arrays)),
                str(path),
                input_names=list(network.inputs),
                output_names=list(network.outputs),
                dynamic_axes=free | {name: {0: "batch"} for name in network.outputs},
                opset_version=_OPSET[0],
                dynamo=False,
            )
        except Exception as error:
            raise DeploymentRefused(f"torch says: {short(error)}") from error
    own = Path(torch.__file__).parent
    return [
        f"{short(each.message)} ({Path(each.filename).name} line {each.lineno})"
        for each in caught
        if issubclass(each.category, torch.jit.TracerWarning) and own not in Path(each.filename).parents
    ]


def _translated(torch: Any, network: Network, path: Path) -> None:
    """Write the file with torch's other exporter."""
    if network.is_script:
        raise DeploymentRefused(
            "torch exports TorchScript only by tracing. Call net.eval() before torch.jit.trace, or pass the network."
        )
    library("onnxscript", "to export this network, which torch cannot trace")
    dynamic = torch.export.Dim.DYNAMIC
    shapes = [
        {0: dynamic} | ({network.lengths[name]: dynamic} if name in network.lengths else {})
        for name in network.inputs
    ]
    translate(
        torch,
        network.module(torch),
        path,
        args=tuple(network.tensors(network.arrays)),
        input_names=list(network.inputs),
        output_names=list(network.outputs),
        dynamic_shapes=(tuple(shapes),),
    )


def translate(torch: Any, model: Any, path: Path, **settings: Any) -> None:
    """Write an ONNX file with torch's exporter ``dynamo``; the settings are those of ``torch.onnx.export``.

    Raises
    ------
    DeploymentRefused
        Torch cannot export the model.
    """
    for written in (path, path.with_name("model.onnx.data")):
        written.unlink(missing_ok=True)
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")
        try:
            # onnxscript's optimizer leaves out constants that are added and are 1e-8 or less, as before a logarithm
            settings |= {"optimize": False, "verbose": False}
            torch.onnx.export(model, f=str(path), opset_version=_OPSET[1], dynamo=True, **settings)
        except Exception as error:
            raise DeploymentRefused(f"torch says: {reason(error)}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from printing what an exception says too."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch.fx", "torch._dynamo")]
    levels = [each.level for each in loggers]
    try:
        for each in loggers:
            each.setLevel(logging.CRITICAL)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


def _difference(network: Network, path: Path) -> str:
    """Say where the file and the network differ, for several batch sizes and lengths; empty if they do not."""
    onnxruntime = library("onnxruntime", "to check the export")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors are raised
    options.intra_op_num_threads = 1  # few rows
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001  (each of its errors has a class of its own)
        return f"ONNX Runtime does not load it: {short(error)}"
    taken = {each.name for each in session.get_inputs()}
    if unused := [name for name in network.inputs if name not in taken]:
        raise DeploymentRefused(
            f"The network does not use its input {', '.join(unused)}, so the export lacks it. Expected every input "
            "to matter: leave it out of forward and of the recipe."
        )
    sizes = [(len(network), 0), (1, 0), (len(network) + 2, 0)]
    if network.lengths:
        sizes += [(len(network), _LONGER), (1, -1)]
    for rows, longer in sizes:
        arrays = network.resized(rows, longer)
        try:
            expected = network(arrays)
        except Exception:  # noqa: BLE001, S112  (the network itself does not take this length)
            continue
        try:
            values = session.run(list(network.outputs), arrays)
        except Exception as error:  # noqa: BLE001
            return f"it fails for {_shapes(arrays)}: {short(error)}"
        for (name, own), value in zip(expected.items(), values, strict=True):
            if wrong := _apart(own, value):
                return f"output {name!r} {wrong} for {_shapes(arrays)}"
    return ""


def _apart(own: NDArray[Any], value: NDArray[Any]) -> str:
    if own.shape != value.shape:
        return f"has the shape {value.shape} instead of {own.shape}"
    if own.dtype.kind != "f":
        return "" if np.array_equal(own, value) else "differs"
    close = np.isclose(value, own, rtol=_CLOSE, atol=_CLOSE, equal_nan=True).reshape(len(own), -1).all(axis=1)
    if close.mean() >= _FEWEST_ALIKE:
        return ""
    finite = np.isfinite(own)
    if not np.array_equal(finite, np.isfinite(value)):
        return "has NaN or infinity where the other has none"
    return f"differs by up to {np.abs(value[finite] - own[finite]).max(initial=0):.2g}"


def _shapes(arrays: Mapping[str, NDArray[Any]]) -> str:
    return ", ".join(f"{name} of shape {list(array.shape)}" for name, array in arrays.items())
