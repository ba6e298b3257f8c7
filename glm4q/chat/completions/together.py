"""Several answers at once, in steps that read every weight once for all."""

from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack

from glm4q.chat.completions.completion import ChatEvent, Completion, CompletionStream


def complete_together(answers: Sequence[CompletionStream], rows: int) -> list[Completion]:
    """Read all answers to their ends, as many at once as there are rows.

    An error in one of them ends all. Each begins when it is first asked for an event, and a step
    that one of them asks for is a step of every answer that has begun.
    """
    waiting = deque(answers)
    running: deque[CompletionStream] = deque()
    with ExitStack() as opened:
        for answer in answers:
            opened.callback(answer.close)
        while waiting or running:
            while waiting and len(running) < rows:
                running.append(waiting.popleft())
            answer = running.popleft()
            if _advance(answer):
                running.append(answer)
        return [answer.completion() for answer in answers]


def _advance(answer: CompletionStream) -> ChatEvent | None:
    """Read one event; None at the end."""
    return next(answer.events(), None)
