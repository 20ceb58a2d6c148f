"""The token service: it answers, publishes keys, and rotates them on schedule."""

from __future__ import annotations

import json
import time
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_facility.hub.key_store import KEY_FILE
from eaf_facility.inspection.calls import get
from eaf_facility.token_policy import JWKS_PATH
from eaf_inference._text import duration
from eaf_inference.doctor import Finding, State
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from eaf_facility.hub.settings import TokenIssuer
    from eaf_facility.inspection.setup import Setup

__all__ = ["hub", "rotation", "token_service"]

_SUBJECT, _KEYS = "token service", "signing keys"
_LATE = 300.0  # seconds; the service changes its keys when it is asked for them, which Envoy does every two seconds


def hub(setup: Setup) -> Iterator[Finding]:
    """Report whether the Hub answers, if the environment names it."""
    url = setup.environment.get("JUPYTERHUB_API_URL")
    if not url:
        return
    try:
        reply = get(url, setup.facility.ca or None)
    except OSError as error:
        yield Finding("JupyterHub", State.PROBLEM, f"{url} does not answer: {error}", "start it; see its log")
        return
    if reply.status == HTTPStatus.OK and (version := _version(reply.body)):
        yield Finding("JupyterHub", State.FINE, f"{url} answers: version {version}")
    elif reply.status == HTTPStatus.OK:
        remedy = "correct JUPYTERHUB_API_URL: http://hub:8081/hub/api"
        yield Finding("JupyterHub", State.PROBLEM, f"{url} gives another answer than a Hub's", remedy)
    else:
        yield Finding("JupyterHub", State.PROBLEM, f"{url} answers {reply.status}", "see the Hub's log")


def _version(body: bytes) -> str:
    """Return the version that a Hub's API states at its root; empty if this is none."""
    try:
        return str(json.loads(body)["version"])
    except (ValueError, LookupError, TypeError):
        return ""


def token_service(setup: Setup) -> Iterator[Finding]:
    """Report whether the token service answers and publishes keys, and how old they are."""
    url = setup.policy.jwks_url
    if not url:
        remedy = f'c.TokenPolicy.jwks_url = "http://hub:8081/services/triton-token/{JWKS_PATH}"'
        yield Finding(_SUBJECT, State.NOTE, "none is configured, so Envoy cannot verify tokens", remedy)
        return
    try:
        reply = get(url, setup.service_ca)
        health = get(f"{setup.service_url}healthz", setup.service_ca) if setup.service_url else None
    except (OSError, ConfigurationError) as error:
        what = f"{url} does not answer: {error}"
        remedy = (
            "start it (`python -m eaf_facility.hub`, or the Hub's managed service), or correct TokenPolicy.jwks_url"
        )
        yield Finding(_SUBJECT, State.PROBLEM, what, remedy)
        return
    published = key_ids(reply.body) if reply.status == HTTPStatus.OK else []
    if not published:
        what = f"{url} answers {reply.status}" if reply.status != HTTPStatus.OK else f"{url} publishes no key"
        remedy = f"correct TokenPolicy.jwks_url: …/services/triton-token/{JWKS_PATH}, as Envoy reaches it"
        yield Finding(_SUBJECT, State.PROBLEM, what, remedy)
        return
    if health is not None and health.status != HTTPStatus.OK:
        what = f"{setup.service_url}healthz answers {health.status}"
        yield Finding(_SUBJECT, State.PROBLEM, what, "see the token service's log")
        return
    yield Finding(_SUBJECT, State.FINE, f"{setup.service_url or url} answers; keys published: {len(published)}")
    yield _of_directory(published, setup.issuer)


def key_ids(body: bytes) -> list[str]:
    """Return the ids of the keys in a JSON web key set; none if it is not one."""
    try:
        return [str(key["kid"]) for key in json.loads(body)["keys"]]
    except (ValueError, LookupError, TypeError):
        return []


def _of_directory(published: Sequence[str], issuer: TokenIssuer) -> Finding:
    file = Path(issuer.key_directory) / KEY_FILE
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["keys"]
        keys = [(str(key["kid"]), float(key["signs_from"])) for key in found]  # not the private halves
        keys[0]
    except (OSError, ValueError, LookupError, TypeError):
        what = f"{file} cannot be read here, so the age of the keys is unknown"
        remedy = "run the doctor on the token service's machine, in its account, with its TokenIssuer.key_directory"
        return Finding(_KEYS, State.NOTE, what, remedy)
    return rotation(keys, published, time.time(), issuer)


def rotation(keys: Sequence[tuple[str, float]], published: Sequence[str], now: float, issuer: TokenIssuer) -> Finding:
    """Judge the keys' schedule.

    Parameters
    ----------
    keys
        Id, and the time from which it signs, of each key in the key directory, in the order in which they sign.
    published
        The ids that the service publishes.
    """
    if not {kid for kid, _ in keys} <= set(published):
        what = f"the token service publishes other keys than those in {issuer.key_directory}"
        remedy = "TokenPolicy.jwks_url leads to another service, or TokenIssuer.key_directory is another one's"
        return Finding(_KEYS, State.PROBLEM, what, remedy)
    begun = [since for _, since in keys if since <= now] or [keys[0][1]]
    age, due = max(0.0, now - begun[-1]), keys[-1][1] + issuer.rotate_every
    if now > due - issuer.publish_ahead + _LATE:
        what = f"the key is {duration(age)} old, and the next one should have been published"
        remedy = f"see the token service's log; can its account write to {issuer.key_directory}?"
        return Finding(_KEYS, State.PROBLEM, what, remedy)
    ahead = keys[-1][1] - now
    then = f"the next one signs in {duration(ahead)}" if ahead > 0 else f"the next one in {duration(due - now)}"
    return Finding(_KEYS, State.FINE, f"the key is {duration(age)} old; {then}")
