"""Class names from label files, and replies that hold none."""

from __future__ import annotations

import numpy as np
import pytest
from builders import recipe_text, variable

from eaf_inference.errors import InvalidInput, ServerUnavailable
from eaf_inference.inference import protocol, wire
from eaf_inference.inference.label_files import names_of, with_class_names
from eaf_inference.inference.spec import ModelSpec


def config(*, dims=(2,), kind="TYPE_FP32"):
    made = protocol.ModelConfig(name="jets", max_batch_size=8)
    made.input.add(name="x", data_type="TYPE_FP32", dims=[2, -1])
    made.input.add(name="edges", data_type="TYPE_INT64", dims=[2, -1])
    made.input.add(name="text", data_type="TYPE_STRING", dims=[1])
    made.input.add(name="more", data_type="TYPE_FP32", dims=[1], optional=True)
    made.output.add(name="prob", data_type=kind, dims=dims, label_filename="labels.txt")
    made.output.add(name="other", data_type="TYPE_FP32", dims=[2])
    return made


def answering(strings, *, name="prob", datatype="BYTES", raw=None):
    """Return a server that gives these strings, and the list of requests it gets."""
    asked = []

    def ask(question):
        asked.append(question.message)
        reply = protocol.ModelInferResponse()
        reply.outputs.add(name=name, datatype=datatype, shape=[1, len(strings)])
        values = np.array([each.encode("utf-8", "surrogateescape") for each in strings], object)
        reply.raw_output_contents.append(wire.encode(values, "BYTES").tobytes() if raw is None else raw)
        return [reply]

    return ask, asked


def looked_up(ask, made, **settings):
    return with_class_names(ask, ModelSpec.from_config(made, "", **settings), made)


def test_the_names_come_in_the_order_of_their_index_for_a_row_of_zeros():
    ask, asked = answering(["0.9:1:qcd: all", "0.1:0: top\r"])
    spec = looked_up(ask, config())
    assert spec.labels == {"prob": ("top", "qcd: all")}
    assert spec.unused == ""
    [request] = asked
    assert [(each.name, list(each.shape)) for each in request.inputs] == [
        ("x", [1, 2, 128]),
        ("edges", [1, 2, 128]),
        ("text", [1, 1]),
    ]
    assert [len(raw) for raw in request.raw_input_contents] == [2 * 128 * 4, 2 * 128 * 8, 4]
    assert [each.name for each in request.outputs] == ["prob"]
    assert request.outputs[0].parameters["classification"].int64_param == 2


def test_a_row_of_zeros_keeps_to_the_lengths_of_the_recipe():
    made = config()
    for lengths, expected in (({"max_length": 20}, 20), ({"min_length": 300, "max_length": 400}, 300)):
        text = recipe_text({"x": {"a": variable(), "b": variable()}}, **lengths)
        made.parameters["preprocess"].string_value = text
        ask, asked = answering(["1:0:s", "0:1:b"])
        looked_up(ask, made)
        assert asked[0].inputs[0].shape[2] == expected


def test_a_model_of_fixed_batches_gets_its_smallest_batch_of_zeros():
    made = config()
    made.parameters["pad_batches_to"].string_value = "[4, 8]"
    ask, asked = answering(["1:0:s", "0:1:b"] * 4)
    assert looked_up(ask, made).labels == {"prob": ("s", "b")}
    assert asked[0].inputs[0].shape == [4, 2, 128]
    made.parameters["lengths"].string_value = "[16, 32]"
    looked_up(ask, made)
    assert asked[1].inputs[0].shape == [4, 2, 16]


def test_no_request_is_made_for_names_that_are_known_or_not_wanted():
    def refuse(*_):
        raise AssertionError

    known = config()
    known.parameters["labels"].string_value = '{"prob": ["s", "b"]}'
    assert looked_up(refuse, known).labels == {"prob": ("s", "b")}
    without = config()
    without.output[0].label_filename = ""
    assert looked_up(refuse, without).labels == {}
    for dims, kind in (([-1, 2], "TYPE_FP32"), ([-1], "TYPE_FP32"), ([20_000], "TYPE_FP32")):
        spec = looked_up(refuse, config(dims=dims, kind=kind))
        assert spec.labels == {}
        assert "is read for outputs [C]" in spec.unused


@pytest.mark.parametrize("error", [InvalidInput("no k neighbours"), ServerUnavailable("too slow\nWhat was tried")])
def test_a_refused_request_leaves_the_scores_without_names(error):
    def ask(_):
        raise error

    spec = looked_up(ask, config())
    assert spec.labels == {}
    first = str(error).partition("\n")[0]
    assert spec.unused == (
        f"the label file 'labels.txt' of 'prob' is not used, because the request for its lines failed: {first}. Its "
        "scores have no names: the model's parameter 'labels' can give them"
    )


@pytest.mark.parametrize(
    ("strings", "why"),
    [
        (["1:0:a"], "no name for some of the 2"),
        (["1:0:a", "1:0:b"], "no name for some of the 2"),
        (["1:0:a", "1:1:"], "no name for some of the 2"),
        (["1:0:a", "1:1"], "no name for some of the 2"),
        (["1:0:a", "1:5:b"], "no name for some of the 2"),
        (["1:0:a", "1:1:b", "1:2:c"], "no name for some of the 2"),
        (["1:0:a", "1:1:a "], "several classes are called 'a'"),
        (["1:0:a", "1:1:\udcff"], "not UTF-8"),
        (["1:0:a", "1:-1:b"], "another form"),
        (["1:0:a", f"1:{'9' * 9999}:b"], "another form"),
        (["1:0:a", "nonsense"], "another form"),
        (["1:0:a", "1:1:" + "b" * (1 << 20)], "more than 1,048,576 characters"),
        (["1:0:a", "1:²:b"], "another form"),
    ],
)
def test_lines_that_name_no_classes_are_reported(strings, why):
    assert why in names_of(strings, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "another"},
        {"datatype": "FP32"},
        {"raw": b""},
        {"raw": b"\xff\xff\xff\xff"},
        {"raw": b"\1\0\0\0a"},
    ],
)
def test_a_malformed_answer_leaves_the_scores_without_names(changes):
    ask, _ = answering(["1:0:a", "1:1:b"], **changes)
    spec = looked_up(ask, config())
    assert spec.labels == {}
    assert "another form" in spec.unused
