"""What a Triton that does not start says about it: the reasons, picked out of its log."""

from __future__ import annotations

import re

__all__ = ["address_in_use", "reasons"]

# Each line of a log that explains a failure, and how to tell it; the first that matches counts.
_REASONS = (
    (re.compile(r"failed to load '(?P<model>[^']+)' version \d+: (?P<why>.*)"), "model '{model}': {why}"),
    (
        re.compile(r"Poll failed for model directory '(?P<model>[^']+)': (?P<why>.*)"),
        "model '{model}': {why}",
    ),
    (re.compile(r"Error parsing text-format inference.ModelConfig: (?P<why>.*)"), "config.pbtxt, line {why}"),
    (re.compile(r"failed to (?P<what>start \S+ service): \w+ - (?P<why>.*)"), "failed to {what}: {why}"),
    (re.compile(r"model '?(?P<model>[^ ']+)'? (?P<why>.*not unique.*)"), "model '{model}': {why}"),
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
    return found + [hint for pattern, hint in _HINTS if any(pattern.search(reason) for reason in found)]


def address_in_use(log: str) -> bool:
    """Say whether it failed because somebody else listens on one of its ports."""
    return re.search(r"Socket '[^']*' already in use", log) is not None


def _plain(text: str) -> str:
    """Undo the quoting of Triton's log, and drop Python's own frames from a traceback."""
    text = text.strip().removesuffix('"').replace("\\n", "\n").replace('\\"', '"').replace("\\'", "'")
    return "\n".join(line for line in text.splitlines() if line.strip() and not _NOISE.match(line)).strip()
