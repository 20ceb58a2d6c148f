"""What a model's owner declares in parameters, and what a user chooses instead."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import awkward as ak
import numpy as np
import pytest
from builders import recipe_text, tensor, variable
from hypothesis import given
from hypothesis import strategies as st

from eaf_inference.errors import BadReply, ConfigurationError
from eaf_inference.inference import protocol
from eaf_inference.inference.lengths import Declared
from eaf_inference.inference.lookup import table
from eaf_inference.inference.marshal import prepare
from eaf_inference.inference.parameters import PARAMETERS, Chosen
from eaf_inference.inference.queue_times import QueueTimes
from eaf_inference.inference.spec import ModelSpec


def config(*, batch=64, x=(2, -1), prob=(2,), logits=(2,), **parameters):
    made = protocol.ModelConfig(name="jets", max_batch_size=batch)
    made.input.add(name="x", data_type="TYPE_FP32", dims=x)
    made.output.add(name="prob", data_type="TYPE_FP32", dims=prob)
    made.output.add(name="logits", data_type="TYPE_FP32", dims=logits)
    made.output.add(name="label", data_type="TYPE_STRING", dims=[-1, 1] if batch == 0 else [1])
    for key, text in parameters.items():
        made.parameters[key].string_value = text
    return made


def spec_of(made, **chosen):
    return ModelSpec.from_config(made, "1", chosen=Chosen.of(**chosen))


def names(tensors):
    return [each.name for each in tensors]


def test_all_outputs_but_strings_are_requested_unless_some_are_asked_for():
    spec = spec_of(config())
    assert names(spec.outputs) == ["prob", "logits"]
    assert spec.left_out == ("label: BYTES",)


@pytest.mark.parametrize(
    ("asked", "given", "left_out"),
    [
        (["prob"], ["prob"], ("logits: FP32", "label: BYTES")),
        ("prob", ["prob"], ("logits: FP32", "label: BYTES")),
        (("logits", "prob"), ["logits", "prob"], ("label: BYTES",)),
        (["label", "prob", "label"], ["label", "prob"], ("logits: FP32",)),
    ],
)
def test_the_outputs_that_are_asked_for_are_requested_in_that_order(asked, given, left_out):
    spec = spec_of(config(), outputs=asked)
    assert names(spec.outputs) == given
    assert spec.left_out == left_out
    assert {each.name: each.datatype for each in spec.outputs}.get("label", "BYTES") == "BYTES"


def test_an_unknown_output_is_refused_with_those_that_exist():
    with pytest.raises(ConfigurationError, match=r"no output 'probs'\. Did you mean 'prob'\? It has prob, logits, l"):
        spec_of(config(), outputs=["probs"])


@pytest.mark.parametrize("asked", [[], [1], [None], ""])
def test_an_argument_that_names_no_output_is_refused(asked):
    with pytest.raises(
        ConfigurationError, match=r"Expected names of outputs, such as outputs=\['prob'\]|no output ''"
    ):
        spec_of(config(), outputs=asked)


def test_labels_belong_to_the_same_output_whichever_are_asked_for():
    labels = json.dumps({"prob": ["top", "qcd"]})
    assert spec_of(config(labels=labels), outputs=["prob"]).labels == {"prob": ("top", "qcd")}
    assert spec_of(config(labels=labels), outputs=["logits"]).labels == {}


def test_classes_of_a_recipe_go_to_no_other_output_that_is_asked_for():
    recipe = json.dumps(
        {**json.loads(recipe_text({"x": {"a": variable(), "b": variable()}})), "output_names": ["top", "qcd"]}
    )
    made = config(logits=(3,), preprocess=recipe)
    assert spec_of(made, outputs=["prob"]).labels == {"prob": ("top", "qcd")}
    assert spec_of(made, outputs=["logits"]).labels == {}


def test_a_model_that_gives_only_strings_gives_them():
    made = config()
    del made.output[:2]
    assert names(spec_of(made).outputs) == ["label"]


@pytest.mark.parametrize(("declared", "chosen"), [("0", None), (None, 0), (" 0 ", None), ("0", 0)])
def test_the_batch_axis_is_no_part_of_the_shapes(declared, chosen):
    parameters = {} if declared is None else {"batch_axis": declared}
    made = config(batch=0, x=[-1, 2, -1], prob=[-1, 2], logits=[-1], **parameters)
    spec = spec_of(made, batch_axis=chosen, outputs=["prob", "logits", "label"])
    assert spec.inputs == (tensor("x", 2, -1),)
    assert [each.shape for each in spec.outputs] == [(2,), (), (1,)]
    assert (spec.max_batch_size, spec.batch_axis) == (0, 0)
    assert spec.largest_batch > 1 << 30
    assert not spec.may_have_batch_axis


def test_a_batch_axis_that_the_server_adds_is_none_of_the_models_own():
    spec = spec_of(config(), batch_axis=0)
    assert (spec.inputs[0].shape, spec.largest_batch, spec.batch_axis) == ((2, -1), 64, None)


@pytest.mark.parametrize("axis", [1, -1, True, "1", "rows"])
def test_another_batch_axis_is_refused_with_what_is_supported(axis):
    made = config(batch=0, x=[-1, 5], prob=[-1, 2], logits=[-1, 2])
    with pytest.raises(ConfigurationError, match=r"batch_axis is .*Expected 0, if the first axis of every input and"):
        spec_of(made, batch_axis=axis)
    made.parameters["batch_axis"].string_value = str(axis)
    with pytest.raises(ConfigurationError, match="'batch_axis' in its config.pbtxt is"):
        spec_of(made)


@pytest.mark.parametrize("wrong", [{"x": [5, -1]}, {"x": [5]}, {"prob": [2]}, {"logits": [2, -1]}])
def test_a_tensor_without_a_leading_variable_axis_cannot_be_split(wrong):
    shapes = {"x": [-1, 5], "prob": [-1, 2], "logits": [-1, 2], **wrong}
    (name,) = wrong
    with pytest.raises(ConfigurationError, match=rf"cannot be split along batch_axis 0: '{name}' has the shape \["):
        spec_of(config(batch=0, **shapes), batch_axis=0)


@pytest.mark.parametrize(("rows", "whole"), [(3, True), (1, False)])
def test_an_array_of_several_rows_is_known_to_be_sent_whole(rows, whole):
    spec = spec_of(config(batch=0, x=[-1, 5], prob=[-1, 2], logits=[-1, 2]))
    job = prepare(np.zeros((rows, 5), np.float32), spec)
    assert spec.may_have_batch_axis
    assert (job.is_whole, job.rows) == (whole, 1)


def test_an_awkward_array_without_an_axis_of_rows_is_sent_whole_too():
    spec = spec_of(config(batch=0, x=[-1, 5], prob=[-1, 2], logits=[-1, 2]))
    job = prepare(ak.Array(np.ones((3, 5), np.float32)), spec)
    assert (job.is_whole, job.rows) == (True, 1)
    rows = prepare(ak.unflatten(ak.Array(np.ones((3, 5), np.float32)), [2, 0, 1]), spec)
    assert (rows.is_whole, rows.rows) == (False, 3)


def test_a_recipe_that_fits_without_the_first_axis_says_what_to_declare():
    shapes = {"x": [-1, 2, -1], "prob": [-1, 2], "logits": [-1, 2]}
    recipe = recipe_text({"x": {"a": variable(), "b": variable()}})
    with pytest.raises(
        ConfigurationError, match="If its first axis counts rows, say so: batch_axis=0, or the parameter"
    ):
        spec_of(config(batch=0, **shapes, preprocess=recipe))
    spec = spec_of(config(batch=0, **shapes, preprocess=recipe, batch_axis="0"))
    jets = ak.zip({name: ak.unflatten(np.ones(4, np.float32), [3, 0, 1]) for name in "ab"})
    assert prepare(jets, spec).rows == 3
    assert spec.inputs[0].shape == (2, -1)


def test_a_model_whose_outputs_do_not_count_rows_is_no_candidate():
    assert not spec_of(config(batch=0, x=[-1, 5], prob=[2], logits=[2])).may_have_batch_axis


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["x", "prob", "node", "edge"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["x", "prob", "nodes", "input_names", "batch", "edge_index"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(PARAMETERS), st.text(max_size=9) | json_like.map(json.dumps), max_size=3))
def test_any_text_of_any_parameter_gives_a_model_or_a_configuration_error(parameters):
    with contextlib.suppress(ConfigurationError):
        spec_of(config(**parameters))


def test_a_model_without_an_answer_of_its_own_costs_no_other_its_row():
    """One configuration cannot be read, and one belongs to another model."""
    names = [f"m{number}" for number in range(9)]

    def ask(*questions):
        answers = []
        for question in questions:
            if question.method == "RepositoryIndex":
                answers.append(protocol.RepositoryIndexResponse())
                for name in names:
                    answers[-1].models.add(name=name, version="1", state="READY")
                continue
            name = question.message.name
            if name == "m3":
                raise BadReply("its answer is too large")
            answers.append(protocol.ModelConfigResponse())
            answers[-1].config.CopyFrom(config())
            answers[-1].config.name = "other" if name == "m5" else name
        return answers

    rows = table(ask, "grpc://there", (), QueueTimes())
    assert [row.name for row in rows] == names
    assert [row.name for row in rows if not row.ready] == ["m3", "m5"]
    assert rows[3].state == "its answer is too large"
    assert "sent that of 'other'" in rows[5].state


@pytest.mark.parametrize(("text", "sizes"), [("8", (8,)), ("[16, 4, 4]", (4, 16)), ("[64]", (64,))])
def test_the_sizes_of_batches_are_declared(text, sizes):
    spec = spec_of(config(pad_batches_to=text))
    assert spec.pad_batches_to == sizes
    assert spec.largest_batch == sizes[-1]


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "true", "1.5", "[]", "[8, null]", "{}", '"8"', "[" * 99_999, "9" * 9]
)
def test_sizes_of_batches_that_are_none_are_refused(text):
    with pytest.raises(
        ConfigurationError, match=r"'pad_batches_to' of 'jets' cannot be used: it is .*such as 8, or a l"
    ):
        spec_of(config(pad_batches_to=text))


def test_sizes_of_batches_need_a_batch_axis_that_takes_them():
    with pytest.raises(ConfigurationError, match="128 is above its max_batch_size, 64"):
        spec_of(config(pad_batches_to="[8, 128]"))
    with pytest.raises(
        ConfigurationError, match="no batch axis: its max_batch_size is 0, and no 'batch_axis' is decl"
    ):
        spec_of(config(batch=0, pad_batches_to="8"))


def test_a_batch_axis_of_one_declared_size_is_no_part_of_the_shapes():
    shapes = {"x": [8, 2, -1], "prob": [8, 2], "logits": [8]}
    made = config(batch=0, **shapes, batch_axis="0", pad_batches_to="8")
    made.output[2].dims[0] = 8
    spec = spec_of(made)
    assert spec.inputs == (tensor("x", 2, -1),)
    assert [each.shape for each in spec.outputs] == [(2,), ()]
    assert spec.largest_batch == 8
    for wrong in ("4", "[4, 8]"):
        made.parameters["pad_batches_to"].string_value = wrong
        with pytest.raises(
            ConfigurationError, match=r"'x' has the shape \[8, 2, -1\]. Expected .*or the one size in"
        ):
            spec_of(made)


def two_inputs(**parameters):
    made = config(x=[2, -1], **parameters)
    made.input[0].name = "pf_x"
    made.input.add(name="pf_mask", data_type="TYPE_FP32", dims=[1, -1])
    made.input.add(name="sv", data_type="TYPE_FP32", dims=[3, -1])
    made.input.add(name="jet", data_type="TYPE_FP32", dims=[4])
    return made


def lengths_of(spec):
    return {each.name: each.lengths for each in spec.inputs if each.lengths}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([128, 64], {"pf_x": (64, 128), "pf_mask": (64, 128), "sv": (64, 128)}),
        (64, {"pf_x": (64,), "pf_mask": (64,), "sv": (64,)}),
        ({"pf_x": [64, 128], "sv": [16]}, {"pf_x": (64, 128), "pf_mask": (64, 128), "sv": (16,)}),
        ({"pf_mask": [64]}, {"pf_x": (64,), "pf_mask": (64,)}),
        ({"sv": 8}, {"sv": (8,)}),
        ({"pf": (64, 128)}, {"pf_x": (64, 128), "pf_mask": (64, 128)}),
    ],
)
def test_padded_lengths_are_those_of_all_inputs_or_of_a_collection(given, expected):
    assert lengths_of(spec_of(two_inputs(lengths=json.dumps(given)))) == expected
    assert lengths_of(spec_of(two_inputs(), lengths=given)) == expected
    assert lengths_of(spec_of(two_inputs(lengths="[1000]"), lengths=given)) == expected  # the user's go first


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([], "is \\[\\] for 'pf_x'"),
        ([0], "is \\[0\\] for 'pf_x'"),
        ([True], "for 'pf_x'"),
        ("64", "is 64 for 'pf_x'"),
        ({}, "names no input"),
        ({"svs": [8]}, "names 'svs'. Did you mean 'sv'\\? It has pf, pf_x, pf_mask, sv"),
        ({"jet": [8]}, "names 'jet'"),
        ({"pf_x": [64], "pf_mask": [128]}, "differs for 'pf_x', 'pf_mask', which have the same constituents"),
    ],
)
def test_padded_lengths_that_fit_no_input_are_refused(given, why):
    expected = f"padded lengths of 'jets' cannot be used: .*{why}.* Expected the lengths that the model takes"
    with pytest.raises(ConfigurationError, match=expected):
        spec_of(two_inputs(), lengths=given)
    with pytest.raises(ConfigurationError, match=expected):
        spec_of(two_inputs(lengths=json.dumps(given)))


def test_padded_lengths_need_one_axis_of_variable_size():
    with pytest.raises(ConfigurationError, match="no input has an axis of variable size"):
        spec_of(config(x=[2, 5]), lengths=[64])
    with pytest.raises(ConfigurationError, match=r"'x', whose shape \[-1, -1\] is not \[C, -1\], "):
        spec_of(config(x=[-1, -1]), lengths=[64])
    with pytest.raises(ConfigurationError, match="is not JSON"):
        spec_of(config(lengths="[64"))


def test_a_recipes_lengths_are_kept_within_those_that_the_model_takes():
    recipe = recipe_text({"x": {"a": variable(), "b": variable()}}, min_length=2, max_length=100)
    (collection,) = spec_of(config(preprocess=recipe, lengths="[64, 128]")).collections
    assert (collection.declared.minimum, collection.declared.maximum) == (64, 100)
    (collection,) = spec_of(config(preprocess=recipe, lengths="[16, 32]")).collections
    assert (collection.declared.minimum, collection.declared.maximum) == (16, 32)


@given(
    only=st.lists(st.integers(1, 200), min_size=1, max_size=4, unique=True).map(lambda each: tuple(sorted(each))),
    counts=st.lists(st.integers(0, 200), min_size=1, max_size=20),
    exact=st.booleans(),
    empty_apart=st.booleans(),
)
def test_rows_are_padded_to_the_next_declared_length_and_to_no_other(only, counts, exact, empty_apart):
    rule = replace(Declared(0, None).within(only).padded, exact=exact, empty_apart=empty_apart)
    counts = np.minimum(counts, only[-1])
    for count, padded in zip(counts, rule.padded(counts), strict=True):
        assert padded == min(length for length in only if length >= count)


def test_a_model_of_graphs_has_no_batch_axis():
    made = config(batch=0, x=[-1, 5], prob=[-1, 2], logits=[-1, 2], graph="{}", batch_axis="0")
    with pytest.raises(ConfigurationError, match="has the parameter 'graph' and a batch axis. Expected one of them"):
        spec_of(made)
