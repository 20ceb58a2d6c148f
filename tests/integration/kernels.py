"""Real IPython kernels, like those of notebooks."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jupyter_client.manager import start_new_kernel

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Outcome:
    """The output of one cell."""

    text: str = ""
    html: str = ""
    error: list[str] = field(default_factory=list)  # name, value, traceback lines
    reply: dict[str, Any] = field(default_factory=dict)  # the kernel's reply at its end


class Notebook:
    """One kernel, and all its output."""

    def __init__(self, manager, client) -> None:
        self._manager, self._client = manager, client
        self.everything = ""

    def run(self, code: str, *, heard: Callable[[str], None] = lambda _: None) -> Outcome:
        """Run a cell to its end, and call `heard` with the type of each message."""
        outcome = Outcome()

        def show(message):
            heard(message["msg_type"])
            content = message["content"]
            self.everything += repr(content)
            if message["msg_type"] == "stream":
                outcome.text += content["text"]
            elif message["msg_type"] in ("display_data", "execute_result"):
                outcome.text += content["data"].get("text/plain", "")
                outcome.html += content["data"].get("text/html", "")
            elif message["msg_type"] == "error":
                outcome.error = [content["ename"], content["evalue"], *content["traceback"]]

        outcome.reply = self._client.execute_interactive(code, output_hook=show, timeout=120)["content"]
        return outcome

    def interrupt(self, code: str, seconds: float) -> Outcome:
        """Run a cell and interrupt the kernel `seconds` after its code has begun, like Lab's stop button.

        Before that, the kernel ignores interrupts.
        """
        pid = self._manager.provisioner.pid
        timer = threading.Timer(seconds, os.kill, (pid, signal.SIGINT))  # like the manager

        def begun(kind):
            if kind == "display_data" and not timer.ident:
                timer.start()

        try:
            return self.run(f"display('begun')\n{code}", heard=begun)
        finally:
            timer.cancel()
            timer.join()

    def complete(self, code: str) -> list[str]:
        reply = self._client.complete(code, reply=True, timeout=60)
        return reply["content"]["matches"]


@contextmanager
def notebook(**environment: str):
    """Run a new kernel with the extension loaded."""
    manager, client = start_new_kernel(env={**os.environ, **environment})
    try:
        opened = Notebook(manager, client)
        assert opened.run("%load_ext eaf_inference").error == []
        yield opened
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
