"""Check the scores of a graph network with ONNX Runtime: each graph alone, and several in one request."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from eaf_inference.deploy import finding_texts as texts
from eaf_inference.deploy.agreement import TOLERANCE, agree, not_finite
from eaf_inference.errors import InferenceError
from eaf_inference.inference.graph_job import prepare_graphs
from eaf_inference.inference.tuning import fixed_sizes
from eaf_inference.inference.union_check import UnionCheck

if TYPE_CHECKING:
    from eaf_inference.deploy.findings import Finding
    from eaf_inference.deploy.local_model import LocalModel
    from eaf_inference.inference.graph_spec import GraphSpec

__all__ = ["graph_findings"]

_MOST_GRAPHS = 64  # of the example that are tried


def graph_findings(model: LocalModel, graph: GraphSpec, example: Any, *, generated: bool) -> list[Finding]:
    """Check that each graph is scored, with numbers, and equally beside others.

    Raises
    ------
    InvalidInput
        The example is not graphs.
    """
    spec = model.spec
    job = prepare_graphs(example, spec, graph)
    if not job.rows:
        return [texts.empty_example(spec.name)]
    rows = np.unique(np.linspace(0, job.rows - 1, _MOST_GRAPHS).round().astype(np.int64))
    graphs = job.graphs.take(rows)
    finite = ~graphs.not_finite()
    wrong: list[int] = []
    for union in replace(job, graphs=graphs).batches(fixed_sizes(1), together=False):
        outputs, again = model.send([union, union])
        at = int(union.graphs[0])
        if isinstance(outputs, InferenceError):
            return [texts.refuses_graph(spec.name, int(rows[at]), str(outputs))]
        if isinstance(again, InferenceError) or not agree(outputs, again, 0, TOLERANCE):
            return [texts.random_scores(spec.name, model.path)]
        if finite[at] and not_finite(outputs):
            wrong.append(at)
    found: list[Finding] = []
    check = UnionCheck(spec)
    if not graph.separate:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its note is the finding
            check.together(graphs, graph, model.send)
        if check.note:
            found.append(texts.depends_on_graphs(spec.name, check.note))
    if wrong:
        found.append(
            texts.scores_not_finite(spec.name, len(wrong), len(rows), int(rows[wrong[0]]), generated=generated)
        )
    return found
