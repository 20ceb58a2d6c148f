"""What an operator may set of the door: the section `Envoy` of the facility's configuration."""

from __future__ import annotations

import ipaddress
import re
from typing import Any
from urllib.parse import urlsplit

from traitlets import Bool, Dict, Float, Int, List, TraitError, Unicode, validate
from traitlets.config import Configurable

from eaf_inference.config import Address, parse_urls
from eaf_inference.errors import ConfigurationError
from eaf_inference.policy import DEFAULT_TIER

__all__ = ["Envoy", "check"]

_MEBIBYTE = 1024 * 1024
_NAME = re.compile(r"[\w.+-]+", re.ASCII)
_LIMITS = {
    # setting → least and greatest
    "port": (1, 65535),
    "admin_port": (1, 65535),
    "metrics_port": (0, 65535),
    "share": (1, 100_000),
    "burst": (0, 10_000_000),
    "probes": (1, 100_000),
    "spill": (1.0, 10.0),
    "largest_request": (4096, 1024 * _MEBIBYTE),
    "max_connections": (1, 1_000_000),
    "max_streams": (1, 10_000),
    "max_uploads": (1, 10_000),
    "idle_timeout": (1.0, 86_400.0),
    "handshake_timeout": (0.1, 600.0),
    "request_timeout": (1.0, 86_400.0),
    "memory": (64 * _MEBIBYTE, 1 << 40),
}


