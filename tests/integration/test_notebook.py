"""The magics in real kernels."""

from __future__ import annotations

import pytest
from interrupts import interrupt_cells
from kernels import notebook


@pytest.fixture
def book(zoo):
    with notebook(EAF_TRITON_URL=zoo.grpc) as opened:
        yield opened


def test_connect_without_arguments_shows_what_it_found(book, zoo):
    shown = book.run("%triton_connect")
    assert shown.error == []
    for part in (zoo.grpc, "EAF_TRITON_URL", "no token needed", "neighbours", "FP32 [2, -1]", "ready"):
        assert part in shown.html
        assert part in shown.text
    assert book.run("triton.model('sums')").error == []
    assert ">queue ms (last minute)</th>" in book.run("%triton_status").html


def test_explain_shows_every_source_in_order(book, zoo):
    shown = book.run("%triton_connect --explain").html
    names = (
        "EAF_TRITON_URL",
        "TRITON_URL",
        "facility configuration",
        "CMS SONIC",
        "Kubernetes service",
        "local facility",
    )
    sources = [f">{name}<" for name in names]
    places = [shown.index(source) for source in sources]
    assert places == sorted(places)
    assert "not set" in shown


@pytest.mark.parametrize(
    ("cell", "name", "message"),
    [
        ("%triton_connect grpc://127.0.0.1:1", "NoServerFound", "connection refused"),
        (
            "%triton_connect http://127.0.0.1:8000",
            "ConfigurationError",
            "Expected something like grpc://127.0.0.1:8001",
        ),
        ("%triton_connect --token-file /none", "ConfigurationError", "token file /none does not exist"),
        ("%triton_connect --name 1x", "ConfigurationError", "not a variable name"),
        ("%triton_connect --name class", "ConfigurationError", "not a variable name"),
        ("%triton_connect grpc://127.0.0.1:1 --ca /none", "ConfigurationError", "/none: No such file"),
        ("%triton_status", "ConfigurationError", "Connect it with %triton_connect"),
        ("%triton_disconnect", "ConfigurationError", "Connect it with %triton_connect"),
    ],
)
def test_a_users_mistake_gives_one_message_without_a_traceback(book, cell, name, message):
    error = book.run(cell).error
    assert error[0] == name
    assert message in error[1]
    assert error[2:] == [f"{name}: {error[1]}"]


def test_a_wrong_array_gives_no_traceback(book):
    book.run("%triton_connect")
    error = book.run("triton.model('sums')({'x': 1})").error
    assert error[0] == "InvalidInput"
    assert len(error) == 3
    assert "Traceback" not in error[2]


def test_model_names_are_completed(book):
    book.run("%triton_connect")
    assert book.complete('triton.model("') == ["fixed", "graph", "means", "neighbours", "ratio", "squares", "sums"]
    assert book.complete("triton.model('s") == ["squares", "sums"]
    assert "sums" not in book.complete("other.model('s")


def test_connecting_again_closes_the_old_connection(book):
    book.run("%triton_connect")
    book.run("old = triton; model = old.model('sums')")
    assert book.run("%triton_connect").error == []
    assert book.run("old.closed, triton.closed, old is triton").text == "(True, False, False)"
    assert "closed" in book.run("model({'x': __import__('numpy').zeros((1, 2, 3))})").error[1]


def test_disconnecting_removes_the_variable(book, zoo):
    book.run("%triton_connect --name server")
    assert zoo.grpc in book.run("%triton_disconnect").text
    assert book.run("server").error[0] == "NameError"


def test_disconnecting_one_of_two_connections_tells_of_the_other(book, zoo):
    book.run("%triton_connect")
    book.run("%triton_connect --name other")
    text = f"Disconnected from {zoo.grpc}."
    assert book.run("%triton_disconnect").text == f"{text} This notebook is still connected to {zoo.grpc}.\n"
    assert book.run("%triton_disconnect").text == text + "\n"


def test_a_failed_connection_keeps_the_old_one(book):
    book.run("%triton_connect")
    assert book.run("%triton_connect grpc://127.0.0.1:1").error[0] == "NoServerFound"
    assert book.run("len(triton.models())").text == "7"


def test_two_notebooks_have_their_own_connections(book, zoo):
    with notebook(EAF_TRITON_URL=zoo.grpc) as other:
        book.run("%triton_connect")
        other.run("%triton_connect")
        book.run("%triton_disconnect")
        assert other.run("len(triton.models())").text == "7"


def test_after_an_interrupt_the_connection_still_works(book):
    number = 21  # at different moments, of which some are harder; run interrupts.py for more
    assert interrupt_cells(book, number) == {
        "ended": number,
        "lost": 0,
        "wrong scores after it": 0,
        "left in flight": 0,
    }
