"""One Triton on this machine: started on loopback, waited for, stopped, killed, started again."""

from __future__ import annotations

import json
import re
import secrets
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_inference.errors import ConfigurationError, ServerUnavailable
from eaf_inference.facility import triton_log
from eaf_inference.facility.environment import make_installation
from eaf_inference.facility.loopback_http import OK, ask
from eaf_inference.facility.ports import LOOPBACK, HeldPort, free_ports, listens
from eaf_inference.facility.processes import Child, Server, ignore, log_file, plain_environment
from eaf_inference.local import Replica

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from eaf_inference.facility.environment import Installation

__all__ = ["MODELS", "SHARED_MEMORY", "TritonServer", "check_repositories"]

MODELS = Path(__file__).with_name("models")  # the repository that comes with the package
SHARED_MEMORY = "triton_python_backend_shm_region_eaf"  # how the names of our Tritons' regions begin
# Triton allows these calls only to a client that sends a header with this name and value. No HTTP header can have a
# colon in its name, so nobody can.
_RESTRICTED = "shared-memory,trace,logging:nobody:can=send-this"
_EXIT_SECONDS = 5  # for requests in flight, when it is stopped
# Triton's Python backend starts each model by a line of shell that quotes nothing: these characters break it, and
# hang Triton's start.
_BREAKING = re.compile(r"""[\s"'`$\\;&|<>()*?\[\]{}#~!]""")
_UNFIT = "its name has a space or another character that a shell reads: rename its directory"


