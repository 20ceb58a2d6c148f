"""``python -m eaf_inference.hub``: the token service, as JupyterHub or an operator starts it.

The environment says where, as the Hub defines it: JUPYTERHUB_API_URL, JUPYTERHUB_SERVICE_URL (also the address to
listen at), JUPYTERHUB_SERVICE_PREFIX and JUPYTERHUB_SERVICE_NAME. It needs no token of its own: the Hub is asked with
the callers'.
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

from eaf_inference.config import configured, load_facility
from eaf_inference.errors import ConfigurationError
from eaf_inference.hub import audit
from eaf_inference.hub.facility_document import facility_document
from eaf_inference.hub.key_store import KeyStore
from eaf_inference.hub.keys import Schedule
from eaf_inference.hub.rate import Rate
from eaf_inference.hub.service import Service, server
from eaf_inference.hub.settings import TokenIssuer
from eaf_inference.hub.usage import OwnUsage
from eaf_inference.policy import TokenPolicy

log = logging.getLogger("eaf_inference.hub")

_ANSWERS_WITHIN = 5.0  # seconds, for what is under way when it is stopped


def main() -> int:
    """Serve until SIGTERM, and give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m eaf_inference.hub", description="Serve until SIGTERM.")
    parser.add_argument(
        "--reuse-port",
        action="store_true",
        help="listen beside a socket of the same user that holds the port (SO_REUSEPORT)",
    )
    options = parser.parse_args()
    _log_to_stderr()
    try:
        asyncio.run(_serve(reuse_port=options.reuse_port))
    except ConfigurationError as error:
        print(f"eaf_inference.hub: {error}", file=sys.stderr)  # noqa: T201  (a program's last word)
        return 1
    return 0


async def _serve(*, reuse_port: bool) -> None:
    url, prefix = _named("JUPYTERHUB_SERVICE_URL"), _named("JUPYTERHUB_SERVICE_PREFIX")
    service = _service()
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or not parts.port:
        raise ConfigurationError(f"JUPYTERHUB_SERVICE_URL is {url!r}. Expected http://host:port, to listen at.")
    http = server(service, prefix)
    try:
        http.listen(parts.port, parts.hostname, reuse_port=reuse_port)
    except OSError as error:
        raise ConfigurationError(f"The token service cannot listen at {url}: {error.strerror or error}.") from error
    log.info("listening at %s%s", url, prefix)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
    http.stop()
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(http.close_all_connections(), _ANSWERS_WITHIN)


def _service() -> Service:
    from jupyterhub.services.auth import HubAuth

    policy, issuer, facility = configured(TokenPolicy), configured(TokenIssuer).checked(), load_facility()
    schedule = Schedule(issuer.rotate_every, issuer.publish_ahead, policy.lifetime + issuer.clock_skew)
    name = _named("JUPYTERHUB_SERVICE_NAME")
    return Service(
        hub=HubAuth(api_url=_named("JUPYTERHUB_API_URL"), access_scopes={f"access:services!service={name}"}),
        keys=KeyStore(Path(issuer.key_directory).expanduser(), schedule),
        policy=policy,
        rate=Rate(issuer.tokens_per_minute, issuer.burst),
        document=facility_document(facility),
        contact=issuer.contact,
        usage=OwnUsage(facility) if facility.usage_prometheus_url or facility.prometheus_url else None,
    )


def _named(variable: str) -> str:
    value = os.environ.get(variable, "")
    if not value:
        raise ConfigurationError(
            f"{variable} is not set. A JupyterHub sets it for a service that it starts; set it yourself for one that "
            "you start (see the operators' guide)."
        )
    return value


def _log_to_stderr() -> None:
    """The audit log's lines stand alone, so that they can be read by a program."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("eaf_inference").setLevel(logging.INFO)
    lines = logging.StreamHandler()
    lines.setFormatter(logging.Formatter("%(message)s"))
    audit.LOG.addHandler(lines)
    audit.LOG.propagate = False


if __name__ == "__main__":
    sys.exit(main())
