"""Short-lived S3 keys for one user: the service assumes a role, with a session policy for her own models only.

This is the same call on AWS, MinIO and Ceph (STS AssumeRole with Policy).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from eaf_facility.hub.store_policy import session_policy
from eaf_inference._redact import SecretText, redact
from eaf_inference.errors import ServerUnavailable

if TYPE_CHECKING:
    from eaf_facility.hub.settings import ModelStore
    from eaf_inference.config import Facility

__all__ = ["KeyMaker", "Keys"]

_LONGEST_SESSION = 64  # characters of a session's name, which the store's own log shows


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys for one user's models.

    Attributes
    ----------
    key, secret, token : str
    expires_in : int
        Seconds.
    owner : str
        The owner in the names of her models.
    writes : bool
        Whether they can upload.
    """

    key: str
    secret: SecretText
    token: SecretText
    expires_in: int
    owner: str
    writes: bool


@dataclass(frozen=True, slots=True)
class KeyMaker:
    """Asks STS for keys.

    Attributes
    ----------
    client : botocore.client.BaseClient
        Of STS, with the service's own credentials.
    role : str
    lifetime : float
    bucket, prefix : str
        Where the store is.
    """

    client: Any
    role: str
    lifetime: float
    bucket: str
    prefix: str

    @classmethod
    def of(cls, settings: ModelStore, facility: Facility, own: tuple[SecretText, SecretText] | None) -> KeyMaker:
        """Return the maker for this store.

        Parameters
        ----------
        settings : ModelStore
        facility : Facility
        own : tuple of SecretText, optional
            The service's own key and secret; by default botocore finds them.
        """
        from botocore.config import Config
        from botocore.session import get_session

        place = urlsplit(facility.model_store)
        key, secret = (own[0][:], own[1][:]) if own else (None, None)
        client = get_session().create_client(
            "sts",
            region_name=settings.region,
            endpoint_url=facility.model_store_endpoint or None,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            config=Config(connect_timeout=3, read_timeout=5, retries={"total_max_attempts": 2}),
        )
        return cls(client, settings.role, settings.key_lifetime, place.netloc, place.path.strip("/"))

    def make(self, owner: str, *, python: bool, writes: bool) -> Keys:
        """Return new keys.

        Raises
        ------
        ServerUnavailable
            STS does not answer, or refuses.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        policy = session_policy(self.bucket, self.prefix, owner, python=python, writes=writes)
        try:
            made = self.client.assume_role(
                RoleArn=self.role,
                RoleSessionName=f"eaf-{owner}"[:_LONGEST_SESSION],
                DurationSeconds=int(self.lifetime),
                Policy=policy,
            )["Credentials"]
        except (BotoCoreError, ClientError) as error:
            raise ServerUnavailable(f"STS gives no keys: {redact(str(error))}") from None
        return Keys(
            key=made["AccessKeyId"],
            secret=SecretText(made["SecretAccessKey"]),
            token=SecretText(made["SessionToken"]),
            expires_in=max(1, int(made["Expiration"].timestamp() - time.time())),
            owner=owner,
            writes=writes,
        )
