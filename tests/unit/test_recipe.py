"""Recipes: the formula against an independent implementation, and anything a server may send as a recipe."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from builders import recipe_text, variable
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from eaf_inference.errors import ConfigurationError
from eaf_inference.inference.recipe import Recipe, Variable

moderate = st.floats(-1e3, 1e3, width=32)
anything = st.floats(width=32)  # including infinities and NaN
json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def reference(values, median, norm_factor, replace, lower, upper):
    """Apply the format's formula to one value, in double precision."""
    result = []
    for value in values.astype(np.float64):
        if replace is not None and not np.isfinite(value):
            value = replace
        result.append(min(max((value - median) * norm_factor, lower), upper))
    return np.array(result)


@given(
    values=arrays.arrays(
        np.float32, st.integers(0, 30), elements=moderate | st.sampled_from([np.inf, -np.inf, np.nan])
    ),
    median=moderate,
    norm_factor=st.floats(-10, 10, width=32),
    replace=moderate,
    bounds=st.tuples(moderate, moderate).map(sorted),
)
def test_values_are_normalised_as_the_format_says(values, median, norm_factor, replace, bounds):
    made = Variable("x", median, norm_factor, replace, *bounds).normalise(values)
    expected = reference(values, median, norm_factor, replace, *bounds)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-3)


@given(arrays.arrays(np.float32, st.integers(1, 30), elements=anything))
def test_values_that_are_not_finite_are_replaced_before_normalising(values):
    made = Variable("x", median=1.0, norm_factor=2.0, replace_inf_value=-7.0).normalise(values)
    assert (made[~np.isfinite(values)] == (-7.0 - 1.0) * 2.0).all()


def test_values_that_are_not_finite_stay_without_a_replacement():
    values = np.array([np.inf, -np.inf, np.nan, 3.0], np.float32)
    bounded = Variable("x", median=1.0, lower_bound=-5.0, upper_bound=5.0).normalise(values)
    np.testing.assert_array_equal(bounded, [5.0, -5.0, np.nan, 2.0])
    np.testing.assert_array_equal(Variable("x").normalise(values), values)


@given(arrays.arrays(np.float32, st.integers(0, 20), elements=anything))
def test_the_callers_values_are_not_changed(values):
    before = values.copy()
    for each in (
        Variable("x", 1.0, 2.0, 0.0, -1.0, 1.0),
        Variable("x", norm_factor=3.0),
        Variable("x", upper_bound=0.5),
        Variable("x", replace_inf_value=2.0),
    ):
        each.normalise(values)
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("dtype", ["float64", "int64", "uint8", "bool", "float16", ">f8"])
def test_every_real_dtype_becomes_float32(dtype):
    made = Variable("x", median=1.0, norm_factor=2.0).normalise(np.array([0, 1, 1], dtype))
    assert made.dtype == np.float32
    np.testing.assert_array_equal(made, [-2.0, 0.0, 0.0])


def test_a_value_beyond_float32_counts_as_infinite():
    made = Variable("x", replace_inf_value=4.0, norm_factor=0.5).normalise(np.array([1e300, 2.0]))
    np.testing.assert_array_equal(made, [2.0, 1.0])
    assert Variable("x", norm_factor=1e38, upper_bound=5.0).normalise(np.array([1e30]))[0] == 5.0


def applied(recipe, fields, *, total=None, dtype=np.float32):
    total = len(next(iter(fields.values()))) if total is None else total
    return recipe.apply(fields, total, dict.fromkeys(recipe.inputs, np.dtype(dtype)))


@pytest.mark.parametrize(
    ("dtype", "computed"), [("f2", "f4"), ("f4", "f4"), ("f8", "f8"), ("i8", "f8"), ("u1", "f8")]
)
def test_values_are_computed_as_precisely_as_the_input_needs(dtype, computed):
    recipe = Recipe.parse(recipe_text({"x": {"a": variable(median=0.1)}}), model="m")
    values = np.array([1 / 3, 2.0**30 + 1])
    [(found, _)] = applied(recipe, {"a": values}, dtype=dtype)["x"]
    assert found.dtype == computed
    np.testing.assert_array_equal(found, values.astype(computed) - np.asarray(0.1, computed))


