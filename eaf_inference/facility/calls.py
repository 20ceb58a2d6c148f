"""Questions to a Triton of this machine, past any edge proxy: no token, and no second try."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eaf_inference.config import Address
from eaf_inference.credentials import Credentials, NoToken
from eaf_inference.inference.pipeline import Limits, ask
from eaf_inference.inference.transport import Server
from eaf_inference.tls import TlsFiles

if TYPE_CHECKING:
    from eaf_inference.inference.pipeline import Question

__all__ = ["ask_triton"]


def ask_triton(url: str, *questions: Question, timeout: float = 30.0) -> list[Any]:
    """Give the answers of the Triton at this URL, in the order of the questions.

    Parameters
    ----------
    timeout : float
        Seconds for all of them.

    Raises
    ------
    InferenceError
        One was not answered.
    """
    server = Server(Address.parse(url), Credentials(NoToken("it is asked without")), TlsFiles())
    try:
        return ask([server], questions, Limits(time_budget=0, request_timeout=timeout))
    finally:
        server.close()
