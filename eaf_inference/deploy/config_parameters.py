"""The parameters of a model's configuration, from what its owner says and what the model and its source know."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from eaf_inference._text import did_you_mean
from eaf_inference.errors import ConfigurationError
from eaf_inference.inference.collections import axes_of, declared_of, prefix_of
from eaf_inference.inference.feature_names import width_of
from eaf_inference.inference.lengths import Declared
from eaf_inference.inference.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eaf_inference.deploy.onnx_file import OnnxFile
    from eaf_inference.inference.spec import ModelSpec, TensorSpec

__all__ = ["Choices", "Exported", "as_json", "parameters_of"]


class Exported(Protocol):
    """What is read of an export."""

    @property
    def backend(self) -> str: ...
    @property
    def features(self) -> Mapping[str, tuple[str, ...]]: ...
    @property
    def labels(self) -> Mapping[str, tuple[str, ...]]: ...
    @property
    def config(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Choices:
    """What the owner of a model says of it.

    Attributes
    ----------
    recipe : str or None
        The text of a ``preprocess.json``.
    labels : sequence of str, mapping of str to sequence of str, or None
        Class names of the one output with as many values, or by output.
    features : sequence of str, mapping of str to sequence of str, or None
        Names of the columns of the one input with as many, or by input.
    collections : mapping of str to sequence of str, or None
        Inputs that have the same constituents, by a name for them.
    graph : mapping or None
        As the parameter ``graph``.
    max_batch_size : int or None
        The most rows of a request; 0 if the model has no batch axis; None: it is found.
    lengths : sequence of int, mapping of str to sequence of int, or None
        The only padded lengths, of all jagged inputs or by collection or input.
    pad_batches_to : int, sequence of int, or None
        The only sizes of batches.
    """

    recipe: str | None = None
    labels: Sequence[str] | Mapping[str, Sequence[str]] | None = None
    features: Sequence[str] | Mapping[str, Sequence[str]] | None = None
    collections: Mapping[str, Sequence[str]] | None = None
    graph: Mapping[str, Any] | None = None
    max_batch_size: int | None = None
    lengths: Sequence[int] | Mapping[str, Sequence[int]] | None = None
    pad_batches_to: int | Sequence[int] | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """`pad_batches_to`, in order."""
        given = self.pad_batches_to or ()
        return tuple(sorted({given} if isinstance(given, int) else set(given)))


def parameters_of(
    model: str, choices: Choices, spec: ModelSpec | None, export: Exported | None, onnx: OnnxFile | None
) -> dict[str, str]:
    """Return the parameters' texts by key.

    Parameters
    ----------
    model : str
        The name of the model in messages.
    choices : Choices
        What the owner says, which goes first.
    spec : ModelSpec or None
        The model's inputs and outputs; None if only the server finds them.
    export : Exported or None
    onnx : OnnxFile or None
        For what they know of features, labels and common axes.

    Raises
    ------
    ConfigurationError
        A choice does not fit the model; the message says what to change.
    """
    found: dict[str, str] = {}
    recipe = None
    if choices.recipe is not None:
        recipe = Recipe.parse(choices.recipe, model=model)
        if spec is not None:
            _check_recipe(recipe, spec)
        found["preprocess"] = choices.recipe
    features = _features(choices, spec, export, onnx, recipe)
    collections = choices.collections or _collections(spec, onnx, recipe, graph=choices.graph is not None)
    declared = {
        "labels": _labels(choices.labels, spec, export),
        "features": features,
        "collections": collections,
        "graph": choices.graph,
        "lengths": choices.lengths,
        "pad_batches_to": choices.pad_batches_to,
    }
    return found | {key: as_json(value) for key, value in declared.items() if value}


def as_json(value: Any) -> str:
    """Write a value in one line of printable characters."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{str(value)[:200]} cannot be written as JSON: {error}. Expected texts, numbers, lists and dictionaries."
        ) from error
    return text if text.isprintable() else json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    """Return a tuple's, array's or number's plain form for JSON."""
    return value.tolist() if hasattr(value, "tolist") else list(value)


def _check_recipe(recipe: Recipe, spec: ModelSpec) -> None:
    """Check that a recipe describes inputs that the model has, each with as many variables as it takes.

    Raises
    ------
    ConfigurationError
    """
    shapes = {tensor.name: tensor.shape for tensor in spec.inputs}
    for name, variables in recipe.inputs.items():
        if name not in shapes:
            raise ConfigurationError(
                f"The recipe describes the input {name!r}, which the model does not take."
                f"{did_you_mean(name, [*shapes])} It takes {', '.join(shapes)}. Rename it in the recipe's "
                f"input_names and below, or export the model with input_names=[{name!r}, …]."
            )
        if axes_of(shapes[name], len(variables)) is None:
            fixed = [size for size in shapes[name] if size not in (-1, 1)]
            expected = f"{fixed[0]} of them" if len(fixed) == 1 else "as many as an axis of fixed size has values"
            raise ConfigurationError(
                f"The recipe has {len(variables)} variables for the input {name!r}, whose rows have the shape "
                f"{list(shapes[name])}: {', '.join(variable.name for variable in variables)[:300]}. Expected "
                f"{expected}, in the order of the training. Correct var_names in the recipe."
            )


