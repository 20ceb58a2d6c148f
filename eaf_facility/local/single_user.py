"""A facility for one user on this machine: Tritons and a Dask Gateway, announced to that user's clients."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_facility.local.model_store import ModelStore, model_store
from eaf_facility.process.restarts import keep_running
from eaf_facility.process.server import Server, ignore
from eaf_facility.servers.dask_gateway import DaskGatewayServer, missing_packages
from eaf_facility.servers.slurm import Slurm
from eaf_facility.servers.triton import MODELS, TritonServer, check_repositories
from eaf_facility.servers.triton_environment import existing_installation, make_installation
from eaf_inference.discovery.local_facility import LocalFacility, announced
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["RunningFacility", "make_tritons", "up"]


@dataclass(frozen=True, slots=True)
class RunningFacility:
    """What `up` started."""

    servers: tuple[TritonServer, ...]
    gateway: DaskGatewayServer | None
    slurm: Slurm | None
    store: ModelStore
    models: tuple[str, ...]
    started: float  # seconds since the epoch
    announce: Callable[[LocalFacility], object]

    @property
    def description(self) -> LocalFacility:
        """The servers as they are now, in the form that clients read."""
        return LocalFacility(
            pid=os.getpid(),
            started=self.started,
            replicas=tuple(triton.replica for triton in self.servers if triton.launched),
            models=self.models,
            gateway=self.gateway.description if self.gateway else None,
            model_store=self.store.url,
            model_store_endpoint=self.store.endpoint,
            model_store_keys=self.store.keys,
            slurm_conf=str(self.slurm.configuration) if self.slurm else "",
        )

    def watch(self, *, progress: Callable[[str], None] = ignore) -> Server:
        """Restart every server that dies and announce it, until one keeps crashing; see `restarts.keep_running`."""
        gateway: tuple[Server, ...] = (self.gateway.proxy, self.gateway) if self.gateway else ()
        slurm = self.slurm.servers if self.slurm else ()
        return keep_running(
            [*self.store.servers, *self.servers, *slurm, *gateway],
            progress=progress,
            changed=lambda: self.announce(self.description),
        )


@contextmanager
def up(
    models: Sequence[Path | str] = (),
    *,
    replicas: int = 1,
    triton_server: Path | str | None = None,
    grpc_port: int | None = None,
    gateway: bool = True,
    batch: str | None = None,
    store: Path | str | None = None,
    progress: Callable[[str], None] = ignore,
) -> Iterator[RunningFacility]:
    """Run a facility for the duration of a `with` block, which begins when it is ready and announced.

    Parameters
    ----------
    models
        Triton model repositories; by default the one that comes with this package.
    replicas
        The number of Tritons, each serving all models.
    triton_server
        A tritonserver to use instead of the one that is installed on first use.
    grpc_port
        The first replica's gRPC port; the others get the following ports. By default all are free ports.
    gateway
        Whether to start a Dask Gateway too, if its packages are installed.
    batch
        The batch system whose jobs the gateway's schedulers and workers are: ``"slurm"``, which is started too. By
        default they are processes.
    store
        The model store; see `model_store.model_store`.
    progress
        Called with a short line for each step.

    Raises
    ------
    ConfigurationError
        An argument is invalid, or a server did not start. The message has Triton's own reason and the log's path.
    ServerUnavailable
        A server neither became ready nor ended.
    """
    with ExitStack() as stack:
        slurm = _slurm(stack, progress) if batch == "slurm" else None  # first, as its packages may be missing
        models_of_users = stack.enter_context(model_store(store, progress=progress))
        tritons = make_tritons(
            models,
            replicas=replicas,
            triton_server=triton_server,
            grpc_port=grpc_port,
            store=models_of_users,
            progress=progress,
        )
        dask_gateway = _gateway(slurm, progress) if gateway else None
        everything: list[Server] = [*tritons, *filter(None, [dask_gateway])]
        for server in everything:
            stack.callback(server.stop)
        for server in everything:  # runs before the stops above, so that all end at the same time
            stack.callback(server.ask_to_stop)
        for server in everything:
            server.launch()
        for server in everything:
            server.wait_until_ready(progress=progress)
        facility = RunningFacility(
            tritons,
            dask_gateway,
            slurm,
            models_of_users,
            models=tuple(sorted(tritons[0].models())),
            started=time.time(),
            announce=lambda description: stack.enter_context(announced(description)),  # replaces the last one
        )
        facility.announce(facility.description)
        yield facility


def make_tritons(
    models: Sequence[Path | str],
    *,
    replicas: int,
    triton_server: Path | str | None,
    store: ModelStore,
    complete_configs: bool = True,
    grpc_port: int | None = None,
    progress: Callable[[str], None] = ignore,
) -> tuple[TritonServer, ...]:
    """Return the Tritons of a facility, not launched yet; see `up` for the parameters."""
    if replicas < 1:
        raise ConfigurationError(f"a facility needs at least one Triton, not {replicas}")
    if grpc_port is not None and not 0 < grpc_port <= 65536 - replicas:
        raise ConfigurationError(
            f"{grpc_port} is not a valid first port for {replicas} Triton(s). Expected 1 to {65536 - replicas}."
        )
    repositories = check_repositories(models or (MODELS,))
    store.check(repositories)
    if triton_server is None:
        installation = make_installation(progress=progress)
    else:
        installation = existing_installation(Path(triton_server))
    return tuple(
        TritonServer(
            repositories,
            installation=installation,
            grpc_port=None if grpc_port is None else grpc_port + number,
            name=f"triton-{number}",
            store=store.repository,
            store_keys=store.reader,
            complete_configs=complete_configs,
        )
        for number in range(replicas)
    )


def _slurm(stack: ExitStack, progress: Callable[[str], None]) -> Slurm:
    """Start Slurm for the gateway; it ends after the gateway."""
    progress("starting Slurm")
    if missing := missing_packages():
        raise ConfigurationError(f"--batch needs a Dask Gateway, for which {', '.join(missing)} is not installed")
    return stack.enter_context(Slurm.start())


def _gateway(slurm: Slurm | None, progress: Callable[[str], None]) -> DaskGatewayServer | None:
    if missing := missing_packages():
        progress(f"no Dask Gateway: {', '.join(missing)} not installed (the extra 'facility' has all it needs)")
        return None
    return DaskGatewayServer(slurm=slurm)
