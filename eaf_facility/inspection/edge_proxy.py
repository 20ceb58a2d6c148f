"""The edge proxy: it admits a good token and nothing else, and its certificate is valid for some time."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_facility.inspection.calls import OK, SECONDS, call
from eaf_facility.inspection.setup import HUB_TOKEN
from eaf_inference._text import duration
from eaf_inference.auth.tls import pem_text
from eaf_inference.auth.token import Token
from eaf_inference.doctor import Finding, State
from eaf_inference.errors import ConfigurationError, InferenceError, NotAuthorized

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptography.x509 import Certificate

    from eaf_facility.inspection.calls import Answer
    from eaf_facility.inspection.setup import Setup
    from eaf_facility.token_policy import TokenPolicy
    from eaf_inference.address import Address

__all__ = ["admission", "certificates", "expiry", "judged"]

DAYS_LEFT = 21  # below which a certificate should be renewed
_DAY = 86_400.0
_METHOD = "ServerMetadata"  # needs a token, and is small
_UNAUTHENTICATED, _PERMISSION_DENIED = "UNAUTHENTICATED", "PERMISSION_DENIED"
_SILENT = ("UNAVAILABLE", "DEADLINE_EXCEEDED")


def admission(setup: Setup) -> Iterator[Finding]:
    """Call each address of the edge proxy without a token, with a forged one and with a good one."""
    if not setup.proxies:
        remedy = 'c.Facility.urls = ["grpcs://triton.example.org:443"]'
        yield Finding("edge proxy", State.NOTE, "its address is not configured", remedy)
        return
    ca, forged = setup.facility.ca or None, _forged(setup.policy)
    good: Token | None = None
    missing: Finding | None = None
    for address in setup.proxies:
        subject = f"edge proxy {address.url}"
        without = call(address, _METHOD, ca=ca)
        yield judged(f"{subject}, no token", without, admitted=False)
        if without.status in _SILENT:
            continue  # the other calls would fail alike
        if good is None and missing is None:
            good, missing = _operators_token(setup)
        yield judged(f"{subject}, forged token", call(address, _METHOD, ca=ca, token=forged), admitted=False)
        if missing is not None:
            yield Finding(f"{subject}, good token", missing.state, missing.what, missing.remedy)
        elif good is not None and (address.tls or address.is_loopback or setup.facility.allow_insecure_token):
            answer = call(address, _METHOD, ca=ca, token=good)
            yield judged(f"{subject}, good token", answer, admitted=True, user=good.user or "")
        else:
            remedy = 'users need TLS: c.Facility.urls = ["grpcs://…"]'
            what = "not called, because the token would travel unencrypted"
            yield Finding(f"{subject}, good token", State.NOTE, what, remedy)


def judged(subject: str, answer: Answer, *, admitted: bool, user: str = "") -> Finding:
    """Return the finding about a call that should have been admitted, or refused."""
    said = f"{answer.status}: {answer.details}" if answer.details else answer.status
    if answer.status in _SILENT:
        remedy = "start Envoy, and see its log; if TLS failed, Facility.ca must verify its certificate"
        if "no healthy upstream" in answer.details:
            remedy = "Envoy reaches no Triton: start them, or correct Envoy.upstreams"
        return Finding(subject, State.PROBLEM, f"does not serve: {said}", remedy)
    if not admitted:
        if answer.status == _UNAUTHENTICATED:
            return Finding(subject, State.FINE, f"refused ({_UNAUTHENTICATED})")
        remedy = "Facility.urls must lead to Envoy with the configuration of `eaf-inference envoy`, not to a Triton"
        what = "admitted: everybody can use Triton" if answer.status == OK else f"not refused as expected, but {said}"
        return Finding(subject, State.PROBLEM, what, remedy)
    if answer.status == OK:
        return Finding(subject, State.FINE, f"admitted as {user}" if user else "admitted")
    remedy = "see Envoy's access log"
    if answer.status in (_UNAUTHENTICATED, _PERMISSION_DENIED):
        remedy = (
            "Envoy and the token service need the same TokenPolicy.issuer and .audience, and TokenPolicy.jwks_url "
            "must be the service's, as Envoy reaches it. Render Envoy's configuration again after a change"
        )
    return Finding(subject, State.PROBLEM, f"refused: {said}", remedy)


def _operators_token(setup: Setup) -> tuple[Token | None, Finding | None]:
    """Return the operator's token, or why there is none."""
    source = setup.token_source
    if source is None:
        remedy = f"set {HUB_TOKEN} to a token of yours from the Hub (…/hub/token), or pass --token-file"
        return None, Finding("", State.NOTE, "not checked, because the doctor has no token", remedy)
    try:
        return source.read(), None
    except InferenceError as error:
        remedy = "start the token service, or correct Facility.token_service or TokenPolicy.jwks_url"
        if isinstance(error, NotAuthorized):
            remedy = "use a token of a user in a group that may use inference (`configure(c, groups=…)` of the Hub)"
        elif isinstance(error, ConfigurationError):
            remedy = "give a file with one token: --token-file"
        return None, Finding("", State.PROBLEM, f"no token: {str(error).splitlines()[0]}", remedy)


