"""What a model's owner declares as parameters in its ``config.pbtxt``, and what a user chooses instead.

Pure functions of text: the recipe and the labels, which are larger, have their own parsers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eaf_inference._text import did_you_mean
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

__all__ = [
    *("AS_CONFIGURED", "DEPLOYMENT", "PARAMETERS", "Chosen", "batch_sizes", "check_batch_axis", "has_batch_axis"),
    *("merged_sizes", "padded_lengths", "parameter"),
]

# The keys of what a model's owner declares, and of what `eaf_inference.deploy` writes down about a version
PARAMETERS = ("preprocess", "labels", "features", "collections", "graph", "batch_axis", "lengths", "pad_batches_to")
DEPLOYMENT = "deployment"
_LARGEST_PARAMETER = 1 << 20  # characters
_MOST_ROWS = 1 << 20  # of a batch of a declared size
_SHOWN = 200  # characters of a parameter in a message


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a user asks of a model, in place of what its configuration says; see `Connection.model`.

    Attributes
    ----------
    preprocess : str or None
        The text of a recipe.
    outputs : tuple of str
        The outputs to request; empty for all numbers and booleans.
    batch_axis : int or None
    lengths : sequence of int, or mapping of str to sequence of int, or None
        The only padded lengths, of all jagged inputs or by collection or input.
    """

    preprocess: str | None = None
    outputs: tuple[str, ...] = ()
    batch_axis: int | None = None
    lengths: Any = None

    @classmethod
    def of(
        cls,
        *,
        preprocess: str | os.PathLike[str] | None = None,
        outputs: Sequence[str] | None = None,
        batch_axis: int | None = None,
        lengths: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
    ) -> Chosen:
        """Check the arguments of `Connection.model`, and read the recipe's file.

        Raises
        ------
        ConfigurationError
            The file cannot be read, or an argument has no meaning.
        """
        recipe = None
        if preprocess is not None:
            try:
                recipe = Path(preprocess).expanduser().read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(
                    f"The recipe {preprocess} cannot be read: {error}. Expected the path of a preprocess.json."
                ) from error
        names = (outputs,) if isinstance(outputs, str) else tuple(outputs or ())
        if (outputs is not None and not names) or not all(isinstance(name, str) for name in names):
            raise ConfigurationError(
                f"outputs is {outputs!r}. Expected names of outputs, such as outputs=['prob']; without it, all are "
                "returned."
            )
        return cls(recipe, tuple(dict.fromkeys(names)), batch_axis, lengths)

    def outputs_among(self, known: Sequence[str], model: str) -> tuple[str, ...]:
        """Return the outputs that are asked for, after checking that the model has them."""
        for name in self.outputs:
            if name not in known:
                raise ConfigurationError(
                    f"The model {model!r} has no output {name!r}.{did_you_mean(name, known)} It has "
                    f"{', '.join(known)}."
                )
        return self.outputs


AS_CONFIGURED = Chosen()


def merged_sizes(config: Any) -> tuple[int, ...] | None:
    """Return the sizes of batches that Triton's dynamic batcher prefers, in order; None if it merges no requests."""
    if not config.HasField("dynamic_batching") or config.max_batch_size < 1:
        return None
    # Triton fills in max_batch_size if the file names no size
    sizes = {size for size in config.dynamic_batching.preferred_batch_size if 1 < size < config.max_batch_size}
    return tuple(sorted(sizes))


def parameter(config: Any, key: str) -> str | None:
    """Return a parameter of a model's configuration; None if it has none of that name."""
    if key not in config.parameters:
        return None
    text: str = config.parameters[key].string_value
    if len(text) > _LARGEST_PARAMETER:
        raise ConfigurationError(
            f"The parameter {key!r} of {config.name!r} is too long: {len(text)} characters, "
            f"at most {_LARGEST_PARAMETER} are read. Ask the model's owner to correct its config.pbtxt."
        )
    return text


def has_batch_axis(model: str, declared: str | None, chosen: Any) -> bool:
    """Return whether the first axis of every tensor counts rows, by what the user or the model's owner says.

    Parameters
    ----------
    model : str
    declared : str or None
        The parameter ``batch_axis``.
    chosen : int or None
        The user's, which goes first.

    Raises
    ------
    ConfigurationError
        It is not 0.
    """
    axis = declared if chosen is None else chosen
    if axis is None:
        return False
    if isinstance(axis, bool) or str(axis).strip() != "0":
        where = "The parameter 'batch_axis' in its config.pbtxt" if chosen is None else "batch_axis"
        raise ConfigurationError(
            f"The batch axis of {model!r} cannot be used: {where} is {str(axis)[:20]!r}. Expected 0, if the first "
            "axis of every input and output counts the rows; without it, each array is one request."
        )
    return True


