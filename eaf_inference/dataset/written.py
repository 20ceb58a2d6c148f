"""What a run wrote into a directory."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Written"]


@dataclass(slots=True, repr=False)
class Written:
    """What was written; prints as a few lines.

    Attributes
    ----------
    files : int
        Outputs that were written.
    entries : int
        Entries of their inputs.
    bytes : int
        Their sizes.
    skipped : int
        Files whose outputs were complete already.
    incomplete : list of str
        Files without output, because a part of them is missing or they were changed meanwhile.
    not_aligned : int
        Outputs without entry numbers, because `select` does not keep one element for each entry, in
        their order.
    """

    files: int = 0
    entries: int = 0
    bytes: int = 0
    skipped: int = 0
    incomplete: list[str] = field(default_factory=list)
    not_aligned: int = 0

    def __str__(self) -> str:
        outputs = "output" if self.files == 1 else "outputs"
        lines = [f"{self.files:,} {outputs} written: {self.entries:,} entries, {self.bytes / 1e6:,.1f} MB"]
        if self.not_aligned:
            lines.append(
                f"{self.not_aligned:,} of these have no entry numbers, because select drops or reorders entries"
            )
        if self.skipped:
            lines.append(f"{self.skipped:,} were complete before")
        if self.incomplete:
            lines.append(f"not written, as parts failed or the file changed: {', '.join(self.incomplete)}")
        return "\n".join(lines)

    __repr__ = __str__
