"""What an operator writes once, and how a server's address is written.

`Facility` is read from ``eaf_inference_config.py`` or ``.json`` in the directories of Jupyter's
configuration path (``jupyter --paths``), the user's own before the system's.
"""

from __future__ import annotations

import ipaddress
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import SplitResult, urlsplit

from traitlets import Bool, Enum, Float, Int, List, TraitError, Unicode, validate
from traitlets.config import Config, Configurable
from traitlets.config.loader import ConfigFileNotFound, JSONFileConfigLoader, PyFileConfigLoader

from eaf_inference._redact import redact
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Address", "Facility", "configured", "load_facility", "parse_urls", "possible_addresses"]

CONFIG_NAME = "eaf_inference_config"
_DEFAULT_PORTS = {"grpc": 8001, "grpcs": 443}
_HTTP = ("http", "triton+http", "triton+https")  # Triton's other protocol, which this client does not speak
_HTTP_PATH = re.compile(r"(?:/v2)?(?:/health/(?:live|ready))?/?")  # what stands behind the host on a facility's pages
_MOST_REPLICAS = 128  # each is asked whether it is ready, 32 at a time
_MOST_IN_FLIGHT = 4096
_LONGEST_WAIT = 7 * 86_400.0  # seconds
_Section = TypeVar("_Section", bound=Configurable)


class Facility(Configurable):
    """One facility, as its users' notebooks and workers see it.

    What is tagged `served` a token service tells its users in the facility document: no path on its machine, no
    secret, and nothing that a user's own machine has to decide.
    """

    urls = List(
        Unicode(),
        maxlen=_MOST_REPLICAS,
        help="Triton's gRPC addresses (grpc://host:port, grpcs://host:port). Several are replicas of one service.",
    ).tag(config=True, served=True)
    ca = Unicode(
        help="PEM file of the certificate authorities that signed the server's certificate, or their PEM text; "
        "empty: the system's.",
    ).tag(config=True, served=True, pem=True)
    client_certificate = Unicode(help="PEM file of a client certificate, where the server asks for one.").tag(
        config=True
    )
    client_key = Unicode(help="PEM file of the client certificate's key; empty: it is in the same file.").tag(
        config=True
    )
    token_file = Unicode(
        help="File that holds the user's bearer token and is renewed in place; empty: WLCG bearer token discovery.",
    ).tag(config=True)
    token_service = Unicode(
        help="Base URL of the token service under the Hub (…/services/triton-token/), instead of a token file; "
        "empty: what EAF_TOKEN_SERVICE names.",
    ).tag(config=True)
    metrics_urls = List(
        Unicode(),
        maxlen=_MOST_REPLICAS,
        help="Where each replica of Triton reports its metrics (http://host:8002/metrics); empty: not scraped.",
    ).tag(config=True, served=True)
    metrics_ca = Unicode(
        help="PEM file of the authorities for metrics and Prometheus, or their text; empty: as `ca`."
    ).tag(config=True, served=True, pem=True)
    prometheus_url = Unicode(
        help="Prometheus, for GPUs and MIG slices (dcgm-exporter) and where replicas cannot be scraped: what stands "
        "before /api/v1/query.",
    ).tag(config=True, served=True)
    prometheus_matchers = List(
        Unicode(), help='Which Triton series are this facility\'s, such as namespace="triton".'
    ).tag(config=True, served=True)
    prometheus_gpu_matchers = List(
        Unicode(), help="Which of dcgm-exporter's series are this facility's, such as Hostname=~\"gpu-.*\"."
    ).tag(config=True, served=True)
    prometheus_door_matchers = List(
        Unicode(), help='Which Envoys are this facility\'s, in the counts of usage, such as namespace="triton".'
    ).tag(config=True)
    usage_prometheus_url = Unicode(
        help="Prometheus that usage is read from, where users are not to be told its address, since whoever reaches "
        "it reads everybody's; empty: `prometheus_url`.",
    ).tag(config=True)
    prometheus_window = Int(
        30, min=1, help="Seconds over which Prometheus takes rates: at least twice its scrape interval."
    ).tag(config=True, served=True)
    prometheus_token_file = Unicode(help="File that holds a bearer token for Prometheus; empty: none.").tag(
        config=True
    )
    gateway_url = Unicode(
        help="The Dask Gateway, which takes users' Hub tokens; for those whose Dask configuration names none."
    ).tag(config=True, served=True)
    configure_clusters = Enum(
        ("gateway", "all", "none"),
        default_value="gateway",
        help="Which Dask clusters come up connected: those of a Dask Gateway, all, or none.",
    ).tag(config=True)
    allow_insecure_token = Bool(
        False,  # noqa: FBT003  (traitlets takes its default by position)
        help="Send tokens over unencrypted channels to other machines too. Only for a network you trust.",
    ).tag(config=True)
    time_budget = Float(
        120.0,
        min=0.0,
        max=_LONGEST_WAIT,
        help="Seconds for which a request that meets a fault is tried again before ServerUnavailable.",
    ).tag(config=True, served=True)
    request_timeout = Float(
        120.0,
        min=0.001,
        max=_LONGEST_WAIT,
        help="Seconds after which a request without a reply is given up and sent elsewhere.",
    ).tag(config=True, served=True)
    max_in_flight = Int(
        16, min=1, max=_MOST_IN_FLIGHT, help="The most requests one call keeps in flight; the window adapts below it."
    ).tag(config=True, served=True)
    documentation_url = Unicode(
        help="Web page for this facility's users (http or https), which the JupyterLab panel opens."
    ).tag(config=True, served=True)

    @validate("time_budget", "request_timeout")
    def _is_a_number(self, proposal: dict[str, Any]) -> float:
        seconds = float(proposal["value"])
        if math.isnan(seconds):  # which no bound excludes
            raise TraitError(f"{proposal['trait'].name} is not a number of seconds.")
        return seconds

    @validate("documentation_url")
    def _is_a_web_page(self, proposal: dict[str, Any]) -> str:
        url = str(proposal["value"])
        if url and not re.fullmatch(r"https?://[^\s/@]+(?:[/?#]\S*)?", url):
            raise TraitError("documentation_url is not the address of a web page. Expected https://host/path.")
        return url


