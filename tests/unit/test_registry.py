"""A pickled connection finds its own connection again, and only in the process that made it."""

from __future__ import annotations

import multiprocessing
import pickle

from eaf_inference.connection import Connection
from eaf_inference.registry import DEFAULTS


def test_a_pickle_becomes_its_own_connection_again():
    """With equal options, models of one facility would otherwise ask another one's Triton."""
    first, second = Connection(DEFAULTS), Connection(DEFAULTS)
    for each in (second, first, second):
        assert pickle.loads(pickle.dumps(each)) is each  # noqa: S301
    assert pickle.dumps(first) == pickle.dumps(first)
    second.close()
    assert pickle.loads(pickle.dumps(second)) is second, "a closed one reports that, and connects nowhere else"  # noqa: S301


def loaded_is_new(pickled: bytes, connection: Connection, results) -> None:
    results.put(pickle.loads(pickled) is not connection)  # noqa: S301


def test_a_forked_process_makes_a_connection_of_its_own():
    """gRPC channels do not survive a fork."""
    connection = Connection(DEFAULTS)
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    child = context.Process(target=loaded_is_new, args=(pickle.dumps(connection), connection, results))
    child.start()
    child.join()
    assert results.get()
