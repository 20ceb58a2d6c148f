"""The names under which users' own models are served.

On a facility with users, the model `tagger` of the user with the token subject `a.lice` is served as
``a_2elice.tagger``: the owner, a dot and the name that she gave. The owner is her subject with every character other
than a letter, a digit or ``-`` escaped, so two users never share an owner, and the first dot always ends it.
"""

from __future__ import annotations

import re

from eaf_inference._text import shortened
from eaf_inference.errors import ConfigurationError

__all__ = ["checked_name", "checked_served_name", "escaped", "owner_of", "served_name"]

_LONGEST_SERVED_NAME = 220  # bytes: a file name has at most 255, and the store makes temporary names from it
_PLAIN = re.compile(r"[A-Za-z0-9-]")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_ESCAPE = re.compile(r"_([0-9a-f]{2})")
_OWNER = re.compile(r"(?:[A-Za-z0-9-]|_[0-9a-f]{2})+")
_SERVED = re.compile(r"(?:[A-Za-z0-9_-]+\.)?[A-Za-z0-9][A-Za-z0-9_.-]*")
_ALLOWED = (
    "Expected 1 to 100 characters: letters, digits, '_', '-' and '.', with a letter or a digit first and no '..', "
    "such as 'my_tagger'"
)


def checked_name(name: str) -> str:
    """Return the name that a user gives a model, if it is allowed.

    Raises
    ------
    ConfigurationError
        It is not; the message says what is allowed.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name:
        raise ConfigurationError(f"The model name {_shown(name)} is not allowed. {_ALLOWED}.")
    return name


def escaped(user: str) -> str:
    """Return the owner in the names of this user's models.

    Each character other than an ASCII letter, a digit or ``-`` becomes ``_`` and two hexadecimal digits for each byte
    of its UTF-8 form.

    Raises
    ------
    ConfigurationError
        The user's name is empty or not valid Unicode.
    """
    if not isinstance(user, str) or not user:
        raise ConfigurationError(f"The user name {_shown(user)} cannot own models. Expected the subject of a token.")
    try:
        return "".join(
            each if _PLAIN.fullmatch(each) else "".join(f"_{byte:02x}" for byte in each.encode()) for each in user
        )
    except UnicodeEncodeError as error:
        raise ConfigurationError(
            f"The user name {_shown(user)} is not valid Unicode. Expected the subject of a token."
        ) from error


def served_name(user: str | None, name: str) -> str:
    """Return the name under which a model is served.

    Parameters
    ----------
    user : str or None
        The subject of the user's token; None on a facility without users, where models have no owner.
    name : str
        The name that the user gives it.

    Raises
    ------
    ConfigurationError
        The name is not allowed, the user cannot own models, or both together are too long.
    """
    served = checked_name(name) if user is None else f"{escaped(user)}.{checked_name(name)}"
    if len(served) > _LONGEST_SERVED_NAME:
        raise ConfigurationError(
            f"The model name {_shown(name)} is too long: with its owner it has {len(served)} characters. Expected at "
            f"most {_LONGEST_SERVED_NAME}; choose a shorter one."
        )
    return served


def checked_served_name(served: str) -> str:
    """Return the name of a model on the server, if the store accepts it as the name of a directory.

    Raises
    ------
    ConfigurationError
        It is not a name that `served_name` gives.
    """
    if (
        not isinstance(served, str)
        or len(served) > _LONGEST_SERVED_NAME
        or ".." in served
        or not _SERVED.fullmatch(served)
    ):
        raise ConfigurationError(
            f"{_shown(served)} is not the name of a model in a model store. Expected 'name' or 'owner.name' with a "
            "name of letters, digits, '_', '-' and '.'."
        )
    return served


def owner_of(served: str) -> str | None:
    """Return the owner in a model's name on the server, escaped; None if the name has no owner.

    Only what `escaped` can give is an owner: `v1` of ``v1.tagger`` is, `my_tagger` of ``my_tagger.v2`` is not.
    """
    owner, dot, name = served.partition(".")
    if not dot or not name or not _OWNER.fullmatch(owner):
        return None
    try:
        user = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), owner).encode("latin-1").decode()
    except UnicodeDecodeError:
        return None
    return owner if escaped(user) == owner else None


def _shown(name: object) -> str:
    return shortened(repr(name), 130)