@dataclass(frozen=True, slots=True)
class Address:
    """Where one Triton is reached by gRPC, and the model that a coffea URL names on it."""

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
        """Read ``grpc://``, ``grpcs://``, coffea's ``triton+grpc://host:port/model/version`` or ``host:port``.

        coffea's form means TLS, as in coffea, except on loopback; a bare ``host:port`` means TLS on port 443.
        ``https://host``, as facilities print their Triton's address, means ``grpcs://host:443``.

        Raises
        ------
        ConfigurationError
            The text is none of these.
        """
        parts, host, port = _split(url)
        if parts.scheme not in ("grpc", "grpcs", "triton+grpc", "https", "", *_HTTP):
            raise _unreadable(url, f"the scheme {parts.scheme!r} is not known")
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
    """Addresses of one or several replicas; a text may hold several, separated by commas.

    Raises
    ------
    ConfigurationError
        One of them cannot be read, there is none, or there are too many.
    """
    return tuple(map(Address.parse, _texts(urls)))


def possible_addresses(urls: str | list[str] | tuple[str, ...]) -> tuple[tuple[Address, ...], ...]:
    """The same, with all that each may mean: a bare host name is TLS on port 443, else unencrypted on 8001.

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
    if len(texts) > _MOST_REPLICAS:
        raise ConfigurationError(f"{len(texts):,} Triton URLs are named. Expected at most {_MOST_REPLICAS} replicas.")
    if not texts:
        raise ConfigurationError("The Triton URL is empty. Expected grpc://host:port or grpcs://host:port.")
    return texts


def load_facility() -> Facility:
    """The facility's configuration, or its defaults where none is installed.

    Raises
    ------
    ConfigurationError
        A configuration file cannot be read, or gives a setting a value of the wrong type.
    """
    return configured(Facility)


def configured(section: type[_Section], *, defaults: Mapping[str, Any] | None = None) -> _Section:
    """One section of the facility's configuration, such as `Facility`, with the defaults of what is not set.

    Parameters
    ----------
    section : type
    defaults : mapping, optional
        Values that stand below the files', by the setting's name.

    Raises
    ------
    ConfigurationError
        A configuration file cannot be read, or gives a setting a value of the wrong type.
    """
    try:
        return section(config=_read(Config({section.__name__: dict(defaults or {})})))
    except TraitError as error:
        raise ConfigurationError(
            f"The facility's configuration ({CONFIG_NAME}.py or .json on Jupyter's configuration path) "
            f"is wrong: {redact(str(error))}"
        ) from error


def _read(merged: Config) -> Config:
    """What all files say, on top of this."""
    from jupyter_core.paths import jupyter_config_path

    for directory in reversed(jupyter_config_path()):  # the first directory has the last word
        for loader in (
            JSONFileConfigLoader(f"{CONFIG_NAME}.json", directory),
            PyFileConfigLoader(f"{CONFIG_NAME}.py", directory),
        ):
            try:
                merged.merge(loader.load_config())
            except ConfigFileNotFound:
                continue
            except Exception as error:  # a configuration file is a program: anything may come out of it
                raise ConfigurationError(
                    f"The facility's configuration {loader.full_filename} cannot be read: "
                    f"{type(error).__name__}: {redact(str(error))}. "
                    "Correct the file, or ask your facility's operators."
                ) from error
    return merged


def _model_in_path(url: str, path: str, *, allowed: bool) -> tuple[str | None, str | None]:
    names = [part for part in path.split("/") if part]
    if not names:
        return None, None
    if not allowed or len(names) > 2:
        raise _unreadable(url, "only triton+grpc://host:port/model/version may have a path")
    return names[0], names[1] if len(names) == 2 else None


def _split(url: str) -> tuple[SplitResult, str | None, int | None]:
    """A URL's parts, its host and its port; a text without a scheme begins with the host."""
    if "@" in url:  # the text may hold a password: it is not shown
        raise ConfigurationError(
            "A Triton URL cannot carry a user name or password. Pass a token instead: token=… or --token-file."
        )
    text = f"[{url}]" if _is_ipv6(url) else url
    try:
        parts = urlsplit(text if "://" in text else f"//{text}")
        host = parts.hostname
    except ValueError as error:
        raise _unreadable(url, "its host is not one") from error
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
    """The error for an address of Triton's HTTP protocol, with those of gRPC that may be meant."""
    plain, tls = (Address(host, port, tls=scheme == "grpcs").url for scheme, port in _DEFAULT_PORTS.items())
    meant = f"triton+{plain}{parts.path}" if parts.scheme.startswith("triton+") else f"{plain}, or {tls} with TLS"
    return ConfigurationError(
        f"The Triton URL {redact(url)!r} cannot be used: it is an address for HTTP, and this client speaks gRPC, on "
        f"another port (usually 8001 where HTTP's is 8000). Expected something like {meant}."
    )


def _unreadable(url: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"The Triton URL {redact(url)!r} cannot be used: {why}. Expected grpc://host:port, grpcs://host:port (TLS), "
        "or coffea's triton+grpc://host:port/model/version."
    )
