"""What this user had of the facility in the last day, as its token service tells her alone.

It is asked with the Hub token of her own server, in a thread, and when somebody wants to know.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from eaf_inference._redact import redact
from eaf_inference.errors import InferenceError, NotAuthorized
from eaf_inference.metrics.reading import clip

__all__ = ["OwnUsage"]

log = logging.getLogger(__name__)

_SINCE = "1d"
_FRESH = 30.0  # seconds for which an answer is good, also that there is none
_WITHIN = 12.0  # seconds: the service gives itself less
_MOST_MODELS = 1000

_NOT_OFFERED = "This facility does not tell its users what they used."


class OwnUsage:
    """The answer, asked for when somebody wants it and the last one is old."""

    def __init__(self) -> None:
        self._reply = _without_numbers("Nobody has asked yet.", offered=True)
        self._asked = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    async def look(self) -> dict[str, Any]:
        """The usage, at most half a minute old; ``problem`` says why there is none, or no newer one."""
        if self._asking is None and time.monotonic() - self._asked >= _FRESH:
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        if self._asking is not None:
            await asyncio.shield(self._asking)
        return self._reply

    async def _ask(self) -> None:
        try:
            self._reply = await asyncio.to_thread(_usage)
        except NotAuthorized as error:  # an answer: what was told before is not hers to see any more
            self._reply = _without_numbers(str(error), offered=True)
        except InferenceError as error:
            self._reply = {**self._reply, "problem": redact(str(error))}
        except (Exception, SystemExit) as error:  # a configuration file is a program, and Jupyter must survive it
            log.debug("usage cannot be asked for", exc_info=True)
            self._reply = _without_numbers(
                f"Usage cannot be asked for ({type(error).__name__}: {error}).", offered=True
            )
        finally:
            self._asked, self._asking = time.monotonic(), None


def _usage() -> dict[str, Any]:
    from eaf_inference.document import known_facility
    from eaf_inference.token_service import TokenService

    known = known_facility()
    told = None
    if known.document is not None:
        told = TokenService(known.own.token_service, ca=known.own.ca or None, timeout=_WITHIN).usage(_SINCE)
    if told is None:
        return _without_numbers(_NOT_OFFERED, offered=False)
    models = [{**row, "model": clip(row["model"])} for row in told["models"][:_MOST_MODELS]]
    return {"offered": True, "since": _SINCE, "at": told["at"], "models": models, "problem": None}


def _without_numbers(problem: str, *, offered: bool) -> dict[str, Any]:
    return {"offered": offered, "since": _SINCE, "at": None, "models": [], "problem": redact(problem)}
