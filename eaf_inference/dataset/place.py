"""Where the parts of a data set are scored: a pool of threads or processes here, or a cluster."""

from __future__ import annotations

import os
import pickle
import resource
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from eaf_inference.errors import ConfigurationError, InferenceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor

    from eaf_inference.dataset.parts import Part
    from eaf_inference.dataset.results import Scored
    from eaf_inference.dataset.task import Task
    from eaf_inference.inference.traffic import Traffic

__all__ = ["MEMORY_SHARE", "Place", "Pool", "identity"]

MEMORY_SHARE = 1 / 8  # of a thread's memory for the columns of a part; arrays, features and requests take the rest
_GROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


class Place(Protocol):
    """Where parts are scored.

    Attributes
    ----------
    restarts : int
        How often a part was started again.
    """

    @property
    def restarts(self) -> int: ...

    def again(self) -> Place:
        """Return the same place for another run."""

    def threads(self) -> int:
        """Return how many parts are scored at the same time."""

    def most_bytes(self) -> int | None:
        """Return the bytes that the columns of one part may take; None for any number."""

    def send(self, task: Task, part: Part, data: Any, *, key: str, avoid: str, done: Callable[[], object]) -> Any:
        """Start a part, if possible on another worker than `avoid`, and return its future.

        Call `done` when it has ended, from any thread.
        """

    def release(self, future: Any) -> None:
        """Forget a part; one that has not begun is cancelled. Never blocks."""

    def failure(self, name: str, error: BaseException) -> InferenceError:
        """Return the error to show for what a task raised, or was returned for it."""

    def returned(self, scored: Scored) -> None:
        """Count a part whose scores are handed over."""

    def collection(self, task: Task, parts: list[tuple[Part, Any]]) -> Any:
        """Return the scores as an array that is computed later."""

    def close(self) -> None:
        """End what was begun for this run. Never blocks."""


class Pool:
    """A pool of threads or processes on this machine, of `concurrent.futures`.

    Parameters
    ----------
    executor : concurrent.futures.Executor
        The caller shuts it down.
    traffic : Traffic
        The counters of the model's connection.
    """

    def __init__(self, executor: Executor, traffic: Traffic) -> None:
        self._executor = executor
        self._traffic = traffic
        self._sent: set[tuple[Any, ...]] = set()
        self.restarts = 0
        traffic.submitted()

    def again(self) -> Pool:
        return Pool(self._executor, self._traffic)

    def threads(self) -> int:
        return int(getattr(self._executor, "_max_workers", os.cpu_count() or 1))

    def most_bytes(self) -> int | None:
        return int(_memory() * MEMORY_SHARE / self.threads())

    def send(
        self,
        task: Task,
        part: Part,
        data: Any,
        *,
        key: str,  # noqa: ARG002
        avoid: str,  # noqa: ARG002
        done: Callable[[], object],
    ) -> Any:
        if not self._sent and isinstance(self._executor, ProcessPoolExecutor):
            _check_pickles(task)
        what = identity(part)
        self.restarts += what in self._sent
        self._sent.add(what)
        try:
            future = self._executor.submit(task, part, data)
        except RuntimeError as error:  # it was shut down, or its processes died
            raise ConfigurationError(f"The pool takes no more work: {error}. Create a new one.") from error
        future.add_done_callback(lambda _: done())
        return future

    def release(self, future: Any) -> None:
        future.cancel()

    def failure(self, name: str, error: BaseException) -> InferenceError:
        return failure(name, error)

    def returned(self, scored: Scored) -> None:
        if scored.process != os.getpid():  # otherwise its own requests were counted
            self._traffic.scored_elsewhere(scored.jets)
            self._traffic.not_finite_of(scored.not_finite)

    def collection(self, task: Task, parts: list[tuple[Part, Any]]) -> Any:  # noqa: ARG002
        raise ConfigurationError("A dask-awkward array needs a Dask cluster. Expected client=distributed.Client(…).")

    def close(self) -> None:
        self._traffic.submission_ended()


def _check_pickles(task: Task) -> None:
    """Refuse a `select` that does not reach another process, before every part fails for it."""
    try:
        pickle.dumps(task.select)
    except Exception as error:  # whatever the user's objects raise
        raise ConfigurationError(
            f"`select` cannot be sent to the processes of the pool: {error}. Expected a function that is defined "
            "with def at the top of a module. A ThreadPoolExecutor and a Dask cluster take any function."
        ) from error


def identity(part: Part) -> tuple[Any, ...]:
    """Return what is equal only for the same part, begun again: the first range of a file is not the whole file."""
    return (*part.place, part.stop)


def failure(name: str, error: BaseException) -> InferenceError:
    """Return the error that names a part and the cause, wherever it was scored."""
    if isinstance(error, InferenceError):
        named = type(error)(f"{name} failed: {error}")
        named.__dict__.update(error.__dict__)
        return named
    if isinstance(error, ImportError):
        return ConfigurationError(f"{name} failed because a package is missing where it runs: {error}. Install it.")
    return InferenceError(f"{name} failed: {type(error).__name__}: {error}")


def _memory() -> float:
    """Return the bytes of memory that this process may use."""
    limits = [float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))]
    limits += [limit for limit in resource.getrlimit(resource.RLIMIT_AS) if limit != resource.RLIM_INFINITY]
    return min([*limits, *_group_limits()])


def _group_limits() -> Iterator[float]:
    """Return the limits of this process' control groups and of those around them: a batch job has its own."""
    lines = []
    with suppress(OSError):  # there are no control groups
        lines = _OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, name = _GROUPS, "memory.max"
        elif "memory" in controllers.split(","):  # version 1
            root, name = _GROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = Path("/", path)
        for each in (group, *group.parents):  # in a container, those that are not visible are left out
            with suppress(OSError, ValueError):  # or it says "max"
                yield float((root / each.relative_to("/") / name).read_text(encoding="ascii"))
