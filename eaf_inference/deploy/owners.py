"""Whose model it is: by the name that the facility guards, never by what a model's configuration claims."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eaf_inference.deploy.names import escaped, owner_of
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from eaf_inference.inference.repository import ModelRow

__all__ = ["owner_as_seen_by"]


def owner_as_seen_by(user: str | None, *, has_users: bool, is_local: bool) -> Callable[[ModelRow], tuple[str, bool]]:
    """Return a function that gives a model's owner, and whether that is this user.

    Parameters
    ----------
    user : str or None
        The token's ``sub``; None without a token, or with an opaque one.
    has_users : bool
        Whether the server takes tokens; otherwise, names have no owners.
    is_local : bool
        Whether it is this account's local facility, so that its deployed models are this user's.
    """
    own = None if user is None else _owner_named(user)

    def owner(row: ModelRow) -> tuple[str, bool]:
        if not has_users:
            return "", is_local and row.deployed is not None
        named = owner_of(row.name)
        if named is not None and named == own:  # also if it failed to load, and so has no configuration
            return named, True
        return (named if named is not None and row.deployed is not None else ""), False

    return owner


def _owner_named(user: str) -> str | None:
    try:
        return escaped(user)
    except ConfigurationError:  # such a user cannot deploy
        return None
