"""Run all parts: ``python -m benchmarks.gpu --kit KIT --output DIRECTORY [--cpu]``, which `run` calls."""

from __future__ import annotations

import argparse
import json
import logging
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.gpu import metrics, parts
from benchmarks.gpu.bench import Bench, Scale
from benchmarks.gpu.crowd import Crowd
from benchmarks.gpu.kit import unpack
from benchmarks.gpu.models import write_repository
from benchmarks.gpu.plots import draw
from benchmarks.gpu.results import Results
from benchmarks.gpu.watch import GpuWatch
from eaf_facility.servers.triton import TritonServer
from eaf_inference.errors import InferenceError

if TYPE_CHECKING:
    from types import FrameType

_GPU = Scale(
    gpu=True,
    jets=6144,
    pseudo_jets=10_000,
    clients=(1, 2, 4, 8, 16),
    load_seconds=6.5,
    sweep_seconds=1.5,
    rounds=2,
    cell_budgets=(8192, 32768, 131072, 524288),
    windows=(1024, 4096, 16384),
    batches=(16, 64, 256, 1024),
    single_rows=(1, 16, 64, 256, 1024, 4096),
    single_lengths=(16, 32, 64, 96, 128),
    seconds=430.0,
)
_CPU = Scale(
    gpu=False,
    jets=256,
    pseudo_jets=32,
    clients=(1, 2),
    load_seconds=6.5,
    sweep_seconds=0.3,
    rounds=1,
    cell_budgets=(8192, 131072),
    windows=(256,),
    batches=(16,),
    single_rows=(1, 16),
    single_lengths=(32, 128),
    seconds=410.0,
)


_LIBRARIES = ("libcuda.so", "libnvidia-ml", "libdcgm", "libpython3", "libffi", "libssl", "libb64", "libcudart")


def main() -> int:
    """Run all parts and return the exit code: 1 if a part failed."""
    parser = argparse.ArgumentParser(prog="benchmarks/gpu/run", description=__doc__)
    parser.add_argument("--kit", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--cpu", action="store_true", help="rehearse on a CPU, with small numbers")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    scale = _CPU if options.cpu else _GPU
    options.output.mkdir(parents=True, exist_ok=True)
    results = Results(options.output, scale.seconds)
    with tempfile.TemporaryDirectory(prefix="eaf-gpu-") as place:
        try:
            _run(results, scale, options.kit, Path(place))
        except (KeyboardInterrupt, SystemExit):
            results.failures["all"] = "interrupted"
        with results.part("plots"):
            draw(results.parts, results.directory / "plots.png")
        results.keep("ended", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))
    results.say(f"\n{len(results.failures)} parts failed: {', '.join(results.failures) or '-'}")
    return 1 if results.failures else 0


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    sys.exit(1)


def _run(results: Results, scale: Scale, kit_path: Path, place: Path) -> None:
    with results.part("machine"):
        _machine(results)
    with ExitStack() as stack, results.part("start"):
        kit = unpack(kit_path, place)
        models, expected = place / "models", place / "expected"
        write_repository(models, kit.weights, gpu=scale.gpu)
        expected.mkdir()
        arguments = [str(kit.weights), str(expected), str(scale.jets), str(scale.pseudo_jets)]
        local = [sys.executable, "-m", "benchmarks.gpu.local"]
        reference = subprocess.Popen([*local, "cpu", *arguments])
        stack.callback(reference.wait)
        stack.callback(reference.terminate)
        watch = stack.enter_context(GpuWatch(results.directory / "nvidia-smi.csv"))
        began = time.monotonic()
        server = TritonServer([models], installation=kit.installation)
        stack.callback(_keep_log, server, results)
        stack.enter_context(server.running(timeout=180.0, progress=results.say))
        results.say(f"Triton is ready after {time.monotonic() - began:.1f} s: {server.models()}")
        if server.left_out():
            results.say(f"LEFT OUT: {server.left_out()}")
        with Crowd(max(scale.clients), server.grpc, expected) as crowd:
            bench = Bench(scale, results, kit, server, crowd, watch)
            with results.part("metrics without load"):
                metrics.idle(bench)
            with results.part("service times"):
                parts.service_times(bench)
            with results.part("PyTorch on the CPU"):
                if reference.wait(150):
                    raise InferenceError(f"PyTorch on the CPU failed: {reference.returncode}")
                results.keep("cpu", found := json.loads((expected / "cpu.json").read_text(encoding="utf-8")))
                results.table([found])
            with results.part("the paper's 10,000 jets"):
                parts.paper(bench)
            with results.part("cell budget and window"):
                parts.sweep(bench)
            if scale.gpu:
                with results.part("PyTorch on the GPU without Triton"):
                    subprocess.run([*local, "gpu", *arguments], check=True, timeout=60)
                    results.keep("gpu", found := json.loads((expected / "gpu.json").read_text(encoding="utf-8")))
                    results.table([{"what": name, "is": value} for name, value in found.items()])
            with results.part("1 to many clients"):
                metrics.saturation(bench)
            with results.part("perf_analyzer"):
                parts.analyzed(bench)


def _machine(results: Results) -> None:
    import os

    import numpy
    import torch

    found = {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "kernel": platform.release(),
        "cores": len(os.sched_getaffinity(0)),
        "processor": _first_line("/proc/cpuinfo", "model name"),
        "shared memory": f"{shutil.disk_usage('/dev/shm').total / 2**30:.1f} GiB",  # noqa: S108
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH"),
    }
    results.keep("machine", found)
    for name, value in found.items():
        results.say(f"{name}: {value}")
    for command in (["nvidia-smi"], ["nvidia-smi", "-L"], ["ldconfig", "-p"]):
        if shutil.which(command[0]):
            lines = subprocess.run(
                command, capture_output=True, text=True, encoding="utf-8", check=False
            ).stdout.splitlines()
            if command[0] == "ldconfig":
                lines = [line for line in lines if any(each in line for each in _LIBRARIES)]
            results.say("\n".join(lines))


def _first_line(file: str, name: str) -> str:
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "unknown")


def _keep_log(server: TritonServer, results: Results) -> None:
    if hasattr(server, "log"):
        shutil.copy(server.log, results.directory / "triton.log")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    sys.exit(main())
