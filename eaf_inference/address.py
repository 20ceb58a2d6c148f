"""Addresses of Triton servers: the accepted forms and their meanings."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace
from urllib.parse import SplitResult, urlsplit

from eaf_inference._redact import redact
from eaf_inference.errors import ConfigurationError

__all__ = ["MOST_REPLICAS", "Address", "parse_urls", "possible_addresses"]

MOST_REPLICAS = 128  # discovery probes each one, 32 at a time
_DEFAULT_PORTS = {"grpc": 8001, "grpcs": 443}
_HTTP = ("http", "triton+http", "triton+https")  # Triton's other protocol, which this client does not use
_HTTP_PATH = re.compile(r"(?:/v2)?(?:/health/(?:live|ready))?/?")  # the path in URLs on facilities' web pages


@dataclass(frozen=True, slots=True)
class Address:
    """The gRPC address of one Triton, and the model in a coffea URL."""

    host: str
    port: int
    tls: bool
    model: str | None = None
    version: str | None = None

    @property
    def url(self) -> str:
        return f"{'grpcs' if self.tls else 'grpc'}://{self.target}"

    @property
    def target(self) -> str:
        """``host:port`` as gRPC takes it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @classmethod
    def parse(cls, url: str) -> Address:
        """Parse ``grpc://``, ``grpcs://``, coffea's ``triton+grpc://host:port/model/version`` or ``host:port``.

        coffea's form uses TLS, as in coffea, except on loopback; a bare ``host:port`` uses TLS on port 443.
        ``https://host``, the form on facilities' web pages, means ``grpcs://host:443``.

        Raises
        ------
        ConfigurationError
            The text has none of these forms.
        """
        parts, host, port = _split(url)
        if parts.scheme not in ("grpc", "grpcs", "triton+grpc", "https", "", *_HTTP):
            raise _unreadable(url, f"the scheme {parts.scheme!r} is unknown")
        if not host:
            raise _unreadable(url, "it names no host")
        as_on_pages = parts.scheme in ("https", "") and _HTTP_PATH.fullmatch(parts.path) is not None
        if parts.scheme in _HTTP or (parts.scheme == "https" and not as_on_pages):
            raise _speaks_http(url, parts, host)
        if parts.query or parts.fragment:
            raise _unreadable(url, "it has a query or a fragment")
        path = "" if as_on_pages else parts.path
        model, version = _model_in_path(url, path, allowed=parts.scheme == "triton+grpc")
        tls = parts.scheme in ("grpcs", "https") or (not parts.scheme and port == _DEFAULT_PORTS["grpcs"])
        if parts.scheme == "triton+grpc":
            tls = not cls(host, 0, tls=False).is_loopback
        if port is None:
            port = _DEFAULT_PORTS["grpcs" if parts.scheme in ("grpcs", "https") else "grpc"]
        return cls(host, port, tls=tls, model=model, version=version)


def parse_urls(urls: str | list[str] | tuple[str, ...]) -> tuple[Address, ...]:
    """Parse the addresses of one or several replicas; a text may hold several, separated by commas.

    Raises
    ------
    ConfigurationError
        An address is invalid, or there are none or too many.
    """
    return tuple(map(Address.parse, _texts(urls)))


def possible_addresses(urls: str | list[str] | tuple[str, ...]) -> tuple[tuple[Address, ...], ...]:
    """Parse addresses with all their meanings: a bare host name is TLS on port 443, or unencrypted on 8001.

    Raises
    ------
    ConfigurationError
        As for `parse_urls`.
    """
    return tuple(_meanings(text) for text in _texts(urls))


def _meanings(text: str) -> tuple[Address, ...]:
    address = Address.parse(text)
    parts, _, port = _split(text)
    if parts.scheme or port is not None:
        return (address,)
    return (replace(address, port=_DEFAULT_PORTS["grpcs"], tls=True), address)


def _texts(urls: str | list[str] | tuple[str, ...]) -> list[str]:
    texts = urls.split(",") if isinstance(urls, str) else list(urls)
    texts = [text.strip() for text in texts if text.strip()]
    if len(texts) > MOST_REPLICAS:
        raise ConfigurationError(f"There are {len(texts):,} Triton URLs. Expected at most {MOST_REPLICAS} replicas.")
    if not texts:
        raise ConfigurationError("The Triton URL is empty. Expected grpc://host:port or grpcs://host:port.")
    return texts


def _model_in_path(url: str, path: str, *, allowed: bool) -> tuple[str | None, str | None]:
    names = [part for part in path.split("/") if part]
    if not names:
        return None, None
    if not allowed or len(names) > 2:
        raise _unreadable(url, "only triton+grpc://host:port/model/version may have a path")
    return names[0], names[1] if len(names) == 2 else None


def _split(url: str) -> tuple[SplitResult, str | None, int | None]:
    """Return a URL's parts, host and port; a text without a scheme starts with the host."""
    if "@" in url:  # the message does not show the text, which may hold a password
        raise ConfigurationError(
            "A Triton URL cannot carry a user name or password. Pass a token instead: token=… or --token-file."
        )
    text = f"[{url}]" if _is_ipv6(url) else url
    try:
        parts = urlsplit(text if "://" in text else f"//{text}")
        host = parts.hostname
    except ValueError as error:
        raise _unreadable(url, "its host is not valid") from error
    try:
        return parts, host, parts.port
    except ValueError as error:
        raise _unreadable(url, "its port is not a number from 0 to 65535") from error


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def _speaks_http(url: str, parts: SplitResult, host: str) -> ConfigurationError:
    """Return the error for an address of Triton's HTTP protocol, with the gRPC addresses that may be meant."""
    plain, tls = (Address(host, port, tls=scheme == "grpcs").url for scheme, port in _DEFAULT_PORTS.items())
    meant = f"triton+{plain}{parts.path}" if parts.scheme.startswith("triton+") else f"{plain}, or {tls} with TLS"
    return ConfigurationError(
        f"The Triton URL {redact(url)!r} cannot be used: it is an address for HTTP, but this client speaks gRPC, on "
        f"another port (usually 8001 where HTTP's is 8000). Expected something like {meant}."
    )


def _unreadable(url: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"The Triton URL {redact(url)!r} cannot be used: {why}. Expected grpc://host:port, grpcs://host:port (TLS), "
        "or coffea's triton+grpc://host:port/model/version."
    )
