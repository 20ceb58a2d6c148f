"""The options with which every command and %triton_connect find Triton, and the connection that they ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eaf_inference.auth.sources import TokenFile
from eaf_inference.connecting import connect

if TYPE_CHECKING:
    import argparse

    from eaf_inference.connection import Connection

__all__ = ["OPTIONS", "URL", "add_connection_options", "arguments_of", "connected"]

URL = "grpc://host:port or grpcs://host:port (default: found automatically)"
OPTIONS: dict[str, dict[str, Any]] = {
    "--token-file": {"metavar": "F", "help": "file that holds your bearer token and is renewed in place"},
    "--ca": {"metavar": "F", "help": "PEM file of the certificate authorities to trust"},
    "--allow-insecure-token": {
        "action": "store_true",
        "help": "send the token over an unencrypted channel to another machine",
    },
    "--explain": {"action": "store_true", "help": "show the outcome of every discovery source"},
}


def add_connection_options(parser: argparse.ArgumentParser) -> None:
    """Add the options; the command adds ``url`` itself, which is an argument or an option."""
    for name, settings in OPTIONS.items():
        parser.add_argument(name, **settings)


def arguments_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `connect` for these options and ``url``."""
    return {
        "url": options.url,
        "token": TokenFile(options.token_file) if options.token_file else None,
        "ca": options.ca,
        "allow_insecure_token": options.allow_insecure_token or None,
        "explain": options.explain,
    }


def connected(options: argparse.Namespace) -> Connection:
    """Connect as the options say; with ``--explain``, print what was tried."""
    connection = connect(**arguments_of(options))
    if options.explain:
        print(connection.attempts, end="\n\n")
    return connection
