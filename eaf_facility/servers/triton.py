"""A Triton on this machine, on loopback ports."""

from __future__ import annotations

import json
import re
import secrets
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from eaf_facility.process.http import OK, ask
from eaf_facility.process.ports import LOOPBACK, HeldPort, free_ports, listens
from eaf_facility.process.server import Child, Server, ignore, log_file, plain_environment
from eaf_facility.servers import triton_log
from eaf_facility.servers.triton_environment import make_installation
from eaf_inference.discovery.local_facility import Replica
from eaf_inference.errors import ConfigurationError, ServerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Literal

    from eaf_facility.servers.triton_environment import Installation

__all__ = ["MODELS", "SHARED_MEMORY", "TritonServer", "check_repositories", "check_store"]

MODELS = Path(__file__).with_name("models")  # the repository that comes with the package
SHARED_MEMORY = "triton_python_backend_shm_region_eaf"  # prefix of the names of our Tritons' regions
# Triton allows these calls only to a client that sends a header with this name and value. The name of an HTTP header
# cannot contain a colon, so no client can send it.
_RESTRICTED = "shared-memory,trace,logging:nobody:can=send-this"
_NO_KEYS: Mapping[str, str] = MappingProxyType({})
_INDEX_SECONDS = 30
_EXIT_SECONDS = 5  # for requests in flight, when it is stopped
# Triton's Python backend starts each model by an unquoted line of shell. These characters break it, and Triton's
# start then hangs.
_BREAKING = re.compile(r"""[\s"'`$\\;&|<>()*?\[\]{}#~!]""")
_PYTHON = re.compile(r'\bbackend\s*:\s*"python"')
_FILE_NAME = re.compile(r'\bdefault_model_filename\s*:\s*"([^"]+)"')


