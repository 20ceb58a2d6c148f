"""What was tried is listed once for each server and cause."""

from __future__ import annotations

import time

import pytest

from eaf_inference.errors import ModelNotReady, ServerUnavailable
from eaf_inference.inference.failure import Action, Failure, failed

NOON = time.mktime((2026, 6, 1, 12, 0, 0, 0, 0, -1))


def failure(server, details, seconds):
    return Failure(Action.BACK_OFF, ServerUnavailable, "UNAVAILABLE", details, server, at=NOON + seconds)


def test_equal_failures_of_one_server_take_one_line():
    failures = [failure(f"grpc://{host}:1", "no route", seconds) for seconds in (0, 30, 90) for host in "ab"]
    _, _, history = str(failed(failures, "a request")).partition("What was tried:\n")
    lines = history.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("  12:00:00 to 12:01:30 grpc://a:1: ")
    assert lines[1].startswith("  12:00:00 to 12:01:30 grpc://b:1: ")


def test_other_causes_keep_lines_of_their_own_in_their_order():
    failures = [failure("grpc://a:1", "no route", 0), failure("grpc://a:1", "too busy", 1)]
    _, _, history = str(failed(failures, "a request")).partition("What was tried:\n")
    assert [line.split()[0] for line in history.splitlines()] == ["12:00:00", "12:00:01"]


@pytest.mark.parametrize("says", ["'tagger' has no available versions", "'tagger' version 3 is not at ready state"])
def test_a_version_that_is_not_served_is_no_server_that_is_down(says):
    error = failed([failure("grpc://a:1", f"Request for unknown model: {says}", 0)], "model 'tagger'")
    assert isinstance(error, ModelNotReady)
    assert says in str(error)