class TritonServer(Server):
    """One Triton, serving the models of some repositories on loopback ports.

    Most callers want `TritonServer.start`, which gives one that is ready and stops it in the end. The ports
    for gRPC and HTTP stay the same from one start to the next: nobody else can take them. The port for metrics,
    which Triton cannot share, is another one when somebody has taken it meanwhile.

    Parameters
    ----------
    models
        Triton model repositories: directories with one directory a model.
    installation
        Which Triton to run (see `environment`).
    grpc_port
        Its gRPC port; without, a free one. The other ports are always free ones.
    name
        How the server is called in messages and in its log's file name.

    Attributes
    ----------
    repositories : sequence of Path
    """

    def __init__(
        self,
        models: Sequence[Path],
        *,
        installation: Installation,
        grpc_port: int | None = None,
        name: str = "triton",
    ) -> None:
        self.name = name
        self.repositories = models
        self._installation = installation
        self._grpc_port, self._http_port = HeldPort(grpc_port), HeldPort()
        (self._metrics_port,) = free_ports(1)
        super().__init__()

    @classmethod
    @contextmanager
    def start(
        cls,
        models: Sequence[Path | str] = (MODELS,),
        *,
        installation: Installation | None = None,
        grpc_port: int | None = None,
        timeout: float = 120.0,
        progress: Callable[[str], None] = ignore,
    ) -> Iterator[TritonServer]:
        """Run one Triton for the length of a `with` block; it is ready when the block begins."""
        repositories = check_repositories(models)
        installation = installation or make_installation(progress=progress)
        server = cls(repositories, installation=installation, grpc_port=grpc_port)
        with server.running(timeout=timeout, progress=progress):
            yield server

    @property
    def grpc(self) -> str:
        """The URL that clients connect to."""
        return f"grpc://{LOOPBACK}:{self._grpc_port.number}"

    @property
    def http(self) -> str:
        return f"http://{LOOPBACK}:{self._http_port.number}"

    @property
    def metrics(self) -> str:
        return f"http://{LOOPBACK}:{self._metrics_port}/metrics"

    @property
    def replica(self) -> Replica:
        return Replica(grpc=self.grpc, http=self.http, metrics=self.metrics, pid=self.pid, log=str(self.log))

    def launch(self) -> None:
        """Start the program; it then takes seconds until it is ready."""
        unique = secrets.token_hex(6)
        region = f"{SHARED_MEMORY}{unique}"
        links = Path(tempfile.gettempdir(), f"eaf-inference-triton-{unique}")
        links.mkdir(mode=0o700)
        self.log = log_file(f"{self.name}-{time.strftime('%Y%m%d-%H%M%S')}-{unique}")
        self._child = Child(
            self._command(region, links),
            environment=plain_environment(first_on_path=self._installation.bin),
            log=self.log,
            shared_memory=region,
            directory=links,
            grace=_EXIT_SECONDS + 5,
        )

    def _command(self, region: str, links: Path) -> list[str]:
        repositories = [_linked(path, links / f"models-{number}") for number, path in enumerate(self.repositories)]
        return [
            str(self._installation.server),
            *(f"--model-repository={path}" for path in repositories),
            f"--backend-directory={_linked(self._installation.backends, links / 'backends')}",
            f"--backend-config=python,shm-region-prefix-name={region}",
            f"--grpc-address={LOOPBACK}",
            f"--grpc-port={self._grpc_port.number}",
            "--reuse-grpc-port=true",  # beside the socket that holds the port
            f"--http-address={LOOPBACK}",
            f"--http-port={self._http_port.number}",
            "--reuse-http-port=true",
            f"--metrics-address={LOOPBACK}",
            f"--metrics-port={self._metrics_port}",
            "--model-control-mode=none",  # models are neither loaded nor unloaded by clients
            f"--grpc-restricted-protocol={_RESTRICTED}",
            f"--http-restricted-api={_RESTRICTED}",
            f"--exit-timeout-secs={_EXIT_SECONDS}",
            "--exit-on-error=false",  # one model that cannot be loaded leaves the others served,
            "--strict-readiness=false",  # and the server ready
        ]

    def port_is_taken(self) -> bool:
        return triton_log.address_in_use(self.log.read_text(encoding="utf-8", errors="replace"))

    def move(self) -> bool:
        """Choose another port for metrics, the only one that somebody else can take."""
        (self._metrics_port,) = free_ports(1)
        return True

    def reason(self) -> str:
        return "\n".join(
            f"- {each}" for each in triton_log.reasons(self.log.read_text(encoding="utf-8", errors="replace"))
        )

    def is_ready(self) -> bool:
        """Whether all its models are; metrics come up last, so that whoever scrapes at once gets an answer too."""
        ready = ((self._http_port.number, "/v2/health/ready"), (self._metrics_port, "/metrics"))
        return listens(self.pid, self._metrics_port) and all(ask(port, path)[0] == OK for port, path in ready)

    def wait_until_ready(self, *, timeout: float = 120.0, progress: Callable[[str], None] = ignore) -> None:
        """Return when it serves the models that can be loaded, and report each of the others to `progress`.

        Raises
        ------
        ConfigurationError
            It did not start, or none of its models can be loaded; the message has the reasons, and where its log is.
        ServerUnavailable
            It neither became ready nor ended in time.
        """
        try:
            super().wait_until_ready(timeout=timeout, progress=progress)
        except ServerUnavailable as error:
            if unfinished := triton_log.loading(self.log.read_text(encoding="utf-8", errors="replace")):
                raise ServerUnavailable(f"{error}\nIt is still loading: {', '.join(unfinished)}") from error
            raise
        left_out = self.left_out()
        if not self.models():
            reasons = [f"model '{model}': {why}" for model, why in left_out.items()]
            shown = "\n".join(f"- {each}" for each in [*reasons, *triton_log.hints(reasons)])
            raise ConfigurationError(f"{self.name} can load none of its models:\n{shown}\nIts log: {self.log}")
        for model, why in left_out.items():
            progress(f"{self.name} serves without the model '{model}', which cannot be loaded: {why}")
        for hint in triton_log.hints(left_out.values()):
            progress(hint)

    def models(self) -> dict[str, str]:
        """Every model that is served, and its state: READY."""
        return {model["name"]: model["state"] for model in self._index() if model.get("state") == "READY"}

    def left_out(self) -> dict[str, str]:
        """Every model that cannot be loaded, and Triton's reason."""
        logged = triton_log.failed_models(self.log.read_text(encoding="utf-8", errors="replace"))
        served = self.models()
        listed = {model["name"]: model.get("reason", "it has no version") for model in self._index()}
        unfit = {path.name: _UNFIT for each in self.repositories for path in each.iterdir() if _is_unfit(path)}
        return {name: why for name, why in sorted({**listed, **logged, **unfit}.items()) if name not in served}

    def _index(self) -> list[dict[str, str]]:
        _, body = ask(self._http_port.number, "/v2/repository/index", method="POST")
        index: list[dict[str, str]] = json.loads(body)
        return index


def _linked(path: Path, link: Path) -> Path:
    """The directory, or where such characters are in a name, one of links to what has none in its name."""
    if not _BREAKING.search(str(path)) and not any(map(_is_unfit, path.iterdir())):
        return path
    link.mkdir()
    for each in path.iterdir():
        if not _is_unfit(each):
            (link / each.name).symlink_to(each)
    return link


def _is_unfit(path: Path) -> bool:
    return path.is_dir() and bool(_BREAKING.search(path.name))


def check_repositories(paths: Sequence[Path | str]) -> list[Path]:
    """Give the absolute paths of model repositories, or say which of them is none."""
    return [_check_repository(Path(path)) for path in paths]


def _check_repository(path: Path) -> Path:
    path = path.expanduser().resolve()
    if not path.is_dir():
        raise ConfigurationError(f"no model repository at {path}: there is no such directory")
    if (path / "config.pbtxt").exists():
        raise ConfigurationError(
            f"{path} is a model, not a model repository. Give the directory above it: {path.parent}"
        )
    if not any(each.is_dir() for each in path.iterdir()):
        raise ConfigurationError(
            f"no models in {path}. A model repository holds a directory for each model, such as "
            "jets/config.pbtxt with jets/1/model.onnx"
        )
    return path
