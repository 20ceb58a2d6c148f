"""The Tritons behind the edge proxy: healthy, alike, reachable by the proxy alone, and aware of the model store."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from eaf_facility.envoy.clusters import of_tier
from eaf_facility.inspection.calls import OK, call, connects, get
from eaf_facility.token_policy import DEFAULT_TIER
from eaf_inference._files import reason_of
from eaf_inference.address import parse_urls
from eaf_inference.doctor import Finding, State
from eaf_inference.errors import InferenceError
from eaf_inference.inference import protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from eaf_facility.inspection.setup import Setup
    from eaf_inference.address import Address

__all__ = ["Seen", "alike", "judged", "model_store", "tritons"]

_CLOSE = "close its ports to all hosts but Envoy's: a firewall, or the NetworkPolicy in docs/kubernetes/facility"
_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Seen:
    """A Triton as this machine sees it.

    Attributes
    ----------
    models : mapping of str to bool, optional
        Whether a version of each model is ready; None if the Triton does not list its models.
    why : str
        Why it does not.
    connects : bool, optional
        Whether its port then takes connections; None if its name is not known on this machine.
    """

    url: str
    models: Mapping[str, bool] | None
    why: str = ""
    connects: bool | None = False


def tritons(setup: Setup) -> Iterator[Finding]:
    """Report each upstream, and whether all serve the same models."""
    if not setup.envoy.upstreams:
        yield Finding("Tritons", State.NOTE, "Envoy.upstreams is not configured here, so they were not checked")
        return
    here, found = on_the_proxys_host(setup), look(setup)
    for each in found:
        yield judged(each, here=here)
    yield from alike(found)
    yield from _of_envoy(setup)


def judged(seen: Seen, *, here: bool) -> Finding:
    """Return the finding about one Triton; `here` is whether this is the edge proxy's host."""
    subject = f"Triton {seen.url}"
    if here and seen.models is None:
        remedy = "start it, and see its log; or correct Envoy.upstreams"
        if seen.connects:
            remedy = "see its log; with a model store in S3 it lists no models while S3 does not answer"
        return Finding(subject, State.PROBLEM, f"does not answer: {seen.why}", remedy)
    if seen.models is None and seen.connects is None:
        remedy = "run the doctor where the name is known, or try the address: nothing but Envoy's host may reach it"
        return Finding(subject, State.NOTE, "its name is not known on this host, so nothing was tried", remedy)
    if seen.models is None and not seen.connects:
        what = "not reachable from this host, as it should be; only Envoy's host can check its health"
        return Finding(subject, State.FINE, what)
    if seen.models is None:
        what = f"takes connections from this host, around Envoy and without a token ({seen.why})"
        return Finding(subject, State.PROBLEM, what, _CLOSE)
    ready = sum(seen.models.values())
    if here:
        what = f"healthy, {ready} models ready; answers here, on Envoy's host, without a token"
        return Finding(subject, State.NOTE, what, f"users' hosts must not reach it: {_CLOSE}")
    return Finding(subject, State.PROBLEM, "answers this host, around Envoy and without a token", _CLOSE)


def alike(found: Sequence[Seen]) -> Iterator[Finding]:
    """Report models that one Triton serves and another does not."""
    serving = {
        each.url: {name for name, ready in each.models.items() if ready} for each in found if each.models is not None
    }
    every = set().union(*serving.values())
    if serving and not every:
        remedy = "see their logs, which say why a model is not ready; or give them a repository with models"
        yield Finding("models", State.NOTE, "no Triton serves any", remedy)
    if len(serving) < 2 or not every:
        return
    different = False
    for url, names in serving.items():
        if lacking := sorted(every - names):
            different = True
            what = f"{url} does not serve {_named(lacking)}, which another one does"
            remedy = "give all Tritons the same repositories; their logs say why a model is not ready"
            yield Finding("models", State.PROBLEM, what, remedy)
    if not different:
        yield Finding("models", State.FINE, f"all {len(serving)} Tritons serve the same {len(every)}")


def on_the_proxys_host(setup: Setup) -> bool:
    """Return whether users reach the edge proxy at this host, or Envoy's administration answers, on loopback."""
    if setup.facility.urls and any(_is_own(address.host) for address in setup.proxies):  # else they are a guess
        return True
    try:
        return get(f"http://127.0.0.1:{setup.envoy.admin_port}/ready").status == HTTPStatus.OK
    except OSError:
        return False


def _is_own(host: str) -> bool:
    """Return whether this host has the address."""
    try:
        family, kind, protocol_, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol_) as local:
            local.bind(address)
    except (OSError, UnicodeError):  # the latter: a name that cannot exist
        return False
    return True


