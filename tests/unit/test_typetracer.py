"""Building dask-awkward graphs: the result's type and the columns touched, without a server."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
from builders import recipe_text, tensor

from eaf_inference.connection import Connection
from eaf_inference.errors import InvalidInput
from eaf_inference.inference.marshal import prepare
from eaf_inference.inference.model import Model
from eaf_inference.inference.recipe import Recipe
from eaf_inference.inference.spec import ModelSpec
from eaf_inference.registry import Options

RECIPE = {"points": {"part_deta": {}, "part_dphi": {}}, "features": {"part_pt_log": {}}, "mask": {"mask": {}}}
CONSTITUENTS = "{pt: float32, eta: float32, phi: float32, energy: float32, charge: int8}"
FEATURES = "{part_deta: float32, part_dphi: float32, part_pt_log: float64, charge: int8}"


def model_of(inputs, outputs, *, recipe=None, labels=None, max_batch_size=64):
    spec = ModelSpec(
        name="jets",
        version="1",
        max_batch_size=max_batch_size,
        inputs=inputs,
        outputs=outputs,
        recipe=Recipe.parse(recipe_text(recipe), model="jets") if recipe else None,
        labels=labels or {},
    )
    return Model(Connection(Options(url="grpc://127.0.0.1:1", ca=None, allow_insecure_token=None)), spec)


def tracer(text):
    """Make a typetracer, and the report of what is read from it."""
    form = ak.forms.from_type(ak.types.from_datashape(text, highlevel=False))
    described = form.to_dict()
    label(described, "")
    array, report = ak.typetracer.typetracer_with_report(ak.forms.from_dict(described), highlevel=True)
    return array, report


def label(form, path):
    form["form_key"] = path or "top"
    if form["class"] == "RecordArray":
        for name, content in zip(form["fields"], form["contents"], strict=True):
            label(content, f"{path}.{name}".strip("."))
    elif "content" in form:
        label(form["content"], f"{path}*")


@pytest.fixture
def tagger():
    inputs = (tensor("points", 2, -1), tensor("features", 1, -1), tensor("mask", 1, -1))
    return model_of(inputs, (tensor("softmax", 2),), recipe=RECIPE, labels={"softmax": ("top", "qcd")})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (f"var * {CONSTITUENTS}", "{top: float32, qcd: float32}"),
        (f"var * var * {CONSTITUENTS}", "var * {top: float32, qcd: float32}"),
        (f"var * ?{CONSTITUENTS}", "{top: float32, qcd: float32}"),
        (f"var * 2 * var * {FEATURES}", "var * 2 * {top: float32, qcd: float32}"),
    ],
)
def test_a_graph_with_a_recipe_has_the_nesting_and_the_classes(tagger, given, expected):
    array, _ = tracer(given)
    scores = tagger(array)
    assert ak.backend(scores) == "typetracer"
    assert str(scores.type) == f"## * {expected}"


@pytest.mark.parametrize(
    ("given", "columns"),
    [(CONSTITUENTS, {"pt", "eta", "phi"}), (FEATURES, {"part_deta", "part_dphi", "part_pt_log"})],
)
def test_a_graph_touches_only_the_columns_it_needs(tagger, given, columns):
    array, report = tracer(f"var * {given}")
    tagger(array)
    touched = {key.removeprefix("*.") for key in report.data_touched}
    assert touched - {"top"} == columns
    assert tagger.columns(array.fields) == tuple(name for name in array.fields if name in columns)


def test_a_missing_field_is_reported_while_the_graph_is_built(tagger):
    array, _ = tracer("var * {pt: float32, eta: float32}")
    with pytest.raises(InvalidInput, match="'jets' lacks phi, from which part_deta, .*The records have pt"):
        tagger(array)


@pytest.mark.parametrize(
    ("inputs", "outputs", "given", "expected"),
    [
        ((tensor("x", 2, -1),), (tensor("y", 2),), {"x": "2 * var * float32"}, "2 * float32"),
        ((tensor("x", 2, -1),), (tensor("y", 2),), {"x": "var * {a: float64, b: int8}"}, "2 * float32"),
        ((tensor("x", -1),), (tensor("y", -1),), {"x": "var * var * float32"}, "var * var * float32"),
        (
            (tensor("x", 3), tensor("n", 1, datatype="INT32")),
            (tensor("a", 3), tensor("b", datatype="FP64")),
            {"x": "var * 3 * float32", "n": "var * int64"},
            "var * {a: 3 * float32, b: float64}",
        ),
    ],
)
def test_a_graph_with_named_inputs_has_the_outputs_types(inputs, outputs, given, expected):
    model = model_of(inputs, outputs)
    arrays, reports = zip(*(tracer(text) for text in given.values()), strict=True)
    scores = model(dict(zip(given, arrays, strict=True)))
    assert str(scores.type) == f"## * {expected}"
    assert all(report.data_touched for report in reports)
    empty = {name: ak.typetracer.length_zero_if_typetracer(each) for name, each in zip(given, arrays, strict=True)}
    assert str(prepare(empty, model.spec).result().type) == f"0 * {expected}"


def test_channels_in_a_list_may_be_typetracers():
    model = model_of((tensor("x", 2, -1),), (tensor("y"),))
    scores = model({"x": [tracer("var * float32")[0], tracer("var * float64")[0]]})
    assert str(scores.type) == "## * float32"


def test_arrays_with_data_are_not_typetracers():
    from eaf_inference.inference.nesting import is_tracer

    for data in (ak.Array([[1.0]]), np.ones(3), {"x": ak.Array([1])}, [ak.Array([1])], None, "text"):
        assert not is_tracer(data)
