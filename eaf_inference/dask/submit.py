"""Score a data set on a Dask cluster or in a local pool: `Connection.submit`."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

from eaf_inference.dataset.begin import begin
from eaf_inference.dataset.estimate import estimate as begin_estimate
from eaf_inference.dataset.options import OnError, Options
from eaf_inference.dataset.place import Place, Pool
from eaf_inference.errors import ConfigurationError, InvalidInput
from eaf_inference.inference.model import Model
from eaf_inference.inference.wrong_input import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from distributed import Client

    from eaf_inference.dataset.forecast import Estimate
    from eaf_inference.dataset.submission import Submission
    from eaf_inference.inference.transport import Channel

__all__ = ["checked", "estimate", "submit"]


def submit(
    model: Model,
    chunks: Any,
    *,
    client: Client | Executor | None = None,
    select: Callable[[Any], Any] | None = None,
    schema: Any = None,
    on_error: OnError = "collect",
    in_flight: int | None = None,
    retries: int = 2,
    progress: bool | None = None,
) -> Submission:
    """Score a data set on a Dask cluster, or in a pool of this machine.

    Parameters
    ----------
    model : Model
    chunks : iterable, mapping or str
        Files: paths, URLs, globs, ``file.root:tree``, or a fileset as coffea and uproot write it; or arrays as the
        model accepts them. An iterator is consumed as chunks are sent, so it may be endless. Workers read the
        files, so they must see them under the same path.
    client : distributed.Client or concurrent.futures.Executor, optional
        By default, the Dask client that was created last.
    select : callable, optional
        Converts a chunk to the model's input, for example ``lambda events: events.jets.constituents``. It runs on
        the workers. For a file it runs first with an array that has a type but no data, to find the columns to
        read. If it does not keep one element for each entry, in their order, the scores belong to no entries.
        Without it, a file must have a jagged column per variable of the recipe, or momenta from which they
        are computed; for a model without recipe, a column per input.
    schema : class, optional
        Of coffea, such as ``NanoAODSchema``: `select` gets NanoEvents.
    on_error : {"collect", "skip", "raise"}
        What to do about a file that cannot be scored. By default the run goes on, and ends with `IncompleteRun`
        unless `Submission.failed` was looked at; "skip" warns at the end instead; "raise" ends the run there.
    in_flight : int, optional
        Chunks that were sent but not returned yet. By default, enough to keep the current cluster busy for fifteen
        seconds, which makes an adaptive cluster grow: 2 to 16 per thread, and at least 8.
    retries : int
        How often a chunk is restarted after the server was unavailable to its worker for the whole time budget.
        Restarts because of lost workers do not count. A file whose storage does not answer is tried three times
        more, with pauses; invalid input is not retried.
    progress : bool, optional
        Show a progress bar after a second. By default, in a notebook or terminal.

    Returns
    -------
    Submission
        An iterator over the scores of each chunk, in order. The first chunks are sent when scores are requested.

    Raises
    ------
    ConfigurationError
        There is no client, or it is closed or asynchronous; or Dask is not installed.
    InvalidInput
        `model` is no model, `select` no function, `chunks` is one array rather than an iterable of them, or an option
        is wrong.
    """
    options = Options(retries=retries, in_flight=in_flight, progress=progress, on_error=on_error)
    model = checked(model)
    return begin(lambda: _place(client, model), model, chunks, options, select=select, schema=schema)


def estimate(
    model: Model,
    chunks: Any,
    channels: Sequence[Channel],
    *,
    client: Client | Executor | None = None,
    select: Callable[[Any], Any] | None = None,
    schema: Any = None,
    progress: bool | None = None,
) -> Estimate:
    """Estimate what `submit` will take, from a sample of a few chunks: about twenty seconds.

    Chunks are drawn at random from files of all sizes, always the same ones, and scored with the threads that the run
    would have; their scores are not kept. The first ones warm up and are not timed.

    Parameters
    ----------
    model, chunks, client, select, schema, progress
        As `submit` takes them. `chunks` is no iterator, as it would be used up.
    channels : sequence of Channel
        The replicas that serve the model: they are asked how long they compute.

    Returns
    -------
    Estimate
        Events, jets, bytes, requests, time, and the time that the server computes, each with an interval of 68 % from
        the spread over the sample. It prints as a table. It holds while server, storage and workers are as busy as
        now.

    Raises
    ------
    InvalidInput
        There are no chunks, or they are an iterator.
    UnreadableFile
        No file can be read. Single ones are left out, and counted in the estimate's remarks.
    ServerUnavailable, NotAuthorized, ModelNotFound, ModelNotReady
        The server does not give scores.
    ConfigurationError
        There is no client, or it is closed or asynchronous.
    """
    return begin_estimate(
        lambda: _place(client, model), model, chunks, channels, select=select, schema=schema, progress=progress
    )


def checked(model: Any) -> Model:
    """Return the model, if it is one.

    Raises
    ------
    InvalidInput
        It is something else, such as a model's name.
    """
    if not isinstance(model, Model):
        name = repr(model) if isinstance(model, str) else "name"
        raise InvalidInput(f"The model is {kind_of(model)}. Expected what triton.model({name}) returns.")
    return model


def _place(client: Client | Executor | None, model: Model) -> Place:
    """Return the place where a client or a pool scores; see `submit`."""
    if isinstance(client, Executor):
        return Pool(client, model.traffic)
    try:
        from eaf_inference.dask.cluster_place import Cluster  # a pool needs no Dask
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"A Dask cluster needs {error.name}, which is missing: pip install 'eaf-inference[dask]'. To score in "
            "this process instead, pass client=concurrent.futures.ThreadPoolExecutor(4)."
        ) from error

    return Cluster(client, model.traffic)
