"""From nothing typed to a Triton that answers."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack

import grpc
import pytest
from dask_facility import ONES, THREES
from door import Door, door
from tokens import make_token

import eaf_inference
from eaf_inference.errors import ConfigurationError, NoServerFound, NotAuthorized
from eaf_inference.local import LocalFacility, Replica, announced

DEAD = "grpc://127.0.0.1:1"
TOKEN = make_token()


def configure(tmp_path, text):
    directory = tmp_path / "jupyter"
    directory.mkdir(exist_ok=True)
    (directory / "eaf_inference_config.py").write_text(text)


def outcomes(connection):
    return {attempt.source: attempt.outcome for attempt in connection.attempts}


@pytest.fixture
def found(zoo):
    """Connects, and says which source led to the zoo."""

    def find(**options):
        with eaf_inference.connect(**options) as connection:
            assert connection.endpoint.url == zoo.grpc
            return connection.endpoint.source

    return find


def test_every_source_leads_to_the_server_and_the_earlier_ones_win(zoo, found, monkeypatch, tmp_path):
    port = zoo.grpc.rpartition(":")[2]
    replica = Replica(grpc=zoo.grpc, http=zoo.http, metrics=zoo.metrics, pid=zoo.pid, log=str(zoo.log))
    facility = LocalFacility(pid=os.getpid(), started=time.time(), replicas=(replica,), models=())
    with announced(facility):
        assert found() == "local facility"
        monkeypatch.setenv("TRITON_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("TRITON_SERVICE_PORT_GRPC", port)
        assert found() == "Kubernetes service"
        monkeypatch.setenv("SONIC_LOCAL_BALANCER_HOST", "127.0.0.1")
        monkeypatch.setenv("SONIC_LOCAL_BALANCER_PORT", port)
        assert found() == "CMS SONIC"
        configure(tmp_path, f"c.Facility.urls = ['{zoo.grpc}']")
        assert found() == "facility configuration"
        monkeypatch.setenv("TRITON_URL", f"127.0.0.1:{port}")
        assert found() == "TRITON_URL"
        monkeypatch.setenv("EAF_TRITON_URL", DEAD)
        assert found() == "TRITON_URL"
        monkeypatch.setenv("EAF_TRITON_URL", zoo.grpc)
        assert found() == "EAF_TRITON_URL"
        assert found(url=zoo.grpc) == "explicit URL"


def test_a_dead_source_is_passed_over_and_said(zoo, monkeypatch, tmp_path):
    monkeypatch.setenv("EAF_TRITON_URL", DEAD)
    configure(tmp_path, f"c.Facility.urls = ['{zoo.grpc}']")
    with eaf_inference.connect() as connection:
        assert "connection refused" in outcomes(connection)["EAF_TRITON_URL"]
        assert outcomes(connection)["facility configuration"] == "ready, 7 models"


def test_a_named_server_that_is_dead_is_not_replaced_by_another(zoo, monkeypatch):
    monkeypatch.setenv("EAF_TRITON_URL", zoo.grpc)
    with pytest.raises(NoServerFound, match=r"answers at grpc://127\.0\.0\.1:1: connection refused"):
        eaf_inference.connect(DEAD)


def test_silent_servers_are_given_up_side_by_side(zoo, black_hole, monkeypatch, tmp_path):
    host, _, port = black_hole.removeprefix("grpc://").rpartition(":")
    monkeypatch.setenv("EAF_TRITON_URL", ",".join([black_hole] * 5))
    monkeypatch.setenv("TRITON_SERVICE_HOST", host)
    monkeypatch.setenv("TRITON_SERVICE_PORT_GRPC", port)
    configure(tmp_path, f"c.Facility.urls = ['{zoo.grpc}']")
    with eaf_inference.connect(explain=True) as connection:
        assert connection.endpoint.source == "facility configuration"
        silent = [attempt for attempt in connection.attempts if attempt.outcome == "no answer in time"]
    assert len(silent) == 6
    assert sum(attempt.seconds for attempt in silent) > 2 * max(attempt.seconds for attempt in silent)


def test_a_server_whose_index_fails_is_saturated_and_passed_over(zoo, monkeypatch, tmp_path):
    class Saturated(Door):
        def service(self, details):
            if not details.method.endswith("RepositoryIndex"):
                return super().service(details)
            return grpc.unary_unary_rpc_method_handler(
                lambda _, context: context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many requests")
            )

    with door(zoo.grpc.removeprefix("grpc://"), handler=Saturated) as (_, port):
        monkeypatch.setenv("EAF_TRITON_URL", f"grpc://127.0.0.1:{port}")
        configure(tmp_path, f"c.Facility.urls = ['{zoo.grpc}']")
        with eaf_inference.connect() as connection:
            assert connection.endpoint.url == zoo.grpc
            assert "too many requests" in outcomes(connection)["EAF_TRITON_URL"]


def test_replicas_of_one_source_are_kept_and_the_healthy_come_first(zoo, monkeypatch):
    monkeypatch.setenv("EAF_TRITON_URL", f"{DEAD}, {zoo.grpc}")
    with eaf_inference.connect() as connection:
        assert connection.endpoint.urls == (zoo.grpc, DEAD)


def test_a_broken_configuration_is_named(monkeypatch, tmp_path):
    configure(tmp_path, "c.Facility.urls = nonsense")
    with pytest.raises(ConfigurationError, match=r"eaf_inference_config\.py cannot be read: NameError.*nonsense"):
        eaf_inference.connect()
    configure(tmp_path, "c.Facility.urls = 5")
    with pytest.raises(ConfigurationError, match=r"configuration .* is wrong: .*urls"):
        eaf_inference.connect()


def test_a_source_that_cannot_be_read_is_said_in_the_table(zoo, monkeypatch, tmp_path):
    monkeypatch.setenv("EAF_TRITON_URL", "http://triton.example.org")
    configure(tmp_path, f"c.Facility.urls = ['{zoo.grpc}']")
    with eaf_inference.connect() as connection:
        assert "this client speaks gRPC" in outcomes(connection)["EAF_TRITON_URL"]


def test_a_coffea_url_names_the_model_too(zoo):
    with eaf_inference.connect(f"triton+{zoo.grpc}/sums/1") as connection:
        model = connection.model()
        assert (model.name, model.spec.version) == ("sums", "1")


WEAK = ("TRITON_URL", "CMS SONIC", "Kubernetes service")


@pytest.fixture
def doors(zoo):
    """Two doors to the zoo that let in whoever has `TOKEN`; each with its URL."""
    with ExitStack() as stack:
        made = []
        for _ in range(2):
            handler, port = stack.enter_context(door(zoo.grpc.removeprefix("grpc://")))
            handler.tokens = {TOKEN: float("inf")}
            made.append((handler, f"grpc://127.0.0.1:{port}"))
        yield made


def name_weakly(monkeypatch, source, url):
    """Have a variable that is not of this package name a server."""
    host, _, port = url.removeprefix("grpc://").rpartition(":")
    variables = {
        "TRITON_URL": {"TRITON_URL": url},
        "CMS SONIC": {"SONIC_LOCAL_BALANCER_HOST": host, "SONIC_LOCAL_BALANCER_PORT": port},
        "Kubernetes service": {"TRITON_SERVICE_HOST": host, "TRITON_SERVICE_PORT_GRPC": port},
    }
    for name, value in variables[source].items():
        monkeypatch.setenv(name, value)


def test_the_chosen_server_alone_sees_the_token(doors, zoo, monkeypatch, tmp_path):
    (chosen, url), (other, other_url) = doors
    monkeypatch.setenv("EAF_TRITON_URL", url)
    configure(tmp_path, f"c.Facility.urls = ['{other_url}']")
    with eaf_inference.connect(token=TOKEN, explain=True) as connection:
        assert connection.endpoint.url == url
        assert connection.user == "alice"
        assert connection.model("sums")(ONES).tolist() == THREES.tolist()
        assert outcomes(connection)["EAF_TRITON_URL"] == "ready, 7 models"
        assert outcomes(connection)["facility configuration"].startswith("there, and wants a token")
    assert chosen.seen == {"", TOKEN}
    assert other.seen == {""}


def test_a_server_that_refuses_the_token_gives_way_to_the_next_one(doors, monkeypatch, tmp_path):
    (first, url), (_, other_url) = doors
    first.tokens = {"somebody's": float("inf")}
    monkeypatch.setenv("EAF_TRITON_URL", url)
    configure(tmp_path, f"c.Facility.urls = ['{other_url}']")
    with eaf_inference.connect(token=TOKEN) as connection:
        assert connection.endpoint.url == other_url
        assert outcomes(connection)["EAF_TRITON_URL"] == "it refuses your token: it has expired"


@pytest.mark.parametrize("source", WEAK)
def test_a_server_that_nobody_named_for_us_gets_no_token_without_a_word_from_the_user(doors, monkeypatch, source):
    (handler, url), _ = doors
    name_weakly(monkeypatch, source, url)
    with pytest.raises(NotAuthorized) as raised:
        eaf_inference.connect(token=TOKEN)
    assert f'%triton_connect {url} or connect("{url}")' in str(raised.value).splitlines()[0]
    assert f"{source} alone names it" in str(raised.value)
    assert handler.seen == {""}
    with eaf_inference.connect(url, token=TOKEN) as connection:
        assert connection.user == "alice"


@pytest.mark.parametrize("source", WEAK)
def test_a_server_that_nobody_named_for_us_and_that_wants_no_token_is_used_without_one(doors, monkeypatch, source):
    (handler, url), _ = doors
    handler.tokens = {}
    name_weakly(monkeypatch, source, url)
    with eaf_inference.connect(token=TOKEN) as connection:
        assert connection.model("sums")(ONES).tolist() == THREES.tolist()
        assert outcomes(connection)[source] == "ready, 7 models; your token is not sent there"
        assert (connection.user, connection.identity) == (None, "no token sent")
        handler.tokens = {TOKEN: float("inf")}
        with pytest.raises(NotAuthorized, match=f"No token is sent there.*%triton_connect {url}"):
            connection.names()
    assert handler.seen == {""}


def test_a_configured_server_is_preferred_to_one_that_wants_a_consent(doors, monkeypatch, tmp_path):
    (weak, url), (configured, configured_url) = doors
    name_weakly(monkeypatch, "TRITON_URL", url)
    configure(tmp_path, f"c.Facility.urls = ['{configured_url}']")
    with eaf_inference.connect(token=TOKEN) as connection:
        assert connection.endpoint.url == configured_url
        assert (
            f"yours is not sent. If you trust this server, name it yourself: %triton_connect {url}"
            in (outcomes(connection)["TRITON_URL"])
        )
    assert weak.seen == {""}
    assert TOKEN in configured.seen


def test_a_user_without_a_token_reads_that_one_is_wanted(doors, monkeypatch):
    (_, url), _ = doors
    name_weakly(monkeypatch, "TRITON_URL", url)
    with pytest.raises(NotAuthorized, match="wants a token, and none was sent. None was found in BEARER_TOKEN, "):
        eaf_inference.connect()


def test_a_token_that_comes_later_does_not_go_to_a_server_that_nobody_named_for_us(doors, monkeypatch, tmp_path):
    (handler, url), _ = doors
    handler.tokens = {}
    name_weakly(monkeypatch, "TRITON_URL", url)
    monkeypatch.setenv("BEARER_TOKEN_FILE", str(tmp_path / "token"))
    with eaf_inference.connect() as connection:
        (tmp_path / "token").write_text(TOKEN)
        handler.tokens = {TOKEN: float("inf")}
        with pytest.raises(NotAuthorized, match="No token is sent there"):
            connection.names()
    assert handler.seen == {""}


def test_a_planted_token_file_is_passed_over_and_said(doors, monkeypatch, tmp_path, caplog):
    (_, url), _ = doors
    os.mkfifo(tmp_path / f"bt_u{os.geteuid()}")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(
        NotAuthorized, match=rf"bt_u{os.geteuid()} is passed over: it is not a regular file"
    ) as raised:
        eaf_inference.connect(url)
    assert [each.outcome for each in raised.value.attempts][-1] == "passed over: it is not a regular file"
    assert "is passed over" in caplog.text


def test_a_planted_runtime_directory_is_said_and_keeps_nobody_from_a_server(zoo, monkeypatch, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "eaf-inference").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with eaf_inference.connect(zoo.grpc) as connection:
        assert connection.names()
    with pytest.raises(NoServerFound, match="eaf-inference cannot be used: it is a symbolic link"):
        eaf_inference.connect()
