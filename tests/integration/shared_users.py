"""People who use a facility of many users: each logs in to its real Hub, and runs programs as her notebook would."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eaf_inference.facility.shared import SharedFacility

_STARTS_WITHIN = 90.0  # seconds
SAMPLE = Path(__file__).parents[2] / "notebooks" / "jets.parquet"


class User:
    """Somebody in front of a browser, without the pictures.

    Attributes
    ----------
    environment : dict of str to str
        What the Hub gave her server, and so her kernels.
    """

    def __init__(self, facility: SharedFacility, name: str) -> None:
        self.name = name
        self._facility = facility
        self._session = requests.Session()
        self.environment: dict[str, str] = {}

    def log_in(self) -> None:
        url = f"{self._facility.hub.url}/hub"
        form = self._session.get(f"{url}/login", timeout=30).text
        token = re.search(r'name="_xsrf"\s+value="([^"]+)"', form)
        password = self._facility.hub.password_file.read_text()
        answers = {"username": self.name, "password": password, "_xsrf": token[1]}
        reply = self._session.post(f"{url}/login", data=answers, timeout=30, allow_redirects=False)
        assert reply.status_code == 302, reply.text[:500]
        self._session.get(f"{url}/spawn", timeout=_STARTS_WITHIN)

    def wait_for_her_server(self) -> None:
        ends = time.monotonic() + _STARTS_WITHIN
        while not (state := self._seen_by_the_operator()["servers"].get("", {})).get("ready"):
            assert time.monotonic() < ends, self._facility.hub.log.read_text()[-3000:]
            time.sleep(0.2)
        pairs = Path(f"/proc/{state['state']['pid']}/environ").read_text().split("\0")
        self.environment = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        assert self.get("lab").ok  # as a browser does, which is sent to the Hub and back with a cookie
        assert self.get("api/status").ok

    def get(self, path: str) -> requests.Response:
        """Of her own Jupyter server, through the Hub's proxy, with her browser's cookies."""
        return self._session.get(f"{self._facility.hub.url}/user/{self.name}/{path}", timeout=30)

    def get_of(self, other: str, path: str) -> requests.Response:
        """Of somebody else's."""
        return self._session.get(f"{self._facility.hub.url}/user/{other}/{path}", timeout=30)

    def log_out(self) -> None:
        """Stop her server, and leave."""
        self._operator("DELETE", f"users/{self.name}/server")
        ends = time.monotonic() + _STARTS_WITHIN
        while self._seen_by_the_operator()["servers"]:
            assert time.monotonic() < ends
            time.sleep(0.1)
        self._session.get(f"{self._facility.hub.url}/hub/logout", timeout=30)

    def begin(self, code: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
        """Start a program with what her kernel has, and nothing else; it prints JSON lines."""
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
            env=self.environment | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.environment["HOME"],
        )

    def run(self, code: str, *arguments: object, **environment: str):
        """What the program says in its last line."""
        program = self.begin(code, *arguments, **environment)
        said, complained = program.communicate(timeout=120)
        assert program.returncode == 0, complained[-3000:]
        return json.loads(said.splitlines()[-1])

    def _seen_by_the_operator(self):
        return self._operator("GET", f"users/{self.name}")

    def _operator(self, method: str, path: str):
        headers = {"Authorization": f"token {self._facility.hub.operator_token_file.read_text()}"}
        reply = requests.request(method, f"{self._facility.hub.api_url}/{path}", headers=headers, timeout=30)
        assert reply.ok, reply.text
        return reply.json() if reply.text else None


@dataclass
class Run:
    """A program in the midst of its work, and what it said first."""

    program: subprocess.Popen[str]
    first: Any = None

    def wait_for_a_line(self):
        line = self.program.stdout.readline()
        assert line, self.program.stderr.read()[-3000:]
        return json.loads(line)

    def finish(self):
        """Let it come to its end, and say what it found."""
        said, complained = self.program.communicate("enough\n", timeout=180)
        assert self.program.returncode == 0, complained[-3000:]
        return json.loads(said.splitlines()[-1])


@contextmanager
def running(users: list[User], code: str, *arguments: object) -> Iterator[list[Run]]:
    """The program for each user at once, each after its first line."""
    runs = [Run(user.begin(code, *arguments)) for user in users]
    try:
        for run in runs:
            run.first = run.wait_for_a_line()
        yield runs
    finally:
        for run in runs:
            if run.program.poll() is None:
                run.program.kill()
            run.program.communicate()
