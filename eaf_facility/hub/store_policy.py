"""The session policy of the keys with which one user reaches the model store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from eaf_facility.hub.store_files import CODE, CONFIGS, OWN_CODE, TRAVERSAL

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["session_policy"]

_READ = ("s3:GetObject",)
_WRITE = ("s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")
_DELETE = ("s3:DeleteObject",)


def session_policy(bucket: str, prefix: str, owner: str, *, python: bool, writes: bool) -> str:
    """Return the policy that STS intersects with the role's own.

    Parameters
    ----------
    bucket, prefix : str
        Where the store is; the prefix may be empty.
    owner : str
        The user, escaped as in the names of her models, so without the wildcards ``*``, ``?`` and ``$``.
    python : bool
        Whether she may have models of the Python backend, so upload Python files.
    writes : bool
        Whether she may upload; not if she has used up her quota.
    """
    hers = f"{prefix}/{owner}." if prefix else f"{owner}."
    objects = [f"arn:aws:s3:::{bucket}/{hers}*/*"]
    statements: list[dict[str, Any]] = [
        {
            "Effect": "Allow",
            "Action": "s3:ListBucket",
            "Resource": f"arn:aws:s3:::{bucket}",
            "Condition": {"StringLike": {"s3:prefix": f"{hers}*"}},
        },
        {"Effect": "Allow", "Action": [*_READ, *_DELETE, *(_WRITE if writes else ())], "Resource": objects},
        {
            "Effect": "Deny",
            "Action": ["s3:PutObject", "s3:DeleteObject"],
            "Resource": _below(bucket, CONFIGS),
        },
        {
            "Effect": "Deny",
            "Action": "s3:PutObject",
            "Resource": _below(bucket, (*CODE, *TRAVERSAL, *(() if python else OWN_CODE))),
        },
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, separators=(",", ":"))


def _below(bucket: str, patterns: Iterable[str]) -> list[str]:
    return [f"arn:aws:s3:::{bucket}/{each}" for each in patterns]
