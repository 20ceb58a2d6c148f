"""What may run in the texts of torch's files is found, however it is spelt, and what torch writes is not."""

from __future__ import annotations

import json

import pytest

from eaf_inference.deploy.program_code import code_in, reach_of_script

PLACE = '"/home/ada/x", True, 8'
TEXT = "+".join(f"S('chr')({ord(letter)})" for letter in "__import__('os')")


@pytest.mark.parametrize(
    "call",
    [
        f'getattr(torch, "from_file")({PLACE})',
        f'getattr(torch, "from_" "file")({PLACE})',
        f'getattr(torch, "from_"\n  "file")({PLACE})',
        f'getattr(torch, "from_" # "\n  "file")({PLACE})',
        f'getattr(torch, "from_"\\\n"file")({PLACE})',
        f'getattr(torch, "from_"""""file")({PLACE})',
        f'getattr(torch, """from_""" "file")({PLACE})',
        f"getattr(torch, 'from_' 'file')({PLACE})",
        f"getattr(torch, \"from_\" 'file')({PLACE})",
        f'getattr(torch, "from\\137file")({PLACE})',
        f'getattr(torch, "\\146rom_file")({PLACE})',
        f'getattr(torch.autograd, "from_" "file")({PLACE})',
        'getattr((state)[0], "sa" "ve")("/home/ada/x")',
        f"torch.autograd.from_file({PLACE})",
        f"torch\x0c.from_file({PLACE})",
        'getattr(ops, "inductor")',
        "getattr(ops.inductor, (state)[0])",
        "ops.prim.PythonOp()",
        "ops.prim.IgnoredPythonOp((state)[0])",
        'rpc_sync("worker", f, (state,))',
        "éops.inductor._reinterpret_tensor",
    ],
)
def test_calls_out_of_a_script_are_found_in_any_spelling(call):
    assert reach_of_script(f"    _9 = {call}\n")


@pytest.mark.parametrize(
    "line",
    [
        'getattr(self, "0")',
        'torch.format("{}: it\'s \\"{}\\",\\n not \\177 \\303\\251 \\\\101", "", x)',
        '__parameters__ = ["weight", "bias", ]',
        'ops.prim.RaiseException("AssertionError: ", "builtins.AssertionError")',
        "ops.prim.NumToTensor(torch.size(x, 0))",
        'torch.to(x, torch.device("cpu"), 6)',
        '_0 = {"a": "", "b": ""}',
    ],
)
def test_scripts_as_torch_writes_them_are_allowed(line):
    assert reach_of_script(f"  _9 = {line}\n") == ""


@pytest.mark.parametrize(
    "target",
    [
        *("torch.os.system", "torchx._ops.os.system", "torch._ops.ops.aten.relu.default", "os.system"),
        *("torchx.ops.inductor._reinterpret_tensor.default", "torch.ops.inductor._reinterpret_tensor.default"),
        *("torch.ops.load_library", "torch.ops.aten.__getattr__", "torch.ops.aten.relu.__class__"),
        *("torch.ops.aten.relu.default.x", "torch.ops.aten.from_file.default", "torch.ops.prim.PythonOp.default"),
        *("_operator.attrgetter", "_operator.methodcaller", "_operator.call", "math.__setattr__", "math.x.y"),
        *("#extension:x", "torch", "torch.sym_int.x", "torch.ops.aten.relu.default\n"),
    ],
)
@pytest.mark.parametrize("key", ["target", "as_operator"])
def test_operators_that_may_run_anything_are_found(key, target):
    assert code_in({"nodes": [{"inputs": [{"arg": {key: target}}]}]}) == target


@pytest.mark.parametrize(
    "target",
    [
        *("torch.ops.aten.relu.default", "torch.ops.aten.__and__.Tensor", "torch.ops.aten._to_copy.default"),
        *("torch.ops.higher_order.cond", "torch.ops.prims.convert_element_type.default", "torch.sym_int"),
        *("torch._sym_sqrt", "_operator.floordiv", "math.trunc", "torch.ops.torchvision.nms.default"),
    ],
)
def test_operators_that_compute_are_allowed(target):
    assert code_in({"target": target, "metadata": {"stack_trace": "File 'x', f(x) = 2"}}) is None


