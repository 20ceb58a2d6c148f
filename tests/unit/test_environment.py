"""Triton's environment: the machines and Pythons that it needs, and its error messages."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from eaf_facility.servers import jupyterhub_proxy, triton_environment
from eaf_inference.errors import ConfigurationError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("found", "named"), [(("glibc", "2.28"), "glibc 2.28"), (("", ""), "another C library")])
def test_a_c_library_that_is_too_old_is_refused_with_alternatives(monkeypatch, found, named):
    monkeypatch.setattr(platform, "libc_ver", lambda: found)
    with pytest.raises(ConfigurationError, match=rf"2\.35 or newer; this machine has {named}.*--triton-server"):
        triton_environment.check_machine()


def test_glibc_versions_are_compared_as_numbers(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.100"))
    triton_environment.check_machine()


@pytest.mark.parametrize("version", [(3, 10), (3, 11), (3, 12), (3, 13)])
def test_the_environment_is_made_with_the_running_python(monkeypatch, tmp_path, version):
    monkeypatch.setattr(sys, "version_info", (*version, 0, "final", 0))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert triton_environment.find_interpreter().version == version


def test_an_unsupported_python_is_refused_with_how_to_install_another(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "version_info", (3, 14, 0, "final", 0))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"Python 3\.14.*no python3\.12.*Install one"):
        triton_environment.find_interpreter()


def test_an_unsupported_python_makes_the_environment_with_another(monkeypatch, tmp_path):
    version = sys.version_info[:2]
    if version not in triton_environment.SUPPORTED:
        pytest.skip("this Python has no stub itself")
    name = f"python{version[0]}.{version[1]}"
    for broken in {f"python{major}.{minor}" for major, minor in triton_environment.SUPPORTED} - {name}:
        (tmp_path / broken).write_text("#!/bin/sh\nexit 127\n")  # as a pyenv shim does
        (tmp_path / broken).chmod(0o755)
    (tmp_path / name).symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setattr(sys, "version_info", (3, 14, 0, "final", 0))
    assert triton_environment.find_interpreter().version == version


@pytest.mark.slow
def test_the_installers_own_error_is_shown(monkeypatch, tmp_path):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("/absent/triton-1.0-py3-none-any.whl\n")
    monkeypatch.setattr(triton_environment, "REQUIREMENTS", requirements)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"(?s)failed:\n.*No such file"):
        triton_environment.make_installation(progress=print)
    assert not list(tmp_path.glob("eaf-inference/triton-*/complete"))


@pytest.mark.slow
def test_a_package_with_a_wrong_hash_is_not_installed(monkeypatch, tmp_path):
    wheel = tmp_path / "triton-1.0-py3-none-any.whl"
    with ZipFile(wheel, "w") as archive:
        archive.writestr("triton-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: triton\nVersion: 1.0\n")
        archive.writestr(
            "triton-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("triton-1.0.dist-info/RECORD", "")
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"{wheel.as_uri()} --hash=sha256:{'0' * 64}\n")
    monkeypatch.setattr(triton_environment, "REQUIREMENTS", requirements)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ConfigurationError, match="DO NOT MATCH THE HASHES"):
        triton_environment.make_installation(progress=print)
    assert not list(tmp_path.glob("eaf-inference/triton-*/complete"))


def test_every_pinned_package_has_hashes():
    folders = ("eaf_facility", "benchmarks", "tests", "docs")
    pinned = [path for each in folders for path in (ROOT / each).rglob("*requirements*.txt")]
    assert triton_environment.REQUIREMENTS in pinned
    for path in pinned:
        text = "\n".join(
            line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")
        )
        requirements = text.replace("\\\n", " ").split("\n")
        assert all("==" in line and "--hash=sha256:" in line for line in requirements if line.strip()), path


def test_jupyterhubs_proxy_is_installed_from_a_lock_file_with_hashes():
    directory = Path(jupyterhub_proxy.__file__).with_name("configurable-http-proxy")
    dependencies = json.loads((directory / "package.json").read_text(encoding="utf-8"))["dependencies"]
    assert dependencies == {"configurable-http-proxy": jupyterhub_proxy.VERSION}
    packages = json.loads((directory / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    assert all("integrity" in package for name, package in packages.items() if name)
