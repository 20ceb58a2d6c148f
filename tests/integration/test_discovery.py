"""Discovery: finding a Triton without a given address."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack

import grpc
import pytest
from dask_facility import ONES, THREES
from edge_proxy import EdgeProxy, edge_proxy
from tokens import make_token

import eaf_inference
from eaf_inference.discovery.local_facility import LocalFacility, Replica, announced
from eaf_inference.errors import ConfigurationError, NoServerFound, NotAuthorized

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
    """Connect, and return the source that named the zoo."""

    def find(**options):
        with eaf_inference.connect(**options) as connection:
            assert connection.endpoint.url == zoo.grpc
            return connection.endpoint.source

    return find


def test_every_source_finds_the_server_and_earlier_ones_win(zoo, found, monkeypatch, tmp_path):
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


def test_a_dead_source_is_skipped_and_listed(zoo, monkeypatch, tmp_path):
    monkeypatch.setenv("EAF_TRITON_URL", DEAD)
    configure(tmp_path, f"c.Facility.urls = ['{zoo.grpc}']")
    with eaf_inference.connect() as connection:
        assert "connection refused" in outcomes(connection)["EAF_TRITON_URL"]
        assert outcomes(connection)["facility configuration"] == "ready, 7 models"


def test_a_named_server_that_is_dead_is_not_replaced_by_another(zoo, monkeypatch):
    monkeypatch.setenv("EAF_TRITON_URL", zoo.grpc)
    with pytest.raises(NoServerFound, match=r"answers at grpc://127\.0\.0\.1:1: connection refused"):
        eaf_inference.connect(DEAD)


def test_silent_servers_time_out_in_parallel(zoo, black_hole, monkeypatch, tmp_path):
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


def test_a_server_whose_index_fails_is_skipped_as_saturated(zoo, monkeypatch, tmp_path):
    class Saturated(EdgeProxy):
        def service(self, details):
            if not details.method.endswith("RepositoryIndex"):
                return super().service(details)
            return grpc.unary_unary_rpc_method_handler(
                lambda _, context: context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many requests")
            )

    with edge_proxy(zoo.grpc.removeprefix("grpc://"), handler=Saturated) as (_, port):
        monkeypatch.setenv("EAF_TRITON_URL", f"grpc://127.0.0.1:{port}")
        configure(tmp_path, f"c.Facility.urls = ['{zoo.grpc}']")
        with eaf_inference.connect() as connection:
            assert connection.endpoint.url == zoo.grpc
            assert "too many requests" in outcomes(connection)["EAF_TRITON_URL"]


def test_healthy_replicas_of_a_source_come_first(zoo, monkeypatch):
    monkeypatch.setenv("EAF_TRITON_URL", f"{DEAD}, {zoo.grpc}")
    with eaf_inference.connect() as connection:
        assert connection.endpoint.urls == (zoo.grpc, DEAD)


def test_an_error_names_the_broken_configuration(monkeypatch, tmp_path):
    configure(tmp_path, "c.Facility.urls = nonsense")
    with pytest.raises(ConfigurationError, match=r"eaf_inference_config\.py cannot be read: NameError.*nonsense"):
        eaf_inference.connect()
    configure(tmp_path, "c.Facility.urls = 5")
    with pytest.raises(ConfigurationError, match=r"configuration .* is wrong: .*urls"):
        eaf_inference.connect()


def test_an_unreadable_source_is_listed_in_the_table(zoo, monkeypatch, tmp_path):
    monkeypatch.setenv("EAF_TRITON_URL", "http://triton.example.org")
    configure(tmp_path, f"c.Facility.urls = ['{zoo.grpc}']")
    with eaf_inference.connect() as connection:
        assert "this client speaks gRPC" in outcomes(connection)["EAF_TRITON_URL"]


def test_a_coffea_url_also_names_the_model(zoo):
    with eaf_inference.connect(f"triton+{zoo.grpc}/sums/1") as connection:
        model = connection.model()
        assert (model.name, model.spec.version) == ("sums", "1")


WEAK = ("TRITON_URL", "CMS SONIC", "Kubernetes service")


@pytest.fixture
def proxies(zoo):
    """Two edge proxies for the zoo that accept `TOKEN`, each with its URL."""
    with ExitStack() as stack:
        made = []
        for _ in range(2):
            handler, port = stack.enter_context(edge_proxy(zoo.grpc.removeprefix("grpc://")))
            handler.tokens = {TOKEN: float("inf")}
            made.append((handler, f"grpc://127.0.0.1:{port}"))
        yield made


def name_weakly(monkeypatch, source, url):
    """Name a server in a variable that other software reads too."""
    host, _, port = url.removeprefix("grpc://").rpartition(":")
    variables = {
        "TRITON_URL": {"TRITON_URL": url},
        "CMS SONIC": {"SONIC_LOCAL_BALANCER_HOST": host, "SONIC_LOCAL_BALANCER_PORT": port},
        "Kubernetes service": {"TRITON_SERVICE_HOST": host, "TRITON_SERVICE_PORT_GRPC": port},
    }
    for name, value in variables[source].items():
        monkeypatch.setenv(name, value)


def test_only_the_chosen_server_gets_the_token(proxies, zoo, monkeypatch, tmp_path):
    (chosen, url), (other, other_url) = proxies
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


def test_the_next_server_is_chosen_if_one_refuses_the_token(proxies, monkeypatch, tmp_path):
    (first, url), (_, other_url) = proxies
    first.tokens = {"somebody's": float("inf")}
    monkeypatch.setenv("EAF_TRITON_URL", url)
    configure(tmp_path, f"c.Facility.urls = ['{other_url}']")
    with eaf_inference.connect(token=TOKEN) as connection:
        assert connection.endpoint.url == other_url
        assert outcomes(connection)["EAF_TRITON_URL"] == "it refuses your token: it has expired"


@pytest.mark.parametrize("source", WEAK)
def test_a_guessed_server_gets_no_token_without_the_users_consent(proxies, monkeypatch, source):
    (handler, url), _ = proxies
    name_weakly(monkeypatch, source, url)
    with pytest.raises(NotAuthorized) as raised:
        eaf_inference.connect(token=TOKEN)
    assert f'%triton_connect {url} or connect("{url}")' in str(raised.value).splitlines()[0]
    assert f"only {source} names it" in str(raised.value)
    assert handler.seen == {""}
    with eaf_inference.connect(url, token=TOKEN) as connection:
        assert connection.user == "alice"


@pytest.mark.parametrize("source", WEAK)
def test_a_guessed_server_that_needs_no_token_is_used_without_one(proxies, monkeypatch, source):
    (handler, url), _ = proxies
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


def test_a_configured_server_is_preferred_to_one_that_needs_consent(proxies, monkeypatch, tmp_path):
    (weak, url), (configured, configured_url) = proxies
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


def test_a_user_without_a_token_learns_that_one_is_required(proxies, monkeypatch):
    (_, url), _ = proxies
    name_weakly(monkeypatch, "TRITON_URL", url)
    with pytest.raises(NotAuthorized, match="requires a token, and none was sent. None was found in BEARER_TOKEN, "):
        eaf_inference.connect()


def test_a_later_token_is_not_sent_to_a_guessed_server(proxies, monkeypatch, tmp_path):
    (handler, url), _ = proxies
    handler.tokens = {}
    name_weakly(monkeypatch, "TRITON_URL", url)
    monkeypatch.setenv("BEARER_TOKEN_FILE", str(tmp_path / "token"))
    with eaf_inference.connect() as connection:
        (tmp_path / "token").write_text(TOKEN)
        handler.tokens = {TOKEN: float("inf")}
        with pytest.raises(NotAuthorized, match="No token is sent there"):
            connection.names()
    assert handler.seen == {""}


def test_a_planted_token_file_is_ignored_and_listed(proxies, monkeypatch, tmp_path, caplog):
    (_, url), _ = proxies
    os.mkfifo(tmp_path / f"bt_u{os.geteuid()}")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(NotAuthorized, match=rf"bt_u{os.geteuid()} was ignored: it is not a regular file") as raised:
        eaf_inference.connect(url)
    assert [each.outcome for each in raised.value.attempts][-1] == "ignored: it is not a regular file"
    assert "is ignored" in caplog.text


def test_a_planted_runtime_directory_is_listed_but_does_not_block(zoo, monkeypatch, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "eaf-inference").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with eaf_inference.connect(zoo.grpc) as connection:
        assert connection.names()
    with pytest.raises(NoServerFound, match="eaf-inference cannot be used: it is a symbolic link"):
        eaf_inference.connect()
