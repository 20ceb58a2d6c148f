"""A client in a process of its own: the caller's side of `client_main`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from eaf_facility.study.client_main import RoundResult
from eaf_facility.study.client_packages import client_packages
from eaf_inference.errors import BadReply, InferenceError

if TYPE_CHECKING:
    from types import TracebackType

    from eaf_facility.study.clients import Entry, Job

__all__ = ["ClientProcess"]


class ClientProcess:
    """The process of one client, for the length of a `with` block."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._process = subprocess.Popen(
            [sys.executable, "-m", "eaf_facility.study.client_main"],
            env=_environment(job.entry),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
        )

    def __enter__(self) -> ClientProcess:
        self._send(self._job.to_json())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()
        self._process.communicate()

    def wait_until_ready(self) -> None:
        """Wait until the process has imported its library, made its jets and connected."""
        self._receive()

    def round(self) -> RoundResult:
        """Score all jets once.

        Raises
        ------
        BadReply
            A score is wrong.
        InferenceError
            The client failed.
        """
        self._send("round")
        return RoundResult(**self._receive())

    def _send(self, line: str) -> None:
        assert self._process.stdin  # noqa: S101  (it is a pipe)
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise InferenceError(f"{self._job.entry.label} has ended.") from None

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout  # noqa: S101
        line = self._process.stdout.readline()
        if not line:
            raise InferenceError(f"{self._job.entry.label} died (exit code {self._process.wait()}).")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            kind = BadReply if answer["wrong"] else InferenceError
            raise kind(f"{self._job.entry.label} on workload {self._job.workload.key}: {answer['error']}")
        return answer


def _environment(entry: Entry) -> dict[str, str]:
    """Return the process's environment variables, with tritonclient on the path only if the client needs it."""
    if not entry.needs_tritonclient:
        return dict(os.environ)
    paths = [str(client_packages()), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
