"""A hostile server can only cause an error, within bounds of memory and time."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import socketserver
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import pytest
from hostile import field, hostile

import eaf_inference
from eaf_inference.cli import main
from eaf_inference.errors import BadReply, InferenceError, NoServerFound, ServerUnavailable
from eaf_inference.inference import protocol

NOTHING = {"x": np.zeros((4, 2, 8), np.float32)}
MEBIBYTE = 1 << 20


@pytest.fixture
def server():
    with hostile() as (handler, url):
        yield handler, url


def compressed(content):
    """Answer in gzip, whether or not the client accepts it."""

    def answer(_request, context):
        context.set_compression(grpc.Compression.Gzip)
        return content

    return answer


def plain(content):
    return lambda _request, _context: content


LONG = b"\0" * (96 * MEBIBYTE)
NOT_TAKEN = "is compressed|is not an inference reply|are not a"  # gRPC ends the call, or passes compressed bytes on
# Name -> what the client does, the method that misbehaves and its answer, a part of the error, and the most megabytes
# that all attacks so far may have taken.
ATTACKS = {
    "a compressed configuration": ("model", "ModelConfig", compressed(field(1, field(1, LONG))), NOT_TAKEN, 50),
    "a long configuration": ("model", "ModelConfig", plain(field(1, field(1, LONG))), "at most 8 MiB are read", 50),
    "a compressed index": ("models", "RepositoryIndex", compressed(field(1, field(1, LONG))), NOT_TAKEN, 50),
    "long statistics": ("models", "ModelStatistics", plain(field(1, field(1, LONG))), "at most 8 MiB are read", 50),
    "compressed scores": ("scores", "ModelInfer", compressed(field(6, LONG)), NOT_TAKEN, 50),
    "long scores": ("scores", "ModelInfer", plain(field(6, 3 * LONG)), "of scores 256 MiB", 50),
    "scores of many parts": (
        "scores",
        "ModelInfer",
        plain(field(5, b"") * (8 * MEBIBYTE)),
        "at most 4,096 parts",
        100,
    ),
    "scores of many axes": ("scores", "ModelInfer", plain(field(5, field(3, LONG[: 16 * MEBIBYTE]))), "1 MiB", 100),
    "an index of many models": (
        *("models", "RepositoryIndex", plain(field(1, b"") * (4 * MEBIBYTE - 1))),
        *("4,194,303 versions of models; at most 10,000 are read", 600),
    ),
    "a configuration of many inputs": (
        *("model", "ModelConfig", plain(field(1, field(1, b"jets") + field(5, b"") * (4 * MEBIBYTE - 10)))),
        *("4,194,294 inputs; 1 to 1,000 are supported", 600),
    ),
}


def test_no_hostile_answer_exhausts_the_memory(server):
    handler, url = server
    client = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("measured_client.py"), url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with client:
        assert json.loads(client.stdout.readline()) == "ready"
        for name, (look, method, answer, why, most) in ATTACKS.items():
            handler.answers = {method: answer}
            client.stdin.write(f"{look}\n")
            client.stdin.flush()
            said = json.loads(client.stdout.readline())
            assert said["error"] in ("BadReply", "ConfigurationError"), (name, said)
            assert re.search(why, said["message"]), (name, said)
            assert url in said["message"] or "'jets'" in said["message"], (name, said)
            assert said["megabytes"] < most, (name, said)
        client.stdin.close()


# Control characters that move a terminal's cursor, change its title, or reorder its text.
ESCAPES = "x\x1b[2J\x1b]0;owned\x07\r\u202ey"


def unready(_request, _context):
    answer = protocol.RepositoryIndexResponse()
    answer.models.add(name=f"a{ESCAPES}", version=f"1{ESCAPES}", state=f"UNAVAILABLE{ESCAPES}")
    answer.models.add(name="b", version=f"2{ESCAPES}", state="UNAVAILABLE", reason=f"because{ESCAPES}")
    return answer.SerializeToString()


def aborted(_request, context, *, status=grpc.StatusCode.UNAVAILABLE):
    context.abort(status, f"no{ESCAPES}")


def assert_harmless(text):
    assert text
    assert all(line.isprintable() for line in text.split("\n")), text


def test_a_servers_names_and_reasons_are_harmless_to_terminal_and_page(server):
    handler, url = server
    with eaf_inference.connect(url) as connection:
        handler.answers["RepositoryIndex"] = unready
        models = connection.models()
        assert_harmless(str(models))
        assert_harmless(models._repr_html_())
        assert "a" + ESCAPES in [row.name for row in models]  # unchanged, for programs
        for name in ("a", "b", "a" + ESCAPES, ESCAPES):
            with pytest.raises(InferenceError) as caught:
                connection.model(name)
            assert_harmless(str(caught.value))


def test_a_servers_complaints_are_harmless_to_terminal_and_log(server, caplog):
    handler, url = server
    with eaf_inference.connect(url, timeout=0.5) as connection, caplog.at_level("DEBUG", "eaf_inference"):
        handler.answers["ModelConfig"] = aborted
        with pytest.raises(ServerUnavailable, match='it says "nox') as caught:
            connection.model("jets")
    assert_harmless(str(caught.value))
    assert_harmless(caught.value.reason)
    assert len(caplog.messages) > 1
    for message in caplog.messages:
        assert_harmless(message)


def test_a_models_own_names_are_harmless_to_terminal_and_page(server):
    handler, url = server

    def unshowable(request, _context):
        answer = handler.ModelConfig(request)
        answer.config.output[0].name += ESCAPES
        answer.config.parameters["labels"].string_value = json.dumps({f"y{ESCAPES}": ["a", f"b{ESCAPES}"]})
        return answer.SerializeToString()

    handler.answers["ModelConfig"] = unshowable
    with eaf_inference.connect(url) as connection:
        model = connection.model("jets")
        for shown in (repr(model), model._repr_html_(), str(connection.models()), connection.models()._repr_html_()):
            assert_harmless(shown)
            assert r"yx\x1b[2J" in shown


@pytest.mark.parametrize("command", ["doctor", "usage"])
def test_commands_print_a_servers_complaints_without_harm(server, monkeypatch, capsys, command):
    handler, url = server
    for method in ("RepositoryIndex", "ModelMetadata", "ModelConfig"):
        handler.answers[method] = partial(aborted, status=grpc.StatusCode.PERMISSION_DENIED)
    monkeypatch.setenv("EAF_TRITON_URL", url)
    if command == "doctor":
        main(["doctor"])
    else:
        with answering(json.dumps({"status": "error", "error": ESCAPES}).encode()) as prometheus:
            assert main(["usage", "--prometheus", prometheus]) == 1
    said = capsys.readouterr()
    assert_harmless(said.out + said.err)
    assert r"\x1b" in said.out + said.err


def test_a_configuration_of_another_model_is_refused(server):
    handler, url = server

    def other(request, _context):
        request.name = "other"
        return handler.ModelConfig(request).SerializeToString()

    handler.answers["ModelConfig"] = other
    refused = pytest.raises(BadReply, match="asked for the configuration of model 'jets' and sent that of 'other'")
    with eaf_inference.connect(url) as connection, refused:
        connection.model("jets")


def test_names_have_a_bounded_length(server):
    handler, url = server

    def long(_request, _context):
        answer = protocol.RepositoryIndexResponse()
        answer.models.add(name="x" * MEBIBYTE, version="1", state="READY")
        return answer.SerializeToString()

    with eaf_inference.connect(url) as connection:
        handler.answers["RepositoryIndex"] = long
        for look in (connection.models, lambda: connection.model("jets"), connection.names):
            with pytest.raises(BadReply, match=rf"repository index of {url} .* name of 1,048,576 characters"):
                look()


def test_bytes_that_are_no_message_are_a_bad_reply_without_a_log(server, capfd):
    handler, url = server
    with eaf_inference.connect(url) as connection:
        model = connection.model("jets")
        handler.answers = dict.fromkeys(["ModelConfig", "ModelInfer", "RepositoryIndex"], plain(b"\x0f\xff" * 9))
        for look in (connection.models, lambda: connection.model("jets"), lambda: model(NOTHING)):
            with pytest.raises(BadReply, match=f"{url} sent"):
                look()
    assert "Traceback" not in capfd.readouterr().err


def test_listing_many_models_ends_in_time(server):
    handler, url = server
    number = 400
    enough = threading.Event()

    def many(_request, _context):
        answer = protocol.RepositoryIndexResponse()
        for position in range(number):
            answer.models.add(name=f"m{position}", version="1", state="READY")
        return answer.SerializeToString()

    def slow(request, _context):
        enough.wait(0.4)
        return handler.ModelConfig(request).SerializeToString()

    with eaf_inference.connect(url, timeout=0.5) as connection:
        handler.answers = {"RepositoryIndex": many, "ModelConfig": slow}
        with pytest.raises(ServerUnavailable, match="within the time budget: no answer in time"):
            connection.models()
        enough.set()
    assert handler.calls.count("ModelConfig") < number / 2  # with a timeout per call, all would have been answered


def test_the_waits_for_silent_replicas_do_not_add_up(server):
    handler, url = server
    released = threading.Event()

    def silent(_request, _context):
        released.wait(60)
        return b""

    with eaf_inference.connect([url] * 12, timeout=1.0) as connection:
        handler.answers["RepositoryIndex"] = silent
        started = time.monotonic()
        with pytest.raises(ServerUnavailable, match="no answer in time"):
            connection.model("jets")
        took = time.monotonic() - started
        released.set()
    assert took < 10  # a generous multiple of 1 s; with a timeout per replica it was 24 s


SETTINGS, LONG_SETTINGS = b"\0\0\0\4\0\0\0\0\0", b"\0\x3f\xfc\4\0\0\0\0\0"
LONG_DATA = b"\0\x3f\xff\0\0\0\0\0\1"


@pytest.mark.parametrize("greeting", [LONG_SETTINGS, SETTINGS + LONG_DATA], ids=["its settings", "its answer"])
def test_a_dripping_server_is_abandoned_in_time(greeting):
    with trickling(greeting) as url:
        started = time.monotonic()
        with pytest.raises(NoServerFound, match="no answer in time"):
            eaf_inference.connect(url, timeout=1.0)
        assert time.monotonic() - started < 20


@contextmanager
def trickling(greeting):
    """Run a server that sends one more byte of an HTTP/2 frame every 50 ms, for ever."""
    ended = threading.Event()

    class Trickle(socketserver.BaseRequestHandler):
        def handle(self):
            with contextlib.suppress(OSError):
                self.request.sendall(greeting)
                while not ended.wait(0.05):
                    self.request.sendall(b"\0")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Trickle) as listening:
        listening.daemon_threads = True
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"grpc://127.0.0.1:{listening.server_address[1]}"
        finally:
            ended.set()
            listening.shutdown()
            thread.join()


@contextmanager
def answering(body):
    """Run an HTTP server with one answer to everything, and give its URL."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_address[1]}"
        finally:
            listening.shutdown()
            thread.join()
