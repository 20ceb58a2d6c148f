"""Measure how long a refreshed token takes to reach busy workers of a real gateway.

python tests/integration/refresh_busy_workers.py [WORKERS] [ROUNDS]
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from dask_facility import ONES, all_hold, facility_of, typed_in_a_notebook
from token_service import HUB_TOKEN
from zoo import make_zoo

import eaf_inference
from eaf_facility.servers.dask_gateway import DaskGatewayServer
from eaf_facility.servers.triton import TritonServer

BETWEEN = 3.0  # seconds from one refresh to the next


@typed_in_a_notebook
def infer_until(ends, inputs):
    """Infer until then, and return the number of inferences."""
    import eaf_inference

    done = 0
    while time.time() < ends:
        eaf_inference.connect().model("sums")(inputs)
        done += 1
    return done


def main(workers: int = 8, rounds: int = 5) -> None:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ |= {"JUPYTER_CONFIG_DIR": str(directory / "jupyter"), "JUPYTERHUB_API_TOKEN": HUB_TOKEN}
        zoo = stack.enter_context(TritonServer.start([make_zoo(directory / "zoo")]))
        gateway = stack.enter_context(DaskGatewayServer.start())
        facility = stack.enter_context(facility_of(zoo, gateway, directory / "jupyter"))
        triton = stack.enter_context(eaf_inference.connect())
        client = stack.enter_context(stack.enter_context(facility.cluster(workers)).get_client())
        client.wait_for_workers(workers)
        warm = client.map(infer_until, [time.time() + BETWEEN] * workers, [ONES] * workers, pure=False)
        client.gather(warm)  # each worker has imported what it needs
        ends = time.time() + (rounds + 1) * BETWEEN
        busy = client.map(infer_until, [ends] * workers, [ONES] * workers, pure=False)
        waited = []
        for _ in range(rounds):
            time.sleep(BETWEEN)
            before, started = triton.credentials.known.issued_at, time.perf_counter()
            [link] = triton.linked_clusters  # as if a worker had reported a refused token
            client.loop.add_callback(link._on_refusal, (0, {"refused": before}))
            assert all_hold(client, "values['issued'] > before", before=before)
            waited.append(time.perf_counter() - started)
        print(f"{workers} workers, {sum(client.gather(busy))} inferences, none failed")
        print(f"{facility.edge_proxy.refused} calls refused, {len(facility.service.given)} tokens")
        print(f"seconds until all hold the younger token: {', '.join(f'{each:.3f}' for each in waited)}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
