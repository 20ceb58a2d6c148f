"""Readings from a Prometheus that scrapes Triton and dcgm-exporter, the only source with figures of MIG slices.

Each reading is one query: all names of metrics become a single PromQL expression, so all figures are of one moment.
A label of each series has the name of our field. Prometheus computes the rates. A high-availability pair of
Prometheus servers shows every series twice, with different labels ``prometheus_replica``. Two scrape jobs of one
Triton do too, with different labels of the job. The larger value counts.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from eaf_inference._redact import redact
from eaf_inference._text import printable
from eaf_inference.address import Address
from eaf_inference.auth.tls import tls_context
from eaf_inference.errors import BadReply, ConfigurationError, NotAuthorized
from eaf_inference.metrics.http import check_url
from eaf_inference.metrics.names import DCGM, FIELD_LABEL, TRITON, Of
from eaf_inference.metrics.reading import MOST_GPUS, MOST_INSTANCES, MOST_MODELS, Reading, Replica, clip, is_plausible
from eaf_inference.metrics.snapshot import Gpu, Host

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

    from eaf_inference.auth.credentials import Credentials
    from eaf_inference.metrics.http import Fetch

__all__ = ["Prometheus", "expression", "once", "reading_of", "selector", "series_of"]

_TIMEOUT = 5.0  # seconds for an answer to the query for the load
_REMEMBERED = "10m"  # how long a vanished replica is shown as down
_MATCHER = re.compile(r'[a-zA-Z_][a-zA-Z0-9_]*\s*(=|!=|=~|!~)\s*"([^"\\\n]|\\.)*"')

_OF_FIELD = {field: of for of, field in TRITON.values() if of in (Of.COUNTER, Of.GAUGE)}
_DCGM_SCALE = dict(DCGM.values())
_ASKED = {  # values that `expression` puts into the label
    *(f"{of.name.lower()}_{field}" for of, field in TRITON.values()),
    *(f"dcgm_{field}" for field in _DCGM_SCALE),
    *("up", "down"),
}

Labels = dict[str, str]


def expression(matchers: Sequence[str] = (), gpu_matchers: Sequence[str] = (), *, window: int = 30) -> str:
    """Return one PromQL expression for all metrics.

    Parameters
    ----------
    matchers, gpu_matchers : sequence of str
        Select the facility's series of Triton and of dcgm-exporter, such as ``namespace="triton"``.
    window : int
        Seconds over which rates are taken: at least twice Prometheus' scrape interval, else there are no rates.

    Raises
    ------
    ConfigurationError
        A matcher is invalid.
    """
    ours, gpus = selector(matchers), selector(gpu_matchers)
    parts = []
    for name, (of, field) in TRITON.items():
        value = f"rate({name}{ours}[{window}s])" if of is Of.COUNTER else f"{name}{ours}"
        parts.append(_labelled(value, f"{of.name.lower()}_{field}"))
    parts += [_labelled(f"{name}{gpus}", f"dcgm_{field}") for name, (field, _) in DCGM.items()]
    # Rates of a vanished replica stay for the length of the window; this series says which replicas are up.
    parts.append(_labelled(f"group without(model, version) (nv_inference_count{ours})", "up"))
    reported = f"last_over_time(nv_inference_count{ours}[{_REMEMBERED}])"
    down = f"max without(prometheus_replica) (up{ours}) == 0 and on(job, instance) {reported}"
    parts.append(_labelled(down, "down"))
    return " or ".join(parts)


def _labelled(value: str, field: str) -> str:
    return f'label_replace({once(value)}, "{FIELD_LABEL}", "{field}", "", "")'


def once(value: str) -> str:
    """Return the PromQL expression of the largest value that any Prometheus or scrape job gives for a series."""
    return f"max without(prometheus_replica, job, service, endpoint) ({value})"


def selector(matchers: Sequence[str]) -> str:
    """Return the matchers in braces, to follow a metric's name.

    Raises
    ------
    ConfigurationError
        A matcher is invalid.
    """
    for matcher in matchers:
        if not _MATCHER.fullmatch(matcher.strip()):
            raise ConfigurationError(
                f'{matcher!r} is not a matcher of Prometheus. Expected label="value" (or !=, =~, !~), '
                'such as namespace="triton".'
            )
    return "{" + ",".join(matcher.strip() for matcher in matchers) + "}" if matchers else ""


def reading_of(body: bytes, *, window: float) -> Reading:
    """Parse Prometheus' answer to `expression`.

    Raises
    ------
    BadReply
        It is not such an answer.
    """
    models: dict[str, dict[tuple[str, str], dict[str, float]]] = {}
    machines: dict[str, dict[str, float]] = {}
    gpus: dict[str, tuple[Labels, dict[str, float]]] = {}
    seen: dict[str, Labels] = {}
    up: set[str] = set()
    down: dict[str, Labels] = {}
    left_out: set[object] = set()
    series = [(labels, value) for labels, value in series_of(body) if labels.get(FIELD_LABEL) in _ASKED]
    # Triton reports only 0 for a GPU in its first seconds
    unmeasured = {
        _gpu_of(labels) for labels, value in series if labels[FIELD_LABEL] == "gpu_memory_total" and not value
    }
    for labels, value in series:
        kind, _, field = labels[FIELD_LABEL].partition("_")
        if kind == "gpu" and _gpu_of(labels) in unmeasured:
            continue
        if kind in ("dcgm", "gpu"):
            _add_gpu(gpus, labels, kind, field, value, left_out)
            continue
        instance = clip(labels.get("pod") or labels.get("instance", ""))
        if instance not in seen and len(seen) >= MOST_INSTANCES:
            left_out.add(instance)
            continue
        if kind == "down":
            down[instance] = labels
            continue
        seen.setdefault(instance, labels)
        if kind == "up":
            up.add(instance)
        elif kind == "host":
            machines.setdefault(instance, {})[field] = value
        elif field in _OF_FIELD and labels.get("model"):
            _add_model(models.setdefault(instance, {}), labels, field, value, left_out)
    replicas = [
        Replica(
            id=instance,
            host=_host(labels),
            url=None,
            up=True,
            models=models.get(instance, {}),
            machine=_machine(_host(labels) or instance, machines.get(instance, {})),
        )
        for instance, labels in sorted(seen.items())
        if instance in up
    ]
    replicas += [
        Replica(id=instance, host=_host(labels), url=None, up=False, models={})
        for instance, labels in sorted(down.items())
        if instance not in up
    ]
    has_rates = any("inferences" in row for replica in replicas for row in replica.models.values())
    return Reading(
        tuple(replicas),
        gpus=tuple(_gpu(id_, *each) for id_, each in sorted(gpus.items())),
        window=window if has_rates else None,
        left_out=len(left_out),
    )


def series_of(body: bytes) -> Iterable[tuple[Labels, float]]:
    """Return labels and value of each series in Prometheus' answer.

    Raises
    ------
    BadReply
        It is not an answer of Prometheus.
    """
    try:
        answer = json.loads(body)
        if answer["status"] != "success":
            raise _unreadable(f"the query failed: {printable(redact(str(answer.get('error', ''))))[:200]}")
        found = [
            ({str(key): str(value) for key, value in each["metric"].items()}, float(each["value"][1]))
            for each in answer["data"]["result"]
        ]
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise _unreadable("the answer is not from a Prometheus") from error
    return [(labels, value) for labels, value in found if is_plausible(value)]


def _unreadable(why: str) -> BadReply:
    error = BadReply(f"Prometheus' answer cannot be used: {why}. Expected the URL of a Prometheus server.")
    error.reason = why
    return error


def _add_model(
    rows: dict[tuple[str, str], dict[str, float]], labels: Labels, field: str, value: float, left_out: set[object]
) -> None:
    key = (clip(labels["model"]), clip(labels.get("version", "")))
    if key not in rows and len(rows) >= MOST_MODELS:
        left_out.add(key)
        return
    row = rows.setdefault(key, {})
    row[field] = row.get(field, 0.0) + value  # reasons of failures, GPUs of a model's counters


def _add_gpu(
    gpus: dict[str, tuple[Labels, dict[str, float]]],
    labels: Labels,
    kind: str,
    field: str,
    value: float,
    left_out: set[object],
) -> None:
    """Add one value of a GPU. If dcgm-exporter and Triton both report it, dcgm-exporter takes precedence."""
    if kind == "dcgm":
        slice_ = labels.get("GPU_I_ID", "")
        whole = labels.get("UUID") or f"{_host(labels)}/{labels.get('device') or labels.get('gpu', '')}"
        id_ = clip(f"{whole}/{slice_}" if slice_ else whole)
        scale = _DCGM_SCALE[field]
    else:
        id_, scale = clip(labels.get("gpu_uuid", "")), 1.0
    if id_ not in gpus and len(gpus) >= MOST_GPUS:
        left_out.add(id_)
        return
    known, values = gpus.setdefault(id_, ({}, {}))
    if kind == "dcgm":
        known.update(labels)
        values[field] = value * scale
    else:
        known.setdefault("instance", labels.get("instance", ""))
        values.setdefault(field, value)


def _gpu(id_: str, labels: Labels, values: Mapping[str, float]) -> Gpu:
    used, free = values.get("memory_used"), values.get("memory_free")
    total = values.get("memory_total")
    if total is None and used is not None and free is not None:
        total = used + free
    name = labels.get("modelName")
    profile = labels.get("GPU_I_PROFILE")
    return Gpu(
        id=id_,
        host=_host(labels),
        name=clip(name) if name else None,
        profile=clip(profile) if profile else None,
        utilization=values.get("engine", values.get("utilization")),
        memory_used=used,
        memory_total=total,
        power=values.get("power"),
        tensor=values.get("tensor"),
        dram=values.get("dram"),
        source="Prometheus",
    )


def _gpu_of(labels: Labels) -> tuple[str | None, str | None]:
    return labels.get("gpu_uuid"), labels.get("instance")


def _host(labels: Labels) -> str | None:
    """Return the node, or else the host part of the scraped address."""
    named = labels.get("Hostname") or labels.get("node") or labels.get("instance", "").rpartition(":")[0]
    return clip(named) if named else None


def _machine(name: str, values: Mapping[str, float]) -> Host | None:
    return Host(name, **values) if values.get("memory_total", 1.0) > 0 and values else None


class Prometheus:
    """A Prometheus server, or one that answers ``/api/v1/query`` like it (Thanos, Mimir).

    Parameters
    ----------
    url : str
        The part before ``/api/v1/query``.
    matchers, gpu_matchers, window
        See `expression`.
    credentials : Credentials, optional
        Their token is sent as ``Authorization: Bearer``.
    allow_insecure_token : bool
        Send the token unencrypted to other machines too.
    ca : path, optional
        For https: PEM file of the certificate authorities to trust, or its text.
    every : float
        Minimum seconds between two queries, because Prometheus has new values no more often.

    Raises
    ------
    ConfigurationError
        The URL, a matcher or the file cannot be used, or the token would be sent unencrypted.
    """

    kind = "Prometheus"

    def __init__(
        self,
        url: str,
        *,
        matchers: Sequence[str] = (),
        gpu_matchers: Sequence[str] = (),
        window: int = 30,
        credentials: Credentials | None = None,
        allow_insecure_token: bool = False,
        ca: str | os.PathLike[str] | None = None,
        every: float = 5.0,
    ) -> None:
        self.name = check_url(url.rstrip("/"))
        self.every = every
        loopback = Address(urlsplit(url).hostname or "", 0, tls=False).is_loopback
        if credentials and not (url.startswith("https:") or loopback or allow_insecure_token):
            raise ConfigurationError(
                f"The token would be sent to {self.name} unencrypted. Use https://, "
                "or set Facility.allow_insecure_token for a network you trust."
            )
        self._expression = expression(matchers, gpu_matchers, window=window)
        self._window = float(window)
        self._credentials = credentials
        self._tls = tls_context(url, ca)

    async def read(self, fetch: Fetch) -> Reading:
        """Query once; raise an `InferenceError` if that fails."""
        body = await self.query(fetch, self._expression, timeout=_TIMEOUT)
        return await asyncio.to_thread(reading_of, body, window=self._window)

    async def query(self, fetch: Fetch, promql: str, *, timeout: float, at: float | None = None) -> bytes:
        """Return the answer to a PromQL query for now or for a time; raise an `InferenceError` if that fails."""
        moment = {} if at is None else {"time": f"{at:.3f}"}
        form = urlencode({"query": promql, "timeout": f"{timeout:g}s", **moment})
        # in a thread, because finding a token may block
        token = await asyncio.to_thread(self._credentials.token) if self._credentials else None
        headers = {} if token is None else {"Authorization": token.authorization}
        try:
            return await fetch(
                f"{self.name}/api/v1/query", timeout=timeout, tls=self._tls, headers=headers, form=form
            )
        except NotAuthorized:
            if self._credentials and token:
                await asyncio.to_thread(self._credentials.renewed_after, token)  # for the next query
            raise

    def down(self) -> Reading:
        """Return the reading while Prometheus does not answer: an empty one."""
        return Reading()

    def __repr__(self) -> str:
        return f"<metrics from {self.name}>"
