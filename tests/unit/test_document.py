"""What the Hub's facility document says, below what this machine's files say, and when it is asked for again."""

from __future__ import annotations

import json
import threading

import pytest

from eaf_inference import document
from eaf_inference.credentials import Credentials, TokenSource
from eaf_inference.document import known_facility
from eaf_inference.errors import ConfigurationError, NotAuthorized, ServerUnavailable
from eaf_inference.token_service import ENVIRONMENT, TokenService

BASE = "http://hub:8000/services/triton-token/"
URL = f"{BASE}facility.json"


class Said:
    """Stands in for the service: says one thing after another, the last one again and again, and counts."""

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
    return document._Library(clock=clock)


def test_a_document_is_good_for_a_minute(library, clock):
    service = Said({"max_in_flight": 4}, {"max_in_flight": 8})
    assert library.get(service).settings == {"max_in_flight": 4}
    clock.now = 59.0
    assert library.get(service).settings == {"max_in_flight": 4}
    clock.now = 60.0
    assert library.get(service).settings == {"max_in_flight": 8}


def test_where_the_service_does_not_answer_the_last_good_one_serves_and_why_is_kept(library, clock):
    service = Said({"max_in_flight": 4}, ServerUnavailable("down"), {"max_in_flight": 8})
    library.get(service)
    clock.now = 60.0
    found = library.get(service)
    assert (found.settings, str(found.error), found.read_at) == ({"max_in_flight": 4}, "down", 0.0)
    clock.now = 61.0
    assert library.get(service) is found, "nobody asks again at once"
    clock.now = 62.0
    assert (library.get(service).settings, library.get(service).error) == ({"max_in_flight": 8}, None)


def test_who_is_refused_has_nothing_of_the_last_one(library, clock):
    service = Said({"max_in_flight": 4}, NotAuthorized("not authorised for inference: ask us."))
    library.get(service)
    clock.now = 60.0
    assert (library.get(service).settings, library.get(service).read_at) == ({}, None)


def test_threads_that_want_it_at_the_same_time_share_one_question(library):
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


def test_what_a_newer_service_says_besides_is_left_out_and_what_is_not_a_users_to_be_told_is_not_taken(library):
    said = {"max_in_flight": 4, "of_a_newer_version": 1, "allow_insecure_token": True, "token_file": "/etc/shadow"}
    assert library.get(Said(said)).settings == {"max_in_flight": 4}


def test_a_document_of_the_wrong_types_is_no_document(library):
    found = library.get(Said({"urls": 7}))
    assert found.settings == {}
    assert isinstance(found.error, ConfigurationError)
    assert f"The facility document {URL} is wrong" in str(found.error)


@pytest.fixture
def here(monkeypatch, tmp_path, library):
    """A user's server: write its own configuration, and what the service says."""
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(tmp_path))
    monkeypatch.setattr(document, "_library", library)
    monkeypatch.setenv(ENVIRONMENT, BASE)
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "hers")

    def make(said, **own):
        (tmp_path / "eaf_inference_config.json").write_text(json.dumps({"Facility": own}))
        monkeypatch.setattr(TokenService, "facility", lambda _: said)
        return known_facility()

    return make


def test_the_files_of_this_machine_have_the_last_word(here):
    known = here({"urls": ["grpcs://hub:1"], "max_in_flight": 4}, max_in_flight=2)
    assert (known.facility.urls, known.facility.max_in_flight) == (["grpcs://hub:1"], 2)
    assert (known.own.urls, known.facility.token_service) == ([], BASE)
    assert known.document.url == URL


def test_a_service_or_token_file_that_is_configured_goes_before_the_environment(here):
    assert here({}, token_service="http://other/").document.url == "http://other/facility.json"  # noqa: S106
    known = here({}, token_file="/run/token")  # noqa: S106
    assert (known.document, known.own.token_service) == (None, "")


def test_without_a_hub_token_nobody_is_asked(here, monkeypatch):
    monkeypatch.delenv("JUPYTERHUB_API_TOKEN")
    assert here({"max_in_flight": 4}).document is None


class Issuer(TokenSource):
    """Gives tokens that live for 100 s from now, or not."""

    spent = 0.5

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


def test_a_services_token_is_renewed_at_half_of_its_life_and_nobody_waits_for_that(clock):
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


def test_who_has_no_token_waits_for_the_thread_that_gets_one(clock):
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


def test_users_do_not_all_renew_at_the_same_moment():
    shares = [TokenService(BASE).spent for _ in range(200)]
    assert 0.45 <= min(shares) < 0.47
    assert 0.53 < max(shares) <= 0.55
