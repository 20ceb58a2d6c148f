"""Text from other programs is shown harmlessly: it moves no cursor and changes or reorders nothing."""

from __future__ import annotations

import copy
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from eaf_facility.local import report
from eaf_inference._text import aligned, cells, number, printable, printable_lines, shortened
from eaf_inference.discovery.attempts import Attempt, Attempts
from eaf_inference.errors import BadReply, InvalidInput
from eaf_inference.inference.repository import ModelRow, ModelTable
from eaf_inference.metrics.usage import Usage

HOSTILE = "a\x1b[2J\x1b]0;owned\x07b\r\nc\u202ed\u2066e\u200bf\x9bg\x7f"
SHOWN = r"a\x1b[2J\x1b]0;owned\x07b c\u202ed\u2066e\u200bf\x9bg\x7f"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("jets → 90 % é 粒子 μ", "jets → 90 % é 粒子 μ"),
        ("two\nlines\tand a tab", "two lines and a tab"),
        ("Is ready\rIs\u2028not\u00a0ready", "Is ready Is not ready"),
        (HOSTILE, SHOWN),
        ("\ud800", r"\ud800"),
    ],
)
def test_unprintable_characters_are_shown_as_escapes(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize(("text", "shown"), [("", ""), ("jets", "jets"), ("jets!", "jet…"), ("jets of all", "jet…")])
def test_a_long_text_is_shortened_to_the_most_characters(text, shown):
    assert shortened(text, 4) == shown


@given(st.text() | st.text(st.characters(codec=None)))
def test_any_text_becomes_printable_and_then_stays_unchanged(text):
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)
    lines = printable_lines(text)
    assert all(line.isprintable() for line in lines.split("\n"))
    assert lines.count("\n") == text.count("\n")


def test_an_error_shows_no_quoted_control_characters_and_keeps_lines():
    for kind in (BadReply, InvalidInput):
        error = kind(f"It said:\n  {HOSTILE}")
        assert str(error) == f"It said:\n  {SHOWN}".replace("b c", "b \nc")
        assert error._render_traceback_() == [f"{kind.__name__}: {error}"]
        assert str(copy.copy(error)) == str(error)  # copying works like pickling


def test_a_table_has_one_line_per_row():
    text = aligned(("name", "state"), [(HOSTILE, "ready"), ("粒子", "e\u0301")])
    assert text.split("\n") == [
        f"name{' ' * (len(SHOWN) - 4)}  state",
        f"{SHOWN}  ready",
        f"粒子{' ' * (len(SHOWN) - 4)}  e\u0301",
    ]
    assert cells("粒子") == 4
    assert cells("e\u0301") == 1


def test_a_table_with_a_width_wraps_its_longest_cells():
    path = "/home/alice/" + "x" * 100 + "/token"
    text = aligned(("what", "where", "state"), [("粒子" * 30, path, "ok"), ("a", "b", "down")], width=60)
    lines = text.split("\n")
    assert max(map(cells, lines)) <= 60
    assert text.count("x") == 100
    assert text.count("粒") == 30
    assert path in aligned(("where",), [(path,)])
    assert len(aligned(("a", "b"), [(path, path)], width=1).split("\n")) > 10  # the narrowest readable columns


@pytest.mark.parametrize(("value", "shown"), [(0.0, "0"), (0.04, "<0.1"), (0.25, "0.2"), (1234.5, "1,234.5")])
def test_only_a_measured_zero_reads_as_zero(value, shown):
    assert number(value) == shown


def row(name, state):
    return ModelRow(name, name, (), (), ready=False, state=state, queue_ms=None)


@pytest.mark.parametrize(
    "shown",
    [
        ModelTable([row(HOSTILE, HOSTILE)]).text(width=None),
        ModelTable([row(HOSTILE, HOSTILE)])._repr_html_(),
        str(Attempts([Attempt(HOSTILE, HOSTILE, HOSTILE)])),
        Attempts([Attempt(HOSTILE, HOSTILE, HOSTILE)])._repr_html_(),
    ],
    ids=["models", "models as HTML", "attempts", "attempts as HTML"],
)
def test_tables_of_a_servers_names_are_harmless(shown):
    assert all(line.isprintable() for line in shown.split("\n"))
    assert SHOWN in shown


def test_the_usage_table_escapes_hostile_names():
    used = Usage(f"{HOSTILE}[bold red]", "[/]", requests=1)
    file = io.StringIO()
    Console(file=file, width=200, color_system=None).print(report.usage([used]))
    assert all(line.isprintable() for line in file.getvalue().split("\n"))
    assert f"{SHOWN}[bold red]" in file.getvalue()
    assert "[/]" in file.getvalue()
    as_json = json.dumps([used.as_dict()])
    assert as_json.isascii()
    assert json.loads(as_json)[0]["user"] == used.user
