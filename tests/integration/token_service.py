"""A stand-in for the facility's token service that also dies or stays silent on demand.

It shares its tokens with the edge proxy: each token it issues is valid there.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tokens import MARK, make_token

HUB_TOKEN = f"hub-{MARK}"


class TokenServer(ThreadingHTTPServer):
    """The service; its behaviour can be changed while it runs.

    Attributes
    ----------
    lives : float
        Seconds of a token's life.
    given : list
        The tokens it gave, in order.
    facility : dict
        The settings in its facility document; `documents` counts the requests for it.
    usage : dict, tuple or None
        Its reply about usage, or a status and a reply, or None if it publishes none; `told` counts the requests.
    answers : threading.Event
        While it is set, the service answers.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int, tokens: dict[str, float], lives: float) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.tokens, self.lives = tokens, lives
        self.given: list[str] = []
        self.facility: dict = {}
        self.documents = 0
        self.usage: dict | tuple[int, dict] | None = None
        self.told = 0
        self.answers = threading.Event()
        self.answers.set()

    def handle_error(self, *_):
        """Ignore a client that gave up waiting for the reply."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: TokenServer

    def do_POST(self):
        if not self._admits("/token"):
            return
        token = make_token(lives=self.server.lives)
        self.server.tokens[token] = time.time() + self.server.lives
        self.server.given.append(token)
        self._say({"access_token": token, "token_type": "Bearer", "expires_in": self.server.lives})

    def do_GET(self):
        if self.path.startswith("/usage"):
            self._tell_usage()
        elif self._admits("/facility.json"):
            self.server.documents += 1
            self._say({"facility": self.server.facility})

    def _tell_usage(self):
        if self._admits("/usage?since=1d"):
            self.server.told += 1
            usage = self.server.usage
            if usage is None:
                usage = 404, {"error": "not_offered", "message": "This facility does not record usage."}
            status, reply = usage if isinstance(usage, tuple) else (200, usage)
            self._say(reply, status)

    def _admits(self, path):
        self.server.answers.wait()
        if self.path != path or self.headers["Authorization"] != f"token {HUB_TOKEN}":
            self.send_error(403)
            return False
        return True

    def _say(self, reply, status=200):
        body = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Log nothing."""


@contextmanager
def token_service(tokens: dict[str, float], *, lives: float = 600, port: int = 0):
    server = TokenServer(port, tokens, lives)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.answers.set()
        server.shutdown()
        thread.join()
        server.server_close()
