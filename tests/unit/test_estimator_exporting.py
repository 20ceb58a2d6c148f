"""Estimators become ONNX models whose scores are the estimator's."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from eaf_inference.deploy import estimators
from eaf_inference.deploy.export import export
from eaf_inference.errors import DeploymentRefused, InvalidInput

onnxruntime = pytest.importorskip("onnxruntime")
pd = pytest.importorskip("pandas")
pytest.importorskip("skl2onnx")
pytest.importorskip("onnxmltools")
from sklearn.compose import ColumnTransformer  # noqa: E402
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor  # noqa: E402
from sklearn.linear_model import LinearRegression, LogisticRegression  # noqa: E402
from sklearn.neural_network import MLPClassifier  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import PolynomialFeatures, StandardScaler  # noqa: E402
from sklearn.svm import SVC, LinearSVC  # noqa: E402
from sklearn.tree import DecisionTreeClassifier  # noqa: E402

# the libraries' own, of one another's versions
pytestmark = pytest.mark.filterwarnings("ignore")

NAMES = ["pt", "eta", "phi", "mass"]
RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(400, 4)).astype(np.float32)
TWO = (ROWS[:, 0] + ROWS[:, 1] ** 2 > 0.7).astype(int)
THREE = np.digitize(ROWS[:, 0], [-0.5, 0.5])
TEXT = np.array(["qcd", "top", "w"])[THREE]
TARGET = 3 * ROWS[:, 0] + ROWS[:, 1]
TABLE = pd.DataFrame(ROWS, columns=NAMES)


def check(made, estimator, expected: np.ndarray, rows: np.ndarray = ROWS) -> None:
    """Compare the ONNX file, for all rows and for one, with the estimator's own scores."""
    session = onnxruntime.InferenceSession(made.onnx)
    (output,) = session.get_outputs()
    dtype = np.float64 if "double" in session.get_inputs()[0].type else np.float32
    expected = expected.reshape(len(rows), -1)
    for some in (slice(None), slice(1)):
        (value,) = session.run(None, {"features": rows[some].astype(dtype)})
        assert value.shape == expected[some].shape
        np.testing.assert_allclose(value, expected[some], rtol=1e-5, atol=1e-5)
    assert list(made.reference({"features": rows})) == [output.name]
    np.testing.assert_array_equal(made.reference({"features": rows})[output.name], expected)


def xgboost():
    return pytest.importorskip("xgboost")


def lightgbm():
    return pytest.importorskip("lightgbm")


CLASSIFIERS = {
    "logistic": LogisticRegression,
    "forest": lambda: RandomForestClassifier(10, random_state=0),
    "boosting": lambda: GradientBoostingClassifier(n_estimators=10),
    "tree": lambda: DecisionTreeClassifier(max_depth=3),
    "network": lambda: make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=20)),
    "xgboost": lambda: xgboost().XGBClassifier(n_estimators=5, n_jobs=1, base_score=0.3),
    "lightgbm": lambda: lightgbm().LGBMClassifier(n_estimators=5, n_jobs=1, verbose=-1),
    "pipeline of xgboost": lambda: make_pipeline(CLASSIFIERS["xgboost"]()),
    "pipeline of lightgbm": lambda: make_pipeline(CLASSIFIERS["lightgbm"]()),
}


@pytest.mark.parametrize("kind", CLASSIFIERS)
@pytest.mark.parametrize("target", [TWO, THREE], ids=["two", "three"])
def test_classifiers_give_their_probabilities(tmp_path, kind, target):
    estimator = CLASSIFIERS[kind]().fit(ROWS, target)
    made = export(estimator, tmp_path, example=ROWS)
    check(made, estimator, estimator.predict_proba(ROWS))
    assert [each.name for each in onnxruntime.InferenceSession(made.onnx).get_outputs()] == ["probabilities"]
    assert (made.labels, made.features) == ({}, {})
    assert [each[:13] for each in made.remarks] == ["Rows with NaN"] * (kind in ("forest", "tree"))


