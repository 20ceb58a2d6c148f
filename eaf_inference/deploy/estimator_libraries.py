"""What is known of estimators of scikit-learn, XGBoost and LightGBM: features, classes, scores and the converter."""

from __future__ import annotations

import copy
import sys
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from eaf_inference.deploy.exported import library, short
from eaf_inference.errors import DeploymentRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["Estimator", "recognised"]

_REGRESSIONS = "reg:", "regression", "count:", "poisson", "l1", "l2", "mse"
_METHODS = {"predict_proba": "probabilities", "decision_function": "scores", "predict": "prediction"}
_OPSET = 15  # the newest that every one of the converters writes


@dataclass(frozen=True, slots=True, eq=False)
class Estimator:
    """A fitted estimator.

    Attributes
    ----------
    kind : str
        Its class.
    source : str
        Its library with the version.
    converter : str
        The library that converts it.
    width : int
        How many features it takes.
    features : tuple of str
        Their names; empty if it does not know them.
    classes : tuple of str
        The names of the classes; empty if they are only numbered.
    output : str
        What it gives: ``probabilities``, ``scores`` or ``prediction``.
    has_double : bool
        A model of float64 inputs can be made.
    convert : callable
        Returns an ONNX model, of the input's name and whether it takes float64.
    scores : callable
        Returns what the estimator gives for rows of features.
    """

    kind: str
    source: str
    converter: str
    width: int
    features: tuple[str, ...]
    classes: tuple[str, ...]
    output: str
    has_double: bool
    convert: Callable[..., Any]
    scores: Callable[[NDArray[Any]], NDArray[Any]]


def recognised(estimator: Any) -> Estimator:
    """Return what is known of an estimator.

    Raises
    ------
    DeploymentRefused
        It is not fitted, or gives no scores.
    """
    mro = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(estimator).__mro__}
    if "xgboost.Booster" in mro or "lightgbm.Booster" in mro:
        return _booster(estimator, "xgboost" if "xgboost.Booster" in mro else "lightgbm")
    return _estimator(estimator, next((root for root in ("xgboost", "lightgbm") if _is_of(mro, root)), "sklearn"))


def _is_of(mro: set[str], root: str) -> bool:
    return any(kind.startswith(f"{root}.") for kind in mro)


