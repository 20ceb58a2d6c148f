"""Tokens that a caller passes to `connect` in a wrong form."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
from tokens import MARK

from eaf_inference.connecting import connect
from eaf_inference.errors import ConfigurationError

WRONG = {"text": f"Bearer {MARK}", "bytes": MARK.encode(), "reply": {"access_token": MARK}, "path": Path(MARK)}


@pytest.mark.parametrize("token", WRONG.values(), ids=WRONG)
def test_no_variable_shows_a_token_of_the_wrong_form(token):
    reason = r"not a bearer token|The token is of type \w+\. Expected"
    with pytest.raises(ConfigurationError, match=reason) as refused:
        connect("grpc://127.0.0.1:1", token=token)
    own = traceback.TracebackException.from_exception(refused.value, capture_locals=True).stack[1:]
    assert own
    assert MARK not in repr([frame.locals for frame in own])
