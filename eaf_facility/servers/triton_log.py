"""The reasons in Triton's log why the server does not start or a model cannot be loaded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["address_in_use", "failed_models", "hints", "loading", "reasons"]

_MODELS = (
    re.compile(r"failed to load '(?P<model>[^']+)' version \d+: (?P<why>.*)"),
    re.compile(r"failed to load model '(?P<model>[^']+)': (?P<why>.*)"),
    re.compile(r"Poll failed for model directory '(?P<model>[^']+)': (?P<why>.*)"),
    re.compile(r"failed to poll model '(?P<model>[^']+)': (?P<why>.*)"),
    re.compile(r"Invalid argument: (?P<why>ensemble '(?P<model>[^']+)' .*)"),
)
# Patterns for the lines of a log that explain a failure, each with its message; the first match counts.
_REASONS = (
    *((pattern, "model '{model}': {why}") for pattern in _MODELS),
    (re.compile(r"Error parsing text-format inference.ModelConfig: (?P<why>.*)"), "config.pbtxt, line {why}"),
    (re.compile(r"failed to (?P<what>start \S+ service): \w+ - (?P<why>.*)"), "failed to {what}: {why}"),
    (re.compile(r"(?P<why>error while loading shared libraries: .*)"), "{why}"),
    (re.compile(r"(?P<why>version `GLIBC.*not found.*)"), "{why}"),
)
_HINTS = (
    (
        re.compile(r"no GPUs are available|unsupported gpu id"),
        (
            "This machine has no GPU. To try the model here, leave instance_group out of its config.pbtxt, or use "
            "KIND_AUTO, which takes a GPU if there is one."
        ),
    ),
    (
        re.compile(r"unable to find backend library for backend"),
        (
            'The Triton that is installed for you serves ONNX models (backend: "onnxruntime") and Python '
            'models (backend: "python"). For other backends, pass your own tritonserver with --triton-server.'
        ),
    ),
)
_GENERAL = re.compile(r"^error: (?P<why>.*)", re.MULTILINE)
_NOISE = re.compile(r"\s*<frozen importlib.*")


def reasons(log: str) -> list[str]:
    """Return the reasons for failures in this log, one per model, and hints for the common ones.

    If the log has no known explanation, return its last lines.
    """
    found = []
    for line in log.splitlines():
        for pattern, form in _REASONS:
            if match := pattern.search(line):
                found.append(_plain(form.format(**match.groupdict())))
                break
    found = list(dict.fromkeys(found)) or _GENERAL.findall(log) or log.splitlines()[-5:]
    return found + hints(found)


def hints(reasons: Iterable[str]) -> list[str]:
    """Return what to do about the common reasons among these."""
    text = "\n".join(reasons)
    return [hint for pattern, hint in _HINTS if pattern.search(text)]


def failed_models(log: str) -> dict[str, str]:
    """Return the models that could not be loaded, each with the last reason in the log."""
    found = {}
    for line in log.splitlines():
        if match := next(filter(None, (pattern.search(line) for pattern in _MODELS)), None):
            found[match["model"]] = _plain(match["why"])
    return found


def loading(log: str) -> list[str]:
    """Return the models that Triton began to load and has not finished."""
    begun = dict.fromkeys(re.findall(r"\"loading: (.+):\d+\"", log))
    ended = set(re.findall(r"\"(?:successfully loaded|failed to load) '([^']+)'", log))
    return [model for model in begun if model not in ended]


def address_in_use(log: str) -> bool:
    """Return whether it failed because another process listens on one of its ports."""
    return re.search(r"Socket '[^']*' already in use", log) is not None


def _plain(text: str) -> str:
    """Undo the quoting of Triton's log, and drop Python's own frames from tracebacks."""
    text = text.strip().removesuffix('"').replace("\\n", "\n").replace('\\"', '"').replace("\\'", "'")
    return "\n".join(line for line in text.splitlines() if line.strip() and not _NOISE.match(line)).strip()
