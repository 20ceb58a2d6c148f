"""The configuration of a user's own model: what is written is read back, and her own text stays hers."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from eaf_facility.hub.checked_config import checked_config
from eaf_inference.deploy.config_text import fields_of, parsed, with_field, with_parameter
from eaf_inference.deploy.configuration import Choices, merged, pinned, written
from eaf_inference.deploy.onnx_file import OnnxFile, OnnxTensor
from eaf_inference.errors import ConfigurationError, InferenceError
from eaf_inference.inference import protocol
from eaf_inference.inference.spec import ModelSpec

NAME = "al_5fice.jets"
FACTS = {"owner": "al_ice", "bytes": 12, "source": 'torch "2"', "time": "2026-11-29T02:00:00Z"}
TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)


def tensor(name, dims, datatype="FP32"):
    """Make an input or output; a text is a free axis of that name."""
    sizes = tuple(-1 if isinstance(size, str) else size for size in dims)
    return OnnxTensor(name, datatype, sizes, tuple(size if isinstance(size, str) else "" for size in dims))


def file(inputs, outputs, **more):
    return OnnxFile(tuple(inputs), tuple(outputs), **more)


FLAT = file([tensor("x", ["n", 3])], [tensor("y", ["n", 2])])
JAGGED = file(
    [tensor("points", ["n", 2, "p"]), tensor("mask", ["n", 1, "p"]), tensor("jet", ["n", 4])], [tensor("y", ["n", 2])]
)
GRAPH = file(
    [tensor("x", ["n", 3]), tensor("edges", [2, "e"], "INT64")], [tensor("node", ["n"]), tensor("edge", ["e", 1])]
)
AS_GRAPH = {"x": "x", "edge_index": "edges", "outputs": {"node": "node", "edge": "edge"}}


def source(**known):
    return SimpleNamespace(**{"backend": "onnxruntime", "features": {}, "labels": {}, "config": "", **known})


def write(onnx, export=None, **choices):
    return written(NAME, onnx, export or source(), Choices(**choices))


def spec_of(text):
    config = protocol.ModelConfig()
    text_format.Parse(text, config)  # strictly
    assert config.name == NAME
    return ModelSpec.from_config(config, "1")


def recipe_of(**inputs):
    infos = {"min_length": 4, "max_length": 32}
    return json.dumps(
        {"input_names": list(inputs), **{k: {"var_names": v, **infos} for k, v in inputs.items()}}, indent=2
    )


RECIPE = recipe_of(points=["pt", "eta"], mask=["part_mask"])


# What is written


def test_a_flat_model_has_rows_and_is_warmed_up():
    text = write(FLAT)
    spec, config = spec_of(text), parsed(text)
    assert [str(each) for each in (*spec.inputs, *spec.outputs)] == ["x: FP32 [3]", "y: FP32 [2]"]
    assert (spec.max_batch_size, config.backend, len(config.instance_group)) == (1024, "onnxruntime", 0)
    assert config.HasField("dynamic_batching")
    (warm_up,) = config.model_warmup
    assert (warm_up.batch_size, list(warm_up.inputs["x"].dims), warm_up.inputs["x"].zero_data) == (1, [3], True)
    assert text.startswith("# ")


def test_every_block_says_what_it_is_for():
    text = write(FLAT, labels=["top", "qcd"], features=["a", "b", "c"], recipe=recipe_of(x=["a", "b", "c"]))
    for block in text.strip().split("\n\n"):
        assert block.startswith(("# ", "input {", "output {")), block


def test_one_number_per_row_is_reshaped_for_triton():
    text = write(file([tensor("x", ["n"])], [tensor("label", ["n"], "INT64"), tensor("name", ["n"], "BYTES")]))
    config = parsed(text)
    for each in (*config.input, *config.output):
        assert (list(each.dims), each.HasField("reshape"), list(each.reshape.shape)) == ([1], True, [])
    assert config.output[1].data_type == protocol.ModelOutput(data_type="TYPE_STRING").data_type
    assert spec_of(text).left_out == ("name: BYTES",)


def test_one_number_per_request_is_not_reshaped():
    config = parsed(write(file([tensor("x", ["n", 3])], [tensor("y", [])])))
    assert (config.max_batch_size, list(config.output[0].dims), config.output[0].HasField("reshape")) == (
        0,
        [1],
        False,
    )


@pytest.mark.parametrize(
    ("size", "rows"), [(3, 1024), (16 << 10, 512), ((16 << 10) + 1, 256), (1 << 20, 8), (1 << 24, 1)]
)
def test_larger_rows_make_smaller_batches(size, rows):
    config = parsed(write(file([tensor("x", ["n", size])], [tensor("y", ["n", size])])))
    assert (config.max_batch_size, config.HasField("dynamic_batching")) == (rows, rows > 1)


def test_a_model_without_batch_axis_takes_whole_arrays():
    spec = spec_of(write(file([tensor("x", [8, 3])], [tensor("y", [8, 2])])))
    assert (spec.max_batch_size, spec.batch_axis, spec.inputs[0].shape) == (0, None, (8, 3))
    assert spec_of(write(FLAT, max_batch_size=0)).inputs[0].shape == (-1, 3)


@pytest.mark.parametrize(("rows", "sizes"), [(8, 8), ("n", 8), ("n", [64, 1])])
def test_batches_of_certain_sizes(rows, sizes):
    text = write(file([tensor("x", [rows, 3])], [tensor("y", [rows, 2])]), pad_batches_to=sizes)
    spec = spec_of(text)
    assert spec.pad_batches_to == ((8,) if sizes == 8 else (1, 64))
    assert spec.inputs[0].shape == (3,)
    assert not parsed(text).HasField("dynamic_batching")  # merged batches would have other sizes
    assert list(parsed(text).model_warmup[0].inputs["x"].dims) == ([8, 3] if rows == 8 else [3])


def test_the_recipe_is_kept_as_it_is_and_sets_the_warm_up():
    text = write(JAGGED, recipe=RECIPE, lengths={"points": [16, 32]})
    spec, config = spec_of(text), parsed(text)
    assert config.parameters["preprocess"].string_value == RECIPE
    assert spec.recipe.variables == ("pt", "eta", "part_mask")
    assert spec.inputs[0].lengths == (16, 32)
    sizes = {name: list(each.dims) for name, each in config.model_warmup[0].inputs.items()}
    assert sizes == {"points": [2, 16], "mask": [1, 16], "jet": [4]}


def test_no_row_is_sent_ahead_that_might_be_refused():
    strings = file([tensor("x", ["n", 1], "BYTES")], [tensor("y", ["n", 2])])
    free = recipe_of(points=["pt", "eta"], mask=["part_mask"]).replace('"min_length": 4', '"min_length": 0')
    assert parsed(write(JAGGED, recipe=free.replace('"max_length"', '"x"'))).model_warmup == []
    for text in (write(strings), write(JAGGED), write(GRAPH, graph=AS_GRAPH)):
        assert not parsed(text).model_warmup
        assert "# No warm-up" in text


def test_a_graph_network_gets_its_parameter():
    spec = spec_of(write(GRAPH, graph=AS_GRAPH))
    assert (spec.graph.nodes, spec.graph.edge_index, dict(spec.graph.outputs)) == (
        ("x",),
        "edges",
        {"node": "node", "edge": "edge"},
    )


def test_inputs_with_one_named_axis_become_a_collection():
    inputs = [
        tensor("cpf", ["n", 3, "candidates"]),
        tensor("track", ["n", 2, "candidates"]),
        tensor("sv", ["n", 2, "v"]),
    ]
    onnx = file(inputs, [tensor("y", ["n", 2])])
    assert [(each.name, each.inputs) for each in spec_of(write(onnx)).collections] == [
        ("candidates", ("cpf", "track"))
    ]
    own = spec_of(write(onnx, collections={"pf": ["cpf", "track"], "sv": ["sv"]}))
    assert [each.name for each in own.collections] == ["pf", "sv"]
    assert "collections" not in parsed(write(JAGGED)).parameters  # the mask says it
    for symbol, known_as in (("s77", "a"), ("n_pf", "a"), ("tracks", "tracks")):
        onnx = file([tensor("a", ["n", 3, symbol]), tensor("b", ["n", 2, symbol])], [tensor("y", ["n", 2])])
        assert [each.name for each in spec_of(write(onnx)).collections] == [known_as]
    apart = json.loads(recipe_of(a=["u", "v", "w"], b=["u", "v"]))
    apart["a"]["max_length"], apart["b"]["min_length"] = 8, 16
    assert len(spec_of(write(onnx, recipe=json.dumps(apart))).collections) == 2


# Labels and features


@settings(max_examples=40)
@given(
    labels=st.lists(NAMES, min_size=2, max_size=2, unique=True),
    features=st.lists(NAMES, min_size=3, max_size=3, unique=True),
)
def test_names_of_any_characters_are_read_back(labels, features):
    spec = spec_of(write(FLAT, labels=labels, features=features))
    assert spec.labels == {"y": tuple(labels)}
    assert spec.features == {"x": tuple(features)}


@given(NAMES)
def test_tensors_of_any_name_are_read_back(name):
    spec = spec_of(write(file([tensor(name, ["n", 3])], [tensor(name, ["n", 2])]), labels=["a", "b"]))
    assert (spec.inputs[0].name, spec.labels) == (name, {name: ("a", "b")})


@given(TEXTS, TEXTS)
def test_a_recipe_of_any_characters_is_kept(name, line):
    recipe = json.dumps(
        {"input_names": ["x"], "x": {"var_names": ["a" + name, "b", "c"]}, line: line}, indent=1, ensure_ascii=False
    )
    assert parsed(write(FLAT, recipe=recipe)).parameters["preprocess"].string_value == recipe


def test_a_list_of_labels_goes_to_the_probabilities():
    onnx = file(
        [tensor("x", ["n", 3])],
        [
            tensor("label", ["n"], "INT64"),
            tensor("votes", ["n", 2], "INT64"),
            tensor("p", ["n", 2]),
            tensor("z", ["n", 9]),
        ],
    )
    assert spec_of(write(onnx, labels=["top", "qcd"])).labels == {"p": ("top", "qcd")}


def test_what_the_source_knows_is_used_where_it_fits():
    known = source(features={"x": ("a", "b", "c")}, labels={"y": ("0", "1"), "other": ("a",)})
    spec = spec_of(write(FLAT, known))
    assert (spec.features, spec.labels) == ({"x": ("a", "b", "c")}, {"y": ("0", "1")})
    spec = spec_of(write(FLAT, known, features=["u", "v", "w"], labels={"y": ["s", "b"]}))
    assert (spec.features, spec.labels) == ({"x": ("u", "v", "w")}, {"y": ("s", "b")})
    assert spec_of(write(FLAT, source(features={"x": ("a",)}))).features == {}
    in_file = file(FLAT.inputs, FLAT.outputs, feature_names={"x": ("p", "q", "r")})
    assert spec_of(write(in_file)).features == {"x": ("p", "q", "r")}


TWICE = file([tensor("x", ["n", 3]), tensor("w", ["n", 3])], [tensor("y", ["n", 2]), tensor("z", ["n", 2])])


@pytest.mark.parametrize(
    ("onnx", "choices", "message"),
    [
        (TWICE, {"labels": ["a", "b"]}, r"several outputs take as many: y, z\. Say which: labels=\{'y': \[...\]\}"),
        (FLAT, {"labels": ["a", "b", "c"]}, r"labels has 3 names, and no output has 3 values per row.*y \[2\]"),
        (FLAT, {"labels": {"yy": ["a", "b"]}}, "names the output 'yy'.*Did you mean 'y'"),
        (FLAT, {"labels": {"y": ["a"]}}, r"1 names for the output 'y', whose rows have the shape \[2\]"),
        (FLAT, {"labels": ["a", "a"]}, "Expected a list of different names"),
        (FLAT, {"labels": "ab"}, r"such as \['top', 'qcd'\]"),
        (FLAT, {"labels": {"y": "ab"}}, "Expected a list of different names"),
        (TWICE, {"features": ["a", "b", "c"]}, "2 inputs take as many.*name it"),
        (FLAT, {"features": ["a"]}, r"0 inputs take as many; the inputs are x \[3\]"),
        (FLAT, {"features": {"y": ["a"]}}, "no input 'y'"),
        (
            JAGGED,
            {"recipe": recipe_of(point=["pt", "eta"])},
            r"describes the input 'point'.*Did you mean 'points'\?.*input_names",
        ),
        (
            JAGGED,
            {"recipe": recipe_of(points=["pt"])},
            r"1 variables for the input 'points'.*\[2, -1\]: pt\. Expected 2 of them",
        ),
        (JAGGED, {"recipe": "{"}, "it is not JSON"),
        (JAGGED, {"collections": {"pf": ["points", "other"]}}, "'other' is not an input with constituents"),
        (JAGGED, {"lengths": [8]}, None),
        (JAGGED, {"lengths": {"jet": [8]}}, "names 'jet'"),
        (GRAPH, {"graph": {"x": "x"}}, "it lacks 'edge_index'"),
        (GRAPH, {"graph": AS_GRAPH, "max_batch_size": 8}, "Leave max_batch_size out"),
        (GRAPH, {"max_batch_size": 8}, r"edges: INT64 \[2, e\] has no free first axis.*dynamic_shapes"),
        (FLAT, {"max_batch_size": -1}, "Expected a whole number of rows"),
        (FLAT, {"max_batch_size": 4, "pad_batches_to": [8]}, "pad_batches_to has 8 rows"),
        (FLAT, {"graph": {"x": object()}}, "cannot be written as JSON.*Expected texts, numbers"),
        (
            file([tensor("x", [8, 3])], [tensor("y", [8, 2])]),
            {"pad_batches_to": 4},
            "cannot be split along batch_axis",
        ),
    ],
)
def test_what_does_not_fit_the_model_names_the_fix(onnx, choices, message):
    if message is None:
        assert spec_of(write(onnx, **choices)).inputs[0].lengths == (8,)
        return
    with pytest.raises(ConfigurationError, match=message):
        write(onnx, **choices)


def test_a_model_that_triton_describes_itself_has_no_tensors():
    config = parsed(write(None, source(backend="tensorflow"), labels={"y": ["a"]}, max_batch_size=64))
    assert (config.backend, config.max_batch_size, len(config.input)) == ("tensorflow", 64, 0)
    assert json.loads(config.parameters["labels"].string_value) == {"y": ["a"]}
    with pytest.raises(ConfigurationError, match="Name the output"):
        write(None, source(backend="tensorflow"), labels=["a"])
    with pytest.raises(ConfigurationError, match=r"'pytorch' does not say.*config=PATH"):
        write(None, source(backend="pytorch"))


# The owner's own text

OWN = """# Our group's tagger (see "version_policy" below)
name : "old"  # a name
platform: "onnxruntime_onnx"
max_batch_size : 64
input [
  { name: "x", data_type: TYPE_FP32, dims: [ 3 ] }  # version_policy { all {} }
]
output: { name: 'y' data_type: TYPE_FP32 dims: 2 };
version_policy: { latest: { num_versions: 2 } }
parameters [ { key: "note", value: { string_value: 'version_policy { } # "deployment"' } },
             { key: "deployment" value: { string_value: "old" } } ]
