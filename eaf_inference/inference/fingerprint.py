"""A model's fingerprint: what decides its scores, to be kept beside them and compared later."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from eaf_inference.errors import InvalidInput
from eaf_inference.inference.probe import Shape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from eaf_inference.inference.probe import Number, Values
    from eaf_inference.inference.spec import ModelSpec

__all__ = ["Fingerprint", "Probed", "recipe_hash"]

_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Probed:
    """The scores of a few fixed rows.

    Attributes
    ----------
    shape : Shape
        How the rows were made.
    scores : mapping of str to (shape, values)
        By output; a large output has a sample of its values. NaN, infinities and strings are text.
    tolerance : float
        The largest difference of equal models' scores, relative to the largest score of the output. It allows for
        other batch sizes, with which a GPU's scores differ in their last digits, as they did when this was made.
    """

    shape: Shape
    scores: Mapping[str, Values]
    tolerance: float

    def difference(self, other: Probed) -> str:
        """Say how another probe's scores differ; empty if they are equal within the larger tolerance."""
        if self.shape != other.shape:
            return "its probe has other rows"
        if self.scores.keys() != other.scores.keys():
            return f"its probe has the outputs {', '.join(other.scores)}, and had {', '.join(self.scores)}"
        tolerance = max(self.tolerance, other.tolerance)
        for name, (shape, values) in self.scores.items():
            other_shape, others = other.scores[name]
            if shape != other_shape:
                return f"the output {name!r} of a probe has the shape {list(other_shape)}, and had {list(shape)}"
            largest = _change(values, others)
            if largest > tolerance:
                by = "" if math.isinf(largest) else f" by {largest:.2g} of the largest"
                return f"the scores {name!r} of a probe differ{by}"
        return ""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What decides a model's scores.

    Its text is a short hash of all but the probe, so it is the same for the same model on any server. Two models of
    one name, version and configuration with other weights have the same text, too: `matches` compares the probes.

    Attributes
    ----------
    model, version : str
        The version may be empty if the server does not tell.
    config : str
        The hash of the server's configuration, without what changes no score, such as the number of instances;
        empty if the server does not show it.
    recipe : str
        The hash of what the client does: the recipe, class names, requested outputs, and lengths.
    probe : Probed or None
        The scores of a few fixed rows, of one replica; None if there are none.
    remark : str
        Why there is no probe; empty if there is one.
    """

    model: str
    version: str
    config: str
    recipe: str
    probe: Probed | None = None
    remark: str = ""

    def __str__(self) -> str:
        text = json.dumps([self.model, self.version, self.config, self.recipe])
        return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]

    def difference(self, other: Fingerprint) -> str:
        """Say in what another fingerprint differs from this one; empty if both are of the same model.

        Scores are equal within a tolerance, and NaN equals NaN. A configuration or version that one of them does not
        know is not compared.
        """
        if self.model != other.model:
            return f"it is {other.model!r}, and was {self.model!r}"
        if self.version and other.version and self.version != other.version:
            return f"it has version {other.version}, and had version {self.version}"
        if self.config and other.config and self.config != other.config:
            return "its configuration on the server is another"
        if self.recipe != other.recipe:
            return "its recipe, class names, requested outputs or lengths are others"
        if self.probe is None or other.probe is None:
            return (
                ""
                if self.probe is other.probe
                else f"it cannot be probed, or could not: {self.remark or other.remark}"
            )
        return self.probe.difference(other.probe)

    def matches(self, other: Fingerprint) -> bool:
        """Whether both are of the same model, so that its scores may stand side by side."""
        return not self.difference(other)

    def to_json(self) -> str:
        """Return the fingerprint as JSON text, such as for a file's metadata."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Fingerprint:
        """Read what `to_json` returned.

        Raises
        ------
        InvalidInput
            It is something else.
        """
        try:
            data = json.loads(text)
            if data["probe"] is not None:
                data["probe"] = _probed(data["probe"])
            made = cls(**data)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidInput(
                f"A fingerprint cannot be read: {type(error).__name__}: {error}. Expected the text that "
                "Fingerprint.to_json() returns."
            ) from error
        return made


def recipe_hash(spec: ModelSpec) -> str:
    """Return the hash of what the client does before and after the network.

    It covers the recipe, the requested outputs and their class names, the lengths to which rows are cut or padded,
    the collections, and the columns of tables. The text of a recipe does not matter, only its meaning.
    """
    used = {
        "recipe": spec.recipe and asdict(spec.recipe),
        "outputs": [output.name for output in spec.outputs],
        "labels": {name: list(classes) for name, classes in spec.labels.items()},
        "lengths": {tensor.name: tensor.lengths for tensor in spec.inputs if tensor.lengths},
        "collections": [asdict(each) for each in spec.collections],
        "features": {name: list(names) for name, names in spec.features.items()},
        "graph": spec.graph and asdict(spec.graph),
        "batch_axis": spec.batch_axis,
        "pad_batches_to": spec.pad_batches_to,
    }
    return hashlib.sha256(json.dumps(used, sort_keys=True).encode()).hexdigest()[:_DIGITS]


def _change(values: tuple[Number, ...], others: tuple[Number, ...]) -> float:
    """Return the largest difference, relative to the largest number; infinite if texts or integers differ."""
    pairs = list(zip(values, others, strict=True))
    numbers = [(a, b) for a, b in pairs if isinstance(a, float) and isinstance(b, float)]
    if any(a != b for a, b in pairs if not (isinstance(a, float) and isinstance(b, float))):
        return math.inf
    scale = max((max(abs(a), abs(b)) for a, b in numbers), default=0.0)
    return max((abs(a - b) for a, b in numbers), default=0.0) / (scale or 1.0)


def _probed(data: dict[str, Any]) -> Probed:
    scores = {name: (tuple(shape), tuple(values)) for name, (shape, values) in data["scores"].items()}
    return Probed(Shape(**data["shape"]), scores, float(data["tolerance"]))
