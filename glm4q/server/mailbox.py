"""Events on their way from the model's thread to the event loop."""

import asyncio
import contextlib
from collections import deque

from glm4q.decode.answer import Event


class Mailbox:
    """Brings the events of a step to the loop in one go.

    The loop is woken once a step, not once a token of each answer: a wake is a call of the system,
    and a change of the thread that holds Python's lock.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._events: deque[tuple[asyncio.Queue[Event], Event]] = deque()
        self._woken = False

    def post(self, queue: asyncio.Queue[Event], event: Event) -> None:
        """Send an event to whoever reads the queue, from any thread.

        A loop that was closed by force takes none.
        """
        self._events.append((queue, event))
        if not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._hand_over)

    def _hand_over(self) -> None:
        self._woken = False  # first: what is posted from now on wakes the loop again
        for _ in range(len(self._events)):  # no more: the model's thread may post without end
            queue, event = self._events.popleft()
            queue.put_nowait(event)
