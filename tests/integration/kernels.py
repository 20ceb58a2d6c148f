"""Real IPython kernels, as a notebook has them."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field

from jupyter_client.manager import start_new_kernel


@dataclass
class Outcome:
    """What one cell showed."""

    text: str = ""
    html: str = ""
    error: list[str] = field(default_factory=list)  # name, value, traceback lines


class Notebook:
    """One kernel, and everything it ever said."""

    def __init__(self, manager, client) -> None:
        self._manager, self._client = manager, client
        self.everything = ""

    def run(self, code: str) -> Outcome:
        outcome = Outcome()

        def show(message):
            content = message["content"]
            self.everything += repr(content)
            if message["msg_type"] == "stream":
                outcome.text += content["text"]
            elif message["msg_type"] in ("display_data", "execute_result"):
                outcome.text += content["data"].get("text/plain", "")
                outcome.html += content["data"].get("text/html", "")
            elif message["msg_type"] == "error":
                outcome.error = [content["ename"], content["evalue"], *content["traceback"]]

        self._client.execute_interactive(code, output_hook=show, timeout=120)
        return outcome

    def interrupt_when(self, code: str, condition) -> Outcome:
        """Run a cell and interrupt the kernel, as Lab's stop button does, once the condition holds."""

        def interrupt():
            while not condition():
                pass
            os.kill(self._manager.provisioner.pid, signal.SIGINT)  # what the manager does, but in this thread

        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            return self.run(code)
        finally:
            thread.join()

    def complete(self, code: str) -> list[str]:
        reply = self._client.complete(code, reply=True, timeout=60)
        return reply["content"]["matches"]


@contextmanager
def notebook(**environment: str):
    """A fresh kernel with the extension loaded."""
    manager, client = start_new_kernel(env={**os.environ, **environment})
    try:
        opened = Notebook(manager, client)
        assert opened.run("%load_ext eaf_inference").error == []
        yield opened
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
