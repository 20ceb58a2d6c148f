"""What a ROOT tree says about its size."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from eaf_inference.dataset.parts import File
from eaf_inference.dataset.reading import opened

uproot = pytest.importorskip("uproot")


def test_baskets_inside_the_tree_itself_count(tmp_path, monkeypatch):
    """ROOT keeps the last basket of a branch there, or its only one, if the branch is small or was not flushed."""
    with uproot.recreate(tmp_path / "a.root") as file:
        file["events"] = {"x": np.zeros(100), "y": np.zeros(100)}
    path = File(str(tmp_path / "a.root"))
    with opened(path) as table:
        [(_, _, size, stored)] = table.pieces([("x",)])
    monkeypatch.setattr(uproot.TBranch, "embedded_baskets", [SimpleNamespace(data=np.zeros(800, np.uint8))])
    with opened(path) as table:
        [piece] = table.pieces([("x",)])
        assert (piece.size, piece.stored) == pytest.approx((size + 800, stored + 800))
        assert table.pieces(None)[0].size == pytest.approx(2 * piece.size, rel=0.1)
