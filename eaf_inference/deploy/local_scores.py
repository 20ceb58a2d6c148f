"""The scores that the client would return for an example, computed here: each row alone, without padding.

They are what served scores are compared with, so nothing is batched: a row's score cannot depend on others.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from eaf_inference.deploy.local_model import LocalModel
from eaf_inference.errors import InvalidInput
from eaf_inference.inference.batching import batch_of
from eaf_inference.inference.graph_job import prepare_graphs
from eaf_inference.inference.lengths import Lengths
from eaf_inference.inference.marshal import prepare
from eaf_inference.inference.padding import PaddingCheck
from eaf_inference.inference.trial import Trial
from eaf_inference.inference.tuning import fixed_sizes

if TYPE_CHECKING:
    from pathlib import Path

    from eaf_inference.inference.marshal import Job
    from eaf_inference.inference.spec import ModelSpec

__all__ = ["local_scores"]


def local_scores(onnx: Path, spec: ModelSpec, example: Any) -> Any:
    """Score an example here, as the client would with the model on a server.

    Parameters
    ----------
    onnx : pathlib.Path
        The model's file.
    spec : ModelSpec
        As the client reads it from the model's configuration.
    example : awkward.Array, numpy.ndarray or mapping
        As `Model.__call__` takes it.

    Returns
    -------
    awkward.Array, numpy.ndarray or dict
        As `Model.__call__` returns it.

    Raises
    ------
    ConfigurationError
        ONNX Runtime does not load the model.
    InvalidInput
        The example is not what the model takes, or the model refuses a row.
    BadReply
        An output is not what the configuration declares.
    """
    model = LocalModel(onnx, spec)
    if spec.graph is not None:
        graphs = prepare_graphs(example, spec, spec.graph)
        for union in graphs.batches(fixed_sizes(1), together=False):
            graphs.outputs.put(union, model.run(union))
        return graphs.result()
    job = prepare(example, spec)
    _score_rows(model, job)
    return job.result()


def _score_rows(model: LocalModel, job: Job) -> None:
    """Score each row at the length at which its score is right: its own, or the least that the model accepts."""
    check = PaddingCheck(model.spec)
    declared = check.declared(job.inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a finding of the checks already, and here nothing is padded
        with suppress(InvalidInput):  # some rows are refused: the loop below raises the model's own reason
            job.outputs.follow(check.padding(job.inputs, model.send).followers)
    unpadded = [each.unpadded for each in declared]
    refused: dict[int, InvalidInput] = {}
    for row in range(job.rows):
        batch = batch_of(job.inputs, np.array([row]), unpadded)
        try:
            job.outputs.put(batch, model.run(batch))
        except InvalidInput as error:
            refused[row] = error
    if not refused:
        return
    rows = np.array(list(refused))
    if not job.inputs.is_ragged:
        raise refused[int(rows[0])]
    trial = Trial(job.inputs.take(rows), model.spec.outputs, declared, model.send)
    trial.score_alone()
    trial.find_least()
    for place, row in enumerate(rows):
        if not trial.accepted[place]:
            raise refused[int(row)]
        lengths = [Lengths(int(length), exact=True) for length in trial.alone[:, place]]
        batch = batch_of(job.inputs, np.array([row]), lengths)
        job.outputs.put(batch, model.run(batch))