def test_integers_that_float64_would_round_stay_as_they_are():
    recipe = Recipe.parse(recipe_text({"x": {"a": variable(pad=-1.0)}}), model="m")
    values = np.array([2**53 + 1, -3])
    assert applied(recipe, {"a": values}, dtype="i8")["x"] == [(values, -1.0)]
    shifted = Recipe.parse(recipe_text({"x": {"a": variable(median=1.0)}}), model="m")
    [(found, _)] = applied(shifted, {"a": np.array([5, -3])}, dtype="i8")["x"]
    np.testing.assert_array_equal(found, [4, -4])


def test_inputs_may_stand_where_cmssw_keeps_them_and_names_in_a_mapping():
    flat = json.loads(recipe_text({"x": {"a": variable(median=2.0)}}, max_length=9))
    nested = {"input_names": ["x"], "prep_params": {"x": flat["x"]}, "output_names": {"truth": "expression"}}
    recipe = Recipe.parse(json.dumps(nested), model="m")
    assert recipe == replace(Recipe.parse(json.dumps(flat), model="m"), output_names=("truth",))


def test_the_variable_that_sorts_constituents_may_be_declared():
    text = json.dumps(json.loads(recipe_text({"x": {"a": variable()}, "y": {"a": variable()}})) | {"sort_by": "-a"})
    assert Recipe.parse(text, model="m").sort_by == {"x": "-a", "y": "-a"}


def test_channels_keep_the_recipes_order_and_share_variables():
    infos = {"a": variable(pad=-3.0), "b": variable(median=1.0)}
    recipe = Recipe.parse(recipe_text({"first": infos, "second": {"b": infos["b"]}}), model="m")
    made = applied(recipe, {"a": np.array([1.0, 2.0]), "b": np.array([5.0, 7.0])})
    assert [(values.tolist(), pad) for values, pad in made["first"]] == [([1.0, 2.0], -3.0), ([4.0, 6.0], 0.0)]
    assert made["second"][0][0] is made["first"][1][0]
    assert recipe.variables == ("a", "b")


def test_a_variable_normalised_in_two_ways_is_two_channels():
    text = recipe_text({"points": {"a": variable()}, "features": {"a": variable(median=1.0)}})
    made = applied(Recipe.parse(text, model="m"), {"a": np.array([3.0])})
    assert (made["points"][0][0][0], made["features"][0][0][0]) == (3.0, 2.0)


@pytest.mark.parametrize("mask", ["mask", "part_mask"])
def test_a_missing_mask_is_one_for_every_constituent(mask):
    recipe = Recipe.parse(recipe_text({"x": {"a": variable()}, "m": {mask: variable()}}), model="m")
    assert recipe.required == ("a",)
    assert applied(recipe, {"a": np.zeros(3)})["m"][0][0].tolist() == [1.0, 1.0, 1.0]
    with_mask = applied(recipe, {"a": np.zeros(3), mask: np.array([1, 0, 1])})
    assert with_mask["m"][0][0].tolist() == [1.0, 0.0, 1.0]


def test_a_recipes_length_limits_suit_every_input():
    one = {"var_names": ["a"], "var_infos": {}}
    text = json.dumps(
        {
            "input_names": ["x", "y", "z"],
            "x": one | {"min_length": 8, "max_length": 128},
            "y": one | {"min_length": 16},
            "z": one | {"var_length": 100},
        }
    )
    recipe = Recipe.parse(text, model="m")
    assert recipe.max_length == 100
    assert Recipe.parse(recipe_text({"x": {"a": {}}}), model="m").max_length is None


