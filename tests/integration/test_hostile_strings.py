"""A server that sends malformed strings, or strange class names, or none at all."""

from __future__ import annotations

import threading
import time

import awkward as ak
import numpy as np
import pytest
from hostile import hostile

import eaf_inference
from eaf_inference.errors import BadReply
from eaf_inference.inference import protocol

X = ak.Array([[[1.0, 2.0], [3.0, 4.0]]])


@pytest.fixture
def server():
    """Give a hostile server, its URL, and the output of its model."""
    with hostile() as (handler, url):
        config = handler.ModelConfig(protocol.ModelConfigRequest(name="jets"))
        handler.answers["ModelConfig"] = lambda *_: config.SerializeToString()
        yield handler, url, config.config.output[0]


def answer(raw):
    """Return a ModelInfer that always sends these two strings."""
    reply = protocol.ModelInferResponse(model_name="jets")
    reply.outputs.add(name="y", datatype="BYTES", shape=(1, 2))
    reply.raw_output_contents.append(raw)
    return lambda *_: reply.SerializeToString()


def joined(*strings):
    return b"".join(len(each).to_bytes(4, "little") + each for each in strings)


@pytest.mark.parametrize("raw", [b"", joined(b"a"), joined(b"a", b"b") + b"c", b"\xff" * 12, joined(b"a", b"b")[:-1]])
def test_strings_that_are_not_what_was_declared_are_a_bad_reply(server, raw):
    handler, url, output = server
    output.data_type = "TYPE_STRING"
    handler.answers["ModelInfer"] = answer(raw)
    with eaf_inference.connect(url) as triton, pytest.raises(BadReply, match="each string after its length"):
        triton.model("jets")(np.ones((1, 2, 3), np.float32))


def test_class_names_of_any_kind_are_harmless_to_terminal_and_page(server):
    handler, url, output = server
    output.label_filename = "l\x1b]0;"
    handler.answers["ModelInfer"] = answer(joined(b"1:0:<b>\x1b[2J</b>", "1:1:\u202etop".encode()))
    with eaf_inference.connect(url) as triton:
        model = triton.model("jets")
    assert model.spec.labels == {"y": ("<b>\x1b[2J</b>", "\u202etop")}
    assert not {"\x1b", "\u202e"} & {*repr(model), *model._repr_html_()}
    assert "<b>" not in model._repr_html_()


def test_a_model_is_found_although_its_class_names_never_come(server):
    handler, url, output = server
    output.label_filename = "labels.txt"
    over = threading.Event()
    handler.answers["ModelInfer"] = lambda *_: over.wait(60) and b""
    started = time.monotonic()
    try:
        with eaf_inference.connect(url, timeout=2) as triton:
            model = triton.model("jets")
    finally:
        over.set()
    assert time.monotonic() - started < 20
    assert model.spec.labels == {}
    assert "the request for its lines failed" in repr(model)
