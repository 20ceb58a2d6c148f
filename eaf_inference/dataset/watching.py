"""Notice which columns a function asks about, besides those whose values it uses.

`"genWeight" in events.fields` and `hasattr(events, "genWeight")` use no value. If such a column were left out when
the file is read, the function would take the other branch, for all events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import awkward as ak

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["NAME", "Asked"]

NAME = "eaf_inference_watched"  # of the record whose columns are watched


class Asked:
    """The columns that were asked about while this is active."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.active = True

    def note(self, *names: str) -> None:
        """Remember names, of columns or of anything else."""
        if self.active:
            self.names.update(names)

    def behavior(self) -> dict[Any, type]:
        """Return the behavior of a record with the name `NAME` that notes what is asked of it."""
        asked = self

        class Watched(ak.Array):  # type: ignore[misc]
            @property
            def fields(self) -> list[str]:
                return _Names(super().fields, asked)

            def __getattr__(self, name: str) -> Any:
                asked.note(name)
                return super().__getattr__(name)

            def __getitem__(self, where: Any) -> Any:
                if isinstance(where, str):
                    asked.note(where)
                return super().__getitem__(where)

        return {("*", NAME): Watched}


class _Names(list[str]):
    """Names of columns; a look at each of them notes all, a look for one that one."""

    def __init__(self, names: list[str], asked: Asked) -> None:
        super().__init__(names)
        self._asked = asked

    def __contains__(self, name: object) -> bool:
        self._asked.note(str(name))
        return super().__contains__(name)

    def __iter__(self) -> Iterator[str]:
        self._asked.note(*super().__iter__())
        return super().__iter__()
