"""Calls to a Triton on this machine, around any edge proxy: without a token and without a retry."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from eaf_inference.address import Address
from eaf_inference.auth.credentials import Credentials
from eaf_inference.auth.sources import NoToken
from eaf_inference.auth.tls import TlsFiles
from eaf_inference.inference import lookup
from eaf_inference.inference.pipeline import Limits, ask
from eaf_inference.inference.queue_times import QueueTimes
from eaf_inference.inference.transport import Channel

if TYPE_CHECKING:
    from eaf_inference.inference.pipeline import Question

__all__ = ["ask_triton", "unusable_models"]


def ask_triton(url: str, *questions: Question, timeout: float = 30.0) -> list[Any]:
    """Return the answers of the Triton at this URL, in the order of the questions.

    Parameters
    ----------
    timeout : float
        Seconds for all questions together.

    Raises
    ------
    InferenceError
        A question was not answered.
    """
    channel = Channel(Address.parse(url), Credentials(NoToken("a local Triton is called without one")), TlsFiles())
    try:
        return ask([channel], questions, Limits(time_budget=0, request_timeout=timeout))
    finally:
        channel.close()


def unusable_models(url: str) -> dict[str, str]:
    """Return the models that the Triton at this URL has but this client cannot use, each with the reason."""
    table = lookup.table(functools.partial(ask_triton, url), url, (), QueueTimes())
    return {row.name: row.state for row in table if not row.ready}
