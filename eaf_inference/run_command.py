"""`eaf-inference run`: score files from a shell or a batch job, in a pool of threads and without Dask."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from eaf_inference._commands import FAILED, INTERRUPTED, add_command
from eaf_inference._connection_options import URL, add_connection_options, connected
from eaf_inference._run_arguments import (
    files_given,
    job_number,
    object_named,
    positive,
    qualified_name,
    schema_named,
    share_of,
)
from eaf_inference.errors import IncompleteRun
from eaf_inference.inference.progress import under_way

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from types import FrameType

    from eaf_inference._commands import Commands
    from eaf_inference.inference.traffic import Traffic

__all__ = ["add_commands"]

_THREADS = "eaf-inference-run"
_LINE_EVERY = 60.0  # seconds
_GRACE = 2.0  # seconds for which an interrupted command waits for its threads
_MOST_WORKERS = 8  # by default: Python runs one thread at a time, and the others wait for files and replies


def add_commands(commands: Commands) -> None:
    """Add the command to the program."""
    parser = add_command(
        commands,
        "run",
        _run,
        extra="dask",  # it brings what reads and writes files
        summary="score files with a model, also as one of many batch jobs",
        description="Score files with a model of the facility's Triton and write the scores into a directory, one "
        "output for each file. What is there already is not scored again: run the same line again after an "
        "interrupt or a failure. The exit code is 0 once all files are scored. A file that cannot be scored does "
        "not stop the others; the exit code is then 1 and a table says why.",
        examples=[
            "run particlenet jets.parquet --out scores --select selections:constituents",
            "run particlenet 'data/*.root:Events' --out scores --select selections:fatjets --schema NanoAODSchema",
            "run particlenet fileset.json.gz --out scores --select selections:fatjets --jobs 3/20",
        ],
    )
    parser.add_argument("model", metavar="MODEL", help="the model's name")
    parser.add_argument(
        "files",
        metavar="FILES",
        nargs="+",
        help="parquet and ROOT files, URLs, quoted globs, file.root:tree, or a fileset as coffea writes it "
        "(.json, .json.gz)",
    )
    parser.add_argument("--out", metavar="DIR", required=True, help="directory of the scores, made if needed")
    parser.add_argument(
        "--jobs",
        metavar="i/n",
        type=job_number,
        default=(1, 1),
        help="score only the i-th of n equal shares of the files, counted from 1 to n; all jobs together score "
        "each file once",
    )
    parser.add_argument(
        "--select",
        metavar="M:F",
        type=qualified_name,
        help="function F of the module M, which may lie in this directory: it turns what a file holds into the "
        "model's input",
    )
    parser.add_argument(
        "--schema", metavar="S", help="schema of coffea, such as NanoAODSchema: the function gets NanoEvents"
    )
    parser.add_argument("--format", choices=["parquet", "root"], default="parquet", help="of the scores")
    parser.add_argument(
        "--workers",
        metavar="N",
        type=positive,
        default=min(_cores(), _MOST_WORKERS),
        help=f"files to read and score at the same time (default: one for each core, at most {_MOST_WORKERS})",
    )
    parser.add_argument("--url", metavar="URL", help=URL)
    add_connection_options(parser)


def _run(options: argparse.Namespace) -> int:
    """Score this job's files."""
    from eaf_inference.dataset.begin import begin
    from eaf_inference.dataset.options import Options
    from eaf_inference.dataset.place import Pool

    select = object_named(options.select) if options.select else None
    schema = schema_named(options.schema) if options.schema else None
    files = files_given(options.files)
    number, jobs = options.jobs
    mine = share_of(files, number, jobs)
    if jobs > 1:
        print(f"Job {number} of {jobs} scores {len(mine):,} of {len(files):,} files.", flush=True)
    try:
        with ExitStack() as stack:
            stack.enter_context(_sigterm_interrupts())
            stack.enter_context(_short_warnings())
            connection = stack.enter_context(connected(options))
            pool = stack.enter_context(_threads(options.workers))
            model = connection.model(options.model)
            if not sys.stderr.isatty():
                stack.enter_context(_lines_for_a_log(model.traffic))
            run = begin(lambda: Pool(pool, model.traffic), model, mine, Options(), select=select, schema=schema)
            try:
                written = run.write(options.out, format=options.format)
            except IncompleteRun as incomplete:
                written = incomplete.written
    except KeyboardInterrupt:
        print(
            f"eaf-inference: interrupted. The outputs in {options.out} are complete; run the same line again to "
            "score the other files.",
            file=sys.stderr,
        )
        _end_threads()
        return INTERRUPTED
    print(written)
    if failures := run.failed:
        print(failures)
        if failures[0].error.reason and not written.files:  # then it is probably the command that is wrong
            print(f"The first in full: {failures[0].error}")
    return 0 if written.files + written.skipped == len(mine) else FAILED


@contextmanager
def _short_warnings() -> Iterator[None]:
    """Show this package's warnings in the style of its errors."""
    before = warnings.formatwarning

    def short(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> str:
        return (
            f"eaf-inference: warning: {message}\n"
            if category is UserWarning
            else before(message, category, *place, **more)
        )

    warnings.formatwarning = short
    try:
        yield
    finally:
        warnings.formatwarning = before


@contextmanager
def _lines_for_a_log(traffic: Traffic) -> Iterator[None]:
    """Write a line a minute, because the log of a batch job shows no progress bar."""
    ended = threading.Event()

    def write() -> None:
        while not ended.wait(_LINE_EVERY):
            if progress := under_way():
                print(f"{progress}, {traffic.inferences_per_second or 0:,.0f} jets/s", file=sys.stderr, flush=True)

    thread = threading.Thread(target=write, name="eaf-inference-log", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _threads(number: int) -> Iterator[ThreadPoolExecutor]:
    """Give a pool of threads; on leaving, nothing more is begun, and nothing is awaited."""
    pool = ThreadPoolExecutor(number, thread_name_prefix=_THREADS)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _end_threads() -> None:
    """Wait for the pool's threads; end the process if one still waits for its storage, which Python would await."""
    deadline = time.monotonic() + _GRACE
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(_THREADS)]
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if any(thread.is_alive() for thread in threads):
        sys.stdout.flush()
        os._exit(INTERRUPTED)


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Take SIGTERM, with which batch systems end a job, as Ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        handler = signal.getsignal(signal.SIGINT)
        if not callable(handler):  # a shell starts what runs in its background without Ctrl-C
            handler = signal.default_int_handler
        handler(signal.SIGINT, frame)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _cores() -> int:
    """Return the number of cores that this process may use, of which a batch system often allows only some."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
