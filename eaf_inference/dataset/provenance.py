"""What made the scores in a directory: a model, a `select`, a format. Scores of two kinds are not mixed in one."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from eaf_inference._redact import mask
from eaf_inference.dataset.drafts import Draft
from eaf_inference.dataset.function_text import function_text
from eaf_inference.errors import ConfigurationError, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from eaf_inference.inference.fingerprint import Fingerprint
    from eaf_inference.inference.model import Model

__all__ = ["Provenance", "claim", "refuse"]

MANIFEST = "_provenance.json"  # readers of parquet directories skip names that begin with "_"


@dataclass(frozen=True, slots=True)
class Provenance:
    """What made scores.

    Attributes
    ----------
    fingerprint : Fingerprint
        The model, its version, configuration, recipe and outputs, and some of its scores.
    select : str
        The name of the function, and a hash of its code; empty without one.
    schema : str
        The name of the schema; empty without one.
    server : str
        Its URL. Any server with the same model may add scores.
    """

    fingerprint: Fingerprint
    select: str = ""
    schema: str = ""
    server: str = ""

    @classmethod
    def of(
        cls, model: Model, fingerprint: Fingerprint, *, select: Callable[..., Any] | None = None, schema: Any = None
    ) -> Provenance:
        """Return what the outputs of a run of this model record."""
        return cls(
            fingerprint=fingerprint,
            select=function_text(select) if select else "",
            schema=getattr(schema, "__qualname__", type(schema).__qualname__) if schema is not None else "",
            server=mask(model.where),
        )

    def facts(self) -> dict[str, Any]:
        """Return what an output records, in the types of JSON."""
        return {
            "model": self.fingerprint.model,
            "version": self.fingerprint.version,
            "recipe": self.fingerprint.recipe,
            "fingerprint": json.loads(self.fingerprint.to_json()),
            "select": self.select,
            "schema": self.schema,
            "server": self.server,
        }

    def differences(self, facts: dict[str, Any]) -> list[str]:
        """Say in what other facts differ, apart from the server; in words."""
        try:
            there = self.fingerprint.from_json(json.dumps(facts.get("fingerprint")))
            model = there.difference(self.fingerprint)
        except InvalidInput:
            model = "its fingerprint there cannot be read"
        mine = {"select": self.select, "schema": self.schema}
        return [f"the model: {model}"] * bool(model) + [
            f"{name}: {facts.get(name) or 'none'} there, {value or 'none'} here"
            for name, value in mine.items()
            if value != facts.get(name)
        ]


def claim(directory: Path, provenance: Provenance, format: str) -> Provenance:  # noqa: A002  (the user's word)
    """Reserve a directory for scores of one kind.

    Returns
    -------
    Provenance
        With the fingerprint that the directory already has, so that all outputs have the same one.

    Raises
    ------
    ConfigurationError
        It holds scores of another kind, or cannot be written.
    """
    manifest = directory / MANIFEST
    facts = {name: value for name, value in provenance.facts().items() if name != "server"}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not manifest.exists():
            draft = Draft(manifest)
            try:
                draft.file.write(json.dumps({"format": format, **facts}, indent=1, sort_keys=True).encode() + b"\n")
                draft.publish(over=False)  # another process may have just done the same
            finally:
                draft.discard()
        content = manifest.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"Scores cannot be written into {directory}: {error.strerror or error}. Expected a directory in which "
            "you may create files."
        ) from error
    try:
        recorded = dict(json.loads(content))
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"{manifest} is damaged, so what made the scores in {directory} is unknown. Expected what this package "
            "wrote. Write into another directory, or remove this one to score all files again."
        ) from error
    differences = provenance.differences(recorded)
    if recorded.get("format") != format:
        differences.append(f"format: {recorded.get('format')} there, {format} here")
    refuse(directory, differences)
    return replace(provenance, fingerprint=provenance.fingerprint.from_json(json.dumps(recorded["fingerprint"])))


def refuse(place: Path, differences: list[str]) -> None:
    """Raise an error if the scores at a place were made in another way."""
    if differences:
        raise ConfigurationError(
            f"{place} holds scores that were made in another way. {'; '.join(differences)}. Expected the "
            "same, so that no two kinds of scores are mixed. Write into another directory, or remove this one to "
            "score all files again."
        )