some_new_field { of: "a newer Triton" }
instance_group [ { count: 2 kind: KIND_GPU gpus: 0 } ]
"""


def test_only_the_name_the_version_and_the_deployment_change():
    text = pinned(merged(NAME, OWN, source(), Choices()), 3, FACTS)
    assert text == OWN.replace('name : "old"', f'name: "{NAME}"').replace(
        "version_policy: { latest: { num_versions: 2 } }", "version_policy { specific { versions: [3] } }"
    ).replace(
        '{ key: "deployment" value: { string_value: "old" } }',
        '{ key: "deployment" value { string_value: ' + json.dumps(json.dumps(FACTS)) + " } }",
    )
    assert spec_of_loose(text).inputs[0].shape == (3,)


def spec_of_loose(text):
    return ModelSpec.from_config(parsed(text), "1")


def test_what_was_written_can_be_given_back():
    text = write(JAGGED, recipe=RECIPE, labels=["top", "qcd"])
    again = merged(NAME, text, source(), Choices(recipe=RECIPE, labels=["top", "qcd"]))
    assert again == text
    assert pinned(text, 1, FACTS).startswith(text)


def test_choices_are_added_to_the_owners_text_but_never_replace_it():
    text = merged(NAME, OWN, source(), Choices(labels=["top", "qcd"], features=["a", "b", "c"], max_batch_size=64))
    assert text.startswith(OWN.replace('name : "old"', f'name: "{NAME}"').rstrip())
    assert spec_of_loose(text).labels == {"y": ("top", "qcd")}
    for choices, message in (
        (Choices(labels=["s", "b"]), "has the parameter 'labels', and another one was passed"),
        (Choices(max_batch_size=8), "has max_batch_size 64, and max_batch_size=8"),
        (Choices(labels=["a", "b", "c"]), "no output has 3 values"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            merged(NAME, text, source(), choices)


def test_a_text_without_name_and_backend_gets_both():
    text = merged(NAME, "# mine\nmax_batch_size: 4\n", source(), Choices())
    assert text == f'backend: "onnxruntime"\nname: "{NAME}"\n# mine\nmax_batch_size: 4\n'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "PIN"),
        ("version_policy { all { } }", "PIN"),
        ("version_policy < latest < num_versions: 1 > >\n", "PIN\n"),
        ("version_policy: {specific: {versions: [1,2]}} max_batch_size: 4", "PIN max_batch_size: 4"),
        ("version_policy{specific{versions:1 versions:2}};max_batch_size:4", "PINmax_batch_size:4"),
        (
            "version_policy { all {} }\nmax_batch_size: 4\n\tversion_policy { latest {} }\n",
            "PIN\nmax_batch_size: 4\n",
        ),
        ("version_policy {\n  # } in a comment\n  all { }\n}  # ours\r\nname: 'a}'", "PIN  # ours\r\nname: 'a}'"),
        ('name: "version_policy { all {} }"', None),
        ('name: "a" \'b\' "\\"version_policy: {"', None),
        ("# version_policy { all {} }", None),
    ],
)
def test_exactly_one_version_is_pinned_whatever_was_there(before, after):
    pin = "version_policy { specific { versions: [7] } }"
    text = pinned(before, 7, FACTS)
    rest = text[: text.index("\n\n# Who deployed")] + "\n" if before else text
    if after is not None and before:
        assert rest.rstrip("\n") == after.replace("PIN", pin).rstrip("\n")
    else:
        assert text.startswith(before)
    assert list(parsed(text).version_policy.specific.versions) == [7]
    assert json.loads(parsed(text).parameters["deployment"].string_value) == FACTS
    assert pinned(text, 7, FACTS) == text
    assert pinned(pinned(text, 8, {}), 7, FACTS) == text


@pytest.mark.parametrize(
    "before",
    [
        'parameters { key: "deployment" value { string_value: "a" } } parameters { key: "deployment" }',
        'parameters [ { key: "deployment" }, { key: "b" }, { key: "deployment" } ]',
        'parameters [{key: "deployment"}] parameters [{key: "b"}, {key: "deployment"}] parameters {key:"deployment"}',
        'parameters: [ { key: "b" }, { value { string_value: "}" } key: "deploy" "ment" } ],',
        'parameters < key: "deployment" > parameters <key: "b">',
        "parameters [ ]",
    ],
)
def test_one_deployment_is_left(before):
    text = with_parameter(before, "deployment", 'new "one"')
    assert text.count('new \\"one\\"') == 1
    assert parsed(text).parameters["deployment"].string_value == 'new "one"'
    assert ("b" in parsed(text).parameters) == ('"b"' in before)
    assert (
        len([word for word in text.replace('"deploy" "ment"', '"deployment"').split('"') if word == "deployment"])
        == 1
    )
    assert with_parameter(text, "deployment", 'new "one"') == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name: "a', "line 1: a quotation mark without its partner"),
        ("max_batch_size: 4\ninput [ { ", "line 2: the end, inside a field"),
        ("input { ] }", "without its partner"),
        ("max_batch_size: 4\n\n} ", "line 3: '}' where a field's name"),
        ("max_batch_size", "the end, inside a field|no value|cannot be read"),
        ("max_batch_size: many", "line 1:17"),
        ("input [ { } { } ]", "without a comma"),
        ("name: ,", "where a value was expected"),
        ("{" * 5_000, "where a field's name"),
        ("a " + "{" * 5_000, "the end, inside a field"),
    ],
)
def test_a_text_that_cannot_be_read_names_the_line(text, message):
    for change in (lambda: pinned(text, 1, {}), lambda: merged(NAME, text, source(), Choices())):
        with pytest.raises(ConfigurationError, match=message) as caught:
            change()
        assert "Expected Triton's text format" in str(caught.value)


TENSORS = st.builds(
    lambda name, dims: {"name": name, "dims": dims, "data_type": "TYPE_FP32"},
    NAMES,
    st.lists(st.integers(-1, 9), max_size=3),
)
POLICIES = st.sampled_from([{"all": {}}, {"latest": {"num_versions": 2}}, {"specific": {"versions": [1, 5]}}, {}])
CONFIGS = st.builds(
    lambda **fields: protocol.ModelConfig(**fields),
    name=TEXTS,
    platform=TEXTS,
    max_batch_size=st.integers(-3, 9),
    input=st.lists(TENSORS, max_size=2),
    output=st.lists(TENSORS, max_size=2),
    version_policy=POLICIES,
    parameters=st.dictionaries(
        st.sampled_from(["deployment", "a", "version_policy"]),
        TEXTS.map(lambda text: protocol.ModelParameter(string_value=text)),
    ),
)


@settings(max_examples=40)
@given(CONFIGS, st.integers(1, 9), st.booleans(), st.booleans(), TEXTS)
def test_any_configuration_keeps_all_else(config, version, one_line, raw, owner):
    text = text_format.MessageToString(config, as_one_line=one_line, as_utf8=raw, use_short_repeated_primitives=raw)
    after = parsed(pinned(text, version, {"owner": owner}))
    assert list(after.version_policy.specific.versions) == [version]
    assert json.loads(after.parameters["deployment"].string_value) == {"owner": owner}
    for each in (config, after):
        each.ClearField("version_policy")
        each.parameters.pop("deployment", None)
    assert after == config
    assert parsed(with_field(text, "name", 'name: "b"')).name == "b"


@given(st.text(st.sampled_from("ab:{}[]<>,;'\"\\#\n -1\t\r"), max_size=40))
def test_a_text_that_protobuf_reads_is_read(text):
    try:
        fields = fields_of(text)
    except InferenceError:
        with pytest.raises(text_format.ParseError):
            text_format.Parse(text, protocol.ModelConfig(), allow_unknown_field=True)
    else:
        assert [each.start for each in fields] == sorted(each.start for each in fields)


def test_the_token_service_accepts_what_is_written():
    for onnx, choices in (
        (FLAT, {"labels": ["top", 'q"'], "features": ["a", "b", "c"]}),
        (JAGGED, {"recipe": RECIPE}),
        (GRAPH, {"graph": AS_GRAPH}),
        (file([tensor("x", ["n"])], [tensor("y", ["n"])]), {"pad_batches_to": 8}),
    ):
        text = pinned(write(onnx, **choices), 3, FACTS)
        checked = checked_config(
            text.encode(), served_name=NAME, files=["3/model.onnx"], backends=["onnxruntime"], python=False
        )
        assert (checked.version, checked.backend) == (3, "onnxruntime")
        assert spec_of(checked.text) == spec_of(text)
