"""Convert scikit-learn, XGBoost and LightGBM estimators to ONNX, and compare the conversion with the estimator.

Every export has one input, ``features``, and one output: ``probabilities``, ``scores`` or ``prediction``. The label
that converters add is left out, since it follows from the probabilities and may be text.

Numbers are float32 where that is exact. XGBoost and scikit-learn's forests and gradient boosting compare float32
numbers themselves, so their trees decide alike. LightGBM, and any scaling before a tree, compute in float64: an
example with more digits than float32 holds may then take another branch. If the example shows such rows, a float64
model is made where the converter has one, and the number of rows is stated in any case.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from eaf_inference.deploy import estimator_libraries
from eaf_inference.deploy.example import feature_rows
from eaf_inference.deploy.exported import Export, library, reason, short
from eaf_inference.errors import DeploymentRefused

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from eaf_inference.deploy.estimator_libraries import Estimator

__all__ = ["export_estimator"]

_INPUT = "features"
_MOST_ROWS = 10_000  # compared
_CLOSE = 1e-5
_MOST_APART = 0.01  # rows on another branch; more is a wrong conversion
_WITH_NAN = "rows with NaN"
_TRIED = 400  # rows in which single numbers are replaced
_FILL = "Replace NaN in the data and fit again, or put sklearn.impute.SimpleImputer() before it in a pipeline."


def export_estimator(estimator: Any, directory: Path, example: Any = None) -> Export:
    """Export a fitted estimator.

    Parameters
    ----------
    estimator : object
    directory : pathlib.Path
    example : object, optional
        Rows as the model will be called with: a table with its features, or an array.

    Raises
    ------
    DeploymentRefused
        It is not fitted, the converter is missing or fails, or the conversion does not give what the estimator gives.
    InvalidInput
        The example lacks a feature.
    """
    known = estimator_libraries.recognised(estimator)
    rows = None
    if example is not None:
        rows = feature_rows(example, known.features, known.width)[:_MOST_ROWS]
        if not len(rows):
            raise DeploymentRefused("The example has no rows. Expected a few rows of the features.")
    single = _Candidate.converted(known, double=False, rows=rows)
    chosen, remarks = single, []
    if rows is not None and (single.wrong or single.apart):
        double = _Candidate.converted(known, double=True, rows=rows) if known.has_double else None
        if double is not None and not double.wrong and (single.wrong or double.apart < single.apart):
            chosen = double
            remarks.append(
                f"The model takes float64: in float32, {single.apart or len(rows):,} of {len(rows):,} rows of the "
                "example would get other scores. Fit on float32 numbers to send half the bytes."
            )
    if not chosen.wrong and rows is not None and chosen.differs_with(known, rows, 0.0):
        chosen = replace(chosen, wrong="rows with 0 differ, of which the example has too few")
    if chosen.wrong:
        advice = (
            "Fit trees on float32 numbers, X.astype('float32'); fit without settings that the converter ignores, "
            "such as linear_tree, zero_as_missing, sigmoid or boosting_type='rf' of LightGBM, or several targets; "
            "or use versions of the converter and the library that fit each other, pip install --upgrade "
            f"{known.converter}."
        )
        raise DeploymentRefused(
            f"{known.source}: the conversion to ONNX does not give what the estimator gives: {chosen.wrong}. "
            f"Expected equal scores. {_FILL if _WITH_NAN in chosen.wrong else advice}"
        )
    if rows is not None and chosen.differs_with(known, rows, np.nan):
        remarks.append(
            f"Rows with NaN get other scores than from the estimator: {known.converter} does not know how it treats "
            f"missing values. {_FILL}"
        )
    if rows is not None and chosen.apart and chosen is single:
        remarks.append(
            f"{chosen.apart:,} of {len(rows):,} rows of the example get other scores than from the estimator, "
            "because they are rounded to float32 and lie at the edge of a tree's cut. Fit on float32 numbers, "
            "X.astype('float32'), without scaling, which trees do not need, to have equal scores."
        )
    path = directory / "model.onnx"
    path.write_bytes(chosen.content)
    return Export(
        files={"model.onnx": path},
        backend="onnxruntime",
        onnx=path,
        source=known.source,
        features={_INPUT: known.features} if known.features else {},
        labels={known.output: known.classes} if known.classes else {},
        remarks=tuple(remarks),
        reference=lambda arrays: {known.output: known.scores(np.asarray(arrays[_INPUT]))},
    )


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A conversion, and how it compares with the estimator.

    Attributes
    ----------
    content : bytes
        The ONNX file; empty if it failed.
    apart : int
        Rows of the example with other scores.
    wrong : str
        Why it cannot be used; empty if it can.
    dtype : type
        Of the numbers that it takes.
    """

    content: bytes
    apart: int = 0
    wrong: str = ""
    dtype: type = np.float32

    def differs_with(self, known: Estimator, rows: NDArray[Any], value: float) -> bool:
        """Whether more rows get other scores once one number of each is replaced, if both give scores for it."""
        tried: NDArray[Any] = np.resize(rows, (max(_TRIED, 4 * known.width), known.width)).astype(self.dtype)
        replaced = tried.copy()
        replaced[np.arange(len(tried)), np.arange(len(tried)) % known.width] = value
        both = np.concatenate([tried, replaced])
        try:
            before, wrong = np.split(_apart(_run(self.content, known.output, both), known.scores(both)), 2)
        except Exception:  # noqa: BLE001  (scikit-learn's, the boosters' and ONNX Runtime's own errors)
            return False
        return bool((wrong & ~before).mean() > _MOST_APART)

    @classmethod
    def converted(cls, known: Estimator, *, double: bool, rows: NDArray[Any] | None) -> _Candidate:
        onnx = library("onnx", "to write an ONNX file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                model = known.convert(_INPUT, double=double)
            except DeploymentRefused:
                raise
            except Exception as error:
                if double:
                    return cls(b"", wrong=short(error))
                raise DeploymentRefused(
                    f"{known.source}: {known.converter} cannot convert this {known.kind}: {reason(error)}. Expected "
                    f"an estimator that it supports: try pip install --upgrade {known.converter}, or choose another "
                    "one."
                ) from error
        model = _with_one_output(model, known.output)
        found = _compared(known, model.SerializeToString(), rows, double=double)
        if double and found.wrong:  # of trees, whose scores are float32 although converters declare float64
            model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
            found = _compared(known, model.SerializeToString(), rows, double=double)
        return found


def _compared(known: Estimator, content: bytes, rows: NDArray[Any] | None, *, double: bool) -> _Candidate:
    """Compare on the example, or else on random numbers, which only show a conversion that is wrong everywhere."""
    given = rows is not None
    dtype = np.float64 if double else np.float32
    if rows is None:
        rows = np.random.default_rng(0).normal(size=(256, known.width)).astype(np.float32)
    try:
        value = _run(content, known.output, rows.astype(dtype))
    except DeploymentRefused:
        raise
    except Exception as error:  # noqa: BLE001  (each of ONNX Runtime's errors has a class of its own)
        return _Candidate(content, wrong=f"ONNX Runtime says: {short(error)}")
    try:
        own = known.scores(rows)
        likewise = own if rows.dtype == dtype else known.scores(rows.astype(dtype))
    except Exception as error:
        if not given:  # an estimator of categories, say, takes no random numbers
            return _Candidate(content)
        raise DeploymentRefused(
            f"{known.source} fails for the example: {short(error)}. Expected rows with the features of its training."
        ) from error
    if not isinstance(value, np.ndarray):
        return _Candidate(content, wrong="scores that are no array")
    if value.shape != own.shape:
        return _Candidate(content, wrong=f"scores of shape {value.shape} instead of {own.shape}")
    converted = _apart(value, likewise)
    missing = np.isnan(rows).any(axis=1)
    for some, what in ((missing, _WITH_NAN), (~missing, "rows")):
        if some.any() and converted[some].mean() > _MOST_APART:
            largest = np.nanmax(np.abs(value[some] - likewise[some]), initial=0.0)
            wrong = f"{converted[some].sum():,} of {some.sum():,} {what} differ, by up to {largest:.2g}"
            return _Candidate(content, wrong=wrong)
    return _Candidate(content, apart=int(_apart(value, own).sum()), dtype=dtype)


def _run(content: bytes, output: str, rows: NDArray[Any]) -> Any:
    onnxruntime = library("onnxruntime", "to check the export")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors are raised
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run([output], {_INPUT: rows})[0]


def _apart(value: NDArray[Any], own: NDArray[Any]) -> NDArray[np.bool_]:
    close = np.isclose(value, own, rtol=_CLOSE, atol=_CLOSE, equal_nan=True)
    return np.asarray(~close.reshape(len(own), -1).all(axis=1))


def _with_one_output(model: Any, name: str) -> Any:
    """Return the model with its last output alone, under this name, and without nodes that only the others need."""
    graph = model.graph
    kept = graph.output[-1]
    old, kept.name = kept.name, name
    taken = {each for node in graph.node for each in (*node.input, *node.output)}
    for node in graph.node:
        for names in (node.input, node.output):
            for at, each in enumerate(names):
                if each == old:
                    names[at] = name
                elif each == name and name in taken:
                    names[at] = f"{name}_inner"
    del graph.output[:-1]
    needed, nodes = {name}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            nodes.append(node)
            needed |= set(node.input)
    del graph.node[:]
    graph.node.extend(reversed(nodes))
    initializers = [each for each in graph.initializer if each.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(initializers)
    return model
