"""The default gateway of `Gateway()`: the facility's, or that of a facility on this machine.

Dask copies its configuration into the environment of the processes it starts, so only the gateway's address and the
name of a class go there. The class (`auth.LocalGatewayAuth`) reads the password when the gateway asks for it.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from eaf_inference.discovery.local_facility import GATEWAY_AUTH

if TYPE_CHECKING:
    from eaf_inference.config import Facility
    from eaf_inference.discovery.local_facility import LocalFacility

__all__ = ["use_facility_gateway", "use_local_gateway"]


def use_local_gateway(facility: LocalFacility) -> bool:
    """Make this facility's gateway the default of ``dask_gateway.Gateway()`` in this process.

    A gateway in the user's configuration is kept. One that this function set before is replaced, because its facility
    may have stopped.

    Parameters
    ----------
    facility : LocalFacility
        A facility on this machine.

    Returns
    -------
    bool
        Whether it did: the facility has a gateway, dask-gateway is installed, and no gateway was configured.
    """
    if facility.gateway is None or importlib.util.find_spec("dask_gateway") is None:
        return False
    import dask.config

    ours = dask.config.get("gateway.auth.type", None) == GATEWAY_AUTH
    if dask.config.get("gateway.address", None) is not None and not ours:
        return False
    dask.config.set({"gateway.address": facility.gateway.address, "gateway.auth.type": GATEWAY_AUTH})
    _use_no_proxy_of_the_environment()
    return True


def use_facility_gateway(facility: Facility) -> bool:
    """Make the gateway of a JupyterHub's facility the default of ``dask_gateway.Gateway()``.

    The gateway accepts users' Hub tokens, which Dask reads from the environment. A configured gateway is kept.

    Returns
    -------
    bool
        Whether it did.
    """
    if not facility.gateway_url or importlib.util.find_spec("dask_gateway") is None:
        return False
    import dask.config

    if dask.config.get("gateway.address", None) is not None:
        return False
    dask.config.set({"gateway.address": facility.gateway_url, "gateway.auth.type": "jupyterhub"})
    _use_no_proxy_of_the_environment()
    return True


def _use_no_proxy_of_the_environment() -> None:
    """Keep ``Gateway()`` from sending the user's password or Hub token through the proxy in ``http_proxy``.

    dask-gateway uses that proxy by default, even for loopback addresses. A proxy in Dask's configuration is kept.
    """
    import dask.config

    if dask.config.get("gateway.http-client.proxy", None) in (None, True):
        dask.config.set({"gateway.http-client.proxy": False})
