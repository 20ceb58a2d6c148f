"""The error to raise for a part that failed for good on a cluster."""

from __future__ import annotations

import distributed
from distributed.scheduler import KilledWorker

from eaf_inference.dataset.place import failure
from eaf_inference.errors import ConfigurationError, InferenceError

__all__ = ["part_failure"]


def part_failure(part: str, error: BaseException) -> InferenceError:
    """Return the error that names the part and the cause.

    Parameters
    ----------
    part : str
        Its number and file, to begin the message with.
    error : BaseException
        What the task returned or raised, or what Dask raised for it.
    """
    if isinstance(error, KilledWorker):
        killed = InferenceError(
            f"{part} was given up because its workers died, probably for lack of memory. Send smaller chunks, or "
            f"give the workers more memory. {error}"
        )
        killed.reason = "its workers died"
        return killed
    if isinstance(error, distributed.CancelledError):
        return ConfigurationError(
            f"{part} was cancelled: its cluster or client is gone, or has forgotten it. Start the run again with a "
            f"client of a running cluster. {error}"
        )
    if isinstance(error, RuntimeError) and "deserialization of the task graph" in str(error):
        cause = error.__cause__ or error
        return ConfigurationError(
            f"{part} did not reach a worker, because the cluster's scheduler cannot read it "
            f"({type(cause).__name__}: {cause}). Expected the same eaf-inference, awkward and Python there as here; "
            "triton.clusters() lists the differences."
        )
    return failure(part, error)