def _estimator(estimator: Any, root: str) -> Estimator:
    """Recognise an estimator with scikit-learn's interface."""
    kind = type(estimator).__name__
    sklearn = library("sklearn.utils.validation", "to read the estimator", install="scikit-learn")
    try:
        if root == "xgboost":
            estimator.get_booster()
        else:
            sklearn.check_is_fitted(estimator)
        width = int(estimator.n_features_in_)
    except Exception as error:
        raise DeploymentRefused(
            f"The {kind} is not fitted: {short(error)}. Expected a fitted estimator: call fit first."
        ) from error
    missing = estimator.missing if root == "xgboost" else np.nan
    if missing is not None and not np.isnan(missing):
        raise DeploymentRefused(
            f"The {kind} takes {missing:g} for a missing value, which ONNX does not know. Expected NaN: fit it with "
            f"missing=numpy.nan on numpy.where(X == {missing:g}, numpy.nan, X), and score such rows."
        )
    if root == "sklearn" and not all(np.isfinite(tree.threshold).all() for tree in _trees(estimator)):
        raise DeploymentRefused(  # skl2onnx would never end
            f"The {kind} has trees that were fitted on NaN, which skl2onnx cannot convert. Expected numbers: fit "
            "make_pipeline(sklearn.impute.SimpleImputer(), …) with the trees at its end."
        )
    features = tuple(map(str, getattr(estimator, "feature_names_in_", ())))
    if not features and root == "lightgbm":
        features = _named(estimator.feature_name_, "Column_")
    output, method = _method(estimator, kind)
    classes = getattr(estimator, "classes_", None)
    if isinstance(classes, list):
        raise DeploymentRefused(
            f"The {kind} predicts {len(classes)} targets with classes of their own. Expected one target: deploy a "
            "model for each."
        )

    def scores(rows: NDArray[Any]) -> NDArray[Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of feature names, which are in order here
            values = method(_table(estimator, rows))
        if output == "scores" and np.ndim(values) == 1 and classes is not None:
            return np.stack([-values, values], axis=1)  # as for more classes: one score for each
        return _as_rows(values)

    has_double = root == "sklearn" or (root == "lightgbm" and classes is None)
    return Estimator(
        kind=kind,
        source=f"{_title(root)} {sys.modules[root].__version__} {kind}",
        converter="skl2onnx" if root == "sklearn" else "onnxmltools",
        width=width,
        features=features,
        classes=() if output == "prediction" else _class_names(classes),
        output=output,
        has_double=has_double,
        convert=lambda name, *, double: _converted(estimator, root, name, width, output, double=double),
        scores=scores,
    )


def _trees(part: Any) -> Iterator[Any]:
    """Yield the trees of scikit-learn in an estimator, its steps and its members."""
    if hasattr(part, "tree_"):
        yield part.tree_
    elif isinstance(part, list | tuple) or (isinstance(part, np.ndarray) and part.dtype == object):
        for each in part:
            yield from _trees(each)
    elif type(part).__module__.startswith("sklearn."):
        for each in getattr(part, "__dict__", {}).values():
            yield from _trees(each)


def _booster(booster: Any, root: str) -> Estimator:
    """Recognise a booster of XGBoost's or LightGBM's own interface."""
    module = library(root, "to read the booster")
    if root == "xgboost":
        import json

        objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
        width, features = booster.num_features(), tuple(booster.feature_names or ())
        raw: Callable[[NDArray[Any]], Any] = lambda rows: _without_names(booster).predict(module.DMatrix(rows))  # noqa: E731
    else:
        objective = booster.params.get("objective", "") or booster.dump_model()["objective"].split(" ")[0]
        width, features = booster.num_feature(), _named(booster.feature_name(), "Column_")
        raw = booster.predict
    binary = objective in ("binary:logistic", "binary")
    several = objective in ("multi:softprob", "multiclass", "softmax")
    if not (binary or several or objective.startswith(_REGRESSIONS)):
        raise DeploymentRefused(
            f"The Booster's objective is {objective!r}. Expected binary:logistic, multi:softprob or a regression of "
            "XGBoost, or binary, multiclass or a regression of LightGBM, whose scores ONNX can give."
        )

    def scores(rows: NDArray[Any]) -> NDArray[Any]:
        values = np.asarray(raw(rows))
        return np.stack([1 - values, values], axis=1) if binary else _as_rows(values)

    return Estimator(
        kind="Booster",
        source=f"{_title(root)} {module.__version__} Booster",
        converter="onnxmltools",
        width=width,
        features=features,
        classes=(),
        output="probabilities" if binary or several else "prediction",
        has_double=root == "lightgbm" and not (binary or several),
        convert=lambda name, *, double: _converted(booster, root, name, width, "", double=double),
        scores=scores,
    )


def _converted(estimator: Any, root: str, name: str, width: int, output: str, *, double: bool) -> Any:
    """Return the ONNX model."""
    if root == "sklearn":
        skl2onnx = library("skl2onnx", "to convert scikit-learn estimators to ONNX")
        estimator = _by_position(estimator)
        _register_boosters(skl2onnx)
        types = library("skl2onnx.common.data_types", "to convert scikit-learn estimators", install="skl2onnx")
        initial = [(name, (types.DoubleTensorType if double else types.FloatTensorType)([None, width]))]
        target = {"": _OPSET, "ai.onnx.ml": 3}
        if output == "prediction":
            return skl2onnx.to_onnx(estimator, initial_types=initial, target_opset=target)
        if output == "probabilities":
            options = {id(estimator): {"zipmap": False}}
            return skl2onnx.to_onnx(estimator, initial_types=initial, options=options, target_opset=target)
        last = id(estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator)
        raw: dict[str, Any] = {"raw_scores": True, "zipmap": False}
        try:
            return skl2onnx.to_onnx(estimator, initial_types=initial, options={last: raw}, target_opset=target)
        except NameError:  # an option that the converter lacks for this class; no common interface lists them
            del raw["zipmap"]
        return skl2onnx.to_onnx(estimator, initial_types=initial, options={last: raw}, target_opset=target)
    onnxmltools = library("onnxmltools", f"to convert {_title(root)} models to ONNX")
    types = library("onnxmltools.convert.common.data_types", "to convert models", install="onnxmltools")
    kind = types.DoubleTensorType if double else types.FloatTensorType
    initial = [(name, kind([None, width]))]
    if root == "lightgbm":
        return onnxmltools.convert_lightgbm(estimator, initial_types=initial, zipmap=False, target_opset=_OPSET)
    return onnxmltools.convert_xgboost(_without_names(estimator), initial_types=initial, target_opset=_OPSET)


def _by_position(estimator: Any) -> Any:
    """Return a copy whose first step selects columns by position, if it is a ColumnTransformer with names."""
    names = list(getattr(estimator, "feature_names_in_", ()))
    first = estimator.steps[0][1] if hasattr(estimator, "steps") else estimator
    if not names or type(first).__name__ != "ColumnTransformer":
        return estimator
    estimator = copy.deepcopy(estimator)
    first = estimator.steps[0][1] if hasattr(estimator, "steps") else estimator
    first.transformers_ = [
        (name, step, [names.index(each) for each in columns] if _are_names(columns) else columns)
        for name, step, columns in first.transformers_
    ]
    return estimator


def _are_names(columns: Any) -> bool:
    return isinstance(columns, list) and all(isinstance(each, str) for each in columns)


def _register_boosters(skl2onnx: Any) -> None:
    """Let skl2onnx convert pipelines and ensembles of XGBoost and LightGBM, if there can be any."""
    for root, base, names in (
        ("xgboost", "xgboost.operator_converters.XGBoost", ("XGBClassifier", "XGBRegressor")),
        (
            "lightgbm",
            "lightgbm.operator_converters.LightGbm",
            ("LGBMClassifier", "LGBMRegressor"),
        ),
    ):
        if root not in sys.modules:
            continue
        try:
            converter = library(f"onnxmltools.convert.{base}", "to convert pipelines", install="onnxmltools")
        except DeploymentRefused:
            continue
        shapes = library("skl2onnx.common.shape_calculator", "to convert pipelines", install="skl2onnx")
        convert = converter.convert_xgboost if root == "xgboost" else converter.convert_lightgbm
        for name in names:
            classifies = name.endswith("Classifier")
            skl2onnx.update_registered_converter(
                getattr(sys.modules[root], name),
                f"EafInference{name}",
                shapes.calculate_linear_classifier_output_shapes
                if classifies
                else shapes.calculate_linear_regressor_output_shapes,
                convert,
                options={"nocl": [True, False], "zipmap": [True, False, "columns"]} if classifies else None,
            )


def _without_names(model: Any) -> Any:
    """Return a copy of an XGBoost model without feature names; its converter takes f0, f1 and so on alone."""
    is_booster = not hasattr(model, "get_booster")
    booster = (model if is_booster else model.get_booster()).copy()
    booster.feature_names = booster.feature_types = None
    if is_booster:
        return booster
    nameless = copy.copy(model)
    nameless._Booster = booster  # noqa: SLF001
    return nameless


def _method(estimator: Any, kind: str) -> tuple[str, Callable[[Any], Any]]:
    """Return the output's name and the method that gives it."""
    is_regressor = library("sklearn.base", "to read the estimator", install="scikit-learn").is_regressor
    for name, output in _METHODS.items():
        method = getattr(estimator, name, None)
        if method is not None and (output != "prediction" or is_regressor(estimator)):
            return output, method
    raise DeploymentRefused(
        f"The {kind} has no predict_proba or decision_function and is no regressor. Expected a classifier or a "
        "regressor, or a pipeline that ends with one."
    )


def _table(estimator: Any, rows: NDArray[Any]) -> Any:
    """Return rows as the estimator was fitted: with column names, if it knows them and pandas is there."""
    names = getattr(estimator, "feature_names_in_", None)
    if names is None or "pandas" not in sys.modules:
        return rows
    return sys.modules["pandas"].DataFrame(rows, columns=names)


def _class_names(classes: Any) -> tuple[str, ...]:
    """Return the classes' names; none if every class is its own position."""
    if classes is None:
        return ()
    if np.asarray(classes).dtype.kind in "iub" and np.array_equal(classes, np.arange(len(classes))):
        return ()
    return tuple(map(str, classes))


def _named(names: Sequence[str], automatic: str) -> tuple[str, ...]:
    """Return feature names; none if the library numbered the columns itself."""
    return () if list(names) == [f"{automatic}{at}" for at in range(len(names))] else tuple(names)


def _as_rows(values: Any) -> NDArray[Any]:
    if isinstance(values, list):
        raise DeploymentRefused(f"The estimator gives {len(values)} arrays of scores. Expected one array.")
    array = np.asarray(values)
    return array[:, None] if array.ndim == 1 else array


def _title(root: str) -> str:
    return {"sklearn": "scikit-learn", "xgboost": "XGBoost", "lightgbm": "LightGBM"}[root]
