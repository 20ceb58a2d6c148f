"""Machines that Triton's environment cannot be made on, and what their users are told."""

from __future__ import annotations

import platform
import sys

import pytest

from eaf_inference.errors import ConfigurationError
from eaf_inference.facility import environment


@pytest.mark.parametrize(("found", "named"), [(("glibc", "2.28"), "glibc 2.28"), (("", ""), "another C library")])
def test_a_c_library_that_is_too_old_is_named_with_what_to_do(monkeypatch, found, named):
    monkeypatch.setattr(platform, "libc_ver", lambda: found)
    with pytest.raises(ConfigurationError, match=rf"2\.35 or newer; this machine has {named}.*--triton-server"):
        environment.check_machine()


def test_glibc_versions_are_compared_as_numbers(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.100"))
    environment.check_machine()


def test_a_python_without_a_stub_and_no_other_is_told_how_to_get_one(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "version_info", (3, 14, 0, "final", 0))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"Python 3\.14.*no python3\.12.*Install one"):
        environment.find_interpreter()


def test_a_python_without_a_stub_makes_the_environment_with_another(monkeypatch, tmp_path):
    version = sys.version_info[:2]
    if version not in environment.SUPPORTED:
        pytest.skip("this Python has no stub itself")
    name = f"python{version[0]}.{version[1]}"
    for broken in {"python3.12", "python3.11", "python3.10"} - {name}:
        (tmp_path / broken).write_text("#!/bin/sh\nexit 127\n")  # as a shim of pyenv does
        (tmp_path / broken).chmod(0o755)
    (tmp_path / name).symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setattr(sys, "version_info", (3, 14, 0, "final", 0))
    assert environment.find_interpreter().version == version


def test_the_installers_own_error_is_shown(monkeypatch, tmp_path):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("/absent/triton-1.0-py3-none-any.whl\n")
    monkeypatch.setattr(environment, "REQUIREMENTS", requirements)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"(?s)failed:\n.*No such file"):
        environment.make_installation(progress=print)
    assert not list(tmp_path.glob("eaf-inference/triton-*/complete"))
