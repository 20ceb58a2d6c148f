"""Connect to the facility's Triton, and find the connection that this process has."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from eaf_inference._redact import SecretText
from eaf_inference.auth.sources import StaticToken, TokenSource
from eaf_inference.auth.worker_session import worker_session
from eaf_inference.connection import Connection, connections
from eaf_inference.errors import ConfigurationError
from eaf_inference.inference.interrupts import stopping
from eaf_inference.registry import DEFAULTS, Options

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["connect", "current"]


def connect(
    url: str | Sequence[str] | None = None,
    *,
    token: str | TokenSource | None = None,
    ca: str | os.PathLike[str] | None = None,
    allow_insecure_token: bool | None = None,
    timeout: float = 10.0,
    explain: bool = False,
) -> Connection:
    """Find the facility's Triton and connect to it as this user.

    On a Dask worker that its client has configured, ``connect()`` returns the process's one connection, which has the
    client's endpoint and credentials.

    Parameters
    ----------
    url : str or sequence of str, optional
        ``grpc://host:port``, ``grpcs://host:port`` (TLS) or coffea's ``triton+grpc://host:port/model/version``;
        several are replicas. By default it comes from the environment, the facility's configuration, CMS SONIC,
        Kubernetes or a facility on this machine.
    token : str or TokenSource, optional
        By default the facility's token file, else WLCG bearer token discovery.
    ca : path, optional
        PEM file of the certificate authorities to trust; by default the facility's, else the system's.
    allow_insecure_token : bool, optional
        Send the token to other machines over unencrypted channels too.
    timeout : float
        Seconds for finding the server, and for each query of its models (not for inference).
    explain : bool
        Wait for the result of every source, so that `Connection.attempts` is complete.

    Returns
    -------
    Connection

    Raises
    ------
    NoServerFound
        No server answered; the message lists what was tried.
    NotAuthorized
        A server answered but refused the credentials.
    ConfigurationError
        A URL, file or setting is wrong.
    """
    if isinstance(token, str):
        token = SecretText(token)  # so that no traceback that shows variables shows the text
        _refuse_a_path(token)
        token = StaticToken(token)
    if not isinstance(token, TokenSource | None):
        kind, token = type(token).__name__, None
        raise ConfigurationError(
            f"The token is of type {kind}. Expected its text, or where it comes from, such as TokenFile(path)."
        )
    if not isinstance(url, str | Iterable | None):
        raise ConfigurationError(
            f"The URL is of type {type(url).__name__}. Expected a text such as grpc://host:8001."
        )
    with stopping("Stopped before a connection was made."):  # no decorator: it would hold the token
        options = Options(
            url=url if url is None or isinstance(url, str) else tuple(url),
            ca=None if ca is None else os.fspath(ca),
            allow_insecure_token=allow_insecure_token,
            timeout=timeout,
        )
        if options == DEFAULTS and token is None and worker_session() is not None:
            connection = connections.shared(options, Connection)
            connection.open()
            return connection
        connection = Connection(options, token)
        connection.open(wait_for_all=explain)
        connections.add(connection)
        if find_spec("distributed") is not None:
            from eaf_inference.dask.config import bring_clusters_up_connected

            bring_clusters_up_connected(connection)
        return connection


def _refuse_a_path(token: str) -> None:
    """Refuse a file's name in place of what it holds; both may have the form of a token.

    Raises
    ------
    ConfigurationError
        It is the absolute path of a file.
    """
    if token.startswith(("/", "~")) and os.path.isfile(os.path.expanduser(token[:])):  # noqa: PTH111, PTH113  (any text)
        raise ConfigurationError(
            "The token is the path of a file. Pass TokenFile(path) instead, which also reads what is renewed there."
        )


def current() -> Connection | None:
    """Return the connection that this process made last and has not closed."""
    return connections.current()
