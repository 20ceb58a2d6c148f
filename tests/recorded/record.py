"""Record a real Triton's /metrics in the situations that README.md lists.

.venv/bin/python tests/recorded/record.py
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
import grpc
import plain_client
from tiny_models import save_mirror

import eaf_inference
from eaf_facility.local.single_user import MODELS
from eaf_facility.servers.triton import TritonServer

HERE = Path(__file__).parent
ROWS = 64  # the models' max_batch_size

SLEEPER = """
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        values = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        time.sleep(0.010 + 0.0002 * sum(len(value) for value in values))
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", value)]) for value in values]
"""
BROKEN = """
class TritonPythonModel:
    def execute(self, requests):
        raise RuntimeError("broken on purpose")
"""
CONFIG = """
backend: "python"
max_batch_size: 64
input [{ name: "x", data_type: TYPE_FP32, dims: [2] }]
output [{ name: "y", data_type: TYPE_FP32, dims: [2] }]
"""


def save(directory: Path, code: str, config: str = "") -> None:
    (directory / "1").mkdir(parents=True)
    (directory / "1" / "model.py").write_text(code)
    (directory / "config.pbtxt").write_text(CONFIG + config)


@contextmanager
def load(server: TritonServer, model: str, *, clients: int, rows: int, pause: float = 0.0, shapes=(("x", (2,)),)):
    """Run this many clients, each with one request of `rows` rows in flight."""
    ended = threading.Event()

    def client() -> None:
        arrays = {name: np.ones((rows, *shape), np.float32) for name, shape in shapes}
        with plain_client.channel_to(server.grpc) as channel:
            while not ended.is_set():
                try:
                    plain_client.infer(channel, model, arrays)
                except grpc.RpcError:
                    time.sleep(0.05)
                time.sleep(pause)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(1.0)
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def scrape(server: TritonServer) -> tuple[float, str]:
    with urllib.request.urlopen(server.metrics, timeout=5) as reply:  # noqa: S310  (our own server)
        text = reply.read().decode()
    return round(time.monotonic(), 4), text


def record(name: str, scrapes: list[tuple[float, str]]) -> None:
    (HERE / f"{name}.json").write_text(json.dumps(scrapes, indent=0) + "\n")


def series(server: TritonServer, number: int = 4) -> list[tuple[float, str]]:
    found = []
    for _ in range(number):
        found.append(scrape(server))
        time.sleep(1.0)
    return found


def record_particlenet() -> None:
    """Record a network that needs all CPUs of the machine; no other program may run."""
    shapes = (("points", (2, 64)), ("features", (7, 64)), ("mask", (1, 64)))
    with TritonServer.start([MODELS]) as server:
        for name, clients in (("cpu_half", 1), ("cpu_full", 16)):
            with load(server, "particlenet", clients=clients, rows=256, shapes=shapes):
                time.sleep(3)
                record(name, series(server, 6))


def main() -> None:
    record_particlenet()
    models = Path(tempfile.mkdtemp())
    save_mirror(models / "mirror")
    save(models / "sleeper", SLEEPER)
    save(models / "merging", SLEEPER, "dynamic_batching { max_queue_delay_microseconds: 1000 }\n")
    save(models / "broken", BROKEN)
    with TritonServer.start([models]) as server:
        record("fresh", [scrape(server)])
        time.sleep(3)
        record("idle", series(server))
        with load(server, "sleeper", clients=1, rows=ROWS):
            record("one_client", series(server))
        with load(server, "sleeper", clients=1, rows=8, pause=0.1):
            record("client_bound", series(server))
        with load(server, "sleeper", clients=12, rows=ROWS):
            record("server_bound", series(server))
        with load(server, "merging", clients=6, rows=4):
            record("merged", series(server))
        with load(server, "broken", clients=2, rows=1), load(server, "mirror", clients=1, rows=4, pause=0.1):
            record("failures", series(server))
        before = scrape(server)
        server.kill()
        server.restart()
        with eaf_inference.connect(server.grpc) as connection:
            connection.model("mirror")({"x": np.ones((1000, 2), np.float32)})
        record("restarted", [before, scrape(server)])


if __name__ == "__main__":
    main()
