"""What the checks look at: the operator's own configuration, and the operator's token."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from eaf_facility.envoy.settings import Envoy
from eaf_facility.hub.settings import ModelStore, TokenIssuer
from eaf_facility.token_policy import JWKS_PATH, TokenPolicy
from eaf_inference.address import Address, parse_urls
from eaf_inference.auth.sources import TokenFile
from eaf_inference.auth.token_service import ENVIRONMENT, TokenService
from eaf_inference.config import Facility, configured

if TYPE_CHECKING:
    from collections.abc import Mapping

    from eaf_inference.auth.sources import TokenSource

__all__ = ["HUB_TOKEN", "Setup"]

HUB_TOKEN = "JUPYTERHUB_API_TOKEN"  # noqa: S105 - a variable's name


@dataclass(frozen=True, slots=True)
class Setup:
    """The sections of ``eaf_inference_config.py``, and where the operator's token comes from.

    Attributes
    ----------
    token_file : str
        A file with a token for the edge proxy; empty: the token service is asked for one with the Hub token in the
        environment.
    """

    facility: Facility = field(default_factory=Facility)
    envoy: Envoy = field(default_factory=Envoy)
    policy: TokenPolicy = field(default_factory=TokenPolicy)
    issuer: TokenIssuer = field(default_factory=TokenIssuer)
    store: ModelStore = field(default_factory=ModelStore)
    token_file: str = ""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, token_file: str = "") -> Setup:
        """Read the configuration from Jupyter's configuration path.

        Raises
        ------
        ConfigurationError
            A file cannot be read, or gives a setting a wrong value.
        """
        return cls(
            configured(Facility),
            configured(Envoy),
            configured(TokenPolicy),
            configured(TokenIssuer),
            configured(ModelStore),
            token_file=token_file,
            environment=dict(os.environ),
        )

    @property
    def proxies(self) -> tuple[Address, ...]:
        """The addresses at which users reach the edge proxy."""
        if self.facility.urls:
            return parse_urls(self.facility.urls)
        if not self.envoy.upstreams:
            return ()
        host = self.envoy.address if self.envoy.address not in ("0.0.0.0", "::") else "127.0.0.1"  # noqa: S104
        return (Address(host, self.envoy.port, tls=not self.envoy.behind_tls),)

    @property
    def service_url(self) -> str:
        """The base URL of the token service, where its keys are published; empty if unknown."""
        url = self.policy.jwks_url
        return url.removesuffix(JWKS_PATH) if url.endswith(f"/{JWKS_PATH}") else ""

    @property
    def service_ca(self) -> str | None:
        """The PEM file of the authorities that verify the token service, as Envoy reads it; None for the system's."""
        return self.envoy.jwks_ca if os.path.exists(self.envoy.jwks_ca) else None  # noqa: PTH110 - a string

    @property
    def token_source(self) -> TokenSource | None:
        """Where the operator's token comes from; None if no place is known."""
        if self.token_file or not self.environment.get(HUB_TOKEN):
            file = self.token_file or self.facility.token_file
            return TokenFile(file) if file else None
        service = self.facility.token_service or self.environment.get(ENVIRONMENT) or self.service_url
        return TokenService(service, ca=self.facility.ca or None, environment=self.environment) if service else None
