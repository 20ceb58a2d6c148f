"""Who got a token and who did not: one JSON object a line, in the log `eaf_inference.hub.audit`.

A token's id is written, never the token.
"""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tornado.httputil import HTTPServerRequest

__all__ = ["LOG", "write"]

LOG = logging.getLogger(__name__)

_LONGEST = 200  # characters of what others wrote


def write(event: str, request: HTTPServerRequest, **known: Any) -> None:
    """Write a line.

    Parameters
    ----------
    event : str
        `mint` or `refusal`.
    request : HTTPServerRequest
        From whom: the connection's other end, and whom a proxy says to speak for, which anybody may claim.
    """
    line = {
        "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "event": event,
        **known,
        "peer": request.remote_ip,
        "forwarded_for": request.headers.get("X-Forwarded-For", "")[:_LONGEST] or None,
    }
    LOG.info("%s", json.dumps(line))