def _labels(
    given: Sequence[str] | Mapping[str, Sequence[str]] | None, spec: ModelSpec | None, export: Exported | None
) -> dict[str, list[str]]:
    """Return the class names by output."""
    if given is None:
        known = dict(export.labels) if export is not None else {}
        outputs = None if spec is None else {each.name: each for each in spec.outputs}
        return {
            name: list(own)
            for name, own in known.items()
            if outputs is None or (name in outputs and _takes(outputs[name], own))
        }
    if isinstance(given, str):
        raise ConfigurationError(f"labels is {given!r}. Expected a list of class names, such as ['top', 'qcd'].")
    if isinstance(given, Mapping):
        labels = {str(name): _names("labels", own) for name, own in given.items()}
    elif spec is None:
        raise ConfigurationError(
            "labels is a list, and the model's outputs are not known before it is served. Name the output: "
            "labels={'OUTPUT': ['top', 'qcd']}."
        )
    else:
        labels = {_output_for(given, spec): _names("labels", given)}
    for name, own in labels.items() if spec is not None else ():
        output = next((each for each in spec.outputs if each.name == name), None) if spec is not None else None
        if output is None:
            known_names = [each.name for each in spec.outputs] if spec is not None else []
            raise ConfigurationError(
                f"labels names the output {name!r}, which is none of the model's numeric outputs."
                f"{did_you_mean(name, known_names)} They are {', '.join(known_names)}."
            )
        if not _takes(output, own):
            raise ConfigurationError(
                f"labels has {len(own)} names for the output {name!r}, whose rows have the shape "
                f"{list(output.shape)}. Expected one name for each value along its last axis."
            )
    return labels


def _takes(output: TensorSpec, labels: Sequence[str]) -> bool:
    return output.datatype != "BYTES" and output.shape[-1:] == (len(labels),)


def _output_for(labels: Sequence[str], spec: ModelSpec) -> str:
    """Return the one output with as many values per row as there are labels."""
    fitting = [each for each in spec.outputs if _takes(each, labels)]
    probabilities = [each for each in fitting if each.dtype.kind == "f"]
    chosen = probabilities or fitting
    if len(chosen) == 1:
        return chosen[0].name
    outputs = ", ".join(f"{each.name} {list(each.shape)}" for each in spec.outputs)
    if chosen:
        raise ConfigurationError(
            f"labels is one list of {len(labels)} names, and several outputs take as many: "
            f"{', '.join(each.name for each in chosen)}. Say which: labels={{{chosen[0].name!r}: [...]}}."
        )
    raise ConfigurationError(
        f"labels has {len(labels)} names, and no output has {len(labels)} values per row. The outputs are {outputs}. "
        "Expected one name for each value along the last axis of an output."
    )


def _names(what: str, given: Sequence[str]) -> list[str]:
    """Return names as a list, after checking that they are different texts."""
    names = [] if isinstance(given, str) else [str(each) if isinstance(each, str) else each for each in given]
    if not names or not all(isinstance(each, str) and each for each in names) or len(set(names)) != len(names):
        raise ConfigurationError(f"{what} has {str(given)[:200]}. Expected a list of different names.")
    return names


def _features(
    choices: Choices, spec: ModelSpec | None, export: Exported | None, onnx: OnnxFile | None, recipe: Recipe | None
) -> dict[str, list[str]]:
    """Return the names of columns by input: the owner's, or those that fit of the estimator's and the file's."""
    given = choices.features
    if given is None:
        known: dict[str, Sequence[str]] = {
            **(onnx.feature_names if onnx else {}),
            **(export.features if export else {}),
        }
        described = recipe.inputs if recipe is not None else {}
        widths = {each.name: width_of(each.shape) for each in spec.inputs} if spec is not None else {}
        return {
            name: list(own)
            for name, own in known.items()
            if name not in described and widths.get(name) == len(own) == len(set(own))
        }
    if isinstance(given, Mapping):
        return {str(name): _names("features", own) for name, own in given.items()}
    names = _names("features", given)
    able = {each.name: width_of(each.shape) for each in spec.inputs} if spec is not None else {}
    fitting = [name for name, width in able.items() if width == len(names)]
    if len(fitting) != 1:
        inputs = (
            ", ".join(f"{each.name} {list(each.shape)}" for each in spec.inputs) if spec is not None else "unknown"
        )
        raise ConfigurationError(
            f"features is one list of {len(names)} names, and {len(fitting)} inputs take as many; the inputs are "
            f"{inputs}. Expected one name for each column of one input; with several inputs, name it: "
            "features={'INPUT': [...]}."
        )
    return {fitting[0]: names}


def _collections(
    spec: ModelSpec | None, onnx: OnnxFile | None, recipe: Recipe | None, *, graph: bool
) -> dict[str, list[str]]:
    """Return the inputs that have one named axis of constituents, where their names do not say it already."""
    if spec is None or onnx is None or graph:
        return {}
    declared = {each.name: declared_of(each.name, each.shape, recipe) for each in spec.inputs}
    jagged = {name: each for name, each in declared.items() if each is not None}
    found: dict[str, list[str]] = {}
    for symbol, names in onnx.shared_axes.items():
        known = any(set(names) <= set(each.inputs) for each in spec.collections)
        if known or not jagged.keys() >= set(names) or (spec.batch_axis is None and not spec.max_batch_size):
            continue
        together = Declared.of_all(jagged[each] for each in names)
        if together.maximum is not None and together.minimum > together.maximum:  # the recipe knows better
            continue
        prefixes = {prefix_of(name) for name in names}
        name = prefixes.pop() if len(prefixes) == 1 else ""
        found[name or (symbol if symbol.isalpha() else names[0])] = list(names)  # torch's own symbols are s0, s1
    return found
