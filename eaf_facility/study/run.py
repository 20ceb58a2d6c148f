"""Run the study, and keep the results on Ctrl-C."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_facility.servers.envoy import envoy_program
from eaf_facility.study import facility_capacity, real_workers, simulation, timing
from eaf_facility.study.client_packages import client_packages
from eaf_facility.study.clients import COFFEA
from eaf_facility.study.machine import machine, software
from eaf_facility.study.outcome import Outcome, Scale, Site
from eaf_inference.errors import BadReply, ConfigurationError, InferenceError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["FULL", "PARTS", "QUICK", "study"]

PARTS = ("timing", "workers", "models", "capacity")
FULL = Scale(
    timing_jets={"b": 10_000, "c": 10_000},
    local_workers=(1, 2, 4, 8),
    local_replicas=(1, 2),
    file_jets=5_000,
    files_per_worker=2,
    simulated_workers=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    simulated_replicas=(1, 2, 4),
    seconds=10.0,
    capacity_seconds=60.0,
)
QUICK = Scale(
    timing_jets={"b": 2_560, "c": 192},
    local_workers=(1, 2, 4),
    local_replicas=(1, 2),
    file_jets=500,
    files_per_worker=2,
    simulated_workers=(1, 4, 16, 64, 256),
    simulated_replicas=(1, 2, 4),
    seconds=2.0,
    capacity_seconds=15.0,
)


def study(
    *,
    quick: bool = False,
    scale: Scale | None = None,
    parts: Sequence[str] = PARTS,
    site: Site | None = None,
    progress: Callable[[str], None],
) -> Outcome:
    """Repeat the measurements of arXiv:2312.06838.

    Parameters
    ----------
    quick : bool
        Use a small part of the jets, workers and time: less than eight minutes on two cores.
    scale : Scale, optional
        Another size than full or quick.
    parts : sequence of str
        Some of `PARTS`.
    site : Site, optional
        A facility. By default everything runs on this machine, partly on simulated accelerators.
    progress : callable
        Called with a short message at each step.

    Returns
    -------
    Outcome
        After an interrupt, the results until then.

    Raises
    ------
    BadReply
        A score is wrong.
    ConfigurationError
        A part is unknown, or the site has a Prometheus or Dask Gateway but no Triton.
    """
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise ConfigurationError(f"The study has no part {', '.join(unknown)}. Expected some of {', '.join(PARTS)}.")
    site = site or Site()
    if site.url is None and (site.prometheus or site.gateway):
        raise ConfigurationError("--prometheus and --gateway also need the facility's Triton: pass --url.")
    where = f"the facility at {site.url}" if site.url else "this machine"
    outcome = Outcome(machine(), software(), quick, where)
    size = scale or (QUICK if quick else FULL)
    if site.url is None and {"timing", "workers"} & set(parts) and (package := COFFEA.missing_package):
        outcome.remarks.append(f"{COFFEA.name}: {_not_installed(package)}")
    try:
        for part in parts:
            try:
                _PARTS[part](outcome, size, site, progress)
            except BadReply:
                raise
            except InferenceError as error:
                outcome.remarks.append(f"{part}: {error}")
            except ModuleNotFoundError as error:
                outcome.remarks.append(f"{part}: {_not_installed(error.name)}")
    except KeyboardInterrupt:
        outcome.interrupted = True
    return outcome


def _tritonclient(outcome: Outcome, part: str, site: Site, progress: Callable[[str], None]) -> Path | None:
    """Fetch tritonclient for coffea's wrapper; return None if that is not measured. On a facility it has no token."""
    if site.url is not None or COFFEA.missing_package:
        return None
    try:
        return client_packages(progress=progress)
    except ConfigurationError as error:
        outcome.remarks.append(f"{part}: not measured with coffea's triton_wrapper: {error}")
        return None


def _not_installed(package: str | None) -> str:
    return f"the package {package} is not installed: pip install 'eaf-inference[study]'"


def _timing(outcome: Outcome, scale: Scale, site: Site, progress: Callable[[str], None]) -> None:
    with_coffea = _tritonclient(outcome, "timing", site, progress) is not None
    for curve in timing.measure(scale, site.url, with_coffea=with_coffea, progress=progress):
        outcome.timings.append(curve)


def _workers(outcome: Outcome, scale: Scale, site: Site, progress: Callable[[str], None]) -> None:
    if site.url is not None and not (site.gateway and site.prometheus):
        outcome.remarks.append(
            "workers: this part needs the facility's Dask Gateway and Prometheus: pass --gateway and --prometheus"
        )
        return
    tritonclient = _tritonclient(outcome, "workers", site, progress)
    with tempfile.TemporaryDirectory(prefix="eaf-inference-study-") as directory:
        measured = real_workers.measure(scale, Path(directory), site, tritonclient=tritonclient, progress=progress)
        for point in measured:
            outcome.scaled.append(point)
    if site.url is None:
        outcome.accelerator = simulation.DESCRIPTION
        for point in simulation.with_workers(scale, progress=progress):
            outcome.scaled.append(point)


def _models(outcome: Outcome, scale: Scale, site: Site, progress: Callable[[str], None]) -> None:
    if site.url is not None:
        outcome.remarks.append("models: this part runs on simulated accelerators only, not on a facility")
        return
    outcome.accelerator = simulation.DESCRIPTION
    try:
        envoy = bool(envoy_program())
    except ConfigurationError as error:
        envoy = False
        outcome.remarks.append(f"models: without Envoy, so the simulated workers chose the Tritons: {error}")
    for mixture in simulation.several_models(scale, envoy=envoy, progress=progress):
        outcome.mixtures.append(mixture)


def _capacity(outcome: Outcome, scale: Scale, site: Site, progress: Callable[[str], None]) -> None:
    if site.url is None:
        outcome.accelerator = simulation.DESCRIPTION
        outcome.predicted = simulation.predict(scale, progress=progress)
    elif site.prometheus is None:
        outcome.remarks.append("capacity: this part needs the facility's Prometheus: pass --prometheus")
        return
    else:
        outcome.predicted = facility_capacity.predict(scale, site.url, site.prometheus, progress=progress)
    if outcome.predicted is None:
        outcome.remarks.append("capacity: the metrics during the load are not enough for a prediction")


_PARTS: dict[str, Callable[[Outcome, Scale, Site, Callable[[str], None]], None]] = {
    "timing": _timing,
    "workers": _workers,
    "models": _models,
    "capacity": _capacity,
}