class TritonServer(Server):
    """One Triton that serves the models of some repositories on loopback ports.

    Most callers want `TritonServer.start`, which yields a Triton that is ready and stops it in the end. The ports for
    gRPC and HTTP stay the same after a restart, as no other user can take them. Triton cannot share the port for
    metrics, so a restart may have to choose another one.

    Parameters
    ----------
    models
        Triton model repositories: directories with one directory per model.
    installation
        The Triton to run (see `triton_environment`).
    grpc_port
        Its gRPC port; by default a free one. The other ports are always free ones.
    name
        The server's name in messages and in the file name of its log.
    store
        A repository whose models come and go while Triton runs: a directory, or ``s3://http://HOST:PORT/bucket/path``.
        It may be empty. Triton then polls all its repositories every second or two.
    store_keys
        Environment variables with which Triton reads the store, such as ``AWS_ACCESS_KEY_ID``.
    complete_configs
        Whether Triton completes a configuration, and makes one for a model that has none. It must not where users
        can write models, but not their configurations.
    control
        Triton's model control mode. By default it polls if there is a store; otherwise its models stay as they are
        at its start. With ``explicit`` it loads all models at its start, and then those that clients ask for.

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
        store: str = "",
        store_keys: Mapping[str, str] = _NO_KEYS,
        complete_configs: bool = True,
        control: Literal["none", "poll", "explicit"] | None = None,
    ) -> None:
        self.name = name
        self.repositories = models
        self._store, self._store_keys = store, store_keys
        self._complete_configs = complete_configs
        self._control = control or ("poll" if store else "none")
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
        store: str = "",
        control: Literal["none", "poll", "explicit"] | None = None,
        timeout: float = 120.0,
        progress: Callable[[str], None] = ignore,
    ) -> Iterator[TritonServer]:
        """Run a Triton for the duration of a `with` block, which begins when it is ready."""
        repositories = check_repositories(models)
        installation = installation or make_installation(progress=progress)
        server = cls(repositories, installation=installation, store=store, control=control)
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
        """Start the program, without waiting until it is ready."""
        unique = secrets.token_hex(6)
        region = f"{SHARED_MEMORY}{unique}"
        links = Path(tempfile.gettempdir(), f"eaf-inference-triton-{unique}")
        links.mkdir(mode=0o700)
        self.log = log_file(self.name)
        self._child = Child(
            self._command(region, links),
            environment=plain_environment(first_on_path=self._installation.bin) | dict(self._store_keys),
            log=self.log,
            shared_memory=region,
            directory=links,
            grace=_EXIT_SECONDS + 5,
        )

    def _command(self, region: str, links: Path) -> list[str]:
        repositories = [str(_linked(path, links / f"models-{n}")) for n, path in enumerate(self.repositories)]
        if self._store:
            repositories.append(_linked_whole(self._store, links / "store"))
        return [
            str(self._installation.server),
            *(f"--model-repository={path}" for path in repositories),
            f"--backend-directory={_linked(self._installation.backends, links / 'backends')}",
            f"--backend-config=python,shm-region-prefix-name={region}",
            f"--grpc-address={LOOPBACK}",
            f"--grpc-port={self._grpc_port.number}",
            "--reuse-grpc-port=true",  # because a `HeldPort` is bound to it
            f"--http-address={LOOPBACK}",
            f"--http-port={self._http_port.number}",
            "--reuse-http-port=true",
            f"--metrics-address={LOOPBACK}",
            f"--metrics-port={self._metrics_port}",
            f"--model-control-mode={self._control}",  # clients cannot load or unload models, unless it is `explicit`
            *self._control_options(),
            *(() if self._complete_configs else ("--disable-auto-complete-config",)),
            f"--grpc-restricted-protocol={_RESTRICTED}",
            f"--http-restricted-api={_RESTRICTED}",
            f"--exit-timeout-secs={_EXIT_SECONDS}",
            "--exit-on-error=false",  # if a model cannot be loaded, the others are served
            "--strict-readiness=false",  # and the server is ready
        ]

    def _control_options(self) -> Sequence[str]:
        if self._control == "explicit":
            return ("--load-model=*",)
        if self._control == "poll":  # in S3, a poll sends about 45 requests for each model
            return (f"--repository-poll-secs={2 if self._store.startswith('s3://') else 1}",)
        return ()

    def port_is_taken(self) -> bool:
        return triton_log.address_in_use(self.log.read_text(encoding="utf-8", errors="replace"))

    def move(self) -> bool:
        """Choose another port for metrics, the only one that another process can take."""
        (self._metrics_port,) = free_ports(1)
        return True

    def reason(self) -> str:
        return "\n".join(
            f"- {each}" for each in triton_log.reasons(self.log.read_text(encoding="utf-8", errors="replace"))
        )

    def is_ready(self) -> bool:
        """Return whether all models are ready and metrics, which start last, are served."""
        ready = ((self._http_port.number, "/v2/health/ready"), (self._metrics_port, "/metrics"))
        return listens(self.pid, self._metrics_port) and all(ask(port, path)[0] == OK for port, path in ready)

    def wait_until_ready(self, *, timeout: float = 120.0, progress: Callable[[str], None] = ignore) -> None:
        """Return when it serves every model that can be loaded, and report the others to `progress`.

        Raises
        ------
        ConfigurationError
            It did not start, or can load none of its models. The message has the reasons and the path of its log.
        ServerUnavailable
            It neither became ready nor ended in time.
        """
        from eaf_inference.inference.direct import unusable_models

        try:
            super().wait_until_ready(timeout=timeout, progress=progress)
        except ServerUnavailable as error:
            if unfinished := triton_log.loading(self.log.read_text(encoding="utf-8", errors="replace")):
                raise ServerUnavailable(f"{error}\nIt is still loading: {', '.join(unfinished)}") from error
            raise
        left_out = self.left_out()
        served = self.models()
        if not served:
            reasons = [f"model '{model}': {why}" for model, why in left_out.items()]
            shown = "\n".join(f"- {each}" for each in [*reasons, *triton_log.hints(reasons)])
            raise ConfigurationError(f"{self.name} can load none of its models:\n{shown}\nIts log: {self.log}")
        for model, why in left_out.items():
            progress(f"{self.name} serves without the model '{model}', which cannot be loaded: {why}")
        for model, why in unusable_models(self.grpc).items():
            if model in served:
                progress(f"{self.name} serves the model '{model}', which eaf_inference cannot use: {why}")
        for hint in triton_log.hints(left_out.values()):
            progress(hint)

    def models(self) -> dict[str, str]:
        """Return the models that are served, each with its state, READY."""
        return {model["name"]: model["state"] for model in self._index() if model.get("state") == "READY"}

    def left_out(self) -> dict[str, str]:
        """Return the models that cannot be loaded, each with Triton's reason."""
        served = self.models()
        listed = {model["name"]: model.get("reason", "it has no version") for model in self._index()}
        logged = triton_log.failed_models(self.log.read_text(encoding="utf-8", errors="replace"))
        logged = {name: why for name, why in logged.items() if name in listed}  # others have left the store
        unfit = {path.name: why for each in self.repositories for path in each.iterdir() if (why := _unfit(path))}
        return {name: why for name, why in sorted({**listed, **logged, **unfit}.items()) if name not in served}

    def _index(self) -> list[dict[str, str]]:
        # with a store in S3, Triton looks there before it answers
        status, body = ask(self._http_port.number, "/v2/repository/index", method="POST", timeout=_INDEX_SECONDS)
        if status != OK:
            raise ServerUnavailable(
                f"{self.name} does not list its models within {_INDEX_SECONDS} s. Its log: {self.log}"
            )
        index: list[dict[str, str]] = json.loads(body)
        return index


