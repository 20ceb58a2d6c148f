"""Users' own models on a real facility: served, compared, replaced, rolled back, removed; failures change nothing."""

from __future__ import annotations

import json
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
from tiny_models import save_sums

import eaf_inference
from eaf_facility.local import single_user
from eaf_inference.errors import ConfigurationError, DeploymentFailed, DeploymentRefused, ModelNotFound

JETS = ak.Array([[{"pt": 1.0, "charge": 1.0}, {"pt": 2.5, "charge": -1.0}], [{"pt": 4.0, "charge": 1.0}]] * 20)
RECIPE = {
    "input_names": ["pf", "mask"],
    "pf": {"var_names": ["pt", "charge"], "var_length": 8},
    "mask": {"var_names": ["pf_mask"], "var_length": 8},
}


@pytest.fixture(scope="module")
def facility(tiny_models):
    with single_user.up([tiny_models], gateway=False) as facility:
        yield facility


@pytest.fixture
def triton(facility):
    with eaf_inference.connect(facility.description.urls[0]) as connection:
        yield connection


@pytest.fixture
def stored(facility):
    return Path(facility.store.url.removeprefix("file://"))


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "preprocess.json"
    path.write_text(json.dumps(RECIPE), encoding="utf-8")
    return path


def expected(factor: float) -> np.ndarray:
    return factor * np.stack([ak.sum(JETS.pt, axis=1), ak.sum(JETS.charge, axis=1)], axis=1)


def scores_of(model) -> np.ndarray:
    scores = model(JETS)
    return np.stack([scores.all_pt, scores.all_charge], axis=1)


def test_a_model_is_deployed_replaced_rolled_back_and_removed(triton, tmp_path, recipe, stored):
    lines: list[str] = []

    def deploy(factor: float):
        path = save_sums(tmp_path / "sums.onnx", factor)
        labels = ["all_pt", "all_charge"]
        return triton.deploy("sums", path, example=JETS, recipe=recipe, labels=labels, progress=lines.append)

    first = deploy(2.0)
    np.testing.assert_allclose(scores_of(first), expected(2), rtol=1e-6)
    assert "largest difference 0 in 80 numbers" in lines[-1]
    np.testing.assert_allclose(scores_of(deploy(3.0)), expected(3), rtol=1e-6)
    assert [row.version for row in triton.models() if row.name == "sums" and row.ready] == ["2"]
    back = triton.rollback("sums")
    assert back.spec.version == "1"
    np.testing.assert_array_equal(scores_of(back), scores_of(first))
    with pytest.raises(ModelNotFound, match="no model 'sum'.*sums"):
        triton.undeploy("sum")
    triton.undeploy("sums")
    assert "sums" not in triton.names()
    assert list(stored.iterdir()) == []


def spoiled(stored: Path, name: str, version: int, content: bytes):
    """Replace the uploaded file just before it is published, as a fault of the storage would."""

    def progress(line: str) -> None:
        if "uploaded" in line:
            path = stored / name / str(version) / "model.onnx"
            path.chmod(0o644)
            path.write_bytes(content)

    return progress


def test_what_fails_on_the_server_is_withdrawn(triton, tmp_path, recipe, stored):
    good = save_sums(tmp_path / "good.onnx", 2.0)
    kept = triton.deploy("kept", good, example=JETS, recipe=recipe, labels=["all_pt", "all_charge"])
    other = save_sums(tmp_path / "other.onnx", 5.0).read_bytes()
    assert len(other) == len(good.read_bytes())
    with pytest.raises(DeploymentFailed, match="differ from those computed here: largest difference"):
        triton.deploy("kept", good, example=JETS, recipe=recipe, progress=spoiled(stored, "kept", 2, other))
    np.testing.assert_allclose(scores_of(triton.model("kept")), expected(2), rtol=1e-6)
    assert kept.spec.version == triton.model("kept").spec.version == "1"

    broken = b"\0" * len(other)
    with pytest.raises(DeploymentFailed, match="Triton cannot load version 3 of 'kept': .*onnx"):
        triton.deploy("kept", good, example=JETS, recipe=recipe, progress=spoiled(stored, "kept", 3, broken))
    np.testing.assert_allclose(scores_of(triton.model("kept")), expected(2), rtol=1e-6)

    def interrupt(line: str) -> None:
        if "uploaded" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        triton.deploy("never", good, example=JETS, recipe=recipe, progress=interrupt)
    assert "never" not in [path.name for path in stored.iterdir()]


def test_a_model_that_fails_a_check_is_not_uploaded(triton, tmp_path, recipe, stored):
    path = save_sums(tmp_path / "nan.onnx", float("nan"))
    before = sorted(stored.rglob("*"))
    with pytest.raises(DeploymentRefused, match="NaN"):
        triton.deploy("wrong", path, example=JETS, recipe=recipe)
    with pytest.raises(ConfigurationError, match=r"'\.\./wrong' is not allowed"):
        triton.deploy("../wrong", path, example=JETS, recipe=recipe)
    good = save_sums(tmp_path / "good.onnx")
    with pytest.raises(DeploymentRefused, match="already has a model of this name"):
        triton.deploy("affine", good, example=JETS, recipe=recipe)  # Triton would serve neither
    assert sorted(stored.rglob("*")) == before
    assert "affine" in triton.names()


def test_the_drafted_configuration_can_be_edited_and_given_back(triton, tmp_path, recipe):
    path = save_sums(tmp_path / "sums.onnx")
    text = triton.draft_config("edited", path, example=JETS, recipe=recipe, labels=["all_pt", "all_charge"])
    edited = text.replace("max_batch_size: 1024", "max_batch_size: 7 # mine")
    assert edited != text
    model = triton.deploy("edited", path, example=JETS, config=edited)
    assert model.spec.max_batch_size == 7
    np.testing.assert_allclose(scores_of(model), expected(2), rtol=1e-6)


def test_a_server_without_a_store_says_so(triton, tmp_path, recipe, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))  # where no facility is announced
    with pytest.raises(ConfigurationError, match="no model store"):
        triton.deploy("sums", save_sums(tmp_path / "sums.onnx"), example=JETS, recipe=recipe)
