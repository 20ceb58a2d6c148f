"""Users of a shared facility: each logs in to its real Hub and runs programs as a notebook would."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
import websocket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eaf_facility.local.multi_user import SharedFacility

_STARTS_WITHIN = 90.0  # seconds
SAMPLE = Path(__file__).parents[2] / "notebooks" / "jets.parquet"


class User:
    """A user with a browser session, but no browser.

    Attributes
    ----------
    environment : dict of str to str
        The environment that the Hub gave her server, which her kernels inherit.
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
        assert self.get("lab").ok  # as a browser does: via the Hub and back, with a cookie
        assert self.get("api/status").ok

    def get(self, path: str) -> requests.Response:
        """Request a page of her own Jupyter server, through the Hub's proxy, with her cookies."""
        return self._session.get(f"{self._facility.hub.url}/user/{self.name}/{path}", timeout=30)

    def get_of(self, other: str, path: str) -> requests.Response:
        """Request a page of another user's server."""
        return self._session.get(f"{self._facility.hub.url}/user/{other}/{path}", timeout=30)

    def clusters(self) -> list[dict[str, Any]]:
        """Her Dask clusters, as the panel gets them over its websocket."""
        url = f"{self._facility.hub.url}/user/{self.name}/eaf-inference/api/stream"
        cookie = requests.cookies.get_cookie_header(self._session.cookies, requests.Request("GET", url).prepare())
        with closing(websocket.create_connection(url.replace("http", "ws", 1), 30, cookie=cookie)) as socket:
            socket.send('{"interval": 1, "clusters": true}')
            while (frame := json.loads(socket.recv()))["type"] != "clusters":
                pass
        return frame["clusters"]

    def log_out(self) -> None:
        """Stop her server and log out."""
        self._operator("DELETE", f"users/{self.name}/server")
        ends = time.monotonic() + _STARTS_WITHIN
        while self._seen_by_the_operator()["servers"]:
            assert time.monotonic() < ends
            time.sleep(0.1)
        self._session.get(f"{self._facility.hub.url}/hub/logout", timeout=30)

    def begin(self, code: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
        """Start a program with only her kernel's environment; it prints JSON lines."""
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
        """Run a program and return the content of its last line."""
        program = self.begin(code, *arguments, **environment)
        try:
            output, errors = program.communicate(timeout=120)
        except BaseException:
            program.kill()
            program.communicate()
            raise
        assert program.returncode == 0, errors[-3000:]
        return json.loads(output.splitlines()[-1])

    def _seen_by_the_operator(self):
        return self._operator("GET", f"users/{self.name}")

    def _operator(self, method: str, path: str):
        headers = {"Authorization": f"token {self._facility.hub.operator_token_file.read_text()}"}
        reply = requests.request(method, f"{self._facility.hub.api_url}/{path}", headers=headers, timeout=30)
        assert reply.ok, reply.text
        return reply.json() if reply.text else None


@dataclass
class Run:
    """A running program, and the content of its first line."""

    program: subprocess.Popen[str]
    first: Any = None

    def wait_for_a_line(self):
        line = self.program.stdout.readline()
        assert line, self.program.stderr.read()[-3000:]
        return json.loads(line)

    def finish(self):
        """Let it end, and return the content of its last line."""
        output, errors = self.program.communicate("enough\n", timeout=180)
        assert self.program.returncode == 0, errors[-3000:]
        return json.loads(output.splitlines()[-1])


@contextmanager
def running(users: list[User], code: str, *arguments: object) -> Iterator[list[Run]]:
    """Run the program for all users at once; yield when each has printed its first line."""
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