def test_every_operator_on_sizes_that_torch_writes_is_allowed():
    serialize = pytest.importorskip("torch._export.serde.serialize")
    names = [f"{each.__module__}.{each.__name__}" for each in serialize._SYM_OPS]
    assert [code_in({"target": name}) for name in names] == [None] * len(names)


@pytest.mark.parametrize(
    "size",
    [
        f"S('eval')({TEXT})",
        "S('open')('data','w')",
        "Function('s1')",
        "Symbol('eval')(Symbol('input')())",
        "Symbol('s1').__class__",
        "Lambda('s1', 's1')",
        "MySymbol('s1')",
    ],
)
@pytest.mark.parametrize("name", ["x", "metadata"])  # of a tensor
def test_sizes_that_may_run_code_are_found(size, name):
    described = {"tensor_values": {name: {"dtype": "x", "sizes": [{"as_expr": {"expr_str": size}}]}}}
    assert code_in(described) == size


def test_sizes_as_torch_writes_them_are_allowed():
    for size in (
        "Add(Integer(1), Mul(Integer(2), Symbol('s77', positive=True, integer=True)))",
        "FloorDiv(Symbol('u0', integer=True), Integer(2))",
        "Mul(Float('2.0', precision=53), ToFloat(Symbol('zuf1')))",
    ):
        assert code_in({"expr_str": size}) is None


@pytest.mark.parametrize("key", ["name", "as_name", "forward_arg_names"])
def test_names_of_inputs_are_plain(key):
    for name in ("x: [0 for torch.load in [torch.os.system]]", "x, y", "x #", "x:torch.os"):
        assert code_in({"inputs": [{"as_tensor": {key: name}}]}) == name
    assert code_in({"inputs": [{"as_tensor": {key: "p_layers.0_weight"}}]}) is None


def in_context(context):
    return {"in_spec": json.dumps([1, {"type": "builtins.dict", "context": json.dumps(context)}])}


def test_names_of_keyword_inputs_do_not_annotate():
    assert code_in(in_context(["scale", "p_T/GeV of a-b"])) is None
    name = "scale: [0 for torch.load in [torch.os.abort]]"
    assert code_in(in_context([name])) == name


def test_modules_of_enums_in_an_inputs_structure_are_not_imported():
    assert code_in(in_context([{"__enum__": True, "fqn": "antigravity:x", "name": "y"}])) == "__enum__"


def test_ranges_of_sizes_are_allowed():
    limits = {"min_val": 6, "max_val": 120}
    assert code_in({"range_constraints": {"s25": limits, "2*s25": limits, "Max(1, s25)": limits}}) is None
    assert code_in({"range_constraints": {"open('x')": limits}}) == "open('x')"


def test_modules_of_an_inputs_structure_are_only_those_of_containers():
    for module, found in (("builtins", None), ("antigravity", "antigravity")):
        spec = json.dumps([1, {"context": json.dumps({"default_factory_module": module})}])
        assert code_in({"in_spec": spec}) == found


@pytest.mark.parametrize(
    "guard",
    [
        "L['batch']['x'].size()[0] == L['batch']['m'].size()[1]",
        "min(1 + L['x'].size()[2], 5) == max(1, L['x'].size()[2] // 2)",
        "math.trunc(0.5*torch.sym_float(L['x'].size()[2])) >= 0",
        "L['pair'][1][0].size()[0] <= 10 or not (L['x'].size()[0] % 2 == 0 and Eq(L['x'].size()[1], 3))",
    ],
)
def test_guards_as_torch_writes_them_are_allowed(guard):
    assert code_in({"guards_code": [guard]}) is None


@pytest.mark.parametrize(
    "guard",
    ["exit()", "L['x'].__class__", "orexit()", "L['x']['a b']", "f'x'", "notL", "math.x(1)", "torch.load(1)", "minx"],
)
def test_other_guards_are_found(guard):
    assert code_in({"guards_code": [guard]}) == guard


def test_what_a_failed_assertion_says_is_no_code():
    says = "Runtime assertion failed for expression u0 >= 1 on node 'ge'"
    assert code_in({"as_string": says}) is None
    assert code_in({"as_string": f"{says}+exit()+'"})
