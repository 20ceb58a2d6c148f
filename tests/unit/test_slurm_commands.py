"""How Slurm's commands are run: without this process's secrets, within a time, and from a path that they can use."""

from __future__ import annotations

import os
import shutil
import tempfile

import pytest

from eaf_facility.servers import slurm
from eaf_facility.servers.slurm import Slurm, check_python
from eaf_inference.errors import ConfigurationError


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Return a function that makes every command of Slurm this shell script."""

    def make(script):
        path = tmp_path / "program"
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)
        monkeypatch.setattr(shutil, "which", lambda *_, **__: str(path))
        return Slurm(tmp_path, ())

    return make


def test_a_command_knows_its_configuration_and_none_of_our_secrets(program, monkeypatch):
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "0123456789abcdef")  # sbatch would pass it on to the job
    told = program("env; printf '\\377'").run("sbatch")
    assert "SLURM_CONF=" in told
    assert "0123456789abcdef" not in told


def test_a_command_without_an_answer_is_an_error_with_a_name(program, monkeypatch):
    with pytest.raises(ConfigurationError, match="squeue failed: 7"):
        program("exit 7").run("squeue")
    monkeypatch.setattr(slurm, "_COMMAND_SECONDS", 0.2)
    with pytest.raises(ConfigurationError, match=r"^sinfo gave no answer within 0\.2 s\. Is slurmctld running\?"):
        program("exec sleep 60").run("sinfo")


@pytest.mark.skipif(os.geteuid() != 0, reason="others' jobs run as themselves")
def test_a_python_that_never_answers_is_named(program, monkeypatch):
    program("exec sleep 60")
    monkeypatch.setattr("sys.executable", shutil.which("python"))
    monkeypatch.setattr(slurm, "_IMPORT_SECONDS", 0.2)
    monkeypatch.setattr(slurm, "_NOBODY", None)  # who may not run what is in tmp_path
    with pytest.raises(ConfigurationError, match="timed out after 0.2 seconds"):
        check_python("dask")


def test_a_directory_with_a_path_that_is_too_long_is_named(program, tmp_path, monkeypatch):
    program("exit 1")
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.setattr(slurm, "_check_readable", lambda _: None)
    with pytest.raises(ConfigurationError, match="longer than 107 bytes. Set TMPDIR"), Slurm.start():
        pass
    assert list(long.iterdir()) == []
