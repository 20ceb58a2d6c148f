"""What a ROOT tree says about its branches."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from eaf_inference.dataset.root import root_table

uproot = pytest.importorskip("uproot")


def test_baskets_inside_the_tree_itself_count(tmp_path, monkeypatch):
    """ROOT keeps the last basket of a branch there, or its only one, if the branch is small or was not flushed."""
    with uproot.recreate(tmp_path / "a.root") as file:
        file.mktree("events", {"x": "float64"}).extend({"x": np.zeros(100)})
    with uproot.open(tmp_path / "a.root") as file:
        table = root_table(file["events"])
        [before] = table.pieces([("x",)])
        inside = [*file["events"]["x"].embedded_baskets, SimpleNamespace(data=np.zeros(50))]
        monkeypatch.setattr(uproot.TBranch, "embedded_baskets", inside)
        monkeypatch.setattr(uproot.TBranch, "entry_offsets", [0, 100])
        [piece] = table.pieces([("x",)])
    assert (piece.size, piece.stored) == pytest.approx((before.size + 400, before.stored + 400))


def test_a_branch_without_a_form_is_read_to_find_its_type(tmp_path, monkeypatch):
    """uproot fails for several leaves of which some are arrays."""
    with uproot.recreate(tmp_path / "a.root") as file:
        file.mktree("events", {"x": "float64", "y": "int32"}).extend({"x": np.arange(9.0), "y": np.arange(9)})

    def failing(*_, **__):
        raise AssertionError

    monkeypatch.setattr(uproot.interpretation.numerical.AsDtype, "awkward_form", failing)
    with uproot.open(tmp_path / "a.root") as file:
        table = root_table(file["events"])
        assert str(table.form().type) == "{x: float64, y: int32}"
        assert table.read([("x",)], 3, 5).x.tolist() == [3, 4]