REGRESSORS = {
    "linear": LinearRegression,
    "polynomial": lambda: make_pipeline(PolynomialFeatures(2), LinearRegression()),
    "forest": lambda: RandomForestRegressor(10, random_state=0),
    "xgboost": lambda: xgboost().XGBRegressor(n_estimators=5, n_jobs=1),
    "lightgbm": lambda: lightgbm().LGBMRegressor(n_estimators=5, n_jobs=1, verbose=-1),
}


@pytest.mark.parametrize("kind", REGRESSORS)
def test_regressors_give_their_prediction(tmp_path, kind):
    estimator = REGRESSORS[kind]().fit(ROWS, TARGET)
    made = export(estimator, tmp_path, example=ROWS)
    check(made, estimator, estimator.predict(ROWS))
    assert [each.name for each in onnxruntime.InferenceSession(made.onnx).get_outputs()] == ["prediction"]


@pytest.mark.parametrize("kind", ["forest", "lightgbm", "network"])
def test_classes_that_are_text_become_labels(tmp_path, kind):
    estimator = CLASSIFIERS[kind]().fit(TABLE, TEXT)
    made = export(estimator, tmp_path, example=TABLE)
    assert made.labels == {"probabilities": ("qcd", "top", "w")}
    check(made, estimator, estimator.predict_proba(TABLE))


def test_classes_that_are_no_positions_become_labels(tmp_path):
    estimator = LogisticRegression().fit(ROWS, np.where(TWO, 6, 5))  # as of PDG codes
    assert export(estimator, tmp_path).labels == {"probabilities": ("5", "6")}


@pytest.mark.parametrize("kind", ["forest", "xgboost", "lightgbm", "network"])
def test_feature_names_are_kept_and_used(tmp_path, kind):
    estimator = CLASSIFIERS[kind]().fit(TABLE, TWO)
    shuffled = TABLE[["mass", "eta", "pt", "phi"]].assign(other="text")  # columns are found by name
    made = export(estimator, tmp_path, example=shuffled)
    assert made.features == {"features": tuple(NAMES)}
    check(made, estimator, estimator.predict_proba(TABLE))
    if kind == "xgboost":
        assert estimator.get_booster().feature_names == NAMES  # the estimator itself keeps them


def test_an_example_without_a_feature_is_refused(tmp_path):
    estimator = LogisticRegression().fit(TABLE, TWO)
    with pytest.raises(InvalidInput, match="mass"):
        export(estimator, tmp_path, example=TABLE[["pt", "eta", "phi"]])


def test_one_feature(tmp_path):
    estimator = DecisionTreeClassifier(max_depth=2).fit(ROWS[:, :1], TWO)
    made = export(estimator, tmp_path, example=ROWS[:, 0])
    check(made, estimator, estimator.predict_proba(ROWS[:, :1]), ROWS[:, :1])


def test_classifiers_without_probabilities_give_their_decision(tmp_path):
    two, three = LinearSVC().fit(ROWS, TWO), make_pipeline(StandardScaler(), LinearSVC()).fit(ROWS, TEXT)
    made = export(three, tmp_path, example=ROWS)
    check(made, three, three.decision_function(ROWS))
    assert made.labels == {"scores": ("qcd", "top", "w")}
    vectors = SVC().fit(ROWS, THREE)
    check(export(vectors, tmp_path, example=ROWS), vectors, vectors.decision_function(ROWS))
    decision = two.decision_function(ROWS)
    check(export(two, tmp_path, example=ROWS), two, np.stack([-decision, decision], axis=1))


def test_columns_may_be_selected_by_name(tmp_path):
    chosen = ColumnTransformer([("scaled", StandardScaler(), ["mass", "pt"])], remainder="passthrough")
    estimator = make_pipeline(chosen, LogisticRegression()).fit(TABLE, TWO)
    check(export(estimator, tmp_path, example=TABLE), estimator, estimator.predict_proba(TABLE))
    assert chosen.transformers_[0][2] == ["mass", "pt"]


