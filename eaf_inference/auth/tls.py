"""TLS: the files of a channel, and the certificate authorities for HTTPS.

Certificate authorities are given as a file, or as PEM text where the file cannot be reached (in a facility document,
on a Dask worker).
"""

from __future__ import annotations

import logging
import os
import ssl
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_inference._files import own_or_root, read_regular, reason_of
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import grpc

__all__ = ["TlsFiles", "pem_text", "tls_context"]

log = logging.getLogger(__name__)

_PEM = "-----BEGIN "
_LARGEST = 16 * 1024 * 1024  # bytes; a system's authorities are a quarter of a megabyte


def pem_text(value: str | os.PathLike[str], what: str) -> str:
    """Return the text of a PEM file, or the value itself if it is PEM text.

    Raises
    ------
    ConfigurationError
        The file cannot be read, or is not a PEM file.
    """
    text = os.fspath(value)
    if _PEM in text:
        return text
    path = Path(text).expanduser()
    try:
        content = read_regular(path, _LARGEST).decode(errors="replace")
    except (OSError, ValueError) as error:  # ValueError: not a valid path
        raise ConfigurationError(
            f"The file of the {what} cannot be read: {path}: {reason_of(error)}. Expected a PEM file that you may "
            "read."
        ) from error
    if _PEM not in content:
        raise ConfigurationError(
            f"The file of the {what}, {path}, is not a PEM file. Expected one that contains {_PEM}…; openssl "
            "converts other formats."
        )
    return content


def tls_context(url: str, ca: str | os.PathLike[str] | None) -> ssl.SSLContext | None:
    """Return the context that verifies an https URL with these authorities, or the system's; None for http.

    Raises
    ------
    ConfigurationError
        The file cannot be read, or contains no certificates.
    """
    if not url.startswith("https:"):
        return None
    if not ca:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cadata=pem_text(ca, "certificate authorities"))
    except ssl.SSLError as error:
        named = "given as text" if _PEM in os.fspath(ca) else os.fspath(ca)
        raise ConfigurationError(
            f"The certificate authorities {named} cannot be used: {error}. Expected certificates in the PEM format."
        ) from error


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The files of one TLS channel: authorities (or their PEM text), and an optional client certificate."""

    ca: str | None = None
    certificate: Path | None = None
    key: Path | None = None

    @classmethod
    def find(
        cls,
        *,
        ca: str | os.PathLike[str] | None,
        certificate: str | None = None,
        key: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> TlsFiles:
        """Return the given files, else the user's grid proxy if ``X509_USER_PROXY`` names a readable one.

        A grid proxy is a PEM file with certificate, key and chain in one.
        """
        environment = os.environ if environment is None else environment
        authorities = os.fspath(ca) if ca else None
        if certificate:
            path = Path(certificate).expanduser()
            return cls(authorities, path, Path(key).expanduser() if key else path)
        if named := environment.get("X509_USER_PROXY"):
            proxy = Path(named)
            try:
                read_regular(proxy, _LARGEST, owners=own_or_root())
            except OSError as error:
                why = reason_of(error)
                log.warning("X509_USER_PROXY names %s, which cannot be read; going on without it: %s", proxy, why)
            else:
                return cls(authorities, proxy, proxy)
        return cls(authorities)

    def with_authorities(self, text: str | None) -> TlsFiles:
        """Return a copy with these certificate authorities; None for the system's."""
        return replace(self, ca=text)

    @property
    def authorities(self) -> bytes | None:
        """The text of the certificate authorities; None for the system's.

        Raises
        ------
        ConfigurationError
            The file cannot be read, or is not a PEM file.
        """
        return _pem(self.ca, "certificate authorities")

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return the credentials with which gRPC opens a TLS channel.

        Raises
        ------
        ConfigurationError
            A file cannot be read, or is not a PEM file.
        """
        import grpc

        return grpc.ssl_channel_credentials(
            root_certificates=self.authorities,
            private_key=_pem(self.key, "client key"),
            certificate_chain=_pem(self.certificate, "client certificate"),
        )


def _pem(value: str | Path | None, what: str) -> bytes | None:
    return None if value is None else pem_text(value, what).encode()
