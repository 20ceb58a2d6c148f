"""Files and directories that are models already are taken as they are; anything else is refused with what to do."""

from __future__ import annotations

import gzip
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from eaf_inference.deploy.config_text import parsed
from eaf_inference.deploy.configuration import Choices, merged
from eaf_inference.deploy.example import example_inputs
from eaf_inference.deploy.export import export
from eaf_inference.errors import DeploymentRefused, InvalidInput

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def onnx_file(path: Path, data: str = "") -> Path:
    """Write a model that multiplies rows by a matrix, which is in the file or elsewhere."""
    weights = numpy_helper.from_array(np.eye(3, 2, dtype=np.float32), "weights")
    if data:
        content = weights.raw_data
        weights.ClearField("raw_data")
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.append(onnx.StringStringEntryProto(key="location", value=data))
        if not Path(data).is_absolute() and ".." not in data and "\\" not in data:
            (path.parent / data).parent.mkdir(parents=True, exist_ok=True)
            (path.parent / data).write_bytes(content)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["scores"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 2])],
        [weights],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path


@pytest.mark.parametrize("kind", [Path, str])
def test_an_onnx_file_is_taken(tmp_path, kind):
    path = onnx_file(tmp_path / "tagger_v7.onnx")
    made = export(kind(path), tmp_path)
    assert made.files == {"model.onnx": path}
    assert (made.backend, made.onnx, made.source, made.reference) == ("onnxruntime", path, "ONNX file", None)


@pytest.mark.parametrize("data", ["weights.bin", "weights/all.bin"])
def test_external_data_are_found_from_the_file(tmp_path, data):
    path = onnx_file(tmp_path / "tagger.onnx", data)
    assert export(path, tmp_path).files == {"model.onnx": path, data: tmp_path / data}


@pytest.mark.parametrize("data", ["../secret", "/etc/passwd", "a/../../secret", "C:\\secret", "model.onnx"])
def test_external_data_stay_inside_the_version(tmp_path, data):
    path = onnx_file(tmp_path / "here" / "tagger.onnx", data)
    with pytest.raises(DeploymentRefused, match=r"external data.*Expected"):
        export(path, tmp_path)


def test_external_data_behind_a_link_are_refused(tmp_path):
    path = onnx_file(tmp_path / "here" / "tagger.onnx", "weights.bin")
    (tmp_path / "here" / "weights.bin").rename(tmp_path / "secret")
    with pytest.raises(DeploymentRefused, match="there is no such file"):
        export(path, tmp_path)
    (tmp_path / "here" / "weights.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(DeploymentRefused, match="a link that leaves"):
        export(path, tmp_path)
    (tmp_path / "here" / "weights.bin").unlink()
    (tmp_path / "here" / "weights.bin").symlink_to("weights.bin")
    with pytest.raises(DeploymentRefused, match="there is no such file"):
        export(path, tmp_path)


def a_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weights": 1}))


def a_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("1/model.onnx", b"")


def a_keras_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(name, b"{}")


FILES = {
    "pickle": ("model.pkl", a_pickle, "is a pickle.*never loaded"),
    "pickle of another name": ("model.onnx", a_pickle, "is a pickle.*never loaded"),
    "old pickle": ("model.joblib", lambda path: path.write_bytes(pickle.dumps([1], protocol=0)), "is a pickle"),
    "compressed": ("model.joblib.gz", lambda path: path.write_bytes(gzip.compress(b"x")), "never loaded.*Unpack"),
    "zip": ("model.zip", a_zip, "not unpacked"),
    "keras": ("model.keras", a_keras_zip, r"model\.export\(DIRECTORY\)"),
    "hdf5": (
        "model.h5",
        lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64)),
        r"model\.export\(DIRECTORY\)",
    ),
    "text": ("booster.json", lambda path: path.write_text("{}", encoding="utf-8"), r"xgboost\.Booster"),
    "no model": ("model.onnx", lambda path: path.write_bytes(b"hello"), "Expected an ONNX model"),
    "nothing": ("model.onnx", lambda path: path.write_bytes(b""), "Expected an ONNX model"),
}


@pytest.mark.parametrize("kind", FILES)
def test_other_files_are_refused_with_what_to_do(tmp_path, kind):
    name, write, words = FILES[kind]
    write(tmp_path / name)
    with pytest.raises(DeploymentRefused, match=words):
        export(tmp_path / name, tmp_path)


