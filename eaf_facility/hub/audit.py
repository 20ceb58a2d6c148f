"""The audit log of issued and refused tokens: one JSON object a line, in the log `eaf_facility.hub.audit`.

It records a token's id, never the token.
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

_LONGEST = 200  # characters of a header's value


def write(event: str, request: HTTPServerRequest, **details: Any) -> None:
    """Write one line.

    Parameters
    ----------
    event : str
        `mint` or `refusal`.
    request : HTTPServerRequest
        The request, whose peer address is recorded together with its X-Forwarded-For, which anyone can forge.
    """
    line = {
        "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "event": event,
        **details,
        "peer": request.remote_ip,
        "forwarded_for": request.headers.get("X-Forwarded-For", "")[:_LONGEST] or None,
    }
    LOG.info("%s", json.dumps(line))
