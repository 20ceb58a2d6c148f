"""Reading Triton's model configuration as the server sends it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from builders import recipe_text, tensor, variable
from hypothesis import given
from hypothesis import strategies as st

from eaf_inference.errors import ConfigurationError
from eaf_inference.inference import protocol
from eaf_inference.inference.parameters import Chosen
from eaf_inference.inference.spec import DTYPES, ModelSpec

RECIPE = recipe_text({"x": {"a": variable(), "b": variable()}}, max_length=128)
json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["prob", "z"]), inner, max_size=2),
    max_leaves=6,
)


def config(**parameters: str):
    made = protocol.ModelConfig(name="jets", max_batch_size=64)
    made.input.add(name="x", data_type="TYPE_FP32", dims=[2, -1])
    made.output.add(name="prob", data_type="TYPE_FP32", dims=[2])
    made.output.add(name="each", data_type="TYPE_INT64", dims=[-1])
    for key, text in parameters.items():
        made.parameters[key].string_value = text
    return made


def test_names_types_shapes_and_batching_come_from_the_configuration():
    changed = config()
    changed.input.add(name="more", data_type="TYPE_BOOL", dims=[1], optional=True)
    spec = ModelSpec.from_config(changed, "3")
    assert (spec.name, spec.version, spec.max_batch_size) == ("jets", "3", 64)
    assert spec.inputs[0] == tensor("x", 2, -1)
    assert (spec.inputs[1].optional, spec.inputs[0].optional) == (True, False)
    assert spec.outputs == (tensor("prob", 2), tensor("each", -1, datatype="INT64"))
    assert spec.recipe is None
    assert spec.labels == {}
    assert str(spec.inputs[0]) == "x: FP32 [2, -1]"


@pytest.mark.parametrize("name", sorted(set(DTYPES) - {"BYTES"}))
def test_every_numeric_data_type_is_supported_in_little_endian(name):
    changed = config()
    changed.input[0].data_type = f"TYPE_{name}"
    dtype = ModelSpec.from_config(changed, "").inputs[0].dtype
    assert dtype == dtype.newbyteorder("<")
    size, kind = {"BOOL": (1, "b"), "UINT8": (1, "u"), "FP16": (2, "f"), "INT64": (8, "i")}.get(name, (None, None))
    if size:
        assert (dtype.itemsize, dtype.kind) == (size, kind)


@pytest.mark.parametrize(("axis", "shape"), [(1, (7, -1)), (0, (-1, 7)), (0, (-1,)), (None, (2, 3))])
def test_the_variable_axis_is_the_one_of_unknown_size(axis, shape):
    assert tensor("x", *shape).variable_axis == axis


@pytest.mark.parametrize(
    ("names", "labels", "expected"),
    [
        (["top", "qcd"], None, {"prob": ("top", "qcd")}),
        (["prob"], None, {}),  # the name of an output
        (["prob", "each"], None, {}),
        (["softmax"], None, {}),  # an output's name in the export, since renamed by the operator
        (["top", "qcd"], {"prob": ["t", "q"]}, {"prob": ("t", "q")}),
        ([], None, {}),
    ],
)
def test_classes_come_from_the_recipe_unless_a_parameter_names_them(names, labels, expected):
    recipe = json.dumps({**json.loads(RECIPE), "output_names": names})
    more = {} if labels is None else {"labels": json.dumps(labels)}
    assert ModelSpec.from_config(config(preprocess=recipe, **more), "").labels == expected


@pytest.mark.parametrize("names", [["top", "w", "qcd"], ["top", "top"]])
def test_classes_that_fit_no_output_are_left_out_and_reported(names):
    recipe = json.dumps({**json.loads(RECIPE), "output_names": names})
    spec = ModelSpec.from_config(config(preprocess=recipe), "")
    assert spec.labels == {}
    assert f"recipe's {len(names)} output_names are not used" in spec.unused
    two_outputs = config(preprocess=json.dumps({**json.loads(RECIPE), "output_names": ["top", "qcd"]}))
    two_outputs.output.add(name="other", data_type="TYPE_FP32", dims=[2])
    spec = ModelSpec.from_config(two_outputs, "")
    assert (spec.labels, bool(spec.unused)) == ({}, True)  # they could be either output's


def test_a_passed_recipe_replaces_the_one_in_the_configuration():
    spec = ModelSpec.from_config(config(preprocess=RECIPE), "")
    assert spec.recipe.variables == ("a", "b")
    assert spec.recipe.max_length == 128
    other = recipe_text({"x": {"c": variable(), "d": variable()}})
    replaced = ModelSpec.from_config(config(preprocess="not JSON"), "", chosen=Chosen(other))
    assert replaced.recipe.variables == ("c", "d")


def test_labels_name_the_classes_of_an_output():
    spec = ModelSpec.from_config(config(labels='{"prob": ["qcd", "top"]}'), "")
    assert spec.labels == {"prob": ("qcd", "top")}


def decoupled(changed):
    changed.model_transaction_policy.decoupled = True


def stateful(changed):
    changed.sequence_batching.max_sequence_idle_microseconds = 1


def from_the_future(changed):
    changed.input[0].data_type = 99


def impossible(changed):
    changed.input[0].dims[0] = -5


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (decoupled, "it answers in a stream (decoupled)"),
        (stateful, "it keeps state between requests (sequence batching)"),
        (from_the_future, "'x' has data type 99; only numbers, booleans and strings are supported"),
        (impossible, "'x' has the shape [-5, -1]; sizes of -1 or at least 1 are supported"),
    ],
)
def test_an_unsupported_kind_of_model_is_refused_with_the_reason(change, why):
    changed = config()
    change(changed)
    with pytest.raises(ConfigurationError) as caught:
        ModelSpec.from_config(changed, "")
    assert str(caught.value) == (
        f"The model 'jets' cannot be used through this client: {why}. Tell the model's owner, or choose "
        "another model."
    )


def test_strings_are_inputs_and_the_outputs_of_a_model_that_has_no_others():
    changed = config(labels='{"prob": ["qcd", "top"]}')
    for each in (*changed.input, *changed.output):
        each.data_type = "TYPE_STRING"
    spec = ModelSpec.from_config(changed, "")
    assert {each.datatype for each in (*spec.inputs, *spec.outputs)} == {"BYTES"}
    assert (spec.left_out, spec.labels) == ((), {})


def test_outputs_of_unsupported_types_are_left_out():
    changed = config(labels=json.dumps({"prob": ["top", "qcd"], "name": "whatever these are"}))
    changed.output.add(name="name", data_type="TYPE_STRING", dims=[1])
    changed.output.add(name="later", data_type=99, dims=[1])
    spec = ModelSpec.from_config(changed, "")
    assert [each.name for each in spec.outputs] == ["prob", "each"]
    assert spec.left_out == ("name: BYTES", "later: 99")
    assert spec.labels == {"prob": ("top", "qcd")}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "they are not JSON"),
        ("[" * 100_000, "they are not JSON"),
        ("null", "they are not an object"),
        ('{"other": ["a"]}', "there is no output 'other'"),
        ('{"prob": "ab"}', "those of 'prob' are not a list of different names"),
        ('{"prob": [1, 2]}', "those of 'prob' are not a list of different names"),
        ('{"prob": ["a", ""]}', "those of 'prob' are not a list of different names"),
        ('{"prob": ["a", "a"]}', "those of 'prob' are not a list of different names"),
        ('{"prob": ["a"]}', "1 names for 'prob' of shape [2]"),
        ('{"each": ["a"]}', "1 names for 'each' of shape [-1]"),
    ],
)
def test_labels_that_do_not_fit_are_refused_with_the_reason(text, why):
    with pytest.raises(ConfigurationError) as caught:
        ModelSpec.from_config(config(labels=text), "")
    assert f"The labels of 'jets' cannot be used: {why}" in str(caught.value)
    assert "Expected JSON: output name -> list of class names." in str(caught.value)


@given(st.text(max_size=20) | json_like.map(json.dumps) | json_like.map(lambda value: json.dumps({"prob": value})))
def test_any_text_gives_fitting_labels_or_a_configuration_error(text):
    try:
        labels = ModelSpec.from_config(config(labels=text), "").labels
    except ConfigurationError:
        return
    assert labels == {} or (list(labels) == ["prob"] and len(set(labels["prob"])) == 2)


@pytest.mark.parametrize(
    ("inputs", "why"),
    [
        ({"y": {"a": {}}}, "describes inputs that the model does not take: y. Expected some of x."),
        ({"x": {"a": {}}}, "gives 1 variables for input 'x', which takes shape [2, -1]. Expected [1, -1]"),
    ],
)
def test_a_recipe_that_does_not_fit_the_inputs_is_refused(inputs, why):
    with pytest.raises(ConfigurationError) as caught:
        ModelSpec.from_config(config(preprocess=recipe_text(inputs)), "")
    assert why in str(caught.value)


def test_a_recipe_may_leave_inputs_to_be_given_by_name():
    changed = config(preprocess=RECIPE)
    changed.input.add(name="more", data_type="TYPE_FP32", dims=[1])
    assert list(ModelSpec.from_config(changed, "").recipe.inputs) == ["x"]


def test_a_recipe_fills_integers_with_whole_padding_but_no_booleans():
    changed = config(preprocess=RECIPE)
    changed.input[0].data_type = "TYPE_INT32"
    assert ModelSpec.from_config(changed, "").recipe is not None
    halves = recipe_text({"x": {"a": variable(pad=0.5), "b": variable()}})
    with pytest.raises(ConfigurationError, match="pads 'a' of input 'x' with 0.5, but the input takes INT32"):
        ModelSpec.from_config(changed, "", chosen=Chosen(halves))
    changed.input[0].data_type = "TYPE_BOOL"
    with pytest.raises(ConfigurationError, match="fills input 'x', which takes BOOL. Expected numbers"):
        ModelSpec.from_config(changed, "")


def test_an_excessively_long_parameter_is_not_read():
    with pytest.raises(ConfigurationError, match="parameter 'labels' of 'jets' is too long"):
        ModelSpec.from_config(config(labels=" " * ((1 << 20) + 1)), "")
    assert np.dtype("<f4") == DTYPES["FP32"]