def test_a_path_that_does_not_exist_is_refused(tmp_path):
    onnx_file(tmp_path / "tagger.onnx")
    with pytest.raises(DeploymentRefused, match=r"There is no file or directory .*Did you mean 'tagger.onnx'"):
        export(tmp_path / "taggr.onnx", tmp_path)


@pytest.mark.parametrize("source", [None, 3, [1, 2], np.ones(3)])
def test_other_objects_are_refused_with_the_kinds_that_are_taken(tmp_path, source):
    with pytest.raises(DeploymentRefused, match=r"no model that can be deployed\. Expected an ONNX file, a torch"):
        export(source, tmp_path)


def test_a_keras_model_is_refused_with_what_to_write(tmp_path):
    model = type("Model", (), {"__module__": "keras.src.models"})()
    with pytest.raises(DeploymentRefused, match=r"model\.export\(DIRECTORY\)"):
        export(model, tmp_path)


def test_a_saved_model_is_taken_as_it_is(tmp_path):
    (tmp_path / "variables").mkdir()
    for name in ("saved_model.pb", "variables/variables.index"):
        (tmp_path / name).write_bytes(b"x")
    made = export(tmp_path, tmp_path)
    assert sorted(made.files) == ["model.savedmodel/saved_model.pb", "model.savedmodel/variables/variables.index"]
    assert (made.backend, made.onnx) == ("tensorflow", None)
    assert "tf2onnx" in made.remarks[0]


CONFIG = """# mine
name: "tagger"
platform: "onnxruntime_onnx"
max_batch_size: 64
output [ { name: "scores", data_type: TYPE_FP32, dims: [2], label_filename: "classes.txt" } ]
"""


@pytest.fixture
def repository(tmp_path) -> Path:
    """One model with three versions."""
    for version in ("2", "10", "0"):
        onnx_file(tmp_path / "tagger" / version / "model.onnx", "weights.bin")
    (tmp_path / "tagger" / "config.pbtxt").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "tagger" / "classes.txt").write_text("top\nqcd\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("inside", ["", "tagger"])
def test_a_repository_with_one_model_is_taken(repository, tmp_path, inside):
    made = export(repository / inside, tmp_path / "out")
    version = repository / "tagger" / "10"  # the highest
    assert made.files == {name: version / name for name in ("model.onnx", "weights.bin")}
    assert (made.backend, made.onnx) == ("onnxruntime", version / "model.onnx")
    assert made.labels == {"scores": ("top", "qcd")}
    assert made.config == CONFIG.replace(', label_filename: "classes.txt"', "")


def test_label_files_become_the_parameter_labels(repository, tmp_path):
    made = export(repository, tmp_path / "out")
    for text, labels in ((made.config, '{"scores": ["top", "qcd"]}'), (f"{made.config}# edited\n", "")):
        config = parsed(merged("tagger", text, made, Choices()))
        assert config.parameters["labels"].string_value == labels


def test_a_label_file_of_an_editor_on_windows_is_read(repository, tmp_path):
    (repository / "tagger" / "classes.txt").write_bytes(b"\xef\xbb\xbftop\r\nqcd\r\n")
    assert export(repository, tmp_path / "out").labels == {"scores": ("top", "qcd")}


@pytest.mark.parametrize("field", ['"classes." "txt"', '# label_filename: "x"\n"classes.txt"'])
def test_a_label_file_that_cannot_be_taken_out_is_named(repository, tmp_path, field):
    text = CONFIG.replace('"classes.txt"', field)
    assert parsed(text).output[0].label_filename == "classes.txt"
    (repository / "tagger" / "config.pbtxt").write_text(text, encoding="utf-8")
    with pytest.raises(DeploymentRefused, match=r"cannot be removed\..* pass labels=\[…\]"):
        export(repository, tmp_path / "out")


def test_a_model_file_outside_of_the_version_is_not_opened(repository, tmp_path):
    outside = onnx_file(tmp_path / "outside.onnx")
    text = f'{CONFIG}default_model_filename: "{outside}"\n'
    (repository / "tagger" / "config.pbtxt").write_text(text, encoding="utf-8")
    assert export(repository, tmp_path / "out").onnx is None


@pytest.mark.parametrize("kind", ["pipe", "long"])
def test_a_path_that_is_no_file_is_refused(tmp_path, kind):
    path = tmp_path / ("pipe" if kind == "pipe" else "n" * 5000)
    if kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(DeploymentRefused, match="neither a file nor a directory" if kind == "pipe" else "too long"):
        export(path, tmp_path / "out")


@pytest.mark.parametrize(("wanted", "version"), [("2", "2"), ("2, 10", "10"), ("3", None)])
def test_the_version_that_the_configuration_serves_is_taken(repository, tmp_path, wanted, version):
    text = f"{CONFIG}version_policy {{ specific {{ versions: [{wanted}] }} }}\n"
    (repository / "tagger" / "config.pbtxt").write_text(text, encoding="utf-8")
    if version is None:
        with pytest.raises(DeploymentRefused, match=r"serves 3\. Expected one of 2, 10"):
            export(repository, tmp_path / "out")
    else:
        assert export(repository, tmp_path / "out").onnx == repository / "tagger" / version / "model.onnx"


def test_a_directory_without_a_config_is_taken(repository, tmp_path):
    (repository / "tagger" / "config.pbtxt").unlink()
    made = export(repository, tmp_path / "out")
    assert (made.backend, made.config) == ("onnxruntime", "")
    assert "classes.txt" in made.remarks[0]


def test_several_models_are_listed(repository, tmp_path):
    onnx_file(repository / "other" / "1" / "model.onnx")
    with pytest.raises(DeploymentRefused, match="2 models: other, tagger"):
        export(repository, tmp_path)


def test_links_that_leave_a_version_are_refused(repository, tmp_path):
    (repository / "secret").write_bytes(b"x")
    (repository / "tagger" / "10" / "more").symlink_to(repository / "secret")
    with pytest.raises(DeploymentRefused, match="a link that leaves"):
        export(repository / "tagger", tmp_path)


def test_a_pipe_in_a_version_is_refused(repository, tmp_path):
    os.mkfifo(repository / "tagger" / "10" / "pipe")
    with pytest.raises(DeploymentRefused, match="neither a file nor a directory"):
        export(repository / "tagger", tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text + 'ensemble_scheduling { step [ { model_name: "a" } ] }', "is an ensemble"),
        (lambda text: text.replace("classes.txt", "../secret"), "no such file"),
        (lambda text: text + "nonsense {", "cannot be read"),
    ],
)
def test_configs_that_cannot_be_taken_are_refused(repository, tmp_path, change, words):
    (repository / "tagger" / "config.pbtxt").write_text(change(CONFIG), encoding="utf-8")
    with pytest.raises(Exception, match=words):
        export(repository / "tagger", tmp_path)