def _linked(path: Path, link: Path) -> Path:
    """Return a directory that Triton can start with: the original, or one with links to its models."""
    if not _BREAKING.search(str(path)) and not any(map(_unfit, path.iterdir())):
        return path
    link.mkdir()
    for each in path.iterdir():
        if not _unfit(each):
            (link / each.name).symlink_to(each)
    return link


def _linked_whole(store: str, link: Path) -> str:
    """Return a path of the store that Triton can start with: the original, or a link to it."""
    if store.startswith("s3://") or not _BREAKING.search(store):
        return store
    link.symlink_to(store)
    return str(link)


def _unfit(path: Path) -> str:
    """Return why Triton's start would hang with the model in this directory; empty if it would not."""
    if not path.is_dir():
        return ""
    if _BREAKING.search(path.name):
        return "its name has a space or another character that a shell reads: rename its directory"
    config = path / "config.pbtxt"
    text = config.read_text(encoding="utf-8", errors="replace") if config.is_file() else ""
    versions = [each for each in path.iterdir() if each.name.isdecimal()]
    if _PYTHON.search(text) and versions:
        named = _FILE_NAME.search(text)
        code = max(versions, key=lambda each: int(each.name)) / (named[1] if named else "model.py")
        if not code.is_file():
            return f"its version {code.parent.name} has no {code.name}"
    return ""


def check_repositories(paths: Sequence[Path | str]) -> list[Path]:
    """Return the absolute paths of the model repositories.

    Raises
    ------
    ConfigurationError
        One of them is not a model repository.
    """
    return [_check_repository(Path(path)) for path in paths]


def check_store(path: Path, repositories: Sequence[Path]) -> None:
    """Check that a Triton can serve the models of this store, a directory, beside those of the repositories.

    Raises
    ------
    ConfigurationError
        With one of its models, Triton would not start, or would serve neither of two models with the same name.
    """
    for model in path.iterdir():
        if why := _unfit(model):
            raise ConfigurationError(
                f"the model {model.name!r} of the store {path} would keep Triton from starting: {why}. Correct it, "
                "or move it out of the store."
            )
        if twin := next((each / model.name for each in repositories if (each / model.name).is_dir()), None):
            raise ConfigurationError(
                f"the model {model.name!r} is in the store {path} and in {twin.parent}, and Triton would serve "
                "neither. Rename one of them, or move it out."
            )


def _check_repository(path: Path) -> Path:
    path = path.expanduser().resolve()
    if not path.is_dir():
        raise ConfigurationError(f"no model repository at {path}: the directory does not exist")
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
