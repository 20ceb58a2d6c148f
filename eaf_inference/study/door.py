"""The facility's door before simulated accelerators: Envoy as an operator's settings make it, and a token for it.

The token service is this process: it signs one token, and publishes the key on loopback for as long as it is needed.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import jwt
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from eaf_inference.envoy.configuration import configuration
from eaf_inference.envoy.settings import Envoy
from eaf_inference.facility.envoy import EnvoyServer
from eaf_inference.facility.ports import LOOPBACK
from eaf_inference.hub.keys import Key
from eaf_inference.policy import DEFAULT_TIER, TokenPolicy
from eaf_inference.study.load import Door

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from eaf_inference.facility.envoy import Place
    from eaf_inference.facility.triton import TritonServer

__all__ = ["door"]

_PATH = "/jwks.json"
_LIFETIME = 3600.0  # seconds: longer than the part of the study that needs it
# nothing of these is to limit what is measured
_SHARE = 100_000  # calls a second
_IN_FLIGHT = 10_000  # calls


@contextmanager
def door(
    tritons: Sequence[TritonServer], balancing: Mapping[str, Any], *, progress: Callable[[str], None]
) -> Iterator[Door]:
    """Run Envoy before these Tritons for the length of a `with` block; gives what gets a client through it.

    Parameters
    ----------
    balancing : mapping
        Settings of the section `Envoy` that say how requests find a Triton.
    """
    key = Key.new(time.time())
    with _published(key) as url:
        policy = TokenPolicy(jwks_url=url, lifetime=_LIFETIME)

        def configure(place: Place) -> Mapping[str, Any]:
            settings = Envoy(
                upstreams=[triton.grpc for triton in tritons],
                share=_SHARE,
                burst=_SHARE,
                tiers={DEFAULT_TIER: _IN_FLIGHT},
                max_streams=_IN_FLIGHT,
                max_uploads=_IN_FLIGHT,
                **balancing,
                **asdict(place),
            )
            return configuration(settings, policy)

        with EnvoyServer.start(configure, progress=progress) as envoy:
            yield Door(envoy.url.partition("://")[2], envoy.authority, _token(key, policy))


def _token(key: Key, policy: TokenPolicy) -> str:
    now = int(time.time())
    claims = {"iss": policy.issuer, "aud": policy.audience, "sub": "study", "iat": now}
    claims |= {"exp": now + int(policy.lifetime), "tier": DEFAULT_TIER}
    return jwt.encode(claims, key.private, algorithm="EdDSA", headers={"kid": key.kid})


class _Keys(RequestHandler):
    def initialize(self, keys: list[dict[str, str]]) -> None:
        self.keys = keys

    def get(self) -> None:
        """Give the public keys."""
        self.write({"keys": self.keys})


@contextmanager
def _published(key: Key) -> Iterator[str]:
    """Answer whoever asks for the public key, from a thread of its own; gives the URL."""
    sockets = bind_sockets(0, LOOPBACK)
    application = Application([(_PATH, _Keys, {"keys": [key.public]})], log_function=lambda _: None)
    loop, ended = asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        server = HTTPServer(application)
        server.add_sockets(sockets)
        try:
            await ended.wait()
        finally:
            server.stop()
            await server.close_all_connections()

    def run() -> None:
        loop.run_until_complete(serve())
        loop.close()

    thread = threading.Thread(target=run, name="eaf-inference-study-keys", daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{sockets[0].getsockname()[1]}{_PATH}"
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
