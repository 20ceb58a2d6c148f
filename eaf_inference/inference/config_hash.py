"""A hash of a model's configuration on the server, of all that may change its scores."""

from __future__ import annotations

import hashlib
from typing import Any

__all__ = ["config_hash"]

_DIGITS = 16
# Of a ModelConfig: how requests are queued, batched and placed, and not what is computed.
_WITHOUT_EFFECT = (
    *("version_policy", "max_batch_size", "dynamic_batching", "instance_group", "metric_tags"),
    *("model_warmup", "response_cache", "model_metrics"),
)
_OPTIMIZATIONS = {"execution_accelerators", "graph"}  # these may change the precision
_PARAMETERS = ("preprocess", "intra_op_thread_count", "inter_op_thread_count")  # the recipe is hashed as it is used


def config_hash(config: Any) -> str:
    """Return the hash of a ``ModelConfig``, of all fields that may change scores.

    Parameters
    ----------
    config : protocol.ModelConfig

    Returns
    -------
    str
        Sixteen hexadecimal digits.
    """
    kept = type(config)()
    kept.CopyFrom(config)
    kept.DiscardUnknownFields()
    for name in _WITHOUT_EFFECT:
        if name in kept.DESCRIPTOR.fields_by_name:
            kept.ClearField(name)
    for field, _ in kept.optimization.ListFields():
        if field.name not in _OPTIMIZATIONS:
            kept.optimization.ClearField(field.name)
    if not kept.optimization.ListFields():
        kept.ClearField("optimization")
    for name in _PARAMETERS:
        kept.parameters.pop(name, None)
    return hashlib.sha256(kept.SerializeToString(deterministic=True)).hexdigest()[:_DIGITS]