class Envoy(Configurable):
    """The door in front of the Tritons: who may come in, how much each may have, and where it is written down."""

    upstreams = List(
        Unicode(),
        help="The Tritons' own gRPC addresses (grpc://host:port), which only the door should reach. A name with "
        "several addresses, such as a headless service's, stands for all of them.",
    ).tag(config=True)
    address = Unicode("0.0.0.0", help="The address it listens on.").tag(config=True)  # noqa: S104 - it is the door
    port = Int(8001, help="The port it listens on.").tag(config=True)
    certificate = Unicode(help="PEM file of its TLS certificate, with the chain.").tag(config=True)
    key = Unicode(help="PEM file of that certificate's key.").tag(config=True)
    behind_tls = Bool(
        False,  # noqa: FBT003  (traitlets takes its default by position)
        help="TLS ends before it, at an ingress: it has no certificate, and listens unencrypted.",
    ).tag(config=True)
    share = Int(100, help="Calls a second that each user may make.").tag(config=True)
    burst = Int(
        0,
        help="Calls that a user who was quiet may make at once; 0: those of a quarter of a second.",
    ).tag(config=True)
    probes = Int(
        200, help="Calls a second without a token that each address may make, and five times as many at once."
    ).tag(config=True)
    tiers = Dict(
        value_trait=Int(),
        key_trait=Unicode(),
        default_value={DEFAULT_TIER: 256, "batch": 64},
        help=f"Tier of a token -> calls of that tier in flight. {DEFAULT_TIER!r} is also for tokens of other tiers.",
    ).tag(config=True)
    models = List(
        Unicode(),
        help="Models whose failures are counted by name; those of other names are counted together, since anybody "
        "can ask for any name.",
    ).tag(config=True)
    affinity = Bool(
        False,  # noqa: FBT003
        help="Requests for one model meet on one Triton, instead of going where the least is to do.",
    ).tag(config=True)
    spill = Float(
        1.3, help="With affinity: a Triton with more than so many times the average load hands on to the next."
    ).tag(config=True)
    largest_request = Int(
        64 * _MEBIBYTE, help="Bytes of the largest request. More than a quarter of `memory` does not count."
    ).tag(config=True)
    max_connections = Int(4096, help="Connections at the same time.").tag(config=True)
    max_streams = Int(32, help="Calls at the same time on one connection.").tag(config=True)
    max_uploads = Int(
        16,
        help="Requests that each user may be sending at the same time, on each of Envoy's worker threads. One that "
        "is complete no longer counts.",
    ).tag(config=True)
    idle_timeout = Float(300.0, help="Seconds after which a connection without a call is closed.").tag(config=True)
    handshake_timeout = Float(
        10.0, help="Seconds for TLS, for a call's headers, and for a whole call of those that need no token."
    ).tag(config=True)
    request_timeout = Float(120.0, help="Seconds in which a whole request must have come.").tag(config=True)
    memory = Int(
        2048 * _MEBIBYTE,
        help="Bytes of heap near which the largest calls are ended, and then new ones refused, so that it lives on. "
        "The process takes about 70 MiB more.",
    ).tag(config=True)
    jwks_ca = Unicode(
        "/etc/ssl/certs/ca-certificates.crt",
        help="PEM file of the authorities that `TokenPolicy.jwks_url` is verified against, where that is https.",
    ).tag(config=True)
    admin_port = Int(9901, help="Port of Envoy's own administration, always on loopback.").tag(config=True)
    metrics_address = Unicode("127.0.0.1", help="The address that `metrics_port` is on.").tag(config=True)
    metrics_port = Int(
        0,
        help="Where Prometheus on another machine reads the counters, /stats/prometheus, and can reach nothing else "
        "of the administration; 0: nowhere.",
    ).tag(config=True)
    access_log = Unicode("/dev/stdout", help="File of the access log, one JSON object a call.").tag(config=True)

    @property
    def largest_body(self) -> int:
        """Bytes of the largest request, which takes twice its size of `memory` on its way to a Triton."""
        return min(self.largest_request, self.memory // 4)

    @validate(*_LIMITS)
    def _is_within(self, proposal: dict[str, Any]) -> float:
        name, value = proposal["trait"].name, proposal["value"]
        least, most = _LIMITS[name]
        if not least <= value <= most:
            raise TraitError(f"Envoy.{name} is {value}. Expected a number from {least} to {most}.")
        return value  # type: ignore[no-any-return]

    @validate("address", "metrics_address")
    def _is_an_address(self, proposal: dict[str, Any]) -> str:
        text = str(proposal["value"])
        try:
            ipaddress.ip_address(text)
        except ValueError as error:
            raise TraitError(
                f"Envoy.{proposal['trait'].name} is {text!r}. Expected an IP address of this machine: 0.0.0.0, …"
            ) from error
        return text

    @validate("models")
    def _are_names(self, proposal: dict[str, Any]) -> list[str]:
        for name in proposal["value"]:
            if not _NAME.fullmatch(name):
                raise TraitError(
                    f"Envoy.models has {name!r}. Expected names of models, as Triton's directories have."
                )
        return proposal["value"]  # type: ignore[no-any-return]

    @validate("tiers")
    def _has_the_default(self, proposal: dict[str, Any]) -> dict[str, int]:
        tiers: dict[str, int] = proposal["value"]
        if DEFAULT_TIER not in tiers or min(tiers.values()) < 1 or not all(map(_NAME.fullmatch, tiers)):
            raise TraitError(
                f"Envoy.tiers is {tiers}. Expected a number of calls, at least 1, for each tier, "
                f"and {DEFAULT_TIER!r} among them."
            )
        return tiers


def check(settings: Envoy, jwks_url: str) -> tuple[Address, ...]:
    """The Tritons' addresses, if the settings make a door that keeps its promises.

    Raises
    ------
    ConfigurationError
        A setting that is needed is missing, or two of them contradict one another.
    """
    if not settings.upstreams:
        raise ConfigurationError(
            "Envoy.upstreams is empty. Expected the Tritons' own gRPC addresses: "
            'c.Envoy.upstreams = ["grpc://triton-0:8001", "grpc://triton-1:8001"].'
        )
    upstreams = parse_urls(settings.upstreams)
    if encrypted := [each.url for each in upstreams if each.tls]:
        raise ConfigurationError(
            f"Envoy.upstreams has {encrypted[0]}. Expected grpc://host:port: Triton's own port, which speaks no TLS."
        )
    if not jwks_url:
        raise ConfigurationError(
            "TokenPolicy.jwks_url is empty, so nobody could be let in. Expected where the token service publishes "
            'its keys: c.TokenPolicy.jwks_url = "http://hub:8081/services/triton-token/.well-known/jwks.json".'
        )
    parts = urlsplit(jwks_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ConfigurationError("TokenPolicy.jwks_url cannot be used. Expected http://host:port/path or https://…")
    if settings.behind_tls and (settings.certificate or settings.key):
        raise ConfigurationError(
            "Envoy.behind_tls says that TLS ends before it, and Envoy.certificate that it ends here. Set one of them."
        )
    if not settings.behind_tls and not (settings.certificate and settings.key):
        raise ConfigurationError(
            "Envoy.certificate and Envoy.key are not both set, so tokens would travel unencrypted. Name the PEM "
            "files, or, where an ingress before it ends TLS, set Envoy.behind_tls."
        )
    return upstreams
