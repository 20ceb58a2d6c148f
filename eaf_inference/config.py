"""The facility's configuration, which an operator writes once.

`Facility` is read from ``eaf_inference_config.py`` or ``.json`` in the directories of Jupyter's
configuration path (``jupyter --paths``); the user's own override the system's.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, TypeVar

from traitlets import Bool, Enum, Float, Int, List, TraitError, Unicode, validate
from traitlets.config import Config, Configurable
from traitlets.config.loader import ConfigFileNotFound, JSONFileConfigLoader, PyFileConfigLoader

from eaf_inference._redact import redact
from eaf_inference.address import MOST_REPLICAS
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Facility", "configured", "load_facility"]

CONFIG_NAME = "eaf_inference_config"
_MOST_IN_FLIGHT = 4096
_LONGEST_WAIT = 7 * 86_400.0  # seconds
_Section = TypeVar("_Section", bound=Configurable)


class Facility(Configurable):
    """The settings of one facility for its users' notebooks and workers.

    A token service publishes the settings tagged `served` in its facility document: no path on its machine, no
    secret, and nothing that a user's own machine has to decide.
    """

    urls = List(
        Unicode(),
        maxlen=MOST_REPLICAS,
        help="Triton's gRPC addresses (grpc://host:port, grpcs://host:port). Several are replicas of one service.",
    ).tag(config=True, served=True)
    ca = Unicode(
        help="PEM file of the certificate authorities that signed the server's certificate, or their PEM text; "
        "empty: the system's.",
    ).tag(config=True, served=True, pem=True)
    client_certificate = Unicode(help="PEM file of a client certificate, if the server requires one.").tag(
        config=True
    )
    client_key = Unicode(help="PEM file of the client certificate's key; empty: the same file.").tag(config=True)
    token_file = Unicode(
        help="File that holds the user's bearer token and is renewed in place; empty: WLCG bearer token discovery.",
    ).tag(config=True)
    token_service = Unicode(
        help="Base URL of the token service under the Hub (…/services/triton-token/), instead of a token file; "
        "empty: the one in EAF_TOKEN_SERVICE.",
    ).tag(config=True)
    metrics_urls = List(
        Unicode(),
        maxlen=MOST_REPLICAS,
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
    prometheus_envoy_matchers = List(
        Unicode(), help='Which Envoys are this facility\'s, in the counts of usage, such as namespace="triton".'
    ).tag(config=True)
    usage_prometheus_url = Unicode(
        help="Prometheus for usage, if its address must stay unknown to users because it shows everybody's usage; "
        "empty: `prometheus_url`.",
    ).tag(config=True)
    prometheus_window = Int(
        30, min=1, help="Seconds over which Prometheus takes rates: at least twice its scrape interval."
    ).tag(config=True, served=True)
    prometheus_token_file = Unicode(help="File that holds a bearer token for Prometheus; empty: none.").tag(
        config=True
    )
    gateway_url = Unicode(
        help="The Dask Gateway, which accepts users' Hub tokens; for users whose Dask configuration names none."
    ).tag(config=True, served=True)
    configure_clusters = Enum(
        ("gateway", "all", "none"),
        default_value="gateway",
        help="Which Dask clusters are connected automatically: those of a Dask Gateway, all, or none.",
    ).tag(config=True)
    allow_insecure_token = Bool(
        False,  # noqa: FBT003  (traitlets takes its default by position)
        help="Send tokens to other machines over unencrypted channels too. Only for a network you trust.",
    ).tag(config=True)
    time_budget = Float(
        120.0,
        min=0.0,
        max=_LONGEST_WAIT,
        help="Seconds for which a failed request is retried before ServerUnavailable is raised.",
    ).tag(config=True, served=True)
    request_timeout = Float(
        120.0,
        min=0.001,
        max=_LONGEST_WAIT,
        help="Seconds after which a request without a reply is given up and sent elsewhere.",
    ).tag(config=True, served=True)
    max_in_flight = Int(
        16, min=1, max=_MOST_IN_FLIGHT, help="The most requests in flight for one call; the window adapts below it."
    ).tag(config=True, served=True)
    model_store = Unicode(
        help="Where users' own models are kept, a repository that Triton reads: file:///… or s3://bucket/prefix; "
        "empty: users cannot deploy models.",
    ).tag(config=True, served=True)
    model_store_endpoint = Unicode(help="URL of the S3 service of `model_store`; empty: AWS's.").tag(
        config=True, served=True
    )
    model_store_service = Bool(
        False,  # noqa: FBT003
        help="The token service gives users short-lived keys to `model_store`, and checks and writes each "
        "config.pbtxt; otherwise users write with their own permissions.",
    ).tag(config=True, served=True)
    model_control = Enum(
        ("poll", "explicit"),
        default_value="poll",
        help="How Triton notices a new model: it polls `model_store`, or users load it by a call.",
    ).tag(config=True, served=True)
    python_models = Bool(
        False,  # noqa: FBT003
        help="Users may deploy models of Triton's Python backend, which run their code on the server. With "
        "`model_store_service`, the token service decides by group instead.",
    ).tag(config=True, served=True)
    onnx_opset = Int(
        0, min=0, help="The newest ONNX opset that Triton's ONNX Runtime reads; 0: that of the one installed here."
    ).tag(config=True, served=True)
    most_models = Int(0, min=0, help="Models that each user may have in `model_store`; 0: no limit.").tag(
        config=True, served=True
    )
    most_model_bytes = Int(0, min=0, help="Bytes that each user may have in `model_store`; 0: no limit.").tag(
        config=True, served=True
    )
    documentation_url = Unicode(
        help="Web page for this facility's users (http or https), which the JupyterLab panel opens."
    ).tag(config=True, served=True)

    @validate("time_budget", "request_timeout")
    def _is_a_number(self, proposal: dict[str, Any]) -> float:
        seconds = float(proposal["value"])
        if math.isnan(seconds):  # no bound excludes NaN
            raise TraitError(f"{proposal['trait'].name} is not a number of seconds. Expected one such as 120.")
        return seconds

    @validate("documentation_url")
    def _is_a_web_page(self, proposal: dict[str, Any]) -> str:
        url = str(proposal["value"])
        if url and not re.fullmatch(r"https?://[^\s/@]+(?:[/?#]\S*)?", url):
            raise TraitError("documentation_url is not the address of a web page. Expected https://host/path.")
        return url


def load_facility() -> Facility:
    """Read the facility's configuration; the defaults if none is installed.

    Raises
    ------
    ConfigurationError
        A configuration file cannot be read, or gives a setting a value of the wrong type.
    """
    return configured(Facility)


def configured(section: type[_Section], *, defaults: Mapping[str, Any] | None = None) -> _Section:
    """Read one section of the facility's configuration, such as `Facility`.

    Parameters
    ----------
    section : type
    defaults : mapping, optional
        Default values by the setting's name, which the files override.

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
            f"is wrong: {redact(str(error)).rstrip('.')}. Correct the file, or ask your facility's operators."
        ) from error


def _read(merged: Config) -> Config:
    """Merge all configuration files into `merged`."""
    from jupyter_core.paths import jupyter_config_path

    for directory in reversed(jupyter_config_path()):  # the first directory overrides the others
        for loader in (
            JSONFileConfigLoader(f"{CONFIG_NAME}.json", directory),
            PyFileConfigLoader(f"{CONFIG_NAME}.py", directory),
        ):
            try:
                merged.merge(loader.load_config())
            except ConfigFileNotFound:
                continue
            except Exception as error:  # a configuration file is a program, which may raise anything
                raise ConfigurationError(
                    f"The facility's configuration {loader.full_filename} cannot be read: "
                    f"{type(error).__name__}: {redact(str(error))}. "
                    "Correct the file, or ask your facility's operators."
                ) from error
    return merged
