"""Torch networks and files become ONNX files that give what the network gives."""

from __future__ import annotations

import contextlib
import json
import pickle
import re
import struct
import sys
import zipfile
from pathlib import Path

import awkward as ak
import numpy as np
import pytest

from eaf_inference.deploy.config_text import parsed
from eaf_inference.deploy.configuration import Choices, written
from eaf_inference.deploy.export import export
from eaf_inference.deploy.onnx_file import OnnxFile
from eaf_inference.deploy.score_checks import score_findings
from eaf_inference.deploy.torch_files import read_program, read_script
from eaf_inference.errors import DeploymentRefused, InvalidInput
from eaf_inference.inference.recipe import Recipe
from eaf_inference.inference.spec import ModelSpec

onnxruntime = pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")
nn = torch.nn

# torch says so of TorchScript, of which these tests make files
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.[a-z]+` is deprecated:DeprecationWarning")

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
VARIABLES = {"points": ["part_deta", "part_dphi"], "features": ["part_pt_log", "part_e_log"], "mask": ["part_mask"]}


class DeepSets(nn.Module):
    """Variables first, constituents last."""

    def __init__(self) -> None:
        super().__init__()
        self.each = nn.Sequential(nn.Linear(2, 8), nn.ReLU())
        self.all = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 2), nn.Softmax(-1))

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.all((self.each(features.transpose(1, 2)) * mask.transpose(1, 2)).sum(1))


class Attention(nn.Module):
    """Variables last; attention layers are what the exporter that traces gets wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(2, 8)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.score = nn.Linear(8, 2)

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        each = self.embed(features)
        each, _ = self.attend(each, each, each, key_padding_mask=mask[:, :, 0] < 0.5)
        return self.score((each * mask).sum(1))


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x if x.sum() > 0 else x


def recipe_of(*inputs: str, **more: object) -> Recipe:
    described = {name: {"var_names": VARIABLES[name], "min_length": 8, "max_length": 32, **more} for name in inputs}
    return Recipe.parse(json.dumps({"output_names": ["top", "qcd"], "input_names": inputs, **described}), model="x")


@pytest.fixture(scope="module")
def jets() -> ak.Array:
    random = np.random.default_rng(0)
    counts = random.integers(1, 30, 40)
    flat = {
        name: random.normal(size=counts.sum()) for name in ("part_deta", "part_dphi", "part_pt_log", "part_e_log")
    }
    return ak.unflatten(ak.zip(flat), counts)


def shapes_of(path: Path) -> dict[str, list[object]]:
    session = onnxruntime.InferenceSession(path)
    return {each.name: each.shape for each in (*session.get_inputs(), *session.get_outputs())}


def check(made, arrays: dict[str, np.ndarray]) -> None:
    """Compare the ONNX file with the network for these arrays, and for one row of them."""
    session = onnxruntime.InferenceSession(made.onnx)
    for rows in (slice(None), slice(1)):
        some = {name: array[rows] for name, array in arrays.items()}
        values = session.run(None, some)
        for value, (name, own) in zip(values, made.reference(some).items(), strict=True):
            assert value.shape == own.shape, name
            np.testing.assert_allclose(value, own, rtol=1e-5, atol=1e-5, err_msg=name)


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2), nn.Softmax(-1)
    )


def test_a_network_in_training_is_exported_in_evaluation_mode(tmp_path):
    net = mlp().train()
    net[1].eval()  # as with frozen statistics
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net[0].weight.grad = gradient = torch.ones_like(net[0].weight)
    rows = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    made = export(net, tmp_path, example=rows)
    assert shapes_of(made.onnx) == {"input": ["batch", 3], "output": ["batch", 2]}
    check(made, {"input": rows})
    assert [each.training for each in net] == [True, False, True, True, True, True]
    assert net.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert net[0].weight.grad is gradient
    assert all(each.requires_grad for each in net.parameters())
    assert torch.is_grad_enabled()
    assert made.source.startswith("torch 2")
    assert list(made.files) == ["model.onnx"]


def test_constituents_stay_free_along_the_recipes_axis(tmp_path, jets):
    made = export(DeepSets(), tmp_path, example=jets, recipe=recipe_of("features", "mask"))
    shapes = shapes_of(made.onnx)
    assert shapes["features"] == ["batch", 2, "features_length"]
    assert shapes["output"] == ["batch", 2]
    random = np.random.default_rng(1)
    for length in (8, 31):
        features = random.normal(size=(20, 2, length)).astype(np.float32)
        check(made, {"features": features, "mask": np.ones((20, 1, length), np.float32)})
    assert not made.remarks


def test_particlenet_gives_the_same_scores(tmp_path, jets, monkeypatch):
    monkeypatch.syspath_prepend(NOTEBOOKS)
    from jet_networks import ParticleNetLite

    torch.manual_seed(0)
    made = export(ParticleNetLite(2, 2), tmp_path, example=jets, recipe=recipe_of("points", "features", "mask"))
    random = np.random.default_rng(1)
    arrays = {name: random.normal(size=(20, 2, 24)).astype(np.float32) for name in ("points", "features")}
    check(made, arrays | {"mask": np.ones((20, 1, 24), np.float32)})


def test_attention_with_variables_last(tmp_path, jets):
    pytest.importorskip("onnxscript")
    made = export(Attention(), tmp_path, example=jets, recipe=recipe_of("features", "mask"))
    assert shapes_of(made.onnx)["features"][2] == 2
    for length in (8, 31):
        features = np.random.default_rng(1).normal(size=(20, length, 2)).astype(np.float32)
        check(made, {"features": features, "mask": np.ones((20, length, 1), np.float32)})


def test_a_network_of_one_length_keeps_it(tmp_path, jets):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    made = export(net, tmp_path, example=jets, recipe=recipe_of("features", min_length=32))
    assert shapes_of(made.onnx) == {"features": ["batch", 2, 32], "output": ["batch", 3]}
    assert "only with 32 constituents" in made.remarks[0]


def test_several_outputs_are_named_as_the_network_does(tmp_path):
    class Two(nn.Module):
        def forward(self, x: torch.Tensor, scale: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"mass": (x * scale).sum(1), "twice": 2 * x}

    rows = np.random.default_rng(0).normal(size=(5, 3))
    arrays = {"scale": np.array([[1], [2], [3], [1], [2]]), "x": rows}  # by name, in another order
    made = export(Two(), tmp_path, example=arrays)
    assert shapes_of(made.onnx)["mass"] == ["batch", 1]
    assert "shape [1] for each row" in made.remarks[0]
    check(made, arrays)


def test_float64_examples_are_cast_for_a_float32_network(tmp_path):
    made = export(mlp(), tmp_path, example=np.random.default_rng(0).normal(size=(4, 3)))
    assert onnxruntime.InferenceSession(made.onnx).get_inputs()[0].type == "tensor(float)"


def test_lists_without_a_recipe_are_padded(tmp_path):
    class Sums(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum(1)

    lists = ak.unflatten(np.arange(12, dtype=np.float32).reshape(6, 2), [1, 3, 2])
    made = export(Sums(), tmp_path, example=lists)
    assert shapes_of(made.onnx)["x"] == ["batch", "x_length", 2]
    check(made, {"x": np.ones((4, 7, 2), np.float32)})


def test_a_network_that_cannot_be_exported_is_refused_and_restored(tmp_path):
    pytest.importorskip("onnxscript")
    net = nn.Sequential(nn.Dropout(), Branching()).train()
    with pytest.raises(DeploymentRefused, match=r"cannot be exported.*exporting\.py line.*torch\.where"):
        export(net, tmp_path, example=np.ones((4, 2), np.float32))
    assert all(each.training for each in net.modules())


@pytest.mark.parametrize(
    ("example", "words"),
    [
        (np.ones((4, 5), np.float32), r"fails when it is called with the example, input of float32 \[3, 5\].*mat1"),
        ({"a": np.ones((4, 3)), "b": np.ones((4, 3))}, "takes input, and there are 2 inputs: a, b"),
        (np.ones((0, 3)), "has no rows"),
        (None, "Pass a few rows"),
    ],
)
def test_examples_that_do_not_fit_are_refused(tmp_path, example, words):
    with pytest.raises(DeploymentRefused, match=words):
        export(mlp(), tmp_path, example=example)


def test_scores_that_do_not_count_rows_are_refused(tmp_path):
    class Mean(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean()

    with pytest.raises(DeploymentRefused, match=r"shape \[\] for 5 rows"):
        export(Mean(), tmp_path, example=np.ones((4, 3), np.float32))


def test_an_example_without_the_recipes_variables_is_refused(tmp_path, jets):
    with pytest.raises(InvalidInput, match="part_e_log"):
        export(DeepSets(), tmp_path, example=jets[["part_deta"]], recipe=recipe_of("features", "mask"))


def test_torchscript_is_converted(tmp_path):
    torch.jit.save(torch.jit.script(mlp().eval()), tmp_path / "net.pt")
    rows = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    (out := tmp_path / "out").mkdir()
    made = export(tmp_path / "net.pt", out, example=rows)
    assert made.source.startswith("TorchScript")
    assert made.onnx == out / "model.onnx"
    check(made, {"input": rows})


def test_torchscript_without_an_example_is_served_as_it_is(tmp_path):
    torch.jit.save(torch.jit.script(mlp().eval()), tmp_path / "anything.bin")
    made = export(tmp_path / "anything.bin", tmp_path)
    assert (made.backend, made.onnx) == ("pytorch", None)
    assert list(made.files) == ["model.pt"]  # a copy of what was checked
    assert torch.jit.load(made.files["model.pt"])(torch.ones(2, 3)).shape == (2, 2)
    assert "NAME__0" in made.remarks[0]


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("program") / "net.pt2"
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    torch.export.save(torch.export.export(mlp().eval(), (torch.ones(3, 3),), dynamic_shapes=shapes), path)
    return path


def test_a_torch_export_file_is_converted(tmp_path, program):
    pytest.importorskip("onnxscript")
    made = export(str(program), tmp_path)
    rows = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    check(made, {"input": rows})
    session = onnxruntime.InferenceSession(made.onnx)
    for some in (rows, rows[:1]):
        with torch.no_grad():
            np.testing.assert_allclose(
                session.run(None, {"input": some})[0], mlp().eval()(torch.from_numpy(some)), atol=1e-5
            )


def test_a_programs_module_is_made_once_for_all_shapes(tmp_path, program, monkeypatch):
    pytest.importorskip("onnxscript")
    calls, module = [], torch.export.ExportedProgram.module
    monkeypatch.setattr(
        torch.export.ExportedProgram, "module", lambda self, **given: calls.append(1) or module(self, **given)
    )
    reference = export(program, tmp_path).reference
    calls.clear()
    reference({"input": np.ones((2, 3), np.float32)})
    assert reference({"input": np.ones((5, 3), np.float32)})["output"].shape == (5, 2)
    assert len(calls) == 1


@pytest.mark.parametrize("kind", ["traced", "exported"])
@pytest.mark.filterwarnings("ignore")  # of torch, which traces here what it should not
def test_what_was_exported_while_training_is_refused_with_what_to_do(tmp_path, kind):
    pytest.importorskip("onnxscript")
    rows = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    net = mlp().train()
    if kind == "traced":
        with pytest.raises(DeploymentRefused, match=r"Call net\.eval\(\) before torch\.jit\.trace"):
            export(torch.jit.trace(net, torch.from_numpy(rows), check_trace=False), tmp_path, example=rows)
        return
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    made = export(torch.export.export(net, (torch.from_numpy(rows),), dynamic_shapes=shapes), tmp_path, example=rows)
    spec = ModelSpec.from_config(parsed(written("net", OnnxFile.read(made.onnx), made, Choices())), "")
    (found,) = score_findings(made.onnx, spec, rows, reference=made.reference).errors
    assert "net.eval() before torch.export.export" in found.do


class Attack:
    """Loading it would make a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> object:
        return Path.touch, (self.place,)


def changed(program: Path, to: Path, change) -> Path:
    """Write a copy of an archive, in which each part's bytes are changed; those that become None are left out."""
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(to, "w") as new:
        for name in old.namelist():
            if (content := change(name, old.read(name))) is not None:
                new.writestr(name, content)
    return to


@pytest.mark.parametrize("attack", ["weights", "inputs", "compiled"])
def test_pickles_in_a_torch_export_file_are_not_loaded(tmp_path, program, attack):
    place = tmp_path / "ran"
    torch.save(Attack(place), tmp_path / "attack")
    pickled = (tmp_path / "attack").read_bytes()

    def change(name: str, content: bytes) -> bytes:
        if attack == "weights" and name.endswith("weight_0"):
            return pickled
        if attack == "weights" and name.endswith("weights_config.json"):
            return content.replace(b'"use_pickle": false', b'"use_pickle": true')
        return pickled if attack == "inputs" and name.endswith("model.pt") else content

    file = changed(program, tmp_path / "attack.pt2", change)
    if attack == "compiled":
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr("net/data/aotinductor/model/model.so", b"\x7fELF")
    with pytest.raises(DeploymentRefused, match="may run code"):
        export(file, tmp_path)
    assert not place.exists()


@pytest.mark.parametrize("old", ["'s\\d+'", '"x"', 'Symbol[^"]*', "net"], ids=["size", "input", "symbol", "weight"])
def test_code_in_a_torch_export_file_is_not_run(tmp_path, old):
    class Doubled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(3, 2)

        def forward(self, x):
            return self.net(x).repeat(2, 1)[: x.shape[0]]

    place = tmp_path / "ran"
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(Doubled(), (torch.ones(3, 3),), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "net.pt2")
    code = f"__import__('pathlib').Path({str(place)!r}).touch()"
    new = {'"x"': json.dumps(f"x={code}"), "'s\\d+'": f"str({code})"}.get(old, code)

    def change(name: str, content: bytes) -> bytes:
        text = content.decode() if name.endswith(".json") else ""
        return re.sub(old, lambda _: new, text).encode() or content

    file = changed(tmp_path / "net.pt2", tmp_path / "attack.pt2", change)
    with pytest.raises(DeploymentRefused, match="may be code"):
        export(file, tmp_path)
    assert not place.exists()


@pytest.mark.parametrize("trick", ["a tensor called metadata", "letters by number"])
def test_sizes_that_hide_code_in_a_torch_export_file_are_not_run(tmp_path, program, trick):
    place = tmp_path / "ran"
    code = f"__import__('pathlib').Path({str(place)!r}).touch()"
    if trick == "letters by number":
        code = "S('eval')(" + "+".join(f"S('chr')({ord(letter)})" for letter in code) + ")"

    def attack(name: str, content: bytes) -> bytes:
        if not name.endswith("model.json"):
            return content
        model = json.loads(content.replace(b'"relu"', b'"metadata"') if "metadata" in trick else content)
        tensors = model["graph_module"]["graph"]["tensor_values"]
        tensors["metadata" if "metadata" in trick else "relu"]["sizes"][0]["as_expr"]["expr_str"] = code
        return json.dumps(model).encode()

    file = changed(program, tmp_path / "attack.pt2", attack)
    with contextlib.suppress(Exception):
        torch.export.load(file)
    assert place.exists()  # torch by itself runs it
    place.unlink()
    with pytest.raises(DeploymentRefused, match="may be code"):
        export(file, tmp_path)
    assert not place.exists()


def with_two_directories(shown: Path, hidden: Path, to: Path) -> Path:
    """Write an archive in which zipfile finds the parts of one file, and torch those of another."""
    (parts, shown_directory), (hidden_parts, directory) = (halves(each) for each in (shown, hidden))
    size = len(directory)
    assert len(shown_directory) == size
    # zipfile looks right before the end, and counts from there; torch, where the end says
    moved = moved_by(shown_directory, len(hidden_parts) - size)
    at = len(hidden_parts) + len(parts)
    number = len(zipfile.ZipFile(shown).namelist())
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, number, number, size, at, 0)
    to.write_bytes(hidden_parts + parts + directory + moved + end)
    return to


def halves(archive: Path) -> tuple[bytes, bytes]:
    """Return the parts of an archive, and its directory."""
    content = archive.read_bytes()
    size, at = struct.unpack("<2I", content[-10:-2])
    return content[:at], content[at : at + size]


def moved_by(directory: bytes, distance: int) -> bytes:
    """Return an archive's directory with other places of its parts."""
    found, at = bytearray(directory), 0
    while at < len(found):
        (place,) = struct.unpack_from("<I", found, at + 42)
        struct.pack_into("<I", found, at + 42, place + distance)
        at += 46 + sum(struct.unpack_from("<3H", found, at + 28))
    return bytes(found)


def test_torch_reads_what_was_checked_of_a_torch_export_file(tmp_path, program):
    place = tmp_path / "ran"
    code = f"__import__('pathlib').Path({str(place)!r}).touch()"

    def attack(name: str, content: bytes) -> bytes:
        return re.sub(b'Symbol[^"]*', code.encode(), content) if name.endswith("model.json") else content

    shown = changed(program, tmp_path / "shown.pt2", lambda _, content: content)
    hidden = changed(program, tmp_path / "hidden.pt2", attack)
    file = with_two_directories(shown, hidden, tmp_path / "both.pt2")
    with contextlib.suppress(Exception):
        torch.export.load(file)
    assert place.exists()  # torch by itself runs it
    place.unlink()
    assert read_program(file, tmp_path / "copy.pt2").graph_signature.user_inputs == ("input",)
    assert not place.exists()


@pytest.mark.parametrize("operator", ["torch.ops.aten.from_file.default", "torch._ops.ops.aten.relu.default"])
def test_operators_that_open_files_are_refused_in_torch_export_files(tmp_path, program, operator):
    def change(name: str, content: bytes) -> bytes:
        return content.replace(b"torch.ops.aten.relu.default", operator.encode())

    assert changed(program, tmp_path / "attack.pt2", change).read_bytes() != program.read_bytes()
    with pytest.raises(DeploymentRefused, match=rf"{re.escape(operator)}.* may be code"):
        export(tmp_path / "attack.pt2", tmp_path)


class Stateful(nn.Module):
    """Its state is set by its own code when it is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.ones(3)

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, bool]:
        return (self.weight, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        self.weight, self.training = state

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


@pytest.mark.parametrize(
    "call",
    [
        'torch.save((state)[0], "{place}")',
        '_9 = torch . save((state)[0], "{place}")',
        '_9 = torch.from_file("{place}", True, 8)',
        '_9 = getattr(torch, "from_" "file")("{place}", True, 8)',
        '_9 = getattr(torch, "from\\137file")("{place}", True, 8)',
        "_9 = ops.inductor._reinterpret_tensor((state)[0], [1], [1], 99)",
        "_9 = ops .inductor._reinterpret_tensor((state)[0], [1], [1], 99)",
    ],
)
@pytest.mark.parametrize("part", ["", "CODE/__torch__.py", "code/other.py"])
def test_torchscript_that_reaches_out_of_the_model_is_not_loaded(tmp_path, call, part):
    torch.jit.save(torch.jit.script(Stateful()), tmp_path / "net.pt")
    place = tmp_path / "ran"
    call = call.format(place=place)
    names = zipfile.ZipFile(tmp_path / "net.pt").namelist()
    (code,) = (each for each in names if each.endswith(".py"))

    def change(name: str, content: bytes) -> bytes:
        return (
            content.replace(b"    self.weight =", f"    {call}\n    self.weight =".encode())
            if name == code
            else content
        )

    file = changed(tmp_path / "net.pt", tmp_path / "attack.pt", change)
    if part:  # in a file of another name
        content = zipfile.ZipFile(file).read(code)
        root = code.partition("/")[0]
        file = changed(tmp_path / "net.pt", tmp_path / "attack.pt", lambda _, content: content)
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr(f"{root}/{part}", content)
    with pytest.raises(DeploymentRefused, match=r"is not loaded: .*(uses|does not write).* pass what you get"):
        export(file, tmp_path, example=np.ones((2, 3), np.float32))
    assert not place.exists()


def test_torchscript_whose_code_sets_its_state_is_loaded(tmp_path):
    torch.jit.save(torch.jit.script(Stateful()), tmp_path / "net.pt")
    net = read_script(tmp_path / "net.pt", tmp_path / "copy.pt")
    assert torch.equal(net(torch.ones(2, 3)), torch.ones(2, 3))


def test_programs_of_inputs_in_containers_with_guards_are_loaded(tmp_path):
    class Masked(nn.Module):
        def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            return (batch["x"] * batch["mask"]).sum(1)

    batch = {name: torch.ones(3, 4) for name in ("x", "mask")}
    free = {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(Masked(), (batch,), dynamic_shapes=({"x": free, "mask": free},))
    torch.export.save(program, tmp_path / "net.pt2")
    assert read_program(tmp_path / "net.pt2", tmp_path / "copy.pt2").module()(batch).shape == (3,)


def test_archives_that_unpack_to_too_much_or_are_damaged_are_refused(tmp_path, program):
    torch.jit.save(torch.jit.script(mlp().eval()), tmp_path / "net.pt")
    root = zipfile.ZipFile(tmp_path / "net.pt").namelist()[0].partition("/")[0]
    with zipfile.ZipFile(tmp_path / "net.pt", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{root}/extra/zeros", bytes(65 << 20))
    with pytest.raises(DeploymentRefused, match="unpacks to more than 64 MiB"):
        export(tmp_path / "net.pt", tmp_path, example=np.ones((2, 3), np.float32))
    content = program.read_bytes()
    place = content.index(b'"graph_module"')
    (tmp_path / "cut.pt2").write_bytes(content[:place] + b"x" + content[place + 1 :])
    content = changed(program, tmp_path / "whole.pt2", lambda _, content: content).read_bytes()
    (at,) = struct.unpack("<I", content[-6:-2])
    (tmp_path / "early.pt2").write_bytes(content[:-6] + struct.pack("<I", at + 1) + content[-2:])
    for name in ("cut.pt2", "early.pt2"):
        with pytest.raises(DeploymentRefused, match="damaged.* Save the program again"):
            export(tmp_path / name, tmp_path)


@pytest.mark.parametrize("name", ["net.pt", "net.pt2"])
def test_a_full_temporary_directory_is_said_to_be_full(tmp_path, program, name):
    resource = pytest.importorskip("resource")
    if name == "net.pt":
        torch.jit.save(torch.jit.script(mlp().eval()), tmp_path / name)
    else:
        changed(program, tmp_path / name, lambda _, content: content)
    (out := tmp_path / "out").mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))  # bytes
    try:
        with pytest.raises(DeploymentRefused) as raised:
            export(tmp_path / name, out, example=np.ones((2, 3), np.float32))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert f"cannot be copied to {out}: File too large" in str(raised.value)
    assert "TMPDIR" in str(raised.value)


def test_two_parts_of_one_name_in_a_torch_export_file_are_refused(tmp_path, program):
    file = changed(program, tmp_path / "attack.pt2", lambda _, content: content)
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(archive.namelist()[0], b"")
    with pytest.raises(DeploymentRefused, match="two files of one name"):
        export(file, tmp_path)


@pytest.mark.parametrize("kind", ["network", "state_dict", "legacy", "pickle"])
@pytest.mark.parametrize("name", ["net.pt", "net.onnx"])
def test_pickles_are_recognised_by_content_and_never_loaded(tmp_path, kind, name):
    place, file = tmp_path / "ran", tmp_path / name
    if kind == "pickle":
        file.write_bytes(pickle.dumps(Attack(place)))
    else:
        saved = mlp().state_dict() if kind == "state_dict" else Attack(place)
        torch.save(saved, file, _use_new_zipfile_serialization=kind != "legacy")
    with pytest.raises(DeploymentRefused, match=r"is a pickle.*never loaded.*torch\.jit\.save.*torch\.onnx\.export"):
        export(file, tmp_path)
    assert not place.exists()


def test_a_state_dict_needs_its_network(tmp_path):
    with pytest.raises(DeploymentRefused, match="pass the network that has loaded them"):
        export(mlp().state_dict(), tmp_path, example=np.ones((4, 3)))


def test_a_missing_exporter_is_named_with_its_pip_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(DeploymentRefused, match="pip install onnxscript"):
        export(Branching(), tmp_path, example=np.ones((4, 2), np.float32))
