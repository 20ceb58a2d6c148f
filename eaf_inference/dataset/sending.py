"""Send the parts of a data set: a bounded number at a time, and again those that may succeed later."""

from __future__ import annotations

import heapq
import itertools
import queue
import time
import uuid
from collections import deque
from typing import TYPE_CHECKING

from eaf_inference.dataset.failures import Failure, is_temporary
from eaf_inference.dataset.reading import Ranges
from eaf_inference.dataset.results import Scored
from eaf_inference.dataset.slots import Slot
from eaf_inference.dataset.task import Failed
from eaf_inference.errors import UnreadableFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from eaf_inference.dataset.options import Options
    from eaf_inference.dataset.place import Place
    from eaf_inference.dataset.slots import Group, Sent
    from eaf_inference.dataset.task import Task
    from eaf_inference.errors import InferenceError

__all__ = ["Sending"]

_LEAST_IN_FLIGHT = 8
_PER_THREAD = (2, 16)  # parts in flight per thread, least and most
_BUSY_FOR = 15.0  # seconds of work: three times the target duration of Dask's adaptive scaling
_TICK = 1.0  # seconds between checks of the cluster's size
_PAUSES = (1.0, 5.0, 20.0)  # seconds before a file is tried again whose storage did not answer


class Sending:
    """The parts of a run that were sent and not returned, and those that are left.

    Parameters
    ----------
    place : Place
    task : Task
    groups : iterable of Group
        Taken one by one, as there is room.
    options : Options

    Attributes
    ----------
    task : Task
    left : iterator of Group
        Those that are not sent yet. Like the task, they may be replaced before the first is sent.
    are_files : bool
        Whether the latest chunk is a file, rather than an array.
    flying : set of Sent
        Parts that run or wait to run there.
    """

    def __init__(self, place: Place, task: Task, groups: Iterable[Group], options: Options) -> None:
        self.task = task
        self.are_files = False
        self.flying: set[Sent] = set()
        self._place = place
        self.left: Iterator[Group] = iter(groups)
        self._options = options
        self._room = options.in_flight or 0
        self._checked = -_TICK
        self._slots: deque[Slot] = deque()
        self._outstanding = 0  # parts that were sent and are not returned
        self._resting: list[tuple[float, int, Sent, str]] = []  # a heap of parts that are sent again later
        self._attempts = itertools.count()
        self._finished: queue.SimpleQueue[Sent] = queue.SimpleQueue()
        self._key = f"{task.model.name}-{uuid.uuid4().hex}"

    def next(
        self, seconds_a_part: float | None, waiting: Callable[[], None], *, in_order: bool
    ) -> tuple[Slot, Sent] | None:
        """Wait for the next part that is scored or has failed; None at the end.

        Parameters
        ----------
        seconds_a_part : float, optional
            The time that a thread needs for a part, which decides how many are sent.
        waiting : callable
            Called about once a second.
        in_order : bool
            Whether to wait for the first file of all. The parts of a file always come in order.
        """
        while True:
            self.fill(seconds_a_part)
            if not self._slots:
                return None
            for slot in itertools.islice(self._slots, 1 if in_order else None):
                if slot.sent and slot.sent[0].outcome is not None:
                    self._outstanding -= 1
                    sent = slot.sent.popleft()
                    if slot.is_done:
                        self._slots.remove(slot)
                    return slot, sent
            pause = self._resting[0][0] - time.monotonic() if self._resting else _TICK
            try:
                self._settle(self._finished.get(timeout=min(max(pause, 0.0), _TICK)))
            except queue.Empty:
                waiting()

    def drop(self) -> None:
        """Forget everything."""
        while self.flying:
            self._place.release(self.flying.pop().future)
        self.left = iter(())
        self._slots.clear()
        self._resting.clear()
        self._outstanding = 0
        self._finished = queue.SimpleQueue()

    def fill(self, seconds_a_part: float | None) -> None:
        """Send parts while there is room."""
        options, now = self._options, time.monotonic()
        if options.in_flight is None and now - self._checked >= _TICK:
            least, most = _PER_THREAD
            wanted = _BUSY_FOR / seconds_a_part if seconds_a_part else least
            self._room = max(_LEAST_IN_FLIGHT, round(self._place.threads() * min(max(wanted, least), most)))
            self._checked = now
        while self._resting and self._resting[0][0] <= now:
            _, _, sent, worker = heapq.heappop(self._resting)
            self._send(sent, avoid=worker)
        while self._outstanding < self._room or self._is_head_unsent:
            slot = next((slot for slot in self._slots if slot.waiting), None)
            if slot is None:
                group = next(self.left, None)
                if group is None:
                    break
                slot = Slot(group)
                self._slots.append(slot)
                self.are_files = group[0][0].file is not None
            sent = slot.waiting.popleft()
            slot.sent.append(sent)
            self._outstanding += 1
            self._send(sent)

    @property
    def _is_head_unsent(self) -> bool:
        """Whether everything waits for ranges that are not sent, as later files fill the room."""
        return bool(self._slots) and not self._slots[0].sent

    def _send(self, sent: Sent, avoid: str = "") -> None:
        part, attempt = sent.part, next(self._attempts)
        key = f"{self._key}-{attempt}-{part.number}"
        finished = self._finished  # not this object, which the future would keep alive
        sent.future = self._place.send(
            self.task, part, sent.data, key=key, avoid=avoid, done=lambda: finished.put(sent)
        )
        self.flying.add(sent)

    def _settle(self, sent: Sent) -> None:
        """Take over what a part's task returned, or send the part again."""
        future, place = sent.future, self._place
        self.flying.discard(sent)
        sent.tries += 1
        try:
            outcome = future.result()
        except Exception as error:  # noqa: BLE001  (whatever the user's `select` raises)
            outcome = Failed(error, "")
        place.release(future)
        if isinstance(outcome, Scored):
            sent.outcome = outcome
        elif isinstance(outcome, Ranges):
            next(slot for slot in self._slots if sent in slot.sent).split(sent, outcome)
            self._outstanding -= 1
        else:
            failure = place.failure(sent.name, outcome.error)
            failure.__cause__ = outcome.error
            self._try_again(sent, failure, outcome.worker)

    def _try_again(self, sent: Sent, error: InferenceError, worker: str) -> None:
        """Send a part again, after a pause for its storage, or note its failure."""
        is_file = isinstance(error, UnreadableFile)
        pauses = _PAUSES if is_file else (0.0,) * self._options.retries
        if is_temporary(error) and sent.tries <= len(pauses):
            at = time.monotonic() + pauses[sent.tries - 1]
            heapq.heappush(self._resting, (at, next(self._attempts), sent, worker))
        else:
            sent.outcome = Failure(sent.part, sent.data, error, sent.tries)
