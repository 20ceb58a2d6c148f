"""Client processes that start once, and score together when they are asked to."""

from __future__ import annotations

import itertools
import multiprocessing
import traceback
from typing import TYPE_CHECKING, Any

from benchmarks.gpu.load import Client, Outcome, Setting
from eaf_inference.errors import InferenceError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path
    from types import TracebackType

__all__ = ["Crowd"]

_START = 90.0  # seconds to import and to connect
_SPARE = 60.0  # seconds that a run may take longer than it is asked to


class Crowd:
    """Some client processes, for the length of a `with` block.

    Parameters
    ----------
    count : int
    url : str
        Of Triton.
    expected : Path
        See `Client`.
    """

    def __init__(self, count: int, url: str, expected: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection[Any, Any]] = []
        self._processes = []
        self._numbers = itertools.count(1)  # of runs
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, url, expected), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> Crowd:
        for pipe in self._pipes:
            _receive(pipe, _START, 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(5.0)
            if process.is_alive():
                process.kill()
                process.join()

    def __len__(self) -> int:
        return len(self._pipes)

    def run(self, setting: Setting, clients: int = 1) -> list[Outcome]:
        """Let some clients score at the same time.

        Raises
        ------
        InferenceError
            One of them failed.
        """
        pipes = self._pipes[:clients]
        number = next(self._numbers)
        for pipe in pipes:
            pipe.send((number, setting))
        answers = [_receive(pipe, setting.seconds + _SPARE, number) for pipe in pipes]
        failures = [each for each in answers if isinstance(each, str)]
        if failures:
            raise InferenceError(failures[0])
        return answers


def _receive(pipe: Connection[Any, Any], seconds: float, number: int) -> Any:
    """Return the answer to a run, and skip late ones to earlier runs."""
    while pipe.poll(seconds):
        answered, answer = pipe.recv()
        if answered == number:
            return answer
    raise InferenceError(f"A client did not answer within {seconds:.0f} s.")


def _serve(pipe: Connection[Any, Any], url: str, expected: Path) -> None:
    client = Client(url, expected)
    pipe.send((0, "ready"))
    while True:
        try:
            number, setting = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((number, client.run(setting)))
        except Exception:  # noqa: BLE001  (the parent reports it and goes on)
            pipe.send((number, traceback.format_exc()))
