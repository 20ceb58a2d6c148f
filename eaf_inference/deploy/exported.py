"""What a user's model becomes before it is checked and uploaded: the files of one version, and facts about them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from eaf_inference._text import shortened
from eaf_inference.errors import DeploymentRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Reference: TypeAlias = Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]]

__all__ = ["Export", "library", "reason", "short"]

_SHOWN = 600  # characters of another library's message


@dataclass(frozen=True, slots=True)
class Export:
    """The files of a model's version.

    Attributes
    ----------
    files : mapping of str to pathlib.Path
        Path within the version directory, such as ``model.onnx``, to the local file.
    backend : str
        Triton's name, such as ``onnxruntime``.
    onnx : pathlib.Path or None
        The ONNX file, which can be run here.
    source : str
        What the files were made from, such as ``torch 2.13.0``.
    features : mapping of str to tuple of str
        Column names by input, where the source knows them.
    labels : mapping of str to tuple of str
        Class names by output, where the source knows them.
    config : str
        The ``config.pbtxt`` that came with the files; empty if there was none.
    remarks : tuple of str
        What the user should know.
    reference : callable or None
        Returns the source's own outputs, by name, for arrays by input name; None for files.
    """

    files: Mapping[str, Path]
    backend: str
    onnx: Path | None = None
    source: str = ""
    features: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    config: str = ""
    remarks: tuple[str, ...] = ()
    reference: Reference | None = None


def library(name: str, purpose: str, *, install: str = "") -> Any:
    """Import an optional library.

    Parameters
    ----------
    name : str
        Of the module.
    purpose : str
        What it is needed for, such as ``to export scikit-learn estimators``.
    install : str, optional
        What pip installs, if not `name`.

    Raises
    ------
    DeploymentRefused
        It is not installed, or does not work.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DeploymentRefused(
            f"{name} is needed {purpose} and cannot be imported: {short(error)}. Install it: "
            f"pip install {install or name}"
        ) from error


def reason(error: BaseException) -> str:
    """Return the message of the error at the bottom of a chain: libraries wrap it in advice or in all their data."""
    while error.__cause__ is not None:
        error = error.__cause__
    return short(error)


def short(error: object) -> str:
    """Return another library's message as one line of limited length."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return shortened(text, _SHOWN)
