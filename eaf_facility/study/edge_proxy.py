"""The facility's edge proxy in front of simulated accelerators: Envoy with an operator's settings, and a token.

This process stands in for the token service: it signs one token and serves the public key on loopback.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from eaf_facility.envoy.configuration import configuration
from eaf_facility.envoy.settings import Envoy
from eaf_facility.hub.keys import Key
from eaf_facility.hub.tokens import signed_token
from eaf_facility.process.ports import LOOPBACK
from eaf_facility.servers.envoy import EnvoyServer
from eaf_facility.study.simulated_workers import EdgeProxy
from eaf_facility.token_policy import DEFAULT_TIER, TokenPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from eaf_facility.servers.envoy import Place
    from eaf_facility.servers.triton import TritonServer

__all__ = ["edge_proxy"]

_PATH = "/jwks.json"
_LIFETIME = 3600.0  # seconds, longer than part 3 of the study
# too high to limit what is measured
_SHARE = 100_000  # calls per second
_IN_FLIGHT = 10_000  # calls


@contextmanager
def edge_proxy(
    tritons: Sequence[TritonServer], balancing: Mapping[str, Any], *, progress: Callable[[str], None]
) -> Iterator[EdgeProxy]:
    """Run Envoy in front of these Tritons for the length of a `with` block; yield its address and a valid token.

    Parameters
    ----------
    balancing : mapping
        Settings of the section `Envoy` that choose a Triton for each request.
    """
    key = Key.new(time.time())
    with _published_key(key) as url:
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
            token = signed_token(key, policy, user="study", tier=DEFAULT_TIER, jti="study")
            yield EdgeProxy(envoy.url.partition("://")[2], envoy.authority, token)


class _Keys(RequestHandler):
    def initialize(self, keys: list[dict[str, str]]) -> None:
        self.keys = keys

    def get(self) -> None:
        """Answer with the public keys."""
        self.write({"keys": self.keys})


@contextmanager
def _published_key(key: Key) -> Iterator[str]:
    """Serve the public key from a thread of its own; yield its URL."""
    sockets = bind_sockets(0, LOOPBACK)
    application = Application([(_PATH, _Keys, {"keys": [key.public]})], log_function=lambda _: None)
    loop, stopped = asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        server = HTTPServer(application)
        server.add_sockets(sockets)
        try:
            await stopped.wait()
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
        loop.call_soon_threadsafe(stopped.set)
        thread.join()
