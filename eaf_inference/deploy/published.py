"""What a model's config.pbtxt says about its versions, and the texts that stand in for one.

Triton completes a model without a config.pbtxt from its files, and then serves the newest version, complete or not.
So a model in the store always has one: until the first version is published, and while it is removed, the text names
a backend that no server has.
"""

from __future__ import annotations

from typing import Any

__all__ = ["names_stand_in", "pinned_version_of", "placeholder", "removal", "stands_in"]

_UPLOADING = "upload_in_progress"
_REMOVING = "removal_in_progress"


def placeholder(served_name: str) -> str:
    """Return the config.pbtxt of a model of which no version is published yet; no server can load it."""
    return f'name: "{served_name}"\nbackend: "{_UPLOADING}"\n'


def removal(served_name: str) -> str:
    """Return the config.pbtxt of a model while its files are removed; no server can load it."""
    return f'name: "{served_name}"\nbackend: "{_REMOVING}"\n'


def stands_in(served_name: str, text: str) -> bool:
    """Return whether this is one of the two texts above."""
    return text in (placeholder(served_name), removal(served_name))


def pinned_version_of(text: str) -> int | None:
    """Return the only version that Triton may serve by this config.pbtxt; None if it does not name exactly one.

    Raises
    ------
    ConfigurationError
        The text is not a model configuration.
    """
    policy = _parsed(text).version_policy
    versions = list(policy.specific.versions) if policy.WhichOneof("policy_choice") == "specific" else []
    return int(versions[0]) if len(versions) == 1 else None


def _parsed(text: str) -> Any:
    from eaf_inference.deploy.config_text import parsed  # with protobuf, which the names of models do not need

    return parsed(text)


def names_stand_in(reason: str) -> bool:
    """Return whether Triton's reason for not serving a model is a text that stood in for its config.pbtxt."""
    return _UPLOADING in reason or _REMOVING in reason