def check_batch_axis(model: str, tensor: str, dims: Sequence[int], sizes: Sequence[int]) -> None:
    """Check that a tensor has a first axis that may count rows: of variable size, or of the one size of all batches.

    Raises
    ------
    ConfigurationError
        Its first axis has another size, or it has none.
    """
    if not dims or dims[0] not in sizes or (dims[0] != -1 and len(sizes) > 2):
        raise ConfigurationError(
            f"The model {model!r} cannot be split along batch_axis 0: {tensor} has the shape {list(dims)}. Expected "
            "-1 as the first size of every input and output, such as [-1, 5], or the one size in 'pad_batches_to'; "
            "or no batch_axis, and then each array is one request."
        )


def batch_sizes(model: str, declared: str | None, largest: int) -> tuple[int, ...]:
    """Return the only sizes of batches that the model takes, by the parameter ``pad_batches_to``; empty for any.

    Parameters
    ----------
    model : str
    declared : str or None
        JSON: a size, or a list of them.
    largest : int
        The most rows of a batch; 0 if the model has no batch axis.

    Raises
    ------
    ConfigurationError
        It is not what is expected, or the model takes no such batches.
    """
    if declared is None:
        return ()
    sizes = _whole_numbers(declared)
    if not sizes or sizes[-1] > _MOST_ROWS:
        why = f"it is {declared[:_SHOWN]!r}"
    elif not largest:
        why = "the model has no batch axis: its max_batch_size is 0, and no 'batch_axis' is declared"
    elif sizes[-1] > largest:
        why = f"{sizes[-1]} is above its max_batch_size, {largest}"
    else:
        return sizes
    raise ConfigurationError(
        f"The parameter 'pad_batches_to' of {model!r} cannot be used: {why}. Expected JSON: the size of its batches, "
        f"such as 8, or a list of sizes, from 1 to {_MOST_ROWS:,}. Ask the model's owner to correct its config.pbtxt."
    )


def padded_lengths(
    model: str,
    declared: str | None,
    chosen: Any,
    shapes: Mapping[str, Sequence[int]],
    collections: Mapping[str, Sequence[str]],
) -> dict[str, tuple[int, ...]]:
    """Return the only padded lengths that each jagged input takes; inputs that take any are left out.

    Parameters
    ----------
    model : str
    declared : str or None
        The parameter ``lengths``, JSON: a list, or collection or input -> list.
    chosen : sequence of int, mapping of str to sequence of int, or None
        The user's, which goes first.
    shapes : mapping of str to sequence of int
        By input.
    collections : mapping of str to sequence of str
        The jagged inputs that share their lengths.

    Raises
    ------
    ConfigurationError
        It is not what is expected, or names no jagged input.
    """
    if declared is None and chosen is None:
        return {}
    where = "The parameter 'lengths' in its config.pbtxt" if chosen is None else "lengths"

    def wrong(why: str) -> ConfigurationError:
        return ConfigurationError(
            f"The padded lengths of {model!r} cannot be used: {where} {why}. Expected the lengths that the model "
            "takes, such as [64, 128]; or collection or input -> list of lengths."
        )

    data = chosen
    if chosen is None:
        try:
            data = json.loads(declared or "")
        except (ValueError, RecursionError) as error:
            raise wrong(f"is not JSON: {error}") from error
    variable = {name: list(shape).count(-1) for name, shape in shapes.items() if -1 in shape}
    if not isinstance(data, Mapping):
        data = dict.fromkeys(variable, data)
    elif not data:
        raise wrong("names no input")
    if not variable:
        raise wrong("cannot be kept, because no input has an axis of variable size")
    found: dict[str, tuple[int, ...]] = {}
    for name, sizes in data.items():
        inputs = collections.get(name) or [name]
        if any(each not in variable for each in inputs):
            known = [*collections, *variable]
            raise wrong(f"names {str(name)[:_SHOWN]!r}.{did_you_mean(name, known)} It has {', '.join(known)}")
        together = next((each for each in collections.values() if inputs[0] in each), inputs)
        own = _in_order([sizes] if isinstance(sizes, int) else sizes)
        if not own or own[-1] > _MOST_ROWS:
            raise wrong(f"is {str(sizes)[:_SHOWN]} for {name!r}")
        for each in together:
            if variable[each] != 1 or len(shapes[each]) > 2:
                raise wrong(
                    f"cannot be kept for {each!r}, whose shape {list(shapes[each])} is not [C, -1], [-1, C] or [-1]"
                )
            if found.setdefault(each, own) != own:
                raise wrong(f"differs for {', '.join(map(repr, together))}, which have the same constituents")
    return found


def _whole_numbers(text: str) -> tuple[int, ...]:
    """Return the positive whole numbers of a JSON text, in order; nothing if it is something else."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    return _in_order(data if isinstance(data, list) else [data])


def _in_order(numbers: Any) -> tuple[int, ...]:
    """Return positive whole numbers in order; nothing if they are something else."""
    if not isinstance(numbers, list | tuple):
        return ()
    whole = all(isinstance(each, int) and not isinstance(each, bool) and each > 0 for each in numbers)
    return tuple(sorted(set(numbers))) if whole else ()
