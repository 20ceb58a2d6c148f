"""A pool's chunks fit into the memory that the process may use, also in a batch job."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from eaf_inference.dataset import place
from eaf_inference.inference.traffic import Traffic

LIMIT = 8 << 20


@pytest.mark.parametrize(
    ("own", "limits"),
    [
        ("0::/slurm/job_1/step_0\n", {"slurm/job_1/step_0/memory.max": "max", "slurm/job_1/memory.max": LIMIT}),
        ("0::/\n", {"memory.max": LIMIT}),  # in a container
        ("0::/not/visible\n", {"memory.max": LIMIT}),
        ("2:pids:/x\n3:memory:/condor/slot1\n0::/\n", {"memory/condor/slot1/memory.limit_in_bytes": LIMIT}),
        ("3:cpu,memory:/x\n", {"memory/x/memory.limit_in_bytes": 2**63, "memory/memory.limit_in_bytes": LIMIT}),
    ],
)
def test_a_chunk_fits_into_the_limit_of_a_batch_job(tmp_path, monkeypatch, own, limits):
    for name, limit in limits.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{limit}\n", encoding="ascii")
    (tmp_path / "own").write_text(own, encoding="ascii")
    monkeypatch.setattr(place, "_GROUPS", tmp_path)
    monkeypatch.setattr(place, "_OWN_GROUPS", tmp_path / "own")
    with ThreadPoolExecutor(2) as pool:
        assert place.Pool(pool, Traffic()).most_bytes() == LIMIT // 16


def test_without_control_groups_the_machine_is_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(place, "_OWN_GROUPS", tmp_path / "none")
    with ThreadPoolExecutor(1) as pool:
        assert place.Pool(pool, Traffic()).most_bytes() > LIMIT