def _of_envoy(setup: Setup) -> Iterator[Finding]:
    """Report how many Tritons Envoy itself finds healthy, if its administration interface answers here."""
    of = f"cluster.{of_tier(DEFAULT_TIER)}.membership_"
    url = f"http://127.0.0.1:{setup.envoy.admin_port}/stats?format=json&filter={quote(of)}"
    try:
        stats = json.loads(get(url).body)["stats"]
        values = {each["name"]: int(each["value"]) for each in stats if "value" in each}
        healthy, total = values[f"{of}healthy"], values[f"{of}total"]
    except (OSError, ValueError, LookupError, TypeError):
        return
    what = f"{healthy} of {total} Tritons pass its health checks"
    if healthy < total or not total:
        remedy = "see the logs of the others; Envoy asks grpc.health.v1.Health, which Triton answers once it is ready"
        yield Finding("Envoy", State.PROBLEM, what, remedy)
    else:
        yield Finding("Envoy", State.FINE, what)


def look(setup: Setup) -> list[Seen]:
    """Ask every upstream; a name stands for all its addresses, as for Envoy."""
    addresses: list[Address] = []
    unknown: list[Seen] = []
    for upstream in parse_urls(setup.envoy.upstreams):
        try:
            hosts = {each[4][0] for each in socket.getaddrinfo(upstream.host, None, type=socket.SOCK_STREAM)}
        except (OSError, UnicodeError) as error:
            unknown.append(Seen(upstream.url, None, reason_of(error), connects=None))
            continue
        addresses += [replace(upstream, host=str(host)) for host in sorted(map(str, hosts))]
    with ThreadPoolExecutor(16) as pool:
        return [*pool.map(_seen, addresses), *unknown]


def _seen(address: Address) -> Seen:
    from google.protobuf.message import DecodeError

    answer = call(address, "RepositoryIndex")
    why = f"{answer.status} {answer.details}".strip()
    if answer.status == OK:
        try:
            return Seen(address.url, _ready(answer.reply))
        except DecodeError:
            why = "its answer is not a Triton's"
    return Seen(address.url, None, why, connects(address))


def _ready(reply: bytes) -> dict[str, bool]:
    """Return whether a version of each model is ready; Triton also lists those that it served before."""
    ready: dict[str, bool] = {}
    for each in protocol.RepositoryIndexResponse.FromString(reply).models:
        ready[each.name] = ready.get(each.name, False) or each.state == "READY"
    return ready


def model_store(setup: Setup) -> Iterator[Finding]:
    """Report whether the model store can be read, and whether the Tritons see what is in it."""
    url = setup.facility.model_store
    if not url:
        return
    subject = f"model store {url}"
    try:
        stored = _stored(setup)
    except (InferenceError, OSError) as error:
        why = reason_of(error) if isinstance(error, OSError) else str(error).splitlines()[0]
        what = f"cannot be read: {why}"
        yield Finding(
            subject, State.PROBLEM, what, "create it, or correct Facility.model_store and ModelStore.key_file"
        )
        return
    yield from seen_by_all(
        subject, stored, look(setup) if setup.envoy.upstreams else [], setup.facility.model_control
    )


def seen_by_all(subject: str, stored: Sequence[str], found: Sequence[Seen], control: str) -> Iterator[Finding]:
    """Judge what the Tritons see of the models in the store."""
    answering = [each for each in found if each.models is not None]
    unseen = {each.url: sorted(set(stored) - set(each.models or ())) for each in answering}
    if control == "poll" and any(unseen.values()):
        url, names = next((url, names) for url, names in unseen.items() if names)
        remedy = (
            f"start Triton with --model-control-mode=poll and with the store as a --model-repository; {url}'s log"
        )
        yield Finding(subject, State.PROBLEM, f"{url} does not see {_named(names)}", remedy)
    elif not answering:
        yield Finding(subject, State.NOTE, f"has {len(stored)} models; no Triton answers here that could see them")
    elif control == "poll" and stored:
        yield Finding(subject, State.FINE, f"has {len(stored)} models, which every Triton sees")
    else:
        yield Finding(subject, State.FINE, f"has {len(stored)} models" if stored else "can be read, and is empty")


def _stored(setup: Setup) -> list[str]:
    """Return the names of the models in the store that have a configuration."""
    url = setup.facility.model_store
    if url.startswith("s3://"):
        from eaf_inference.deploy.s3_place import S3Place

        key = setup.store.own_key()
        files = S3Place(url, endpoint=setup.facility.model_store_endpoint, key=key, timeout=5.0).files("")
        names = {path.partition("/")[0] for path in files if path.endswith("/config.pbtxt")}
    else:
        directory = Path(unquote(urlsplit(url).path))
        names = {each.name for each in directory.iterdir() if (each / "config.pbtxt").is_file()}
    return sorted(name for name in names if not name.startswith("."))  # a draft, on its way into the store


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
