"""The Hub's facility document: what overrides it, and when it is read again."""

from __future__ import annotations

import json
import threading

import pytest

from eaf_inference.auth.credentials import Credentials
from eaf_inference.auth.sources import TokenSource
from eaf_inference.auth.token_service import ENVIRONMENT, TokenService
from eaf_inference.discovery import hub_document
from eaf_inference.discovery.hub_document import known_facility
from eaf_inference.errors import ConfigurationError, NotAuthorized, ServerUnavailable

BASE = "http://hub:8000/services/triton-token/"
URL = f"{BASE}facility.json"


class Said:
    """A stand-in for the service that returns replies in order, repeats the last one, and counts requests."""

    url = BASE

    def __init__(self, *things) -> None:
        self.things, self.asked = list(things), 0

    def facility(self):
        thing = self.things[min(self.asked, len(self.things) - 1)]
        self.asked += 1
        if isinstance(thing, Exception):
            raise thing
        return thing


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def library(clock):
    return hub_document._DocumentCache(clock=clock)


def test_a_document_is_kept_for_a_minute(library, clock):
    service = Said({"max_in_flight": 4}, {"max_in_flight": 8})
    assert library.get(service).settings == {"max_in_flight": 4}
    clock.now = 59.0
    assert library.get(service).settings == {"max_in_flight": 4}
    clock.now = 60.0
    assert library.get(service).settings == {"max_in_flight": 8}


def test_the_last_good_document_is_used_if_the_service_fails(library, clock):
    service = Said({"max_in_flight": 4}, ServerUnavailable("down"), {"max_in_flight": 8})
    library.get(service)
    clock.now = 60.0
    found = library.get(service)
    assert (found.settings, str(found.error), found.read_at) == ({"max_in_flight": 4}, "down", 0.0)
    clock.now = 61.0
    assert library.get(service) is found, "the service is not asked again at once"
    clock.now = 62.0
    assert (library.get(service).settings, library.get(service).error) == ({"max_in_flight": 8}, None)


def test_a_refused_user_does_not_keep_the_last_document(library, clock):
    service = Said({"max_in_flight": 4}, NotAuthorized("not authorised for inference: ask us."))
    library.get(service)
    clock.now = 60.0
    assert (library.get(service).settings, library.get(service).read_at) == ({}, None)


def test_threads_share_one_request_for_the_document(library):
    begun, answer = threading.Event(), threading.Event()

    class Slow(Said):
        def facility(self):
            begun.set()
            answer.wait()
            return super().facility()

    service, found = Slow({}), []
    threads = [threading.Thread(target=lambda: found.append(library.get(service))) for _ in range(8)]
    threads[0].start()
    assert begun.wait(10)
    for thread in threads[1:]:
        thread.start()
    answer.set()
    for thread in threads:
        thread.join()
    assert (service.asked, len(found)) == (1, 8)


def test_unknown_and_unserved_settings_of_a_document_are_ignored(library):
    said = {"max_in_flight": 4, "of_a_newer_version": 1, "allow_insecure_token": True, "token_file": "/etc/shadow"}
    assert library.get(Said(said)).settings == {"max_in_flight": 4}


def test_a_document_with_wrong_types_is_rejected(library):
    found = library.get(Said({"urls": 7}))
    assert found.settings == {}
    assert isinstance(found.error, ConfigurationError)
    assert f"The facility document {URL} is wrong" in str(found.error)
    assert str(found.error).endswith("Tell the facility's operators.")


@pytest.fixture
def here(monkeypatch, tmp_path, library):
    """Set up a user's server with its own configuration and the service's document."""
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(tmp_path))
    monkeypatch.setattr(hub_document, "_document_cache", library)
    monkeypatch.setenv(ENVIRONMENT, BASE)
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "hers")

    def make(said, **own):
        (tmp_path / "eaf_inference_config.json").write_text(json.dumps({"Facility": own}))
        monkeypatch.setattr(TokenService, "facility", lambda _: said)
        return known_facility()

    return make


def test_this_machines_files_override_the_document(here):
    known = here({"urls": ["grpcs://hub:1"], "max_in_flight": 4}, max_in_flight=2)
    assert (known.facility.urls, known.facility.max_in_flight) == (["grpcs://hub:1"], 2)
    assert (known.own.urls, known.facility.token_service) == ([], BASE)
    assert known.document.url == URL


def test_a_configured_token_source_overrides_the_environment(here):
    assert here({}, token_service="http://other/").document.url == "http://other/facility.json"  # noqa: S106
    known = here({}, token_file="/run/token")  # noqa: S106
    assert (known.document, known.own.token_service) == (None, "")


def test_no_service_is_asked_without_a_hub_token(here, monkeypatch):
    monkeypatch.delenv("JUPYTERHUB_API_TOKEN")
    assert here({"max_in_flight": 4}).document is None


class Issuer(TokenSource):
    """A service whose tokens live for 100 s, or which fails."""

    renew_fraction = 0.5

    def __init__(self, clock, token) -> None:
        self.clock, self.token = clock, token
        self.reads = 0
        self.asked, self.answer = threading.Event(), threading.Event()
        self.answer.set()

    def read(self):
        self.reads += 1
        self.asked.set()
        assert self.answer.wait(10)
        return self.token(f"user{self.reads}", issued=self.clock.now, expires=self.clock.now + 100)

    def __repr__(self) -> str:
        return "an issuer"


def test_a_services_token_is_renewed_at_half_its_life_without_blocking(clock):
    from test_credentials import token

    clock.now = 1000.0
    issuer = Issuer(clock, token)
    credentials = Credentials(issuer, clock=clock)
    first = credentials.token()
    clock.now = 1049.0
    assert credentials.token() is first
    clock.now = 1051.0
    issuer.asked.clear()
    issuer.answer.clear()
    renewing = threading.Thread(target=credentials.token)
    renewing.start()
    assert issuer.asked.wait(10)
    assert credentials.token() is first, "it serves, and one thread sees to the next"
    issuer.answer.set()
    renewing.join()
    assert credentials.token().user == "user2"
    assert issuer.reads == 2


def test_threads_without_a_token_wait_for_the_one_that_fetches_it(clock):
    from test_credentials import token

    clock.now = 1000.0
    issuer, found = Issuer(clock, token), []
    issuer.answer.clear()
    credentials = Credentials(issuer, clock=clock)
    threads = [threading.Thread(target=lambda: found.append(credentials.token().user)) for _ in range(8)]
    for thread in threads:
        thread.start()
    issuer.answer.set()
    for thread in threads:
        thread.join()
    assert (found, issuer.reads) == (["user1"] * 8, 1)


def test_users_renew_at_different_times():
    shares = [TokenService(BASE).renew_fraction for _ in range(200)]
    assert 0.45 <= min(shares) < 0.47
    assert 0.53 < max(shares) <= 0.55
