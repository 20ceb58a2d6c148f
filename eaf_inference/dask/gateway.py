"""Which Dask Gateway `Gateway()` finds when nobody named one: that of the facility, or of one on this machine.

Only the address and the name of a class go into Dask's configuration, which Dask copies into the environment of
the processes it starts; the class (`auth.LocalGatewayAuth`) reads the password when a gateway asks for it.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eaf_inference.config import Facility
    from eaf_inference.local import LocalFacility

__all__ = ["use_facility_gateway", "use_local_gateway", "use_no_proxy_of_the_environment"]

_AUTH = "eaf_inference.dask.auth.LocalGatewayAuth"


def use_local_gateway(facility: LocalFacility) -> bool:
    """Make this facility's gateway the one that ``dask_gateway.Gateway()`` connects to, for this process.

    A gateway that the user's configuration names stays; one that this function named before gives way, as its
    facility may have ended.

    Parameters
    ----------
    facility : LocalFacility
        A facility on this machine.

    Returns
    -------
    bool
        Whether it did: the facility has a gateway, dask-gateway is installed, and none was configured.
    """
    if facility.gateway is None or importlib.util.find_spec("dask_gateway") is None:
        return False
    import dask.config

    ours = dask.config.get("gateway.auth.type", None) == _AUTH
    if dask.config.get("gateway.address", None) is not None and not ours:
        return False
    dask.config.set({"gateway.address": facility.gateway.address, "gateway.auth.type": _AUTH})
    use_no_proxy_of_the_environment()
    return True


def use_facility_gateway(facility: Facility) -> bool:
    """Make the gateway of a JupyterHub's facility the one that ``dask_gateway.Gateway()`` connects to.

    It takes users' Hub tokens, which Dask reads from the environment. A gateway that is configured already stays.

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
    use_no_proxy_of_the_environment()
    return True


def use_no_proxy_of_the_environment() -> None:
    """Have ``Gateway()`` show the user's password or Hub token to no proxy that Dask's configuration does not name.

    dask-gateway's default takes the one of ``http_proxy``, for loopback addresses too.
    """
    import dask.config

    if dask.config.get("gateway.http-client.proxy", None) in (None, True):
        dask.config.set({"gateway.http-client.proxy": False})