MANY = {f"v{number}": {} for number in range(1000)}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not JSON"),
        ("[1, 2", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"x": ' + "9" * 5000 + "}", "not JSON"),
        ("[]", "no list 'input_names'"),
        ('{"input_names": []}', "no list 'input_names'"),
        ('{"input_names": [1]}', "no list 'input_names'"),
        ('{"input_names": ["x", "x"], "x": {"var_names": ["a"]}}', "names an input twice"),
        ('{"input_names": ["x"]}', "does not describe the input 'x'"),
        ('{"input_names": ["x"], "x": {"var_names": []}}', "no list 'var_names'"),
        ('{"input_names": ["x"], "x": {"var_names": [""]}}', "no list 'var_names'"),
        ('{"input_names": ["x"], "x": {"var_names": ["a"], "var_infos": []}}', "'var_infos' of the input 'x'"),
        ('{"input_names": ["x"], "x": {"var_names": ["a"], "var_infos": {"a": 1}}}', "variable 'a' is not described"),
        (recipe_text({"x": {"a": {"median": "1"}}}), "'median' of the variable 'a' is not a number"),
        (recipe_text({"x": {"a": {"pad": True}}}), "'pad' of the variable 'a' is not a number"),
        (recipe_text({"x": {"a": {"pad": float("nan")}}}), "'pad' of the variable 'a' is not a number"),
        (recipe_text({"x": {"a": {"median": float("inf")}}}), "'median' of the variable 'a' is not a number"),
        (recipe_text({"x": {"a": {"norm_factor": 1e39}}}), "that float32 can hold"),
        (recipe_text({"x": {"a": {"lower_bound": 2, "upper_bound": 1}}}), "lower bound above its upper bound"),
        (recipe_text({"x": {"a": {}}}, min_length=-1), "'min_length' of the input 'x' is not a whole number"),
        (recipe_text({"x": {"a": {}}}, max_length=True), "'max_length' of the input 'x' is not a whole number"),
        (recipe_text({"x": {"a": {}}}, var_length=1 << 40), "'var_length' of the input 'x' is not a whole number"),
        (
            recipe_text({"x": {"a": {}}}, min_length=9, max_length=8),
            "the least length of the input 'x', 9, is above its greatest, 8",
        ),
        (recipe_text({"x": {"part_mask": {}}}), "no variables besides masks"),
        (recipe_text({"x": MANY}, min_length=1 << 20), "each row would be padded to 1048"),
        (recipe_text({"x": MANY}, var_length=1 << 20), "each row would be padded to 1048"),
        ('{"input_names": ["x"], "output_names": "top", "x": {"var_names": ["a"]}}', "'output_names' is not a list"),
        (recipe_text({"x": {f"v{number}": {} for number in range(1001)}}), "more than 1000 variables"),
        ('"' + "a" * (1 << 20) + '"', "characters long; at most"),
    ],
)
def test_an_invalid_recipe_is_refused_with_the_reason_and_a_remedy(text, why):
    with pytest.raises(ConfigurationError) as caught:
        Recipe.parse(text, model="jets")
    message = str(caught.value)
    assert "The preprocessing recipe of 'jets' cannot be used" in message
    assert why in message
    assert "Expected the text of a preprocess.json" in message


@settings(max_examples=150)
@given(
    st.one_of(
        st.text(max_size=40),
        json_like.map(json.dumps),
        st.fixed_dictionaries(
            {"input_names": json_like | st.just(["x"])},
            optional={
                "x": json_like
                | st.fixed_dictionaries(
                    {"var_names": json_like | st.just(["a"])},
                    optional={
                        "var_infos": json_like
                        | st.fixed_dictionaries(
                            {"a": json_like | st.dictionaries(st.sampled_from(["median", "pad"]), json_like)}
                        ),
                        "min_length": json_like,
                        "max_length": json_like | st.integers(1, 9),
                    },
                )
            },
        ).map(json.dumps),
    )
)
def test_any_text_is_a_working_recipe_or_a_configuration_error(text):
    try:
        recipe = Recipe.parse(text, model="m")
    except ConfigurationError:
        return
    fields = {name: np.array([1.0, np.inf, -2.5]) for name in recipe.required}
    for channels in applied(recipe, fields, total=3).values():
        assert all(values.shape == (3,) and np.isfinite(pad) for values, pad in channels)
