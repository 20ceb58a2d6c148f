"""Addresses of servers, and the operator's configuration."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eaf_inference.address import Address, parse_urls, possible_addresses
from eaf_inference.config import Facility, load_facility
from eaf_inference.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "url", "tls"),
    [
        ("grpc://triton.example:8001", "grpc://triton.example:8001", False),
        ("grpc://triton.example", "grpc://triton.example:8001", False),
        ("grpcs://triton.example", "grpcs://triton.example:443", True),
        ("grpcs://triton.example:8001/", "grpcs://triton.example:8001", True),
        ("GRPC://Triton.Example:8001", "grpc://triton.example:8001", False),
        ("triton.example:8001", "grpc://triton.example:8001", False),
        ("triton.example", "grpc://triton.example:8001", False),
        ("triton.example:443", "grpcs://triton.example:443", True),
        ("localhost:8001", "grpc://localhost:8001", False),
        ("grpc://[::1]:9001", "grpc://[::1]:9001", False),
        ("[2001:db8::1]", "grpc://[2001:db8::1]:8001", False),
        ("grpc://10.0.0.1:1", "grpc://10.0.0.1:1", False),
        ("triton+grpc://triton.example:8001", "grpcs://triton.example:8001", True),
        ("triton+grpc://localhost:8001", "grpc://localhost:8001", False),
        ("triton+grpc://127.0.0.1:8001", "grpc://127.0.0.1:8001", False),
        ("https://triton.fnal.gov", "grpcs://triton.fnal.gov:443", True),
        ("https://Triton.Fnal.gov/", "grpcs://triton.fnal.gov:443", True),
        ("HTTPS://triton.fnal.gov:8443/v2", "grpcs://triton.fnal.gov:8443", True),
        ("https://[2001:db8::1]/v2/health/ready", "grpcs://[2001:db8::1]:443", True),
        ("2001:db8::8001", "grpc://[2001:db8::8001]:8001", False),
    ],
)
def test_every_form_of_an_address_is_parsed(text, url, tls):
    address = Address.parse(text)
    assert (address.url, address.tls, address.model, address.version) == (url, tls, None, None)
    assert Address.parse(address.url) == address


@pytest.mark.parametrize(
    ("path", "model", "version"), [("/jets/3", "jets", "3"), ("/jets", "jets", None), ("/jets/", "jets", None)]
)
def test_a_coffea_url_may_name_a_model_and_a_version(path, model, version):
    address = Address.parse(f"triton+grpc://triton.example:8001{path}")
    assert (address.model, address.version, address.target) == (model, version, "triton.example:8001")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("[::1]", True),
        ("10.0.0.1", False),
        ("a.b", False),
    ],
)
def test_loopback_addresses_are_recognised(host, loopback):
    assert Address.parse(f"grpc://{host}:1").is_loopback is loopback


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "it names no host"),
        ("grpc://", "it names no host"),
        ("grpc://:8001", "it names no host"),
        ("grpc://host:port", "its port is not a number from 0 to 65535"),
        ("grpc://host:65536", "its port is not a number from 0 to 65535"),
        ("grpc://[::1", "its host is not valid"),
        ("ftp://host", "the scheme 'ftp' is unknown"),
        ("grpc://host/model", "only triton+grpc://host:port/model/version may have a path"),
        ("triton+grpc://host/a/b/c", "only triton+grpc://host:port/model/version may have a path"),
        ("grpc://host?x=1", "it has a query or a fragment"),
        ("grpc://host#x", "it has a query or a fragment"),
    ],
)
def test_an_invalid_address_is_rejected_with_the_reason(url, why):
    with pytest.raises(ConfigurationError) as caught:
        Address.parse(url)
    message = str(caught.value)
    assert f"cannot be used: {why}" in message
    assert "Expected grpc://host:port, grpcs://host:port (TLS), or coffea's triton+grpc://" in message


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("http://triton.fnal.gov:8000", "grpc://triton.fnal.gov:8001, or grpcs://triton.fnal.gov:443 with TLS"),
        ("http://Triton.fnal.gov/v2", "grpc://triton.fnal.gov:8001, or grpcs://triton.fnal.gov:443 with TLS"),
        ("http://[::1]:8000", "grpc://[::1]:8001, or grpcs://[::1]:443 with TLS"),
        ("https://host/v2/models/jets/infer", "grpc://host:8001, or grpcs://host:443 with TLS"),
        ("triton+https://host:8000/jets/1", "triton+grpc://host:8001/jets/1"),
    ],
)
def test_an_http_address_is_rejected_with_the_grpc_addresses(url, meant):
    with pytest.raises(ConfigurationError) as caught:
        Address.parse(url)
    assert str(caught.value) == (
        f"The Triton URL {url!r} cannot be used: it is an address for HTTP, but this client speaks gRPC, on another "
        f"port (usually 8001 where HTTP's is 8000). Expected something like {meant}."
    )


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("triton.fnal.gov", ["grpcs://triton.fnal.gov:443", "grpc://triton.fnal.gov:8001"]),
        ("LocalHost/", ["grpcs://localhost:443", "grpc://localhost:8001"]),
        ("triton.fnal.gov/v2", ["grpcs://triton.fnal.gov:443", "grpc://triton.fnal.gov:8001"]),
        ("2001:db8::8001", ["grpcs://[2001:db8::8001]:443", "grpc://[2001:db8::8001]:8001"]),
        ("[::1]", ["grpcs://[::1]:443", "grpc://[::1]:8001"]),
        ("triton.fnal.gov:8001", ["grpc://triton.fnal.gov:8001"]),
        ("https://triton.fnal.gov", ["grpcs://triton.fnal.gov:443"]),
        ("grpc://triton.fnal.gov", ["grpc://triton.fnal.gov:8001"]),
    ],
)
def test_a_bare_host_may_mean_either_usual_port(text, urls):
    assert [address.url for [*meanings] in possible_addresses(text) for address in meanings] == urls


@pytest.mark.parametrize(
    "url",
    [
        "grpc://user:hunter2@host:8001",
        "user:hunter2@host",
        "grpc://user:hunter2@host:port",
        "http://user:hunter2@host",
        "grpc://user:hunter2/x@host:8001",
        "grpc://user:hunter2#x@host",
        "grpc://user:hunter2@[::1",
        "grpc://user:hunter2@ho\u2100st",
    ],
)
def test_a_password_in_an_address_is_refused_and_never_echoed(url):
    with pytest.raises(
        ConfigurationError, match="cannot carry a user name or password. Pass a token instead"
    ) as caught:
        Address.parse(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@given(st.text(max_size=20) | st.text("grpcstion+:/@[]0123456789.#?%", max_size=24))
def test_any_text_is_an_address_or_a_configuration_error(text):
    try:
        address = Address.parse(text)
    except ConfigurationError:
        return
    assert address.host
    assert 0 <= address.port < 65536


def test_several_addresses_are_replicas():
    urls = [address.url for address in parse_urls(" grpc://a:1, ,grpcs://b ")]
    assert urls == ["grpc://a:1", "grpcs://b:443"] == [address.url for address in parse_urls(urls)]
    for none in ("", " , ", [], ()):
        with pytest.raises(ConfigurationError, match="The Triton URL is empty"):
            parse_urls(none)


def test_the_number_of_replicas_is_limited():
    with pytest.raises(ConfigurationError, match="There are 1,000 Triton URLs. Expected at most 128 replicas"):
        parse_urls([f"grpc://a:{port}" for port in range(1, 1001)])


@pytest.fixture
def directories(tmp_path, monkeypatch):
    """The user's and the system's configuration directories, in this order."""
    made = [tmp_path / name for name in ("user", "system")]
    for directory in made:
        directory.mkdir()
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", ":".join(map(str, made)))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")  # older versions of jupyter_core warn without it
    return made


def write(directory, *, python: str = "", **settings: object) -> None:
    if settings:
        (directory / "eaf_inference_config.json").write_text(json.dumps({"Facility": settings}))
    if python:
        (directory / "eaf_inference_config.py").write_text(python)


@pytest.mark.usefixtures("directories")
def test_without_a_file_the_defaults_apply():
    facility = load_facility()
    assert (facility.urls, facility.ca, facility.allow_insecure_token) == ([], "", False)
    assert (facility.time_budget, facility.request_timeout, facility.max_in_flight) == (120.0, 120.0, 16)


def test_settings_are_read_from_json_and_python(directories):
    write(directories[1], urls=["grpc://a:1"], time_budget=5, max_in_flight=3)
    write(
        directories[1], python="c = get_config()\nc.Facility.ca = '/ca.pem'\nc.Facility.allow_insecure_token = True"
    )
    facility = load_facility()
    assert (facility.urls, facility.time_budget, facility.max_in_flight) == (["grpc://a:1"], 5.0, 3)
    assert (facility.ca, facility.allow_insecure_token) == ("/ca.pem", True)


def test_the_users_file_overrides_others_and_python_overrides_json(directories):
    user, system = directories
    write(system, urls=["grpc://system:1"], ca="/system.pem", token_file="/system", max_in_flight=7)  # noqa: S106
    write(system, python="c.Facility.ca = '/system-python.pem'")
    write(user, urls=["grpc://user:1"], token_file="/user")  # noqa: S106
    write(user, python="c.Facility.token_file = '/user-python'")
    facility = load_facility()
    assert (facility.urls, facility.ca) == (["grpc://user:1"], "/system-python.pem")
    assert (facility.token_file, facility.max_in_flight) == ("/user-python", 7)


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("json", "{", "JSONDecodeError"),
        ("json", "[1]", ""),
        ("py", "c.Facility.urls = [", "SyntaxError"),
        ("py", "1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_an_error_names_the_unreadable_file(directories, name, text, why):
    path = directories[0] / f"eaf_inference_config.{name}"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=f"configuration {path} cannot be read: .*{why}"):
        load_facility()


def test_the_documentation_url_must_be_a_web_page(directories):
    for url in ("https://facility.example/triton?q=1#gpu", "http://[::1]:8000", ""):
        write(directories[0], documentation_url=url)
        assert load_facility().documentation_url == url
    for url in ("javascript:alert(1)", "facility.example", "https://", "https://alice:hunter2@b", "https://a b"):
        write(directories[0], documentation_url=url)
        with pytest.raises(ConfigurationError, match="documentation_url is not the address of a web page") as caught:
            load_facility()
        assert "hunter2" not in str(caught.value)


def test_an_error_about_a_setting_shows_no_password(directories):
    write(directories[0], metrics_urls={"first": "http://alice:hunter2@host"})
    with pytest.raises(ConfigurationError, match="is wrong: .*metrics_urls") as caught:
        load_facility()
    assert "hunter2" not in str(caught.value)


def test_an_error_names_the_setting_of_the_wrong_type(directories):
    write(directories[0], max_in_flight="many")
    with pytest.raises(ConfigurationError, match="is wrong: .*max_in_flight.*Correct the file"):
        load_facility()
    assert {"urls", "ca", "token_file"} <= set(Facility.class_trait_names(config=True))
