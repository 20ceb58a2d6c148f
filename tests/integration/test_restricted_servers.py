"""Servers that allow only some calls, restricted by Triton or by an edge proxy."""

from __future__ import annotations

from contextlib import contextmanager

import awkward as ak
import grpc
import numpy as np
import pytest
from edge_proxy import EdgeProxy, edge_proxy
from onnx import TensorProto, helper
from zoo import FLOAT, NODE, make_zoo, save_model

import eaf_inference
from eaf_facility.servers.triton import TritonServer
from eaf_inference.errors import ConfigurationError, InvalidInput, ModelNotFound, NotAuthorized

GRAPH = {"x": np.arange(12, dtype=np.float32).reshape(4, 3), "edge_index": np.array([[0, 1, 2, 3], [1, 2, 3, 0]])}
TALL = np.arange(1, 1801, dtype=np.float32).reshape(600, 3)


class Restricted(TritonServer):
    """A Triton whose operators have restricted some groups of calls."""

    def _command(self, *arguments):
        ours = "shared-memory,trace,logging,model-repository,model-config,statistics:nobody:can=send-this"
        return [
            f"--grpc-restricted-protocol={ours}" if each.startswith("--grpc-restricted-protocol") else each
            for each in super()._command(*arguments)
        ]


@pytest.fixture(scope="module")
def restricted(tmp_path_factory):
    repository = make_zoo(tmp_path_factory.mktemp("restricted"))
    save_model(  # each row's share of the sum over all rows: no batch axis, and wrong if rows are separated
        repository / "shares",
        nodes=[NODE("ReduceSum", ["x", "first"], ["sum"], keepdims=1), NODE("Div", ["x", "sum"], ["y"])],
        inputs=[("x", FLOAT, ["rows", 3])],
        outputs=[("y", FLOAT, ["rows", 3])],
        constants=[helper.make_tensor("first", TensorProto.INT64, [1], [0])],
        batched=False,
    )
    with Restricted.start([repository]) as server:
        yield server


@contextmanager
def letting_pass(server, methods, status=grpc.StatusCode.UNIMPLEMENTED, details="unknown method"):
    """Run an edge proxy that lets only some calls pass."""

    class RestrictingProxy(EdgeProxy):
        def service(self, handler_call_details):
            if handler_call_details.method.rpartition("/")[2] in methods:
                return super().service(handler_call_details)
            return grpc.unary_unary_rpc_method_handler(lambda _, context: context.abort(status, details))

    with edge_proxy(server.grpc.removeprefix("grpc://"), handler=RestrictingProxy) as (_, port):
        yield f"grpc://127.0.0.1:{port}"


def test_a_triton_with_restricted_calls_is_usable(restricted, jagged):
    with eaf_inference.connect(restricted.grpc) as triton:
        why = "it does not list its models (its operators have restricted this call)"
        assert triton.attempts[0].outcome == f"ready, but {why}"
        assert why in repr(triton)
        assert why in triton._repr_html_()
        remark = (
            "The server does not list its models (its operators have restricted this call). Name the one you want"
        )
        assert str(triton.models()).startswith(remark)
        assert remark in triton.models()._repr_html_()
        model = triton.model("sums")
        assert (model.spec.version, model.spec.max_batch_size) == ("1", 256)
        assert "recipe and class labels are unknown" in repr(model)
        scores = model({"x": jagged})
        np.testing.assert_allclose(scores[:, 0], ak.sum(jagged.a, axis=1), atol=1e-4)
        assert triton.names() == ["sums"]
        assert "x: FP32" in str(triton.models())


def test_models_without_a_batch_axis_get_whole_arrays(restricted):
    with eaf_inference.connect(restricted.grpc) as triton:
        shares = triton.model("shares")
        assert shares.spec.max_batch_size == 0
        with pytest.warns(UserWarning, match="sent whole"):
            np.testing.assert_allclose(shares({"x": TALL}), TALL / TALL.sum(axis=0), rtol=1e-5)
        split = triton.model("shares", batch_axis=0)
        assert (split.spec.inputs[0].shape, split.spec.max_batch_size) == (TALL.shape[1:], 0)
        np.testing.assert_allclose(split({"x": TALL[:1]}), np.ones_like(TALL[:1]), rtol=1e-5)
        node = triton.model("graph")(GRAPH)
        np.testing.assert_allclose(node, GRAPH["x"] + np.roll(GRAPH["x"], 1, axis=0))


@pytest.mark.parametrize(
    "status", [grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED], ids=lambda each: each.name
)
def test_inference_and_metadata_are_enough(zoo, jagged, status):
    with letting_pass(zoo, {"ModelInfer", "ModelMetadata"}, status) as url, eaf_inference.connect(url) as triton:
        assert "it does not list its models" in repr(triton)
        fixed = triton.model("fixed")
        assert fixed.spec.max_batch_size == 256
        scores = fixed({"values": TALL, "number": np.full(600, 2, np.int32)})
        np.testing.assert_allclose(scores["product"], 2 * TALL)
        means, filled = triton.model("means"), jagged[ak.num(jagged) > 0][:50]
        with pytest.warns(UserWarning, match="depend on the padding"):  # needs no configuration
            got = means({"x": filled})
        np.testing.assert_allclose(got[:, 0], ak.mean(filled.a, axis=1), atol=1e-4)


def test_records_are_refused_if_the_recipe_is_unknown(zoo, jagged):
    with letting_pass(zoo, {"ModelInfer", "ModelMetadata"}) as url, eaf_inference.connect(url) as triton:
        model = triton.model("sums")
        with pytest.raises(InvalidInput, match=r"its recipe is unknown.*preprocess=FILE"):
            model(jagged)


def test_ready_models_are_listed_from_their_statistics(zoo):
    methods = {"ModelInfer", "ModelMetadata", "ModelStatistics", "ServerReady"}
    with letting_pass(zoo, methods) as url, eaf_inference.connect(url) as triton:
        models = triton.models()
        assert [row.name for row in models] == sorted(triton.names())
        assert len(models) == 7
        assert "Only ready models are shown: the server does not list the others (it does not offer this" in str(
            models
        )


def test_an_unknown_model_is_recognised_without_a_list_of_models(zoo):
    with letting_pass(zoo, {"ModelInfer", "ModelMetadata"}) as url, eaf_inference.connect(url) as triton:
        with pytest.raises(ModelNotFound, match=r"has no model 'sum', and does not list those that it has"):
            triton.model("sum")
        with pytest.raises(ModelNotFound, match=r"has no version 7 of model 'sums'"):
            triton.model("sums", 7)


def test_a_server_that_allows_no_lookup_is_reported(zoo):
    with letting_pass(zoo, {"ModelInfer"}) as url, pytest.raises(ConfigurationError) as raised:
        eaf_inference.connect(url)
    assert str(raised.value) == (
        f"{url} answers none of the calls by which models are looked up (ModelMetadata, ModelConfig): it does not "
        "offer this call. Is it a Triton inference server? If so, ask its operators to allow these calls."
    )
    denied = grpc.StatusCode.PERMISSION_DENIED
    with letting_pass(zoo, {"ServerReady"}, denied, "RBAC: access denied") as url, pytest.raises(NotAuthorized):
        eaf_inference.connect(url)
