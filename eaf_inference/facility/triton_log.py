"""What Triton's log says about a server that does not start or a model that cannot be loaded: the reasons in it."""

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
# Each line of a log that explains a failure, and how to tell it; the first that matches counts.
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
            "This machine has no GPU: for a trial here, leave instance_group out of its config.pbtxt, "
            "or write KIND_AUTO, which takes a GPU where there is one."
        ),
    ),
    (
        re.compile(r"unable to find backend library for backend"),
        (
            'The Triton that is installed for you serves ONNX models (backend: "onnxruntime") and Python '
            'models (backend: "python"). Use --triton-server for one with other backends.'
        ),
    ),
)
_GENERAL = re.compile(r"^error: (?P<why>.*)", re.MULTILINE)
_NOISE = re.compile(r"\s*<frozen importlib.*")


def reasons(log: str) -> list[str]:
    """Every reason for a failure in this log, one a model, with what to do about the common ones.

    A log that explains nothing in a known way gives its last lines.
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
    """What to do about the common reasons among these."""
    text = "\n".join(reasons)
    return [hint for pattern, hint in _HINTS if pattern.search(text)]


def failed_models(log: str) -> dict[str, str]:
    """The models that could not be loaded, each with the last reason given."""
    found = {}
    for line in log.splitlines():
        if match := next(filter(None, (pattern.search(line) for pattern in _MODELS)), None):
            found[match["model"]] = _plain(match["why"])
    return found


def loading(log: str) -> list[str]:
    """The models that Triton began to load and has not done with."""
    begun = dict.fromkeys(re.findall(r"\"loading: (.+):\d+\"", log))
    ended = set(re.findall(r"\"(?:successfully loaded|failed to load) '([^']+)'", log))
    return [model for model in begun if model not in ended]


def address_in_use(log: str) -> bool:
    """Say whether it failed because somebody else listens on one of its ports."""
    return re.search(r"Socket '[^']*' already in use", log) is not None


def _plain(text: str) -> str:
    """Undo the quoting of Triton's log, and drop Python's own frames from a traceback."""
    text = text.strip().removesuffix('"').replace("\\n", "\n").replace('\\"', '"').replace("\\'", "'")
    return "\n".join(line for line in text.splitlines() if line.strip() and not _NOISE.match(line)).strip()
