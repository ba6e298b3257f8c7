"""Events from the model's thread do not keep the event loop from all else."""

import asyncio
from typing import Any

from glm4q.decode.answer import End
from glm4q.server.mailbox import Mailbox

POSTED = 1000


class Ahead(asyncio.Queue[Any]):
    """A queue of a model that posts the next event as soon as one is taken."""

    mailbox: Mailbox

    def put_nowait(self, item: Any) -> None:
        super().put_nowait(item)
        if self.qsize() < POSTED:
            self.mailbox.post(self, item)


def test_a_model_that_is_always_ahead_leaves_the_loop_its_turns() -> None:
    async def turns() -> list[int]:
        queue = Ahead()
        queue.mailbox = Mailbox(asyncio.get_running_loop())
        queue.mailbox.post(queue, End("stop"))
        sizes = []
        for _ in range(5):
            await asyncio.sleep(0)
            sizes.append(queue.qsize())
        return sizes

    sizes = asyncio.run(turns())
    assert sizes[-1] > 0
    assert max(sizes) < POSTED / 2