@pytest.mark.parametrize("objective", ["binary:logistic", "multi:softprob", "reg:squarederror"])
def test_boosters_of_xgboost(tmp_path, objective):
    several = {"num_class": 3} if objective == "multi:softprob" else {}
    target = {"binary:logistic": TWO, "multi:softprob": THREE}.get(objective, TARGET)
    data = xgboost().DMatrix(ROWS, target, feature_names=NAMES)
    settings = {"objective": objective, "nthread": 1}
    booster = xgboost().train(settings | several, data, 5)
    made = export(booster, tmp_path, example=TABLE)
    own = booster.predict(data)
    check(made, booster, np.stack([1 - own, own], axis=1) if objective == "binary:logistic" else own)
    assert made.features == {"features": tuple(NAMES)}
    assert booster.feature_names == NAMES


@pytest.mark.parametrize("objective", ["binary", "multiclass", "regression"])
def test_boosters_of_lightgbm(tmp_path, objective):
    target = {"binary": TWO, "multiclass": THREE}.get(objective, TARGET)
    settings = {"objective": objective, "num_threads": 1, "verbose": -1} | (
        {"num_class": 3} if objective == "multiclass" else {}
    )
    booster = lightgbm().train(settings, lightgbm().Dataset(TABLE, target), 5)
    made = export(booster, tmp_path, example=TABLE)
    own = booster.predict(ROWS)
    check(made, booster, np.stack([1 - own, own], axis=1) if objective == "binary" else own)


def test_early_stopping_is_kept(tmp_path):
    estimator = xgboost().XGBClassifier(n_estimators=50, n_jobs=1, early_stopping_rounds=2, learning_rate=1.0)
    estimator.fit(ROWS[:200], TWO[:200], eval_set=[(ROWS[200:], TWO[200:])], verbose=False)
    assert estimator.best_iteration < 45
    check(export(estimator, tmp_path, example=ROWS), estimator, estimator.predict_proba(ROWS))


CLOSE = 1000 + RANDOM.normal(size=(400, 4)) * 1e-4  # float32 has two or three digits of it


def test_float64_is_taken_where_float32_gives_other_scores(tmp_path):
    estimator = make_pipeline(StandardScaler(), DecisionTreeClassifier(max_depth=4)).fit(CLOSE, TWO)
    made = export(estimator, tmp_path, example=CLOSE)
    assert "takes float64" in made.remarks[0]
    check(made, estimator, estimator.predict_proba(CLOSE), CLOSE)


def test_rows_at_the_edge_of_a_cut_are_counted(tmp_path):
    rows = CLOSE.copy()
    rows[:, 0] = RANDOM.normal(size=400)
    rows[:2, 0] = 0.1, np.nextafter(0.1, 1)  # one float32, in two branches
    estimator = xgboost().XGBClassifier(n_estimators=1, n_jobs=1).fit(rows.astype(np.float32), TWO)
    check(export(estimator, tmp_path, example=rows), estimator, estimator.predict_proba(rows), rows)
    estimator = lightgbm().LGBMClassifier(n_estimators=5, n_jobs=1, verbose=-1).fit(CLOSE * [1, 0, 0, 0], TWO)
    with pytest.raises(DeploymentRefused, match=r"rows differ.*X\.astype\('float32'\)"):
        export(estimator, tmp_path, example=CLOSE)


def test_a_conversion_that_gives_other_scores_is_refused(tmp_path, monkeypatch):
    estimator = LogisticRegression().fit(ROWS, TWO)
    other = LogisticRegression(C=1e-3).fit(ROWS, TWO)
    monkeypatch.setattr(estimator, "predict_proba", other.predict_proba)
    with pytest.raises(DeploymentRefused, match=r"400 of 400 rows differ, by up to"):
        export(estimator, tmp_path, example=ROWS)


MISSING = np.where(RANDOM.random(ROWS.shape) < 0.1, np.nan, ROWS).astype(np.float32)
FEW_MISSING = np.concatenate([ROWS, MISSING[np.isnan(MISSING).any(axis=1)][:3]])


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm"])
@pytest.mark.parametrize("fitted", [ROWS, MISSING], ids=["numbers", "missing"])
def test_missing_values_get_the_estimators_scores(tmp_path, kind, fitted):
    estimator = CLASSIFIERS[kind]().fit(fitted, TWO)
    made = export(estimator, tmp_path, example=ROWS)
    check(made, estimator, estimator.predict_proba(MISSING), MISSING)
    assert not made.remarks


