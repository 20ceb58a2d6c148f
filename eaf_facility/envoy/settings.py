"""The section `Envoy` of the facility's configuration: the operator's settings for the edge proxy."""

from __future__ import annotations

import ipaddress
import re
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from traitlets import Bool, Dict, Float, Int, List, TraitError, Unicode, validate
from traitlets.config import Configurable

from eaf_facility.token_policy import DEFAULT_TIER, JWKS_PATH
from eaf_inference.address import Address, parse_urls
from eaf_inference.errors import ConfigurationError

__all__ = ["Envoy", "check"]

_MEBIBYTE = 1024 * 1024
_NAME = re.compile(r"[\w.+-]+", re.ASCII)
_LIMITS = {
    # setting: (minimum, maximum)
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
    """The edge proxy in front of the Tritons: authentication, each user's share, and accounting."""

    upstreams = List(
        Unicode(),
        help="gRPC addresses of the Tritons (grpc://host:port), which only Envoy should be able to reach. A name "
        "that resolves to several addresses, such as a headless Service's, stands for all of them.",
    ).tag(config=True)
    address = Unicode("0.0.0.0", help="IP address on which Envoy listens.").tag(config=True)  # noqa: S104 - users connect to it
    port = Int(8001, help="Port on which Envoy listens.").tag(config=True)
    certificate = Unicode(help="PEM file of Envoy's TLS certificate and its chain.").tag(config=True)
    key = Unicode(help="PEM file of the private key of `certificate`.").tag(config=True)
    tls_secret = Unicode(
        "/etc/envoy/tls-secret.yaml",
        help="File from which Envoy learns where `certificate` and `key` are, so that it notices when they are "
        "renewed. `eaf-inference envoy --output FILE` writes it beside FILE.",
    ).tag(config=True)
    behind_tls = Bool(
        False,  # noqa: FBT003  (traitlets takes its default by position)
        help="An ingress in front of Envoy terminates TLS: Envoy needs no certificate, and listens unencrypted.",
    ).tag(config=True)
    share = Int(100, help="Calls per second that each user may make.").tag(config=True)
    burst = Int(
        0,
        help="Calls that an idle user may make at once. 0 means a quarter of a second's share.",
    ).tag(config=True)
    probes = Int(
        200, help="Calls per second without a token that each address may make; five times as many at once."
    ).tag(config=True)
    tiers = Dict(
        value_trait=Int(),
        key_trait=Unicode(),
        default_value={DEFAULT_TIER: 256, "batch": 64},
        help="Maximum number of concurrent calls of each tier, by the name of the tier in the token. Tokens with any "
        f"other tier count as {DEFAULT_TIER!r}.",
    ).tag(config=True)
    models = List(
        Unicode(),
        help="Models whose failures are counted by name. Failures of all other names are counted together, because a "
        "user can request any name.",
    ).tag(config=True)
    model_control = Bool(
        False,  # noqa: FBT003
        help="Users may load and unload their own models, whose names begin with the user and a dot, and `operators` "
        "all. Only for a single Triton in explicit mode: a call reaches one Triton.",
    ).tag(config=True)
    private_models = Bool(
        False,  # noqa: FBT003
        help="Users can neither use nor see other users' models. In a model's name, what stands before the first dot "
        "is its owner; names without a dot are everybody's.",
    ).tag(config=True)
    shared_models = List(
        Unicode(), help="With `private_models`: models with a dot in their names that everybody may use."
    ).tag(config=True)
    operators = List(
        Unicode(),
        help="Users (`sub` in the token) who may load, unload, use and see every model.",
    ).tag(config=True)
    affinity = Bool(
        False,  # noqa: FBT003
        help="Send all requests for one model to the same Triton, instead of to the least busy one.",
    ).tag(config=True)
    spill = Float(
        1.3,
        help="With `affinity`: the multiple of the average load above which a Triton's requests go to the next one.",
    ).tag(config=True)
    largest_request = Int(
        64 * _MEBIBYTE, help="Maximum size of a request in bytes. A quarter of `memory` is the upper limit."
    ).tag(config=True)
    max_connections = Int(4096, help="Maximum number of concurrent connections.").tag(config=True)
    max_streams = Int(32, help="Maximum number of concurrent calls on one connection.").tag(config=True)
    max_uploads = Int(
        16,
        help="Maximum number of requests that each user may be sending at the same time, on each of Envoy's worker "
        "threads. A request that has arrived completely no longer counts.",
    ).tag(config=True)
    idle_timeout = Float(300.0, help="Seconds after which an idle connection is closed.").tag(config=True)
    handshake_timeout = Float(
        10.0,
        help="Maximum seconds for the TLS handshake, for a call's headers, and for a whole call that needs no token.",
    ).tag(config=True)
    request_timeout = Float(120.0, help="Seconds within which a request must arrive completely.").tag(config=True)
    memory = Int(
        2048 * _MEBIBYTE,
        help="Limit of Envoy's heap in bytes. Close to it, Envoy first resets the largest calls, and then refuses "
        "new ones. The process needs about 70 MiB more.",
    ).tag(config=True)
    jwks_ca = Unicode(
        "/etc/ssl/certs/ca-certificates.crt",
        help="PEM file of the certificate authorities that verify `TokenPolicy.jwks_url`, if that is an https URL.",
    ).tag(config=True)
    admin_port = Int(9901, help="Port of Envoy's administration interface, on loopback only.").tag(config=True)
    metrics_address = Unicode("127.0.0.1", help="IP address on which `metrics_port` listens.").tag(config=True)
    metrics_port = Int(
        0,
        help="Port on which Prometheus reads the counters (/stats/prometheus) from another machine; the rest of the "
        "administration interface is not reachable there. 0 means no such port.",
    ).tag(config=True)
    access_log = Unicode("/dev/stdout", help="File of the access log: one JSON object per call.").tag(config=True)

    @property
    def largest_body(self) -> int:
        """Maximum size of a request in bytes: on its way to a Triton it takes twice its size of `memory`."""
        return min(self.largest_request, self.memory // 4)

    @validate(*_LIMITS)
    def _check_range(self, proposal: dict[str, Any]) -> float:
        name, value = proposal["trait"].name, proposal["value"]
        minimum, maximum = _LIMITS[name]
        if not minimum <= value <= maximum:
            raise TraitError(f"Envoy.{name} is {value}. Expected a number from {minimum} to {maximum}.")
        return value  # type: ignore[no-any-return]

    @validate("address", "metrics_address")
    def _check_address(self, proposal: dict[str, Any]) -> str:
        text = str(proposal["value"])
        try:
            ipaddress.ip_address(text)
        except ValueError as error:
            raise TraitError(
                f"Envoy.{proposal['trait'].name} is {text!r}. Expected an IP address of this machine, e.g. 0.0.0.0."
            ) from error
        return text

    @validate("models", "shared_models")
    def _check_names(self, proposal: dict[str, Any]) -> list[str]:
        for name in proposal["value"]:
            if not _NAME.fullmatch(name):
                raise TraitError(
                    f"Envoy.{proposal['trait'].name} contains {name!r}. Expected model names, as in Triton's model "
                    "repository."
                )
        return proposal["value"]  # type: ignore[no-any-return]

    @validate("tiers")
    def _check_tiers(self, proposal: dict[str, Any]) -> dict[str, int]:
        tiers: dict[str, int] = proposal["value"]
        if DEFAULT_TIER not in tiers or min(tiers.values()) < 1 or not all(map(_NAME.fullmatch, tiers)):
            raise TraitError(
                f"Envoy.tiers is {tiers}. Expected a number of calls, at least 1, for each tier, including "
                f"{DEFAULT_TIER!r}."
            )
        return tiers


def check(settings: Envoy, jwks_url: str) -> tuple[Address, ...]:
    """Check the settings and return the Tritons' addresses.

    Raises
    ------
    ConfigurationError
        A required setting is missing, or two settings contradict each other.
    """
    if not settings.upstreams:
        raise ConfigurationError(
            "Envoy.upstreams is empty. Expected the Tritons' own gRPC addresses: "
            'c.Envoy.upstreams = ["grpc://triton-0:8001", "grpc://triton-1:8001"].'
        )
    upstreams = parse_urls(settings.upstreams)
    if encrypted := [each.url for each in upstreams if each.tls]:
        raise ConfigurationError(
            f"Envoy.upstreams contains {encrypted[0]}. Expected grpc://host:port: Triton's own port has no TLS."
        )
    if settings.model_control and len(upstreams) > 1:
        raise ConfigurationError(
            f"Envoy.model_control is set, and Envoy.upstreams has {len(upstreams)} addresses. A call to load a model "
            "reaches only one of them, so requests to the others would fail. Have the Tritons poll the model store "
            "(--model-control-mode=poll) and leave model_control out, or name one Triton."
        )
    if not jwks_url:
        raise ConfigurationError(
            "TokenPolicy.jwks_url is empty, so no token could be verified. Expected the URL at which the token "
            f'service publishes its keys: c.TokenPolicy.jwks_url = "http://hub:8081/services/triton-token/{JWKS_PATH}".'
        )
    parts = urlsplit(jwks_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ConfigurationError(
            "TokenPolicy.jwks_url is not a usable URL. Expected http://host:port/path or https://…"
        )
    if settings.behind_tls and (settings.certificate or settings.key):
        raise ConfigurationError(
            "Envoy.behind_tls says that an ingress terminates TLS, Envoy.certificate that Envoy does. Set only one."
        )
    if not settings.behind_tls and not PurePosixPath(settings.tls_secret).is_absolute():
        raise ConfigurationError(
            f"Envoy.tls_secret is {settings.tls_secret!r}. Expected the absolute path of the file beside Envoy's "
            "configuration, such as /etc/envoy/tls-secret.yaml."
        )
    if not settings.behind_tls and not (settings.certificate and settings.key):
        raise ConfigurationError(
            "Envoy.certificate and Envoy.key are not both set, so tokens would travel unencrypted. Set both to PEM "
            "files, or set Envoy.behind_tls if an ingress in front of Envoy terminates TLS."
        )
    return upstreams
