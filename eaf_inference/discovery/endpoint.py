"""A healthy Triton that discovery found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eaf_inference.address import Address

__all__ = ["Endpoint"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a healthy Triton was found.

    Attributes
    ----------
    url : str
        The first healthy replica.
    addresses : tuple of Address
        All replicas, the healthy ones first.
    source : str
        The source that named it.
    withheld : str
        Why the user's token is not sent there; empty if it is sent.
    restricted : str
        Which calls the server does not allow, and why; empty if it allows all.
    """

    addresses: tuple[Address, ...]
    source: str
    withheld: str = ""
    restricted: str = ""

    @property
    def url(self) -> str:
        return self.addresses[0].url

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(address.url for address in self.addresses)
