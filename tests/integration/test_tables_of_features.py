"""Tables for models of features on a real Triton, compared with ONNX Runtime on each row alone."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import awkward as ak
import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from dask_facility import eventually
from onnx import TensorProto, helper, numpy_helper

import eaf_inference
from eaf_facility.servers.triton import TritonServer
from eaf_inference.errors import ConfigurationError, InvalidInput

pl = pytest.importorskip("polars")

FEATURES = ("pt", "eta", "mass", "tau21")
ROWS = 700


def save(repository, name, features, *, size=4, outputs=2, classes=None):
    """Make a network of some features; several inputs are these features and a weight."""
    random = np.random.default_rng(5)
    weights = {
        "first": random.normal(size=(size, 16)).astype(np.float32),
        "second": random.normal(size=(16, outputs)).astype(np.float32),
    }
    several = isinstance(features, dict)
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["hidden"]),
        helper.make_node("Tanh", ["hidden"], ["active"]),
        helper.make_node("MatMul", ["active", "second"], ["logits"]),
        helper.make_node("Mul", ["logits", "weight"], ["y"])
        if several
        else helper.make_node("Identity", ["logits"], ["y"]),
    ]
    inputs = {"x": size, "weight": 1} if several else {"x": size}
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(key, TensorProto.FLOAT, ["n", width]) for key, width in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", outputs])],
        [numpy_helper.from_array(values, key) for key, values in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if features and not several:
        helper.set_model_props(model, {"feature_names": json.dumps(features)})
    directory = repository / name
    (directory / "1").mkdir(parents=True)
    onnx.save(model, directory / "1" / "model.onnx")
    lines = ['backend: "onnxruntime"', "max_batch_size: 128"]
    lines += [f'input [{{ name: "{key}", data_type: TYPE_FP32, dims: [{width}] }}]' for key, width in inputs.items()]
    lines.append(f'output [{{ name: "y", data_type: TYPE_FP32, dims: [{outputs}] }}]')
    for key, value in (("features", features), ("labels", classes)):
        if value is not None:
            lines.append(f'parameters {{ key: "{key}" value: {{ string_value: {json.dumps(json.dumps(value))} }} }}')
    (directory / "config.pbtxt").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    repository = tmp_path_factory.mktemp("flat")
    save(repository, "named", FEATURES)
    save(repository, "unnamed", None)
    save(repository, "labelled", FEATURES, classes={"y": ["top", "qcd"]})
    save(repository, "several", {"x": FEATURES, "weight": ["gen_weight"]})
    save(repository, "wrong", FEATURES[:3])
    save(repository, "bdt", ["pt", "eta", "mass"], size=3, outputs=1)
    return repository


@pytest.fixture(scope="module")
def flat(models):
    with TritonServer.start([models]) as server:
        yield server


@pytest.fixture
def triton(flat):
    with eaf_inference.connect(flat.grpc) as connection:
        yield connection


@pytest.fixture(scope="module")
def columns():
    random = np.random.default_rng(7)
    made = {"run": np.arange(ROWS), "label": np.array(["a"] * ROWS)}  # no model reads these
    made |= {name: random.normal(size=ROWS) for name in reversed(FEATURES)}
    made["pt"] = (20 + 500 * random.random(ROWS)).astype(int)
    made["tau21"][::50] = np.nan
    return made | {"gen_weight": random.random(ROWS)}


@pytest.fixture(scope="module")
def expected(models, columns):
    session = onnxruntime.InferenceSession((models / "named" / "1" / "model.onnx").read_bytes())
    x = np.stack([columns[name].astype(np.float32) for name in FEATURES], axis=1)
    return np.concatenate([session.run(None, {"x": row[np.newaxis]})[0] for row in x])


TABLES = {
    "pandas": pd.DataFrame,
    "polars": pl.DataFrame,
    "lazy polars": pl.LazyFrame,
    "pyarrow": pa.table,
    "dictionary": dict,
    "structured": lambda columns: pd.DataFrame(columns).to_records(),
}
tables = pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)


@tables
def test_a_table_gives_each_rows_own_scores_as_numpy(triton, columns, expected, make):
    scores = triton.model("named")(make(columns))
    assert type(scores) is np.ndarray
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)


@tables
def test_the_order_of_columns_and_other_columns_change_nothing(triton, columns, make):
    model, names = triton.model("named"), list(columns)
    scores = model(make(columns))
    for order in (names[::-1], sorted(names), [*FEATURES], sorted(FEATURES)):
        table = make({name: columns[name] for name in order})
        np.testing.assert_array_equal(model(table), scores)
        np.testing.assert_array_equal(model({"x": table}), scores)


@tables
def test_a_missing_column_stops_before_anything_is_sent(triton, columns, make):
    table = make({("M" if name == "mass" else name): values for name, values in columns.items()})
    before = triton.traffic.inferences
    with pytest.raises(InvalidInput, match=r"lacks 'mass'\."):
        triton.model("named")(table)
    assert triton.traffic.inferences == before


@tables
def test_a_table_without_rows_gives_no_scores(triton, columns, make):
    scores = triton.model("named")(make({name: values[:0] for name, values in columns.items()}))
    assert (scores.shape, scores.dtype) == ((0, 2), np.float32)


def test_columns_of_a_model_without_names_go_by_position(triton, columns, expected):
    model, table = triton.model("unnamed"), pd.DataFrame(columns)
    with pytest.warns(UserWarning, match="by their position.*'pt', 'eta', 'mass', 'tau21'") as caught:
        scores = model(table[list(FEATURES)])
    assert [each.filename for each in caught] == [__file__]
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(table[list(FEATURES)])
        model(table[list(FEATURES)].to_numpy())
    with pytest.raises(InvalidInput, match="takes 4 features, and got 7 columns"):
        model(table)


def test_lists_of_columns_and_of_numbers_are_scored(triton, columns, expected):
    model = triton.model("unnamed")
    by_column = [columns[name] for name in FEATURES]
    by_row = np.stack(by_column, axis=1)
    for data in (by_column, {"x": by_column}, by_row.tolist(), tuple(map(pl.Series, by_column))):
        np.testing.assert_allclose(model(data), expected, rtol=1e-5, atol=1e-6)
    awkward = model([ak.Array(column) for column in by_column])
    assert isinstance(awkward, ak.Array)
    np.testing.assert_allclose(awkward, expected, rtol=1e-5, atol=1e-6)


def test_nested_records_come_back_in_their_lists(triton, columns, expected):
    records = ak.zip({name: values for name, values in columns.items() if name != "label"}, depth_limit=1)
    counts = [3, 0, 1, ROWS - 4]
    scores = triton.model("labelled")(ak.unflatten(records, counts))
    assert scores.fields == ["top", "qcd"]
    assert ak.num(scores).to_list() == counts
    np.testing.assert_allclose(ak.flatten(scores.qcd), expected[:, 1], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(triton.model("named")(records), triton.model("labelled")(pd.DataFrame(columns)))


@tables
def test_one_table_feeds_several_inputs(triton, columns, expected, make):
    scores = triton.model("several")(make(columns))
    weighted = expected * columns["gen_weight"].astype(np.float32)[:, np.newaxis]
    np.testing.assert_allclose(scores, weighted, rtol=1e-5, atol=1e-6)
    renamed = {("weight" if name == "gen_weight" else name): values for name, values in columns.items()}
    with pytest.raises(InvalidInput, match="'weight' of 'several' lacks 'gen_weight'"):
        triton.model("several")(make(renamed))


def test_records_whose_fields_are_the_inputs_are_scored(triton, columns, expected):
    x = np.stack([columns[name].astype(np.float32) for name in FEATURES], axis=1)
    records = ak.zip({"gen_weight": np.ones(ROWS, np.float32), "x": x, "run": columns["run"]}, depth_limit=1)
    np.testing.assert_allclose(triton.model("several")(records), expected, rtol=1e-5, atol=1e-6)


def test_a_file_is_read_by_the_features_names(triton, columns, tmp_path):
    from eaf_inference.dataset.parts import File, Part
    from eaf_inference.dataset.reading import read

    model, path = triton.model("several"), str(tmp_path / "rows.parquet")
    part = Part(0, File(path))
    pyarrow.parquet.write_table(pa.table(columns), path)
    data = read(part, model, None).data
    assert sorted(data) == sorted([*FEATURES, "gen_weight"])
    np.testing.assert_array_equal(model(data), model(pd.DataFrame(columns)))
    pyarrow.parquet.write_table(pa.table(columns).drop_columns("eta"), path)
    with pytest.raises(InvalidInput, match=r"lacks eta; .*Expected the columns pt, eta, mass, tau21, gen_weight"):
        read(part, model, None)


def test_the_example_of_the_documentation_runs(triton):
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "inputs.md").read_text()
    section = page.partition("## Flat inputs: BDTs and MLPs")[2]
    names = {"triton": triton}
    exec(section.partition("```python\n")[2].partition("```")[0], names)  # noqa: S102  (our own page)
    assert names["df"]["score"].notna().all()


def test_wrong_features_are_the_model_owners_to_correct(triton):
    with pytest.raises(ConfigurationError, match="features of 'wrong' cannot be used: 3 names for 'x'"):
        triton.model("wrong")


def test_the_facility_reports_names_that_only_the_onnx_file_has(models, tmp_path):
    save(tmp_path, "undeclared", FEATURES)
    config = tmp_path / "undeclared" / "config.pbtxt"
    config.write_text("\n".join(line for line in config.read_text().splitlines() if "features" not in line))
    with TritonServer.start([tmp_path, models]) as server:
        eventually(server.log.read_text, lambda text: "feature_names" in text)
        (line,) = (line for line in server.log.read_text().splitlines() if "feature_names" in line)
    assert "'undeclared'" in line
    assert "'features' of its config.pbtxt" in line
    assert all(name in line for name in FEATURES)
