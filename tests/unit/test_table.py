"""Tables that are described once and shown as text and as HTML."""

from __future__ import annotations

from eaf_inference._table import Cell, Table, reported

EVIL = "<script>alert(1)</script>"


def test_text_and_html_show_the_same_cells():
    rows = [("particlenet", Cell(("x: FP32 [2]", "y: INT64 [1]"), "code"), reported(12345.6, "{:,.0f}"))]
    table = Table(("model", "inputs", "jets/s"), rows, numbers=(2,), folds=(1,))
    assert table.text().split("\n") == [
        "model        inputs                     jets/s",
        "particlenet  x: FP32 [2]; y: INT64 [1]  12,346",
    ]
    page = table.html()
    for shown in ("model", "inputs", "jets/s", "particlenet", "x: FP32 [2]", "y: INT64 [1]", "12,346"):
        assert f">{shown}<" in page
    assert page.count("<br>") == 1


def test_a_missing_value_is_marked():
    assert reported(None) == Cell("not reported", "dim")
    assert reported(None, "{:.1f}", "no request").text == "no request"
    assert reported(0.0, "{:.1f}").text == "0.0"


def test_html_escapes_every_kind_of_cell():
    kinds = ("plain", "dim", "good", "bad", "code")
    for folds in ((), (0,)):
        page = Table(("name",), [(Cell(EVIL, kind),) for kind in kinds], folds=folds).html()
        assert "<script" not in page
        assert page.count("&lt;script&gt;") == len(kinds)


def test_an_empty_table_has_its_heads_only():
    table = Table(("model", "state"), [])
    assert table.text() == "model  state"
    assert "model" in table.html()
