"""What is found out about one model before its rows are padded and its graphs share requests."""

from __future__ import annotations

import threading
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eaf_inference.errors import ModelChanged
from eaf_inference.inference.padding import PaddingCheck
from eaf_inference.inference.reloads import differs, fingerprint_of
from eaf_inference.inference.union_check import UnionCheck

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eaf_inference.inference.fingerprint import Fingerprint
    from eaf_inference.inference.pipeline import Limits
    from eaf_inference.inference.spec import ModelSpec
    from eaf_inference.inference.transport import Channel

__all__ = ["Checks"]


@dataclass(slots=True)
class Checks:
    """The findings about one model, which all its copies in a process share.

    Attributes
    ----------
    since : str
        A name for the moment when the model was looked up. Findings of another moment may be those of another model:
        its files may have been overwritten in between.
    fingerprint : Fingerprint or None
        Of the model that the findings are about; None if unknown.
    """

    padding: PaddingCheck
    unions: UnionCheck
    since: str
    fingerprint: Fingerprint | None = None

    @classmethod
    def shared(cls, known: dict[ModelSpec, Checks], spec: ModelSpec, since: str = "") -> Checks:
        """Return the known findings about a model if they are of this moment, or of any if it is empty; else none."""
        with _lock:
            checks = known.get(spec)
            if checks is None or since not in ("", checks.since):
                checks = known[spec] = cls(PaddingCheck(spec), UnionCheck(spec), since or uuid.uuid4().hex)
            return checks

    @classmethod
    def recognise(
        cls, known: dict[ModelSpec, Checks], spec: ModelSpec, channels: Sequence[Channel], limits: Limits
    ) -> None:
        """Forget the known findings about a model unless the server still has the one that they are about.

        For code that looks a model up again and again, such as a Dask task, and must not find out everything anew.
        """
        checks = known.get(spec)
        if checks and checks.fingerprint and not differs(channels, limits, spec, checks.fingerprint):
            return
        known.pop(spec, None)
        with suppress(ModelChanged):  # the replicas differ at present
            fingerprint = fingerprint_of(channels, limits, spec)
            cls.shared(known, spec).fingerprint = fingerprint


_lock = threading.Lock()