def _forged(policy: TokenPolicy) -> Token:
    """Return a token that states the right things and is signed by no key."""
    claims = {"iss": policy.issuer, "aud": policy.audience, "sub": "doctor", "exp": int(time.time()) + 60}
    parts = [json.dumps(each).encode() for each in ({"alg": "none", "typ": "JWT"}, claims)]
    return Token(".".join([*(base64.urlsafe_b64encode(each).rstrip(b"=").decode() for each in parts), ""]))


def certificates(setup: Setup) -> Iterator[Finding]:
    """Report the edge proxy's certificate and its authorities."""
    from cryptography import x509

    ca = setup.facility.ca or None
    for address in [each for each in setup.proxies if each.tls]:
        subject = f"certificate of {address.url}"
        try:
            served = x509.load_der_x509_certificate(_served(address))
        except (OSError, ValueError) as error:
            remedy = "start Envoy; its log says if it could not load Envoy.certificate and Envoy.key"
            yield Finding(subject, State.PROBLEM, f"no TLS: {error}", remedy)
            continue
        reason = _refusal(address, ca)
        left = (served.not_valid_after_utc.timestamp() - time.time()) / _DAY
        if reason and left > 0:
            remedy = "Facility.ca must contain the authority that signed it, and the certificate the host's name"
            yield Finding(subject, State.PROBLEM, f"users cannot verify it: {reason}", remedy)
        else:
            yield expiry(subject, left, "renew Envoy.certificate and Envoy.key: Envoy serves new files by itself")
        yield from _of_file(setup, subject, served)
    yield from _authorities(ca)


def _authorities(ca: str | None) -> Iterator[Finding]:
    from cryptography import x509

    if ca is None:
        return  # the system's
    try:
        found = x509.load_pem_x509_certificates(pem_text(ca, "certificate authorities").encode())
    except (ConfigurationError, ValueError) as error:
        yield Finding("Facility.ca", State.PROBLEM, str(error), "expected a PEM file of certificate authorities")
        return
    for each in found:
        left = (each.not_valid_after_utc.timestamp() - time.time()) / _DAY
        remedy = (
            "add the new authority to Facility.ca, and restart the token service, before Envoy's certificate changes"
        )
        yield expiry(f"authority {each.subject.rfc4514_string()}", left, remedy)


def expiry(subject: str, days: float, remedy: str) -> Finding:
    """Return the finding about a certificate with this many days left."""
    if days <= 0:
        return Finding(subject, State.PROBLEM, f"expired {duration(-days * _DAY)} ago", remedy)
    state = State.NOTE if days < DAYS_LEFT else State.FINE
    return Finding(subject, state, f"expires in {days:.0f} days", remedy if state is State.NOTE else "")


def _of_file(setup: Setup, subject: str, served: Certificate) -> Iterator[Finding]:
    """Report a certificate in the file that Envoy does not serve, if the file is on this machine."""
    from cryptography import x509

    try:
        in_file = x509.load_pem_x509_certificates(Path(setup.envoy.certificate).read_bytes())[0]
    except (OSError, ValueError, IndexError):
        return
    if in_file.serial_number != served.serial_number:
        what = f"{setup.envoy.certificate} holds another certificate than the one served"
        remedy = (
            "Envoy's log says why it did not take it (Failed to reload certificates); restart an Envoy without a "
        )
        yield Finding(subject, State.PROBLEM, what, f"{remedy}file Envoy.tls_secret")


def _served(address: Address) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # an expired one should be reported, too
    with (
        socket.create_connection((address.host, address.port), SECONDS) as connection,
        context.wrap_socket(connection, server_hostname=address.host) as tls,
    ):
        return tls.getpeercert(binary_form=True) or b""


def _refusal(address: Address, ca: str | None) -> str:
    """Return why a client refuses the certificate, or nothing."""
    try:
        context = ssl.create_default_context(cadata=pem_text(ca, "certificate authorities") if ca else None)
        with (
            socket.create_connection((address.host, address.port), SECONDS) as connection,
            context.wrap_socket(connection, server_hostname=address.host),
        ):
            return ""
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except (OSError, ConfigurationError) as error:
        return str(error)
