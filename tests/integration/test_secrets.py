"""A token's text appears nowhere but in the call's metadata."""

from __future__ import annotations

import copy
import logging
import pickle
import traceback

import cloudpickle
import elsewhere
import pytest
from edge_proxy import edge_proxy
from kernels import notebook
from tokens import MARK, make_token

import eaf_inference
from eaf_inference import TokenFile

CELLS = [
    "import logging; logging.basicConfig(level=logging.DEBUG, filename=LOG)",
    "%xmode Verbose",
    "%triton_connect --token-file {path} --explain",
    "%triton_status",
    "triton, vars(triton), vars(triton.credentials), triton.credentials.known, triton.open()",
    "triton.credentials.known.authorization",
    "print(triton.credentials.known.authorization, f'{{triton.credentials.known.authorization}}')",
    "model = triton.model('sums'); model",
    "import numpy as np; model({{'x': np.zeros((1, 2, 3), np.float32)}})",
    "model({{'x': np.zeros((1, 3, 3), np.float32)}})",
    "model.map(1 / 0 for _ in 'x').__next__()",
    "%tb",
    "import cloudpickle; repr(cloudpickle.dumps([triton, model]))",
    "%whos",
    "%triton_connect grpc://192.0.2.1:1 --token-file {path}",
    "eaf = __import__('eaf_inference'); eaf.connect('grpc://127.0.0.1:1', token=eaf.TokenFile('{path}'))",
]


@pytest.fixture
def guarded(zoo, tmp_path):
    token = make_token()
    path = tmp_path / "token"
    path.write_text(token)
    with edge_proxy(zoo.grpc.removeprefix("grpc://")) as (handler, port):
        handler.tokens = {token: float("inf")}
        yield f"grpc://127.0.0.1:{port}", path
        assert token in handler.seen  # the token was sent


def test_a_notebooks_output_and_logs_never_hold_the_token(guarded, tmp_path):
    url, path = guarded
    log = tmp_path / "kernel.log"
    with notebook(EAF_TRITON_URL=url) as book:
        shown = [book.run(cell.replace("LOG", repr(str(log))).format(path=path)) for cell in CELLS]
        assert shown[4].error == []
        assert shown[8].error == []
        assert shown[9].error[0] == "InvalidInput"
    assert log.stat().st_size > 0
    assert MARK not in book.everything
    assert MARK not in log.read_text()


def test_no_pickle_repr_or_traceback_holds_the_token(guarded, caplog):
    url, path = guarded
    caplog.set_level(logging.DEBUG)
    with eaf_inference.connect(url, token=TokenFile(path)) as connection:
        model = connection.model("sums")
        dumps = [dump(each) for dump in (pickle.dumps, cloudpickle.dumps) for each in (connection, model)]
        token = connection.credentials.known
        for refuse in (pickle.dumps, cloudpickle.dumps, copy.copy, copy.deepcopy):
            for secret in (token, token.authorization):
                with pytest.raises(TypeError, match="cannot be pickled"):
                    refuse(secret)
        with pytest.raises(eaf_inference.errors.InvalidInput) as raised:
            model({"x": "wrong"})
    frames = traceback.TracebackException.from_exception(raised.value, capture_locals=True)
    texts = [repr(connection), repr(vars(connection)), repr(vars(model)), repr(token), str(token.authorization)]
    for text in (*texts, *map(repr, dumps), "".join(frames.format()), caplog.text):
        assert MARK not in text


def test_a_failed_connections_variables_show_no_passed_token():
    with pytest.raises(eaf_inference.errors.NoServerFound) as raised:
        eaf_inference.connect("grpc://127.0.0.1:1", token=make_token())
    frames = traceback.TracebackException.from_exception(raised.value, capture_locals=True)
    assert "StaticToken" in repr(frames.stack) or "passed by the caller" in "".join(frames.format())
    assert MARK not in "".join(frames.format())


def test_a_pickled_model_uses_the_credentials_where_it_arrives(guarded, monkeypatch):
    import numpy as np

    url, path = guarded
    with eaf_inference.connect(url, token=TokenFile(path)) as connection:
        travelled = pickle.dumps((connection.model("sums"), {"x": np.ones((4, 2, 3), np.float32)}))
    monkeypatch.setenv("BEARER_TOKEN_FILE", str(path))
    arrived, scores = elsewhere.scored(travelled)
    assert "on first use" in arrived
    np.testing.assert_array_equal(scores, np.full((4, 2), 3))
