"""Directories that can, and that cannot, be the model store of a facility on this machine."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from eaf_facility.local.model_store import model_store
from eaf_facility.servers.triton import check_store
from eaf_inference.errors import ConfigurationError


def test_a_directory_is_made_and_kept(tmp_path):
    with model_store(tmp_path / "my models" / "store") as store:
        made = tmp_path / "my models" / "store"
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
        assert store.url == made.as_uri()
        assert store.repository == str(made)
    assert made.is_dir()


def test_a_store_of_its_own_is_removed_in_the_end():
    with model_store(None) as store:
        made = Path(store.repository)
        assert stat.S_IMODE(made.parent.stat().st_mode) == 0o700
        assert "removed when the facility ends" in str(store)
    assert not made.parent.exists()


def arrange_file(path):
    path.write_text("")
    return path


def arrange_shared(path):
    path.mkdir()
    path.chmod(0o777)
    return path


def arrange_anothers(path):
    path.mkdir()
    if os.geteuid() != 0:
        return Path("/")
    os.chown(path, 65534, 65534)
    return path


def arrange_model(path):
    path.mkdir()
    (path / "config.pbtxt").write_text("")
    return path


@pytest.mark.parametrize(
    ("arrange", "why"),
    [
        (arrange_file, "File exists"),
        (lambda path: arrange_file(path) / "store", "Not a directory"),
        (arrange_shared, "others on this machine may write to it.*chmod go-w"),
        (arrange_anothers, "belongs to another user.*--store ~/models"),
        (arrange_model, "is a model, not a model store"),
    ],
)
def test_a_path_that_cannot_be_a_store_is_refused(tmp_path, arrange, why):
    with pytest.raises(ConfigurationError, match=why), model_store(arrange(tmp_path / "here")):
        pass


def test_a_model_with_which_triton_would_not_start_is_named(tmp_path):
    (tmp_path / "two words").mkdir()
    with pytest.raises(ConfigurationError, match="'two words' of the store .* has a space"):
        check_store(tmp_path, [])


def test_a_model_that_the_operator_serves_too_is_named(tmp_path):
    for place in ("store", "models"):
        (tmp_path / place / "tagger").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="'tagger' is in the store .* would serve neither"):
        check_store(tmp_path / "store", [tmp_path / "models"])
