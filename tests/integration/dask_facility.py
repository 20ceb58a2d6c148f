"""A facility for tests of Dask clusters: an edge proxy that requires tokens, their issuer, a real gateway."""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from dask_gateway import BasicAuth, Gateway
from edge_proxy import EdgeProxy, edge_proxy
from token_service import TokenServer, token_service

ONES = {"x": np.ones((4, 2, 3), np.float32)}
THREES = np.full((4, 2), 3, np.float32)


def typed_in_a_notebook(function):
    """Make a function travel by value, because workers do not have this file."""
    function.__module__ = "__main__"
    return function


@typed_in_a_notebook
def classify(inputs):
    """Classify jets, as a user's task does."""
    import eaf_inference

    return eaf_inference.connect().model("sums")(inputs)


@typed_in_a_notebook
async def holds(condition: str, timeout: float = 20.0, **names) -> bool:
    """Run on a worker: wait until the condition on its values is true."""
    import asyncio
    import time

    ends = time.monotonic() + timeout
    while "_eaf_inference_held" not in sys.modules and time.monotonic() < ends:  # no plugin has arrived yet
        await asyncio.sleep(0.05)
    state = sys.modules["_eaf_inference_held"].held
    holds_now = lambda: eval(condition, names, {"values": state.values})  # noqa: E731, S307
    return await asyncio.to_thread(state.wait_until, holds_now, timeout)


def all_hold(client, condition: str, **names) -> bool:
    found = client.run(holds, condition, **names)
    return bool(found) and all(found.values())


def all_hold_a_token_since(client, issued: float) -> bool:
    return all_hold(client, "values and values['issued'] >= issued", issued=issued)


@typed_in_a_notebook
def issue_time() -> float:
    return sys.modules["_eaf_inference_held"].held.values["issued"]


@typed_in_a_notebook
def meet_a_refusal() -> None:
    state = sys.modules["_eaf_inference_held"].held
    state.refuse(state.values["issued"])


def eventually(read, accept, timeout: float = 20.0):
    """Return the first acceptable reading. For values that arrive with heartbeats, for which there is no event."""
    ends = time.monotonic() + timeout
    while not accept(found := read()):
        assert time.monotonic() < ends, found
    return found


@dataclass
class Facility:
    """An edge proxy that requires tokens, the service that issues them, and a gateway."""

    edge_proxy: EdgeProxy
    url: str
    service: TokenServer
    gateway_url: str
    password: str

    def gateway(self) -> Gateway:
        return Gateway(self.gateway_url, auth=BasicAuth("alice", self.password))

    @contextmanager
    def cluster(self, workers: int = 1):
        with self.gateway() as gateway, gateway.new_cluster() as cluster:
            cluster.scale(workers)
            yield cluster


@contextmanager
def facility_of(zoo, gateway_server, directory):
    """Run a facility, with its configuration in this Jupyter configuration directory."""
    with edge_proxy(zoo.grpc.removeprefix("grpc://")) as (handler, port):
        handler.tokens = {"nobody": 0.0}
        with token_service(handler.tokens, lives=600.0) as service:
            url = f"grpc://127.0.0.1:{port}"
            directory.mkdir()
            settings = {"Facility": {"urls": [url], "token_service": service.url}}
            (directory / "eaf_inference_config.json").write_text(json.dumps(settings))
            password = gateway_server.password_file.read_text()
            yield Facility(handler, url, service, gateway_server.address, password)
