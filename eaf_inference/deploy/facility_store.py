"""The model store of the facility that a connection reaches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_inference.auth.model_store import HubPublisher, StoreKeys
from eaf_inference.auth.token_service import TokenService
from eaf_inference.config import load_facility
from eaf_inference.deploy.store import Store
from eaf_inference.discovery.local_facility import serving
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from eaf_inference.discovery.local_facility import LocalFacility
    from eaf_inference.opening import Opened

__all__ = ["store_of"]


def store_of(opened: Opened) -> Store:
    """Return the store that the facility's Triton reads.

    Raises
    ------
    ConfigurationError
        The facility has none.
    """
    local = serving(opened.endpoint.urls)
    if local is not None and local.model_store:
        return _local_store(local)
    facility = opened.facility
    if not facility.model_store:
        raise ConfigurationError(
            f"The facility of {opened.endpoint.url} has no model store for its users. Ask its operators to set "
            "Facility.model_store, or deploy on a facility of your own: eaf-inference up"
        )
    if not facility.model_store_service:
        return Store(facility.model_store, endpoint=facility.model_store_endpoint)
    service = TokenService(facility.token_service, ca=load_facility().ca or None)
    key = StoreKeys(service) if facility.model_store.startswith("s3://") else None
    return Store(
        facility.model_store, endpoint=facility.model_store_endpoint, key=key, publisher=HubPublisher(service)
    )


def _local_store(local: LocalFacility) -> Store:
    """Return the store of a facility on this machine, with its keys if it is in S3."""
    key = None
    if local.model_store_keys:
        try:
            keys = json.loads(Path(local.model_store_keys).read_text(encoding="utf-8"))
            key = (str(keys["key"]), str(keys["secret"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"The keys of the local facility's model store, {local.model_store_keys}, cannot be read: "
                f"{type(error).__name__}. Start the facility again: eaf-inference up --store s3"
            ) from error
    return Store(local.model_store, endpoint=local.model_store_endpoint, key=key)
