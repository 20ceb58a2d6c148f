"""Authentication of `Gateway()` to the Dask Gateway of a local facility.

Separate from `gateway.py` because importing this module imports dask_gateway, and with it all of distributed. Only
Dask does that, by the name of the class, when it makes a `Gateway`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dask_gateway.auth import BasicAuth

from eaf_inference.discovery import local_facility

__all__ = ["LocalGatewayAuth"]


class LocalGatewayAuth(BasicAuth):  # type: ignore[misc] # dask_gateway has no types
    """Authenticates to a local facility's gateway with the password in the facility's files, read each time.

    For any other gateway it is `BasicAuth`, as in Dask's defaults.
    """

    def pre_request(self, resp: Any) -> tuple[dict[str, str], None]:
        """Return the headers that answer a gateway's 401; see `dask_gateway.auth.GatewayAuth`."""
        origin = str(resp.url.origin())
        for facility in local_facility.running():
            if facility.gateway is not None and facility.gateway.address == origin:
                password = Path(facility.gateway.password_file).read_text(encoding="utf-8")
                return BasicAuth(self.username, password).pre_request(resp)  # type: ignore[no-any-return]
        return super().pre_request(resp)  # type: ignore[no-any-return]
