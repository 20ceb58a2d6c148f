"""``python -m eaf_facility.hub``: the token service, as JupyterHub or an operator starts it.

Its addresses come from the environment variables that the Hub defines for services: JUPYTERHUB_API_URL,
JUPYTERHUB_SERVICE_URL (where it also listens), JUPYTERHUB_SERVICE_PREFIX and JUPYTERHUB_SERVICE_NAME. It needs no
token of its own, because it queries the Hub with its callers' tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit

from eaf_facility.hub import audit
from eaf_facility.hub.facility_document import facility_document
from eaf_facility.hub.handler import Service
from eaf_facility.hub.key_store import KeyStore
from eaf_facility.hub.keys import Schedule
from eaf_facility.hub.model_store import store_access
from eaf_facility.hub.rate import Rate
from eaf_facility.hub.service import server
from eaf_facility.hub.settings import ModelStore, TokenIssuer
from eaf_facility.hub.usage import OwnUsage
from eaf_facility.token_policy import TokenPolicy
from eaf_inference.config import configured, load_facility
from eaf_inference.errors import ConfigurationError

log = logging.getLogger("eaf_facility.hub")

_SHUTDOWN_TIMEOUT = 5.0  # seconds for requests in progress when the service is stopped


def main() -> int:
    """Serve until SIGTERM and return the exit code."""
    options = make_parser().parse_args()
    _log_to_stderr()
    try:
        asyncio.run(_serve(reuse_port=options.reuse_port))
    except ConfigurationError as error:
        print(f"eaf_facility.hub: {error}", file=sys.stderr)  # noqa: T201  (the program's error message)
        return 1
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eaf_facility.hub", description="Run the token service until SIGTERM."
    )
    parser.add_argument(
        "--reuse-port",
        action="store_true",
        help="share the port with a socket of the same user that already holds it (SO_REUSEPORT)",
    )
    return parser


async def _serve(*, reuse_port: bool) -> None:
    url, prefix = _required("JUPYTERHUB_SERVICE_URL"), _required("JUPYTERHUB_SERVICE_PREFIX")
    service = _service()
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or not parts.port:
        raise ConfigurationError(
            f"JUPYTERHUB_SERVICE_URL is {url!r}. Expected http://host:port, the address to listen on."
        )
    http = server(service, prefix)
    try:
        http.listen(parts.port, parts.hostname, reuse_port=reuse_port)
    except OSError as error:
        raise ConfigurationError(f"The token service cannot listen on {url}: {error.strerror or error}.") from error
    log.info("listening on %s%s", url, prefix)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
    http.stop()
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(http.close_all_connections(), _SHUTDOWN_TIMEOUT)


def _service() -> Service:
    from jupyterhub.services.auth import HubAuth

    policy, issuer, facility = configured(TokenPolicy), configured(TokenIssuer).checked(), load_facility()
    schedule = Schedule(issuer.rotate_every, issuer.publish_ahead, policy.lifetime + issuer.clock_skew)
    name = _required("JUPYTERHUB_SERVICE_NAME")
    return Service(
        hub=HubAuth(api_url=_required("JUPYTERHUB_API_URL"), access_scopes={f"access:services!service={name}"}),
        keys=KeyStore(Path(issuer.key_directory).expanduser(), schedule),
        policy=policy,
        rate=Rate(issuer.tokens_per_minute, issuer.burst),
        document=facility_document(facility),
        contact=issuer.contact,
        usage=OwnUsage(facility) if facility.usage_prometheus_url or facility.prometheus_url else None,
        store=store_access(configured(ModelStore), facility) if facility.model_store_service else None,
    )


def _required(variable: str) -> str:
    value = os.environ.get(variable, "")
    if not value:
        raise ConfigurationError(
            f"{variable} is not set. JupyterHub sets it for services that it starts; set it yourself if you start "
            "the token service (see the operators' guide)."
        )
    return value


def _log_to_stderr() -> None:
    """Send logs to stderr. Lines of the audit log have no prefix, so that programs can read them."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    for package in ("eaf_facility", "eaf_inference"):
        logging.getLogger(package).setLevel(logging.INFO)
    lines = logging.StreamHandler()
    lines.setFormatter(logging.Formatter("%(message)s"))
    audit.LOG.addHandler(lines)
    audit.LOG.propagate = False


if __name__ == "__main__":
    sys.exit(main())
