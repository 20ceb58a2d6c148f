"""How `Gateway()` shows a local facility's gateway that it runs for the same user.

Apart from `gateway.py`, which decides on the configuration, because this imports dask_gateway and with it all of
distributed: only Dask does that, by name, when there is a `Gateway` to make.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dask_gateway.auth import BasicAuth

from eaf_inference import local

__all__ = ["LocalGatewayAuth"]


class LocalGatewayAuth(BasicAuth):  # type: ignore[misc] # dask_gateway has no types
    """Shows the gateway of a local facility its password, read from that facility's files on each occasion.

    To any other gateway it is `BasicAuth`, which is what Dask's defaults ask for.
    """

    def pre_request(self, resp: Any) -> tuple[dict[str, str], None]:
        """Give the headers that answer a gateway's 401; see `dask_gateway.auth.GatewayAuth`."""
        origin = str(resp.url.origin())
        for facility in local.running():
            if facility.gateway is not None and facility.gateway.address == origin:
                password = Path(facility.gateway.password_file).read_text(encoding="utf-8")
                return BasicAuth(self.username, password).pre_request(resp)  # type: ignore[no-any-return]
        return super().pre_request(resp)  # type: ignore[no-any-return]