def test_an_ensemble_whose_version_has_no_files_is_named_one(repository):
    ensemble = repository / "ensemble"
    (ensemble / "1").mkdir(parents=True)
    (ensemble / "config.pbtxt").write_text('platform: "ensemble"', encoding="utf-8")
    with pytest.raises(DeploymentRefused, match="is an ensemble"):
        export(ensemble, repository)


def test_a_directory_without_a_version_is_refused(tmp_path):
    with pytest.raises(DeploymentRefused, match="has no model"):
        export(tmp_path, tmp_path)
    (tmp_path / "config.pbtxt").write_text(CONFIG, encoding="utf-8")
    with pytest.raises(DeploymentRefused, match="a config.pbtxt but no version"):
        export(tmp_path, tmp_path)


def test_columns_of_other_shapes_are_refused_with_what_to_do():
    with pytest.raises(InvalidInput, match=r"have shapes \(4,\), \(4, 2\)\..*makes the dict"):
        example_inputs(None, {"batch": {"x": np.ones((4, 2)), "y": np.ones(4)}}, ["batch"])


def test_examples_are_named_by_their_order(tmp_path):
    arrays = np.ones((5, 3)), np.ones((5, 2), np.int64)
    made = example_inputs(None, arrays, ["x", "y"])
    assert [(name, each.shape, each.dtype.kind) for name, each in made.items()] == [
        ("x", (5, 3), "f"),
        ("y", (5, 2), "i"),
    ]
    assert list(example_inputs(None, arrays[0], ["x", "y"])) == ["x"]
    with pytest.raises(InvalidInput, match="has 2 arrays and the network's forward takes 1"):
        example_inputs(None, arrays, ["x"])


def test_examples_of_text_are_refused():
    with pytest.raises(InvalidInput, match="Expected numbers or booleans"):
        example_inputs(None, np.array(["a", "b"]))


def test_a_table_is_an_example():
    pd = pytest.importorskip("pandas")
    made = example_inputs(None, pd.DataFrame({"pt": [1.0, 2.0], "eta": [3.0, 4.0]}), ["x"])
    np.testing.assert_array_equal(made["x"], [[1, 3], [2, 4]])
