"""Compare an ONNX file with a model's configuration, and with what the server's ONNX Runtime reads."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from eaf_inference._text import did_you_mean
from eaf_inference.deploy.finding_texts import FREE_BATCH
from eaf_inference.deploy.findings import ERROR, WARNING, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from eaf_inference.deploy.onnx_file import OnnxFile, OnnxTensor

__all__ = ["opset_findings", "own_opset_limit", "tensor_findings"]

_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "ai.onnx.preview.training", "ai.onnx.training")
_OPSET = re.compile(r"is till opset (\d+)")
_BEYOND = 9999


@cache
def own_opset_limit() -> int:
    """Return the newest opset that the ONNX Runtime installed here reads."""
    import onnxruntime
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "probe", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _BEYOND)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - its message names the newest opset, and nothing else does
        if found := _OPSET.search(str(error)):
            return int(found[1])
    return _BEYOND


def opset_findings(name: str, onnx: OnnxFile, limit: int) -> list[Finding]:
    """Check a file's versions and the domains of its operators.

    Parameters
    ----------
    limit : int
        The newest opset of the server's ONNX Runtime.
    """
    opset = max((version for domain, version in onnx.opset.items() if domain in ("", "ai.onnx")), default=0)
    if opset > limit:
        return [
            Finding(
                "opset",
                ERROR,
                f"{name!r} has opset {opset}.",
                f"at most {limit}, the newest that the server's ONNX Runtime reads",
                f"Export it with torch.onnx.export(…, opset_version={limit}) or to_onnx(…, target_opset={limit}); or "
                f"convert the file, onnx.version_converter.convert_version(model, {limit}).",
            )
        ]
    found = []
    most = _ir_limit(limit)
    if most and onnx.ir_version > most:
        found.append(
            Finding(
                "ir-version",
                ERROR,
                f"The ONNX file of {name!r} has IR version {onnx.ir_version}.",
                f"at most {most}, the newest that the server's ONNX Runtime reads",
                f"Write it again: model = onnx.load(PATH); model.ir_version = {most}; onnx.save(model, PATH).",
            )
        )
    foreign = [each for each in onnx.opset if each not in _DOMAINS]
    if foreign and (operators := _operators_of(onnx, foreign)):
        found.append(
            Finding(
                "custom-operators",
                ERROR,
                f"{name!r} has operators that ONNX Runtime does not know: {', '.join(operators)}.",
                "operators of ONNX",
                "Export it without them: write the layer with PyTorch's own operators, or register a translation, "
                "torch.onnx.export(…, custom_translation_table=…). Ask the operators to load a library of operators "
                "only if there is no other way.",
            )
        )
    return found


def _ir_limit(opset: int) -> int | None:
    """Return the IR version of the ONNX release with this opset; None if the release is not known here."""
    from onnx import helper

    versions = [(row[2], row[1]) for row in helper.VERSION_TABLE]
    if opset > max(each for each, _ in versions):
        return None
    return int(max(version for each, version in versions if each <= opset))


def _operators_of(onnx: OnnxFile, domains: Sequence[str]) -> list[str]:
    """Return the operators of these domains that the file does not define itself."""
    import onnx as library

    model = library.load(str(onnx.path), load_external_data=False)
    defined = {(each.domain, each.name) for each in model.functions}
    found = dict.fromkeys(
        f"{node.domain}.{node.op_type}"
        for nodes in (model.graph.node, *(each.node for each in model.functions))
        for node in _all_nodes(nodes)
        if node.domain in domains and (node.domain, node.op_type) not in defined
    )
    return list(found)[:5]


def _all_nodes(nodes: Any) -> Iterator[Any]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _all_nodes(attribute.g.node)


def tensor_findings(name: str, onnx: OnnxFile, config: Any, *, own_config: bool) -> list[Finding]:
    """Compare an ONNX file's inputs and outputs with those of a configuration.

    Parameters
    ----------
    config : protocol.ModelConfig
    own_config : bool
        Its author wrote it, and so may have meant a model without a batch axis.
    """
    found = [
        *_compared(name, "input", onnx.inputs, config.input, complete=True),
        *_compared(name, "output", onnx.outputs, config.output, complete=False),
    ]
    return found or _batch_axis_findings(name, onnx, config, own_config=own_config)


def _compared(
    name: str, kind: str, present: Sequence[OnnxTensor], configured: Any, *, complete: bool
) -> list[Finding]:
    """Compare names and types; `complete`: the configuration must have them all."""
    known = {tensor.name: tensor for tensor in present}
    names = {tensor.name for tensor in configured}
    found = [
        Finding(
            f"{kind}-unknown",
            ERROR,
            f"The configuration of {name!r} names the {kind} {each!r}, which the ONNX file does not have."
            f"{did_you_mean(each, list(known))}",
            f"{kind}s of the file: {', '.join(map(str, present))}",
            f"Correct the name in config.pbtxt, or export with {kind}_names=[{each!r}].",
        )
        for each in dict.fromkeys(tensor.name for tensor in configured)
        if each not in known
    ]
    found += [
        Finding(
            f"{kind}-missing",
            ERROR,
            f"The configuration of {name!r} lacks the {kind} {each}.",
            f"all {kind}s of the ONNX file",
            "Add it to config.pbtxt, or export the model without it.",
        )
        for each in present
        if complete and names and each.name not in names and not found
    ]
    for tensor in configured:
        datatype = _datatype(tensor)
        if tensor.name in known and datatype != known[tensor.name].datatype:
            actual = known[tensor.name].datatype
            found.append(
                Finding(
                    "type-differs",
                    ERROR,
                    f"The configuration of {name!r} gives the {kind} {tensor.name!r} the type {datatype}.",
                    f"{actual}, as in the ONNX file",
                    f"Write data_type: TYPE_{'STRING' if actual == 'BYTES' else actual} in config.pbtxt, or cast it "
                    "in the network before the export (x.float()).",
                )
            )
    return found


def _batch_axis_findings(name: str, onnx: OnnxFile, config: Any, *, own_config: bool) -> list[Finding]:
    """Compare the sizes of the axes."""
    tensors = [*onnx.inputs, *onnx.outputs]
    configured = {tensor.name: tensor for tensor in (*config.input, *config.output)}
    if not configured:  # Triton completes the configuration from the file
        return []
    tensors = [each for each in tensors if each.name in configured]
    fixed = [each for each in tensors if each.dims[:1] != (-1,)]
    if config.max_batch_size > 0:
        if fixed:
            return [_fixed(name, fixed, f"although max_batch_size is {config.max_batch_size}", ERROR)]
    elif not {"graph", "batch_axis"} & set(config.parameters):
        sizes = {each.dims[0] if each.dims else 0 for each in fixed}
        if len(fixed) == len(tensors) and len(sizes) == 1 and all(len(each.dims) > 1 for each in fixed):
            return [_fixed(name, fixed, "so each row is a request of its own", WARNING if own_config else ERROR)]
        if onnx.batched:
            return [
                Finding(
                    "no-batching",
                    WARNING,
                    f"max_batch_size of {name!r} is 0, although the first axis of every input and output is free.",
                    "a max_batch_size above 0, so that the server merges requests",
                    "If the first axis counts rows, write max_batch_size: 1024 and leave this axis out of dims; if "
                    "it counts nodes or edges, declare the parameter 'graph'.",
                )
            ]
    found = []
    for tensor in tensors:
        if (each := configured.get(tensor.name)) is not None:
            found += _dims(name, tensor, each, batched=config.max_batch_size > 0)
    return found


def _fixed(name: str, fixed: Sequence[OnnxTensor], why: str, severity: Any) -> Finding:
    shown = "; ".join(map(str, fixed))
    return Finding(
        "fixed-batch-axis",
        severity,
        f"The first axis of {name!r} has a fixed size in the ONNX file ({shown}), {why}.",
        "a free first axis of every input and output",
        f"{FREE_BATCH}.",
    )


def _dims(name: str, tensor: OnnxTensor, configured: Any, *, batched: bool) -> list[Finding]:
    shape = configured.reshape.shape if configured.HasField("reshape") else configured.dims
    declared = (-1, *shape) if batched else tuple(shape)
    fits = len(declared) == len(tensor.dims) and all(
        size in (want, -1) for want, size in zip(declared, tensor.dims, strict=True)
    )
    if fits:
        return []
    wanted = list(tensor.dims[1:] if batched else tensor.dims)
    return [
        Finding(
            "dims-differ",
            ERROR,
            f"The configuration of {name!r} gives {tensor.name!r} the dims {list(configured.dims)}"
            f"{' after the batch axis' if batched else ''}; the ONNX file has {list(tensor.dims)}.",
            f"dims: {wanted}",
            f"Write dims: {wanted} in config.pbtxt; or, if an axis should be free, name it in the export: "
            f'dynamic_axes={{{tensor.name!r}: {{0: "batch", 2: "constituents"}}}} or dynamic_shapes.',
        )
    ]


def _datatype(tensor: Any) -> str:
    known = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
    number = tensor.data_type
    name = known[number].name.removeprefix("TYPE_") if number in known else str(number)
    return "BYTES" if name == "STRING" else name
