"""The options of a run over a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from eaf_inference.errors import InvalidInput

__all__ = ["OnError", "Options"]

OnError: TypeAlias = Literal["collect", "skip", "raise"]


@dataclass(frozen=True, slots=True)
class Options:
    """How to run; see `Connection.submit`."""

    retries: int = 2
    in_flight: int | None = None
    progress: bool | None = None
    on_error: OnError = "collect"

    def __post_init__(self) -> None:
        if self.in_flight is not None and self.in_flight < 1:
            raise InvalidInput(f"in_flight is {self.in_flight}. Expected a positive number of chunks.")
        if self.on_error not in ("collect", "skip", "raise"):
            raise InvalidInput(f"on_error is {self.on_error!r}. Expected 'collect', 'skip' or 'raise'.")
