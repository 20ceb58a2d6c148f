"""Envoy's TLS: its certificate and key, which it reads again when their files are replaced. Pure functions.

Envoy reads files that its main configuration names only once. It watches those that a secret names, which is in a
file of its own (https://www.envoyproxy.io/docs/envoy/latest/configuration/security/secret).
"""

from __future__ import annotations

import copy
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from eaf_facility.envoy.filters import typed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from eaf_facility.envoy.settings import Envoy

__all__ = ["SECRET", "tls", "tls_secret", "with_fixed_certificate"]

Part = dict[str, Any]

SECRET = "edge_proxy"  # noqa: S105 - its name


def tls(settings: Envoy) -> Part:
    """Return the listener's transport socket."""
    file = {"path": settings.tls_secret}
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": typed(
            "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            common_tls_context={
                "alpn_protocols": ["h2"],
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "tls_certificate_sds_secret_configs": [
                    {"name": SECRET, "sds_config": {"resource_api_version": "V3", "path_config_source": file}}
                ],
            },
        ),
    }


def tls_secret(certificate: str, key: str) -> Part:
    """Return the content of the file `Envoy.tls_secret`, which names the files of certificate and key.

    Envoy watches their directory, so that it also notices when Kubernetes replaces the link to both. If they are in
    two directories, it watches the two files.
    """
    pair = _pair(certificate, key)
    directory = PurePosixPath(certificate).parent
    if directory == PurePosixPath(key).parent:
        pair["watched_directory"] = {"path": str(directory)}
    return {"resources": [typed("extensions.transport_sockets.tls.v3.Secret", name=SECRET, tls_certificate=pair)]}


def with_fixed_certificate(configuration: Mapping[str, Any], settings: Envoy) -> Part:
    """Return a copy with certificate and key in it, for Envoy's check, which does not look into a secret's files."""
    made = copy.deepcopy(dict(configuration))
    for listener in made["static_resources"]["listeners"]:
        for chain in listener["filter_chains"]:
            if "transport_socket" in chain:
                context = chain["transport_socket"]["typed_config"]["common_tls_context"]
                del context["tls_certificate_sds_secret_configs"]
                context["tls_certificates"] = [_pair(settings.certificate, settings.key)]
    return made


def _pair(certificate: str, key: str) -> Part:
    return {"certificate_chain": {"filename": certificate}, "private_key": {"filename": key}}
