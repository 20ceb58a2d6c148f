"""A stand-in for the token service as Envoy sees it: it signs tokens, publishes keys, and fails on demand."""

from __future__ import annotations

import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

if TYPE_CHECKING:
    import ssl

PATH = "/services/triton-token/.well-known/jwks.json"
LIVES = 600


class Issuer:
    """Signs with its newest key; a context manager that publishes the keys.

    `tls` is a server's context, for https; `url` is where the keys are.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self._keys: dict[str, Ed25519PrivateKey] = {}
        self.rotate()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}{PATH}"

    def rotate(self, *, forget: bool = False) -> None:
        """Sign with a new key from now on."""
        if forget:
            self._keys.clear()
        self._keys[f"key-{secrets.token_hex(4)}"] = Ed25519PrivateKey.generate()

    def token(self, user: str | None = "alice", *, age: float = 0, lives: float = LIVES, **claims) -> str:
        """Return a token for this user; claims that are None are left out."""
        kid, key = list(self._keys.items())[-1]
        issued = int(time.time() - age)
        whole = {"sub": user, "aud": "triton", "iss": "eaf-inference", "iat": issued, "exp": issued + int(lives)}
        whole |= {"jti": secrets.token_hex(8), "tier": "interactive"} | claims
        return jwt.encode(
            {name: value for name, value in whole.items() if value is not None},
            key,
            algorithm="EdDSA",
            headers={"kid": kid},
        )

    def keys(self) -> dict:
        algorithm = jwt.algorithms.OKPAlgorithm
        return {
            "keys": [
                algorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": kid, "use": "sig", "alg": "EdDSA"}
                for kid, key in self._keys.items()
            ]
        }

    def open(self) -> None:
        """Publish the keys, always on the same port."""
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                body = json.dumps(issuer.keys()).encode()
                self.send_response(200 if self.path == PATH else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                """Log nothing."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_):
                """Ignore a client that did not trust the certificate."""

        self._server = Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        if self._tls:
            self._server.socket = self._tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Stop publishing."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Issuer:
        self.open()
        return self

    def __exit__(self, *_) -> None:
        self.close()
