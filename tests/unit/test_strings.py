"""Strings: flattened from the caller's arrays, sent each after its length, and read from replies."""

from __future__ import annotations

import struct

import awkward as ak
import numpy as np
import pytest
from builders import tensor
from hypothesis import given
from hypothesis import strategies as st

from eaf_inference.errors import BadReply, InvalidInput
from eaf_inference.inference import protocol, wire
from eaf_inference.inference.outputs import read_outputs
from eaf_inference.inference.strings import as_content, dense_strings

TEXT = tensor("x", 2, datatype="BYTES")
TEXT_OF_ONE = tensor("x", 1, datatype="BYTES")


def categorical(strings, places):
    """Return strings as a dictionary of them, as pyarrow's readers do."""
    index = ak.index.Index64(np.array(places))
    return ak.Array(
        ak.contents.IndexedArray(index, ak.Array(strings).layout, parameters={"__array__": "categorical"})
    )


@given(strings=st.lists(st.binary(max_size=9), max_size=12))
def test_strings_travel_each_after_its_length(strings):
    values = np.empty(len(strings), object)
    values[:] = strings
    sent = wire.encode(values, "BYTES").tobytes()
    assert sent == b"".join(struct.pack("<I", len(each)) + each for each in strings)
    assert len(sent) == wire.sent_size(values)
    came = wire.decode(sent, TEXT, (len(strings),))
    assert [each.encode("utf-8", "surrogateescape") for each in came] == strings
    assert as_content(came).to_list() == came.tolist()


@pytest.mark.parametrize(
    ("raw", "shape"),
    [
        (b"", [1, 2]),
        (b"\1\0\0\0a", [1, 2]),  # one of two
        (b"\1\0\0\0a" * 3, [1, 2]),  # three of two
        (b"\1\0\0\0a\2\0\0\0b", [1, 2]),  # cut off
        (b"\1\0\0\0a\0\0\0", [1, 2]),  # cut off inside a length
        (b"\xff\xff\xff\xffa\0\0\0\0", [1, 2]),  # 4 GiB announced
        (b"\1\0\0\0a\1\0\0\0bzz", [1, 2]),  # bytes left over
        (b"\1\0\0\0a", [1, 1]),
        (b"", [1, 2**62]),
        (b"", [0, 2**62]),
        (bytes(4 * (1 << 22) + 4), [1, (1 << 22) + 1]),  # more strings than are read
    ],
)
def test_strings_that_do_not_fit_a_reply_are_refused(raw, shape):
    reply = protocol.ModelInferResponse(raw_output_contents=[raw])
    reply.outputs.add(name="x", datatype="BYTES", shape=shape)
    spec = TEXT if len(raw) < 99 else tensor("x", -1, datatype="BYTES")
    with pytest.raises(BadReply, match="output 'x' came as BYTES .*Expected BYTES"):
        read_outputs(reply, {"x": spec}, size=1, batched=True, model="m")


WANTED = [[b"a"], ["é".encode()], [b""]]


@pytest.mark.parametrize(
    "given_strings",
    [
        np.array(["a", "é", ""]),
        np.array([["a"], ["é"], [""]], object),
        np.array([b"a", "é".encode(), b""], object),
        np.char.encode(np.array(["a", "é", ""]), "utf-8"),
        ak.Array(["a", "é", ""]),
        ak.Array([["a"], ["é"], [""]]),
        ak.Array([b"a", "é".encode(), b""]),
        ak.Array(["x", "a", "é", ""])[1:],
        ak.Array(["", "é", "a"])[::-1],
        ak.mask(ak.Array(["a", "é", ""]), [True] * 3),
        categorical(["", "é", "a"], [2, 1, 0]),
        ak.unflatten(ak.Array(["a", "é", ""]), [2, 0, 1]),
    ],
)
def test_strings_of_every_kind_are_flattened_in_order(given_strings):
    rows, outer = dense_strings(given_strings, TEXT_OF_ONE, batched=True)
    assert rows.tolist() == WANTED
    assert outer.rows == 3


@pytest.mark.parametrize("given_strings", [ak.Array([]), ak.Array(["a"])[:0], np.array([], str)])
def test_no_strings_are_no_rows(given_strings):
    rows, _ = dense_strings(given_strings, TEXT_OF_ONE, batched=True)
    assert (rows.shape, rows.dtype) == ((0, 1), object)


@pytest.mark.parametrize(
    ("given_strings", "why"),
    [
        (np.array(["a", None]), "has None at position 1"),
        (np.array(["a", np.nan], object), "has nan at position 1"),
        (np.array([1, 2]), r"has 1 at position 0.*\.astype\(str\)"),
        (ak.Array(["a", None]), r"type 2 \* \?string and holds missing values.*ak.fill_none"),
        (ak.Array([1, 2]), r"type 2 \* int64. Expected strings"),
        (ak.Array(["a", 1]), "Expected strings"),
        (ak.Array([["a", "b"], ["c"]]), "its lists differ in length"),
        (ak.Array([["a", "b"]]), "its sizes differ. Got an awkward array of type .*string"),
        ([ak.Array(["a"])], "its strings belong in one array"),
    ],
)
def test_what_is_not_all_strings_is_refused(given_strings, why):
    spec = tensor("x", 3, datatype="BYTES") if "differ" in why else TEXT_OF_ONE
    with pytest.raises(InvalidInput, match=why):
        dense_strings(given_strings, spec, batched=True)
