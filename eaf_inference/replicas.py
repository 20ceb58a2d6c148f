"""The replicas of one Triton: which models they have, and which replica serves which model."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

from eaf_inference.discovery.probe import PROBE_TIMEOUT
from eaf_inference.errors import ServerUnavailable
from eaf_inference.inference import lookup
from eaf_inference.inference.pipeline import Limits, Question, ask
from eaf_inference.inference.queue_times import QueueTimes
from eaf_inference.inference.repository import ready_versions, why_not

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eaf_inference.inference.parameters import Chosen
    from eaf_inference.inference.repository import ModelTable
    from eaf_inference.inference.spec import ModelSpec
    from eaf_inference.inference.transport import Channel

__all__ = ["Replicas"]

Found = TypeVar("Found")


class Replicas:
    """The replicas of one Triton.

    Parameters
    ----------
    channels : sequence of Channel
    where : str
        The server's URL, for messages.
    timeout : float
        Seconds for each of the methods below.
    """

    def __init__(self, channels: Sequence[Channel], where: str, *, timeout: float) -> None:
        self._channels = channels
        self._where = where
        self._timeout = timeout
        self._serving: dict[tuple[str, str], list[Channel]] = {}
        self._queue_times = QueueTimes()

    def models(self) -> ModelTable:
        """Read the statistics and return the table of models."""
        left = self._countdown()
        self._read_statistics(left)
        return lookup.table(self._asking(left), self._where, self._serving, self._queue_times)

    def measure(self) -> None:
        """Read the statistics, from which `models` computes queue times."""
        self._read_statistics(self._countdown())

    def names(self) -> list[str]:
        """Return the names of the models."""
        rows, _ = lookup.index(self._asking(self._countdown()), self._where, self._serving)
        return sorted({row.name for row in rows})

    def spec(self, name: str, version: str, chosen: Chosen) -> ModelSpec:
        """Describe one version of a model: the newest one if the version is empty."""
        left = self._countdown()
        version = self._find(name, version, left)
        asking = self._asking(left, self._serving[name, version])
        return lookup.spec_of(asking, self._where, name, version, chosen=chosen)

    def serving(self, name: str, version: str) -> list[Channel]:
        """Return the replicas that serve one version of a model."""
        if (name, version) not in self._serving:
            self._find(name, version, self._countdown())
        return self._serving[name, version]

    def states(self, name: str) -> list[list[Any]]:
        """Return what each replica that answers lists of a model: its versions, their states and reasons."""
        found = self._of_each(lambda answers, where: lookup.about(answers, where, name, ""), self._countdown())
        return [[row for row in rows if row.name == name] for rows, _ in found.values()]

    def load(self, name: str) -> None:
        """Have each replica load a model from its repository, where Triton is controlled by such calls."""
        self._control(lookup.loading(name))

    def unload(self, name: str) -> None:
        """Have each replica unload a model."""
        self._control(lookup.unloading(name))

    def _control(self, question: Question) -> None:
        left = self._countdown()
        for channel in self._channels:
            ask([channel], [question], Limits(time_budget=left(), request_timeout=left()))
        self._serving = {
            key: channels for key, channels in self._serving.items() if key[0] != question.message.model_name
        }

    def close(self) -> None:
        """Close the channels; requests in flight fail."""
        for channel in self._channels:
            channel.close()

    def _countdown(self) -> Callable[[], float]:
        """Start a timeout; the returned function gives the seconds left."""
        ends = time.monotonic() + self._timeout
        return lambda: max(ends - time.monotonic(), 0.0)

    def _asking(self, left: Callable[[], float], channels: Sequence[Channel] = ()) -> Callable[..., list[Any]]:
        """Return a function that sends questions, and retries on other replicas while time is left."""

        def answers(*questions: Question) -> list[Any]:
            within = left()
            return ask(channels or self._channels, questions, Limits(time_budget=within, request_timeout=within))

        return answers

    def _of_each(
        self, look: Callable[[Callable[..., list[Any]], str], Found], left: Callable[[], float]
    ) -> dict[Channel, Found]:
        """Call `look` for each replica with a function that asks it and its URL; skip replicas that do not answer."""
        found = {}
        for number, channel in enumerate(self._channels):
            share = left() / (len(self._channels) - number + 1)  # a silent replica leaves time for the others
            limits = Limits(time_budget=0, request_timeout=min(PROBE_TIMEOUT, share))

            def answers(*questions: Question, channel: Channel = channel, limits: Limits = limits) -> list[Any]:
                return ask([channel], questions, limits)

            try:
                found[channel] = look(answers, channel.address.url)
            except ServerUnavailable:
                continue
        return found

    def _read_statistics(self, left: Callable[[], float]) -> None:
        for channel, reply in self._of_each(lambda answers, _: lookup.statistics(answers), left).items():
            if reply is not None:
                self._queue_times.add(channel.address.url, reply)

    def _find(self, name: str, version: str, left: Callable[[], float]) -> str:
        """Find the replicas that serve a model, and return its version: the newest one if none is given."""
        about = self._of_each(lambda answers, where: lookup.about(answers, where, name, version), left)
        answered = {channel: rows for channel, (rows, _) in about.items()}
        index = [row for rows in answered.values() for row in rows]
        unlisted = next((why for _, why in about.values() if why), "")
        if not answered:  # takes the time that is left, or raises with the reason
            index, unlisted = lookup.about(self._asking(left), self._where, name, version)
        versions = ready_versions(index, name, version)
        if not versions:
            raise why_not(index, name, version, unlisted=unlisted)
        newest = versions[-1]
        serving = [each for each in answered if ready_versions(answered[each], name, newest)]
        silent = [each for each in self._channels if each not in answered]  # they may come back
        self._serving[name, newest] = [*serving, *silent]
        return newest
