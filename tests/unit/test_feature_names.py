"""The names of features that a model's owner declares, and the columns that are read for them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eaf_inference.errors import ConfigurationError
from eaf_inference.inference import protocol
from eaf_inference.inference.feature_names import source_of
from eaf_inference.inference.spec import ModelSpec

SHAPES = {"x": [2], "image": [3, 4]}


def features_of(text, shapes=SHAPES):
    config = protocol.ModelConfig(name="bdt", max_batch_size=64)
    for name, dims in shapes.items():
        config.input.add(name=name, data_type="TYPE_FP32", dims=dims)
    config.output.add(name="y", data_type="TYPE_FP32", dims=[1])
    if text is not None:
        config.parameters["features"].string_value = text
    return ModelSpec.from_config(config, "").features


def test_a_model_without_the_parameter_names_no_features():
    assert features_of(None) == {}


def test_a_list_names_the_features_of_the_only_input_that_can_have_them():
    assert features_of('["pt", "eta"]') == {"x": ("pt", "eta")}
    assert features_of('{"x": ["pt", "eta"]}') == {"x": ("pt", "eta")}
    jagged = {"pf": [2, -1], "sv": [-1, 1]}
    assert features_of('{"pf": ["pt", "eta"], "sv": ["dxy"]}', jagged) == {"pf": ("pt", "eta"), "sv": ("dxy",)}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[pt", "they are not JSON"),
        ("[" * 100_000, "they are not JSON"),
        ("7", "they are neither a list nor an object"),
        ('["pt"]', r"1 names for 'x' of shape \[2\]"),
        ('{"x": ["pt", "pt"]}', "those of 'x' are not a list of different names"),
        ('{"x": ["pt", 7]}', "those of 'x' are not a list of different names"),
        ('{"x": ["pt", ""]}', "those of 'x' are not a list of different names"),
        ('{"x": "pt"}', "those of 'x' are not a list of different names"),
        ('{"z": ["pt", "eta"]}', "there is no input 'z'"),
        ('{"image": ["a", "b", "c"]}', r"3 names for 'image' of shape \[3, 4\]"),
    ],
)
def test_features_that_do_not_fit_are_refused_with_the_reason(text, why):
    with pytest.raises(ConfigurationError, match=f"features of 'bdt' cannot be used: {why}"):
        features_of(text)


def test_one_list_for_several_inputs_is_refused():
    with pytest.raises(ConfigurationError, match="they are one list, and 2 inputs can have features"):
        features_of('["pt", "eta"]', {"x": [2], "z": [2]})


json_like = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "image"]), inner, max_size=2),
    max_leaves=6,
)


@given(json_like.map(json.dumps) | st.text(max_size=20))
def test_any_text_gives_fitting_features_or_a_configuration_error(text):
    try:
        features = features_of(text)
    except ConfigurationError:
        return
    assert features == {} or (list(features) == ["x"] and len(set(features["x"])) == 2)


def test_a_column_with_an_inputs_name_is_not_its_only_feature():
    assert source_of("x", {"x": ("pt",)}, ["x", "y", "z"], optional=False) == ("pt",)
    assert source_of("x", {}, ["x", "y", "z"], optional=False) == ("x",)


@pytest.mark.parametrize(
    ("present", "optional", "source"),
    [
        (["eta", "pt", "run"], False, ("pt", "eta")),
        (["x", "run"], False, ("x",)),
        (["x", "pt", "eta"], False, ("pt", "eta")),
        (["x", "pt"], False, ("x",)),
        (["pt"], True, ("pt", "eta")),
        (["run"], False, ("pt", "eta")),
        (["run"], True, ()),
    ],
)
def test_an_input_is_read_from_its_features_or_the_column_of_its_name(present, optional, source):
    assert source_of("x", {"x": ("pt", "eta")}, present, optional=optional) == source
