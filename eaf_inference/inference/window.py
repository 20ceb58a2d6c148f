"""How many requests to keep in flight: enough to keep the servers busy, and no more."""

from __future__ import annotations

import math

__all__ = ["Window"]


class Window:
    """The number of requests in flight, learned from the time that replies take.

    As in TCP Vegas (https://doi.org/10.1109/49.464716), the shortest time that a request of some size has taken is
    what the server and the network need for it; any more is time in a queue. The window grows while few of our
    requests wait, and shrinks when many do. Overload halves it.

    Parameters
    ----------
    most : int
        The largest window.
    channels : int
        Replicas that share the work; each is kept busy.

    Attributes
    ----------
    crowded : bool
        Others keep the servers busy: one request in each queue is enough.
    """

    _FEW, _MANY = 0.8, 2.0  # waiting requests per replica
    _DECAY = 1.002  # by which the shortest time grows with each reply, since a server's speed changes

    def __init__(self, most: int, *, channels: int = 1) -> None:
        self.most = max(most, 1)
        self._channels = channels
        self._least_size = min(channels, self.most)
        self._size = float(min(2 * channels, self.most))
        self._shortest: dict[int, float] = {}  # seconds, by size of the request
        self.crowded = False

    @property
    def size(self) -> int:
        return self._least_size if self.crowded else int(self._size)

    def replied(self, seconds: float, work: float, in_flight: int) -> None:
        """Learn from a reply.

        Parameters
        ----------
        seconds : float
            From sending to reply.
        work : float
            The request's size; requests within a fifth of one another are compared.
        in_flight : int
            Requests in flight when it was sent, including itself.
        """
        size = round(4 * math.log2(work))
        # a full window queues behind itself: its times say nothing about the server's speed
        decay = self._DECAY if in_flight <= 2 * self._channels else 1.0
        shortest = min(seconds, self._shortest.get(size, seconds) * decay)
        self._shortest[size] = shortest
        waiting = in_flight * (1 - shortest / seconds) / self._channels if seconds > 0 else 0.0
        if waiting < self._FEW and in_flight >= self.size:
            self._size = min(self._size + 1 / self._size, float(self.most))
        elif waiting > self._MANY:
            self._size = max(self._size - 1 / self._size, float(self._least_size))

    def overloaded(self) -> None:
        """Halve the window: a server is overloaded or gone."""
        self._size = max(self._size / 2, float(self._least_size))
