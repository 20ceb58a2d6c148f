"""The options with which every command of the client finds its Triton, and the connection that they ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eaf_inference.auth.sources import TokenFile
from eaf_inference.connecting import connect

if TYPE_CHECKING:
    import argparse

    from eaf_inference.connection import Connection

__all__ = ["URL", "add_connection_options", "connected"]

URL = "grpc://host:port or grpcs://host:port (default: found automatically)"


def add_connection_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of %triton_connect; the command adds ``url`` itself, which is an argument or an option."""
    parser.add_argument("--token-file", metavar="F", help="file that holds your bearer token and is renewed in place")
    parser.add_argument("--ca", metavar="F", help="PEM file of the certificate authorities to trust")
    parser.add_argument(
        "--allow-insecure-token",
        action="store_true",
        help="send the token over an unencrypted channel to another machine",
    )
    parser.add_argument("--explain", action="store_true", help="show the outcome of every discovery source")


def connected(options: argparse.Namespace) -> Connection:
    """Connect as the options say; with ``--explain``, print what was tried."""
    connection = connect(
        options.url,
        token=TokenFile(options.token_file) if options.token_file else None,
        ca=options.ca,
        allow_insecure_token=options.allow_insecure_token or None,
        explain=options.explain,
    )
    if options.explain:
        print(connection.attempts, end="\n\n")
    return connection