@pytest.mark.parametrize("kind", ["forest", "tree"])
def test_missing_values_that_a_conversion_mistakes_are_refused(tmp_path, kind):
    estimator = CLASSIFIERS[kind]().fit(ROWS, TWO)
    with pytest.raises(DeploymentRefused, match=r"of 3 rows with NaN differ.*SimpleImputer"):
        export(estimator, tmp_path, example=FEW_MISSING)


@pytest.mark.parametrize("pipeline", [False, True])
def test_trees_that_would_never_be_converted_are_refused(tmp_path, pipeline):
    rows = MISSING.copy()
    rows[TWO == 1, 0] = np.nan  # is it NaN? makes a threshold of infinity
    estimator = RandomForestClassifier(10, random_state=0)
    estimator = (make_pipeline(StandardScaler(), estimator) if pipeline else estimator).fit(rows, TWO)
    with pytest.raises(DeploymentRefused, match=r"fitted on NaN.*SimpleImputer"):
        export(estimator, tmp_path, example=rows)


def test_a_number_for_missing_values_is_refused(tmp_path):
    estimator = xgboost().XGBClassifier(n_estimators=2, n_jobs=1, missing=-999).fit(ROWS, TWO)
    with pytest.raises(DeploymentRefused, match=r"takes -999 for a missing value.*missing=numpy\.nan"):
        export(estimator, tmp_path, example=ROWS)


def test_a_conversion_that_fails_for_replaced_numbers_is_no_error(tmp_path, monkeypatch):
    sessions, run = [], estimators._run

    def run_once(*arguments):
        sessions.append(arguments)
        if len(sessions) > 1:
            raise RuntimeError("ONNX Runtime's")
        return run(*arguments)

    monkeypatch.setattr(estimators, "_run", run_once)
    assert export(RandomForestClassifier(10, random_state=0).fit(ROWS, TWO), tmp_path, example=ROWS).remarks == ()
    assert len(sessions) == 3  # one for the example, and one each for 0 and NaN


def test_zeros_that_a_conversion_mistakes_are_refused(tmp_path):
    rows = np.where(RANDOM.random(ROWS.shape) < 0.2, 0, ROWS)
    estimator = lightgbm().LGBMClassifier(n_estimators=5, n_jobs=1, verbose=-1, zero_as_missing=True).fit(rows, TWO)
    with pytest.raises(DeploymentRefused, match=r"rows with 0 differ.*zero_as_missing"):
        export(estimator, tmp_path, example=ROWS)


@pytest.mark.parametrize(
    ("estimator", "words"),
    [
        (LogisticRegression(), "not fitted"),
        (StandardScaler().fit(ROWS), "is no regressor"),
        (LogisticRegression, "This is the class LogisticRegression"),
        (RandomForestClassifier(2).fit(ROWS, np.stack([TWO, THREE], axis=1)), "2 targets"),
    ],
    ids=["unfitted", "transformer", "class", "targets"],
)
def test_estimators_without_scores_are_refused(tmp_path, estimator, words):
    with pytest.raises(DeploymentRefused, match=words):
        export(estimator, tmp_path, example=ROWS)


def test_an_unfitted_booster_is_refused(tmp_path):
    with pytest.raises(DeploymentRefused, match="call fit first"):
        export(xgboost().XGBClassifier(), tmp_path)


@pytest.mark.parametrize(("kind", "library"), [("logistic", "skl2onnx"), ("xgboost", "onnxmltools")])
def test_a_missing_converter_is_named_with_its_pip_line(tmp_path, monkeypatch, kind, library):
    estimator = CLASSIFIERS[kind]().fit(ROWS, TWO)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(DeploymentRefused, match=f"pip install {library}"):
        export(estimator, tmp_path)
