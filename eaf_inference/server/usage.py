"""This user's usage of the facility, and all users' of her models, in the last 24 hours, from the token service.

The request uses the Hub token of the user's server, and runs in a thread, on demand.
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
_FRESH = 30.0  # seconds for which an answer or a failure is current
_WITHIN = 12.0  # seconds to answer; the service's own limit is shorter
_MOST_MODELS = 1000

_NOT_OFFERED = "This facility does not report usage to its users."


class OwnUsage:
    """The usage, requested on demand when the last answer is outdated."""

    def __init__(self) -> None:
        self._reply = _without_numbers("The usage has not been requested yet.", offered=True)
        self._asked = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    async def look(self) -> dict[str, Any]:
        """Return the usage, at most half a minute old; ``problem`` explains missing or outdated numbers."""
        if self._asking is None and time.monotonic() - self._asked >= _FRESH:
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        if self._asking is not None:
            await asyncio.shield(self._asking)
        return self._reply

    async def _ask(self) -> None:
        try:
            self._reply = await asyncio.to_thread(_usage)
        except NotAuthorized as error:  # the user may no longer see the last answer either
            self._reply = _without_numbers(str(error), offered=True)
        except InferenceError as error:
            self._reply = {**self._reply, "problem": redact(str(error))}
        except (Exception, SystemExit) as error:  # a configuration file is a program, and Jupyter must survive it
            log.debug("the request for usage failed", exc_info=True)
            self._reply = _without_numbers(
                f"The request for usage failed ({type(error).__name__}: {error}).", offered=True
            )
        finally:
            self._asked, self._asking = time.monotonic(), None


def _usage() -> dict[str, Any]:
    from eaf_inference.auth.token_service import TokenService
    from eaf_inference.discovery.hub_document import known_facility

    known = known_facility()
    usage = None
    if known.document is not None:
        usage = TokenService(known.own.token_service, ca=known.own.ca or None, timeout=_WITHIN).usage(_SINCE)
    if usage is None:
        return _without_numbers(_NOT_OFFERED, offered=False)
    models, owned = (
        [{**row, "model": clip(row["model"])} for row in usage[which][:_MOST_MODELS]] for which in ("models", "owned")
    )
    return {"offered": True, "since": _SINCE, "at": usage["at"], "models": models, "owned": owned, "problem": None}


def _without_numbers(problem: str, *, offered: bool) -> dict[str, Any]:
    return {"offered": offered, "since": _SINCE, "at": None, "models": [], "owned": [], "problem": redact(problem)}
